//! What the log says about itself.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    payload::{Nothing, Payload},
    record::{Kind, Seq},
    seal::WrappedKey,
    value::{Code, Digest, Name},
};

/// The last record of a run, as somebody saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The run.
    pub log: Uuid,
    /// Its last sequence; 0 when it has no record at all.
    pub seq: Seq,
    /// That record's hash.
    pub hash: Digest,
}

/// A run that was there when another one began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its head at that moment.
    #[serde(flatten)]
    pub head: Head,
    /// Whether its process was gone, so that nothing may come after this head.
    pub ended: bool,
}

/// First record of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStart {
    /// Runs in the directory that no later run had seen the end of, oldest first.
    pub predecessors: Vec<Predecessor>,
    /// The machine.
    pub host: Name,
    /// Chaperone's version.
    pub build: Name,
    /// The policy engine and its version.
    pub engine: Name,
    /// How the engine was set up.
    pub engine_flags: Name,
    /// Digest of the configuration.
    pub configuration: Digest,
    /// The process id, to find it in other logs.
    pub process: u32,
}

impl Payload for LogStart {
    const KIND: Kind = Kind::LogStart;
    type Sealed = Nothing;
}

/// A data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKeyRecord {
    /// Its number, from 1; records sealed with it have it in their header.
    pub id: u32,
    /// The key, wrapped for each recipient.
    pub wrapped: Vec<WrappedKey>,
}

impl Payload for DataKeyRecord {
    const KIND: Kind = Kind::Key;
    type Sealed = Nothing;
}

/// Last record of a run that was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStop {
    /// Why.
    pub reason: Code,
}

impl Payload for LogStop {
    const KIND: Kind = Kind::LogStop;
    type Sealed = Nothing;
}

/// Last record of a segment that another one follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate {
    /// This segment's number.
    pub segment: u32,
    /// The number of the one that follows.
    pub next: u32,
    /// `size`.
    pub reason: Code,
}

impl Payload for Rotate {
    const KIND: Kind = Kind::Rotate;
    type Sealed = Nothing;
}

/// Bytes at the end of a segment that were no whole record and were put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutTail {
    /// The file beside the segment that keeps them.
    pub file: Name,
    /// How many.
    pub bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

/// A run before this one ended without a `log-stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recover {
    /// Its head after recovery.
    pub head: Head,
    /// Why: `no-log-stop`.
    pub reason: Code,
    /// What was cut off.
    pub cut: Vec<CutTail>,
}

impl Payload for Recover {
    const KIND: Kind = Kind::Recover;
    type Sealed = Nothing;
}

/// Something is not known, and that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why.
    pub reason: Code,
    /// From when, Unix microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Until when, Unix microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// How many records would have been there, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

impl Payload for Gap {
    const KIND: Kind = Kind::Gap;
    type Sealed = Nothing;
}
