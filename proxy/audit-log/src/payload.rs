//! What each kind of record holds: the clear part as a struct of codes, names, numbers and digests,
//! the sealed part as a struct beside it.
//!
//! A clear struct has no field that takes free text, so text cannot end up there, and digests of
//! what may hold data are [`Blinded`](crate::Blinded). Fields that are references become the
//! header's `refs` and are not repeated in the body.

use serde::Serialize;

use crate::record::{Kind, RecordRef, Role};

mod approval;
mod decision;
mod execution;
mod log;
mod policy_set;
mod session;

pub use self::{
    approval::{Approval, ApprovalSealed, ApprovalState},
    decision::{
        BudgetLimit, Decision, DecisionSealed, LimitCodes, MaskCode, ModuleAnswer, ObjectName,
        Operation, OperationSealed, OutputMask, VerdictCode,
    },
    execution::{
        BudgetCharge, Effects, EffectsSealed, Execution, ExecutionSealed, Intent, IntentSealed,
        Outcome, Parameter, Status,
    },
    log::{CutTail, DataKeyRecord, Gap, Head, LogStart, LogStop, Predecessor, Recover, Rotate},
    policy_set::{Module, ModuleFailure, PolicySet, PolicySetSealed},
    session::{
        ActorName, LoginDenied, LoginDeniedSealed, SessionEnd, SessionStart, SessionStartSealed,
        Strength,
    },
};

/// A record's clear part.
pub trait Payload: Serialize {
    /// Which kind of record it makes.
    const KIND: Kind;
    /// What may be sealed with it; [`Nothing`] where the kind has no sealed part.
    type Sealed: Serialize;

    /// The records that it builds on.
    fn refs(&self, _refs: &mut Vec<(Role, RecordRef)>) {}
}

/// The sealed part of a record that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Nothing {}
