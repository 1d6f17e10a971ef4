//! Which policies are in force.

use serde::Serialize;

use crate::{
    payload::Payload,
    record::Kind,
    value::{Code, Digest, Name},
};

/// One policy module of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// The name in its manifest.
    pub name: Name,
    /// The version in its manifest.
    pub version: Name,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// The contract's version that it was built for.
    pub contract: Name,
    /// Digest of the settings that it was configured with.
    pub settings: Digest,
    /// Where the archive keeps bytes and settings.
    pub archive: Digest,
}

/// A module file that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleFailure {
    /// The file's name in the policy directory.
    pub file: Name,
    /// What kind of failure.
    pub code: Code,
}

/// The policies in force from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicySet {
    /// Digest of the whole set.
    pub digest: Digest,
    /// In order of evaluation.
    pub modules: Vec<Module>,
    /// `start`, `reload`, `removed`, `settings`.
    pub cause: Code,
    /// What could not be taken; the last good set goes on.
    pub failures: Vec<ModuleFailure>,
    /// Required names that the set lacks: statements are refused.
    pub missing: Vec<Name>,
}

/// What goes with a [`PolicySet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicySetSealed {
    /// The failures' texts, in order.
    pub failures: Vec<String>,
}

impl Payload for PolicySet {
    const KIND: Kind = Kind::PolicySet;
    type Sealed = PolicySetSealed;
}
