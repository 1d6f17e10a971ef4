//! The requests of this process.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{
    Approver, Binding, Event, EventSink, Grant, Held, NotRecorded, Outcome, Person, Shown, State,
    Ticket,
    table::{Entry, Inner, finish, lend},
};

/// Longest comment of an approver, in bytes.
const COMMENT: usize = 4096;

/// Bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may approve where the policy names no groups.
    pub groups: Vec<String>,
    /// Longest that a request stays open, whatever the policy says.
    pub ttl: Duration,
    /// Most open requests.
    pub open: usize,
    /// Most open requests of one requester.
    pub open_per_requester: usize,
    /// Most bytes of text and parameters of all open requests.
    pub bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            ttl: Duration::from_secs(15 * 60),
            open: 256,
            open_per_requester: 16,
            bytes: 64 << 20,
        }
    }
}

/// Why nothing can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedRequest {
    /// Too many are open.
    #[error("{0} requests wait for approval already; try again when some are answered")]
    TooMany(usize),
    /// Too many of this caller are open.
    #[error("{0} of your requests wait for approval already; wait until some are answered")]
    TooManyOfYours(usize),
    /// Too much text is held.
    #[error("the statements that wait for approval take too much memory; try again later")]
    TooMuch,
    /// The log does not take records.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedAnswer {
    /// No such request, or it ended long ago.
    #[error("there is no such request")]
    Unknown,
    /// Not in a group that may answer.
    #[error("you are in none of the groups that may answer this request")]
    NotInGroup,
    /// The requester, or somebody who acts for the requester.
    #[error("you asked for this, or you act for whoever did: another person must approve it")]
    Involved,
    /// The token is used by somebody else on the approver's behalf.
    #[error("approvals are given in person: this token is used on somebody's behalf")]
    Delegated,
    /// Nothing is left to answer.
    #[error("the request is {} already", .0.as_str())]
    Over(State),
    /// The log does not take records.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

/// What an answer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The state after it.
    pub state: State,
    /// How many more people must say yes.
    pub missing: u8,
}

/// One request without its text.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The request.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// How many more people must say yes.
    pub missing: u8,
    /// Who asks, as what, where.
    pub binding: Arc<Binding>,
    /// `DROP TABLE`.
    pub command: String,
    /// Who said yes.
    pub approved_by: Vec<Person>,
    /// Who may answer.
    pub groups: Vec<String>,
    /// Unix seconds.
    pub requested_at: u64,
    /// Unix seconds.
    pub deadline: u64,
}

/// One request with everything that an approver must know.
#[derive(Clone, Debug)]
pub struct View {
    /// Who, where, when.
    pub summary: Summary,
    /// What will run; none when the request is over.
    pub shown: Option<Arc<Shown>>,
}

/// The registry. Cheap to clone. Lives inside a tokio runtime: expiry is a timer.
#[derive(Clone, Debug)]
pub struct Approvals {
    inner: Arc<Inner>,
}

impl Approvals {
    /// An empty registry.
    #[must_use]
    pub fn new(options: Options, sink: Arc<dyn EventSink>) -> Self {
        Self {
            inner: Arc::new(Inner {
                options,
                sink,
                table: Mutex::default(),
            }),
        }
    }

    /// Holds a statement, or joins the open request for the same binding on the same terms. One on
    /// looser terms than today's policies ask for is cancelled. Resolves when the request is
    /// durable; dropping the future cancels it.
    pub async fn request(&self, held: Held) -> Result<Ticket, RefusedRequest> {
        let (ticket, event) = match self.inner.enter(held)? {
            (ticket, None) => return Ok(ticket),
            (ticket, Some(event)) => (ticket, event),
        };
        Inner::expire_later(&self.inner, ticket.id);
        let recorded = self.inner.sink.record(&event).await;
        let mut table = self.inner.lock();
        let Some(entry) = table.entries.get_mut(&ticket.id) else {
            drop(table);
            return Err(NotRecorded.into());
        };
        match recorded {
            Ok(record) => {
                entry.record = record.or(entry.record);
                entry.opening = false;
                drop(table);
                Ok(ticket)
            }
            Err(error) => {
                // Nothing to record: the log does not take it.
                let _ = finish(&mut table, ticket.id, State::Cancelled);
                drop(table);
                Err(error.into())
            }
        }
    }

    /// Waits for an answer, at most `limit`. May be dropped at any time. After
    /// [`Outcome::Pending`] the request outlives the ticket.
    pub async fn wait(&self, ticket: &Ticket, limit: Duration) -> Outcome {
        let until = Instant::now() + limit;
        loop {
            let mut changed = {
                let mut table = self.inner.lock();
                let Some(entry) = table.entries.get_mut(&ticket.id) else {
                    return Outcome::Gone;
                };
                match entry.state {
                    State::Granted if !entry.lent && entry.ends > Instant::now() => {
                        return Outcome::Granted(lend(&self.inner, ticket.id, entry));
                    }
                    State::Denied => {
                        return Outcome::Denied {
                            comment: entry.comment.clone(),
                        };
                    }
                    State::Expired => return Outcome::Expired,
                    State::Released | State::Cancelled => return Outcome::Gone,
                    _ => {}
                }
                if Instant::now() >= until {
                    entry.kept = true;
                    return Outcome::Pending;
                }
                entry.changed.subscribe()
            };
            // Either way the state is looked at again.
            let _ = timeout_at(until, changed.changed()).await;
        }
    }

    /// The unused grant for exactly this, if there is one. It does not compare terms: where today's
    /// policies may ask for more people or other groups, use [`Approvals::request`] and
    /// [`Approvals::wait`], which answers at once for a granted request.
    pub fn take_grant(&self, binding: &Binding) -> Option<Grant> {
        let mut table = self.inner.lock();
        let now = Instant::now();
        let (id, entry) = table.entries.iter_mut().find(|(_, entry)| {
            entry.state == State::Granted
                && !entry.lent
                && entry.ends > now
                && *entry.binding == *binding
        })?;
        Some(lend(&self.inner, *id, entry))
    }

    /// A yes. Counts once a person. Resolves when it is durable.
    pub async fn approve(
        &self,
        id: Uuid,
        approver: &Approver,
        comment: Option<String>,
    ) -> Result<Decided, RefusedAnswer> {
        self.answer(id, approver, comment, true).await
    }

    /// A no, by anybody who could say yes. Takes effect even where it cannot be recorded.
    pub async fn deny(
        &self,
        id: Uuid,
        approver: &Approver,
        comment: Option<String>,
    ) -> Result<Decided, RefusedAnswer> {
        self.answer(id, approver, comment, false).await
    }

    /// What will run. Reading it is recorded before it is shown.
    pub async fn view(&self, id: Uuid, approver: &Approver) -> Result<View, RefusedAnswer> {
        let gate = self.inner.gate(id)?;
        let _one = gate.lock().await;
        let event = {
            let table = self.inner.lock();
            let entry = self.inner.visible(&table, id, approver)?;
            if entry.state.is_over() {
                return Ok(View {
                    summary: entry.summary(id),
                    shown: None,
                });
            }
            Event {
                approver: Some(approver.clone()),
                shown: entry.shown.clone(),
                ..entry.event(id, State::Seen)
            }
        };
        let record = self.inner.sink.record(&event).await?;
        let mut table = self.inner.lock();
        let entry = table.entries.get_mut(&id).ok_or(RefusedAnswer::Unknown)?;
        entry.record = record.or(entry.record);
        if entry.state == State::Requested {
            entry.state = State::Seen;
        }
        Ok(View {
            summary: entry.summary(id),
            shown: entry.shown.clone(),
        })
    }

    /// Open requests that the approver may answer, oldest first.
    #[must_use]
    pub fn list(&self, approver: &Approver) -> Vec<Summary> {
        let table = self.inner.lock();
        let mut found: Vec<Summary> = table
            .entries
            .iter()
            .filter(|(_, entry)| {
                !entry.opening
                    && !entry.state.is_over()
                    && approver.is_in(self.inner.groups(&entry.groups))
            })
            .map(|(id, entry)| entry.summary(*id))
            .collect();
        found.sort_by_key(|summary| summary.id);
        found
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        let table = self.inner.lock();
        let open = |entry: &&Entry| !entry.state.is_over();
        table.entries.values().filter(open).count()
    }

    /// Who may answer where a policy names no groups.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.inner.options.groups
    }

    async fn answer(
        &self,
        id: Uuid,
        approver: &Approver,
        comment: Option<String>,
        yes: bool,
    ) -> Result<Decided, RefusedAnswer> {
        let gate = self.inner.gate(id)?;
        let _one = gate.lock().await;
        let comment = comment.map(|text| text.chars().take(COMMENT / 4).collect::<String>());
        let event = {
            let table = self.inner.lock();
            let entry = self.inner.answerable(&table, id, approver)?;
            if yes && entry.yes.contains(&approver.person) {
                return Ok(Decided {
                    state: entry.state,
                    missing: entry.missing(),
                });
            }
            let missing = entry.missing().saturating_sub(u8::from(yes));
            let state = if yes { State::Granted } else { State::Denied };
            Event {
                missing,
                approver: Some(approver.clone()),
                comment: comment.clone(),
                ..entry.event(id, state)
            }
        };
        let recorded = self.inner.sink.record(&event).await;
        if let (true, Err(error)) = (yes, &recorded) {
            return Err((*error).into());
        }
        let mut table = self.inner.lock();
        // It may have ended meanwhile.
        self.inner.answerable(&table, id, approver)?;
        let entry = table.entries.get_mut(&id).ok_or(RefusedAnswer::Unknown)?;
        entry.record = recorded.ok().flatten().or(entry.record);
        if yes {
            entry.yes.push(approver.person.clone());
            if entry.missing() == 0 {
                entry.state = State::Granted;
                entry.changed.send_replace(());
            }
        } else {
            entry.comment = comment;
            let _ = finish(&mut table, id, State::Denied);
            return Ok(Decided {
                state: State::Denied,
                missing: 0,
            });
        }
        Ok(Decided {
            state: entry.state,
            missing: entry.missing(),
        })
    }
}

#[cfg(test)]
impl Approvals {
    pub(super) fn inner_size(&self) -> usize {
        self.inner.lock().entries.len()
    }
}
