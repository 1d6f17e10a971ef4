//! What the waiting session holds in its hands.

use std::sync::Arc;

use chaperone_audit_log::RecordRef;
use uuid::Uuid;

use super::{NotRecorded, table::Inner};

/// A session's hold on a request. Dropped before [`Ticket::keep`], or before a wait ended with
/// [`Outcome::Pending`], it cancels the request: its client is gone and never learnt the id.
#[derive(Debug)]
pub struct Ticket {
    pub(super) id: Uuid,
    pub(super) deadline: u64,
    pub(super) joined: bool,
    pub(super) inner: Arc<Inner>,
}

impl Ticket {
    /// What the client and the approver call it.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// When it ends, Unix seconds.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Whether the same statement was already waiting.
    #[must_use]
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// The client is told the id and may come back: the request outlives the session.
    pub fn keep(&self) {
        self.inner.keep(self.id);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        Inner::let_go(&self.inner, self.id);
    }
}

/// How waiting ended.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// It may run, once, after it is decided again.
    Granted(Grant),
    /// An approver refused, perhaps with a word to the requester.
    Denied {
        /// What the approver wrote.
        comment: Option<String>,
    },
    /// Its time is over.
    Expired,
    /// Nobody answered yet. The ticket stays open until its deadline.
    Pending,
    /// Somebody else with the same binding used the grant, or it was cancelled.
    Gone,
}

/// The right to run one statement once. It cannot be copied; [`Grant::release`] uses it up, and a
/// grant that is dropped goes back, unused.
#[derive(Debug)]
#[must_use]
pub struct Grant {
    pub(super) id: Uuid,
    pub(super) record: Option<RecordRef>,
    pub(super) inner: Arc<Inner>,
    pub(super) used: bool,
}

impl Grant {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The record of the grant.
    #[must_use]
    pub fn record(&self) -> Option<RecordRef> {
        self.record
    }

    /// Uses it up, and resolves when that is durable. Only then may the statement be sent. The
    /// right is gone even where this fails or is dropped half-way.
    pub async fn release(mut self) -> Result<Released, NotReleased> {
        self.used = true;
        let inner = Arc::clone(&self.inner);
        Inner::release(&inner, self.id).await
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.used {
            Inner::give_back(&self.inner, self.id);
        }
    }
}

/// Proof that a grant was used up and that this is on disk.
#[derive(Debug)]
#[must_use]
pub struct Released {
    pub(super) id: Uuid,
    pub(super) record: Option<RecordRef>,
}

impl Released {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The record of the release: what the intent refers to.
    #[must_use]
    pub fn record(&self) -> Option<RecordRef> {
        self.record
    }
}

/// Why a grant could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReleased {
    /// Its time ran out.
    #[error("the approval has expired; send the statement again to ask anew")]
    Expired,
    /// The log does not take records.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}
