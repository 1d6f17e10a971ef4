//! Who asks and who answers.

use serde::{Deserialize, Serialize};

/// A person or service: the subject is unique within its issuer only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Person {
    /// The identity's `iss`, or `static`.
    pub issuer: String,
    /// The identity's `sub`.
    pub subject: String,
}

/// How well an approver proved who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Strength {
    /// The token's `acr`.
    pub acr: Option<String>,
    /// The token's `amr`.
    pub amr: Vec<String>,
}

/// An authenticated caller of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// Who.
    pub person: Person,
    /// On whose behalf the token is used, nearest first; such a token cannot approve.
    pub actors: Vec<Person>,
    /// Group memberships.
    pub groups: Vec<String>,
    /// How well that was proved.
    pub strength: Strength,
}

impl Approver {
    /// Whether one of the groups is theirs, compared byte by byte.
    #[must_use]
    pub fn is_in(&self, groups: &[String]) -> bool {
        self.groups.iter().any(|group| groups.contains(group))
    }
}
