//! What people said.

use serde::Serialize;

use crate::{
    blind::Blinded,
    payload::{ActorName, Payload, Strength},
    record::{Kind, RecordRef, Role},
    value::Code,
};

/// Where a held statement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    /// It is held.
    Requested,
    /// Approvers were told.
    Notified,
    /// An approver looked at it.
    Seen,
    /// An approver said yes.
    Granted,
    /// An approver said no.
    Denied,
    /// Nobody said anything in time.
    Expired,
    /// The requester gave up.
    Cancelled,
    /// It was let through, once.
    Released,
}

/// A held statement changes its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// What is held.
    #[serde(skip)]
    pub decision: RecordRef,
    /// The record of the state before.
    #[serde(skip)]
    pub follows: Option<RecordRef>,
    /// The new state.
    pub state: ApprovalState,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<ActorName>,
    /// How well that person proved who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<Strength>,
    /// A reason as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Digest of statement and parameters that it is bound to.
    pub statement: Blinded,
    /// Digest of the facts that it is bound to.
    pub facts: Blinded,
    /// Digest of requester, actors, role and database that it is bound to.
    pub requester: Blinded,
    /// When it ends, Unix seconds.
    pub deadline: u64,
}

/// What goes with an [`Approval`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApprovalSealed {
    /// What the approver was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// What the approver wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Payload for Approval {
    const KIND: Kind = Kind::Approval;
    type Sealed = ApprovalSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Decision, self.decision));
        refs.extend(self.follows.map(|before| (Role::Follows, before)));
    }
}
