//! Who came, how, and until when.

use serde::Serialize;
use serde_json::Value;

use crate::{
    payload::{Nothing, Payload},
    record::{Kind, RecordRef, Role},
    value::{Code, Digest, Name},
};

/// Someone who acts for the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActorName {
    /// Its `sub`.
    pub subject: Name,
    /// Its `iss`.
    pub issuer: Name,
}

/// How well the caller proved who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Strength {
    /// `oidc`, `static`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Code>,
    /// Authentication context class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<Name>,
    /// Authentication methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<Name>,
    /// TLS version and cipher suite of the client's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Name>,
}

/// A caller was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStart {
    /// The identity's `sub`.
    pub subject: Name,
    /// The identity's `iss`.
    pub issuer: Name,
    /// Who acts for it, nearest first.
    pub actors: Vec<ActorName>,
    /// Its groups.
    pub groups: Vec<Name>,
    /// Purpose of use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Name>,
    /// The agent run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Name>,
    /// Digest of the token.
    pub token: Digest,
    /// How well it proved that.
    pub strength: Strength,
    /// The configured target.
    pub target: Name,
    /// The backend role.
    pub principal: Name,
    /// The client's IP address.
    pub client_address: Name,
    /// What the token allows, where it says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<Name>,
    /// When the caller authenticated, Unix seconds.
    pub authenticated_at: u64,
    /// When the identity ends, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// What goes with a [`SessionStart`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionStartSealed {
    /// All claims of the token.
    pub claims: Value,
    /// The start-up packet's parameters, as the client sent them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<(String, String)>,
}

impl Payload for SessionStart {
    const KIND: Kind = Kind::SessionStart;
    type Sealed = SessionStartSealed;
}

/// A session is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionEnd {
    /// Its start.
    #[serde(skip)]
    pub session: RecordRef,
    /// `client`, `idle`, `expired`, `backend`, `drain`, `protocol`, …
    pub cause: Code,
    /// Statements that ran.
    pub executions: u64,
    /// Statements that were refused.
    pub denied: u64,
    /// Rows that left.
    pub rows: u64,
    /// Bytes of values that left.
    pub bytes: u64,
}

impl Payload for SessionEnd {
    const KIND: Kind = Kind::SessionEnd;
    type Sealed = Nothing;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Session, self.session));
    }
}

/// A caller was not let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginDenied {
    /// Why.
    pub code: Code,
    /// From where.
    pub client_address: Name,
}

/// What goes with a [`LoginDenied`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoginDeniedSealed {
    /// The whole story.
    pub detail: String,
    /// The role that it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The target that it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Payload for LoginDenied {
    const KIND: Kind = Kind::LoginDenied;
    type Sealed = LoginDeniedSealed;
}
