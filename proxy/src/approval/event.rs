//! What happens to a request, for the log.

use std::{future::Future, pin::Pin, sync::Arc};

use chaperone_audit_log::RecordRef;
use serde::Serialize;
use uuid::Uuid;

use super::{Approver, Binding, Shown};

/// A future of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is held.
    Requested,
    /// An approver looked at it.
    Seen,
    /// Enough people said yes.
    Granted,
    /// Somebody said no.
    Denied,
    /// Nobody said anything in time, or it was not used in time.
    Expired,
    /// The requester went away.
    Cancelled,
    /// It was let through.
    Released,
}

impl State {
    /// Whether an answer can still come.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, State::Requested | State::Seen)
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        !self.is_pending() && self != State::Granted
    }

    /// As in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Requested => "requested",
            State::Seen => "seen",
            State::Granted => "granted",
            State::Denied => "denied",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
            State::Released => "released",
        }
    }
}

/// One step of one request.
#[derive(Clone, Debug)]
pub struct Event {
    /// The request.
    pub id: Uuid,
    /// What it becomes. `Granted` with `missing` above zero is one yes of several.
    pub state: State,
    /// How many more people must say yes.
    pub missing: u8,
    /// What it is bound to.
    pub binding: Arc<Binding>,
    /// Who looked or answered.
    pub approver: Option<Approver>,
    /// What they wrote. May hold PHI: seal it.
    pub comment: Option<String>,
    /// What is shown, at `Requested` and `Seen`. Holds PHI: seal it.
    pub shown: Option<Arc<Shown>>,
    /// When it ends, Unix seconds.
    pub deadline: u64,
    /// The decision that holds it.
    pub decision: Option<RecordRef>,
    /// The record of the step before.
    pub follows: Option<RecordRef>,
}

/// The step cannot be recorded, so it does not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log does not take records; nothing can be approved until it is mended")]
pub struct NotRecorded;

/// Where steps are recorded.
pub trait EventSink: Send + Sync {
    /// Resolves when the step is durable, with its record.
    fn record<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<Option<RecordRef>, NotRecorded>>;
}
