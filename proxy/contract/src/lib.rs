//! The policy contract's vocabulary in Rust.
//!
//! `wit/` is the contract as policies see it; this crate is the same vocabulary for the host, the
//! SQL crate that fills it, and the SDK's test kit that stands in for the host. It knows no
//! protocol, no wasm and no runtime, so a new protocol is a new producer of [`Operation`]s and
//! nothing here changes.
//!
//! Two rules hold throughout: *unknown is never written as empty* ([`Labels::Unknown`],
//! [`Lineage::Unknown`]), and whatever is unknown matches every question that a policy can ask, so
//! that a policy which only asks cannot fail open.

mod build;
mod decision;
mod operation;
mod session;

pub use decision::{
    Abilities, Approval, Budget, Decision, Limits, Manifest, Mask, Reason, Transform, Verdict,
};
pub use operation::{
    Actions, Context, FieldUse, Labels, Lineage, Object, Operation, OutputField, SqlFacts, Usages,
    Value,
};
pub use session::{Actor, Session, claim_at};

/// Version of the contract that this build serves, as in the WIT package name.
pub const CONTRACT_VERSION: &str = "0.1.0";

/// The label that stands for "labels are not known" wherever labels are handed over as a list.
pub const UNKNOWN_LABEL: &str = "unknown";
