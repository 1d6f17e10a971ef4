//! What every record says about itself.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use crate::value::Digest;

/// Version of the record format, the header's `v`.
pub const FORMAT_VERSION: u32 = 1;

/// A record's place in its log: 1, 2, 3, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One record of one log: `LOG/SEQ`. In the JSON of a record of the same log it is the bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordRef {
    /// The process run.
    pub log: Uuid,
    /// The place in it.
    pub seq: Seq,
}

impl RecordRef {
    /// Reads `LOG/SEQ`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (log, seq) = text.split_once('/')?;
        Some(Self {
            log: Uuid::parse_str(log).ok()?,
            seq: Seq(seq.parse().ok()?),
        })
    }
}

impl fmt::Display for RecordRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.log, self.seq)
    }
}

impl Serialize for RecordRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not LOG/SEQUENCE"))
    }
}

/// A record that is on disk: written *and* synced. Only the log makes one, so a function that takes
/// a `Durable` cannot be called before there is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Durable {
    record: RecordRef,
}

impl Durable {
    pub(crate) fn new(record: RecordRef) -> Self {
        Self { record }
    }

    /// Which record.
    #[must_use]
    pub fn record(&self) -> RecordRef {
        self.record
    }
}

/// What a reference is to the record that has it; the key in the header's `refs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The session that it belongs to.
    Session,
    /// What was asked.
    Operation,
    /// The policies in force.
    PolicySet,
    /// What was decided.
    Decision,
    /// Who let it through.
    Approval,
    /// What was about to be done.
    Intent,
    /// The decision, or the operation's facts, that is used again.
    MemoOf,
    /// An earlier record of the same story: an approval's previous state.
    Follows,
}

impl Role {
    /// As in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Session => "session",
            Role::Operation => "operation",
            Role::PolicySet => "policy-set",
            Role::Decision => "decision",
            Role::Approval => "approval",
            Role::Intent => "intent",
            Role::MemoOf => "memo-of",
            Role::Follows => "follows",
        }
    }
}

/// What kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// First record of a run.
    LogStart,
    /// A data key, wrapped for each recipient.
    Key,
    /// Last record of a run that was closed.
    LogStop,
    /// Last record of a full segment.
    Rotate,
    /// A run before this one ended without a `log-stop`.
    Recover,
    /// A range of records or time of which nothing is known.
    Gap,
    /// The policies in force from here on, or a failed change of them.
    PolicySet,
    /// A caller was let in.
    SessionStart,
    /// It left.
    SessionEnd,
    /// A caller was not let in.
    LoginDenied,
    /// A statement or request, once per session and text.
    Operation,
    /// What policies said about it.
    Decision,
    /// A held statement's change of state.
    Approval,
    /// It is about to run.
    Intent,
    /// It ran.
    Outcome,
    /// Intent and outcome in one, for small reads.
    Execution,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 16] = [
        Kind::LogStart,
        Kind::Key,
        Kind::LogStop,
        Kind::Rotate,
        Kind::Recover,
        Kind::Gap,
        Kind::PolicySet,
        Kind::SessionStart,
        Kind::SessionEnd,
        Kind::LoginDenied,
        Kind::Operation,
        Kind::Decision,
        Kind::Approval,
        Kind::Intent,
        Kind::Outcome,
        Kind::Execution,
    ];

    /// As in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::LogStart => "log-start",
            Kind::Key => "key",
            Kind::LogStop => "log-stop",
            Kind::Rotate => "rotate",
            Kind::Recover => "recover",
            Kind::Gap => "gap",
            Kind::PolicySet => "policy-set",
            Kind::SessionStart => "session-start",
            Kind::SessionEnd => "session-end",
            Kind::LoginDenied => "login-denied",
            Kind::Operation => "operation",
            Kind::Decision => "decision",
            Kind::Approval => "approval",
            Kind::Intent => "intent",
            Kind::Outcome => "outcome",
            Kind::Execution => "execution",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record's clear header as it was read, apart from its body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Format version.
    pub v: u32,
    /// The process run.
    pub log: Uuid,
    /// The place in it.
    pub seq: Seq,
    /// What kind; kinds of later versions are kept as they are.
    pub kind: String,
    /// Wall time when it was appended, RFC 3339, UTC, microseconds.
    pub time: String,
    /// Microseconds since the run began, by a clock that is never set back.
    pub mono: u64,
    /// The last sequence that was known to be on disk when this record was written: what tells a
    /// torn tail from damage.
    pub synced: Seq,
    /// The hash of the record before it.
    pub prev: Digest,
    /// The request that it belongs to.
    #[serde(default)]
    pub req: Option<Uuid>,
    /// Records that it builds on.
    #[serde(default)]
    pub refs: std::collections::BTreeMap<String, Target>,
    /// The data key that its sealed part is under; present exactly when there is one.
    #[serde(default)]
    pub key: Option<u32>,
}

impl Header {
    /// This record.
    #[must_use]
    pub fn record(&self) -> RecordRef {
        RecordRef {
            log: self.log,
            seq: self.seq,
        }
    }

    /// The record that stands in the given role.
    #[must_use]
    pub fn reference(&self, role: Role) -> Option<RecordRef> {
        self.refs
            .get(role.as_str())
            .map(|target| target.resolve(self.log))
    }
}

/// A reference as stored: a bare sequence is of the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// In the same log.
    Here(Seq),
    /// In another log.
    There(RecordRef),
}

impl Target {
    /// With the log filled in.
    #[must_use]
    pub fn resolve(self, log: Uuid) -> RecordRef {
        match self {
            Target::Here(seq) => RecordRef { log, seq },
            Target::There(record) => record,
        }
    }
}
