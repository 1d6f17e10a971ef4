//! The requests of this process.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chaperone_audit_log::RecordRef;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{
    Approver, Binding, Event, EventSink, Grant, Held, NotRecorded, NotReleased, Outcome, Person,
    Released, Shown, State, Ticket,
};

/// Ended requests of which the end is remembered, so that an approver who is late learns why.
const REMEMBERED: usize = 512;
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

struct Entry {
    binding: Arc<Binding>,
    shown: Option<Arc<Shown>>,
    command: String,
    groups: Vec<String>,
    needed: u8,
    yes: Vec<Person>,
    state: State,
    /// Its request is not durable yet: nobody can see or answer it.
    opening: bool,
    /// Its grant is in somebody's hands.
    lent: bool,
    holders: usize,
    kept: bool,
    requested_at: u64,
    deadline: u64,
    ends: Instant,
    decision: Option<RecordRef>,
    record: Option<RecordRef>,
    comment: Option<String>,
    /// One answer at a time, over the wait for the log.
    gate: Arc<tokio::sync::Mutex<()>>,
    changed: watch::Sender<()>,
}

impl Entry {
    fn missing(&self) -> u8 {
        let yes = u8::try_from(self.yes.len()).unwrap_or(u8::MAX);
        self.needed.saturating_sub(yes)
    }

    fn summary(&self, id: Uuid) -> Summary {
        Summary {
            id,
            state: self.state,
            missing: self.missing(),
            binding: Arc::clone(&self.binding),
            command: self.command.clone(),
            approved_by: self.yes.clone(),
            groups: self.groups.clone(),
            requested_at: self.requested_at,
            deadline: self.deadline,
        }
    }

    fn event(&self, id: Uuid, state: State) -> Event {
        Event {
            id,
            state,
            missing: self.missing(),
            binding: Arc::clone(&self.binding),
            approver: None,
            comment: None,
            shown: None,
            deadline: self.deadline,
            decision: self.decision,
            follows: self.record,
        }
    }
}

#[derive(Default)]
struct Table {
    entries: HashMap<Uuid, Entry>,
    ended: VecDeque<Uuid>,
}

pub(super) struct Inner {
    options: Options,
    sink: Arc<dyn EventSink>,
    table: Mutex<Table>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Approvals(..)")
    }
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

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups<'a>(&'a self, of_entry: &'a [String]) -> &'a [String] {
        if of_entry.is_empty() {
            &self.options.groups
        } else {
            of_entry
        }
    }

    fn gate(&self, id: Uuid) -> Result<Arc<tokio::sync::Mutex<()>>, RefusedAnswer> {
        let table = self.lock();
        let entry = table.entries.get(&id).ok_or(RefusedAnswer::Unknown)?;
        Ok(Arc::clone(&entry.gate))
    }

    fn visible<'t>(
        &self,
        table: &'t Table,
        id: Uuid,
        approver: &Approver,
    ) -> Result<&'t Entry, RefusedAnswer> {
        let entry = table.entries.get(&id).ok_or(RefusedAnswer::Unknown)?;
        if entry.opening {
            return Err(RefusedAnswer::Unknown);
        }
        if approver.is_in(self.groups(&entry.groups)) {
            Ok(entry)
        } else {
            Err(RefusedAnswer::NotInGroup)
        }
    }

    fn answerable<'t>(
        &self,
        table: &'t Table,
        id: Uuid,
        approver: &Approver,
    ) -> Result<&'t Entry, RefusedAnswer> {
        let entry = self.visible(table, id, approver)?;
        if entry.binding.requester.involves(&approver.person) {
            return Err(RefusedAnswer::Involved);
        }
        if !approver.actors.is_empty() {
            return Err(RefusedAnswer::Delegated);
        }
        if !entry.state.is_pending() {
            return Err(RefusedAnswer::Over(entry.state));
        }
        if entry.ends <= Instant::now() {
            return Err(RefusedAnswer::Over(State::Expired));
        }
        Ok(entry)
    }

    /// Joins, or enters and returns what is to be recorded.
    fn enter(self: &Arc<Self>, held: Held) -> Result<(Ticket, Option<Event>), RefusedRequest> {
        let now = Instant::now();
        let mut table = self.lock();
        let same = table.entries.iter().find(|(_, entry)| {
            !entry.state.is_over()
                && !entry.lent
                && entry.ends > now
                && *entry.binding == held.binding
        });
        if let Some((&id, entry)) = same {
            if entry.groups == held.groups
                && entry.needed >= held.approvers
                && let Some(entry) = table.entries.get_mut(&id)
            {
                entry.holders += 1;
                return Ok((self.ticket(id, entry.deadline, true), None));
            }
            let event = finish(&mut table, id, State::Cancelled);
            self.tell(event);
        }
        self.bounded(&table, &held)?;
        let id = Uuid::now_v7();
        let ttl = held.ttl.min(self.options.ttl);
        let requested_at = unix_now();
        let entry = Entry {
            binding: Arc::new(held.binding),
            command: held.command,
            shown: Some(Arc::new(held.shown)),
            groups: held.groups,
            needed: held.approvers,
            yes: Vec::new(),
            state: State::Requested,
            opening: true,
            lent: false,
            holders: 1,
            kept: false,
            requested_at,
            deadline: requested_at.saturating_add(ttl.as_secs()),
            ends: now + ttl,
            decision: held.decision,
            record: None,
            comment: None,
            gate: Arc::default(),
            changed: watch::Sender::new(()),
        };
        let event = Event {
            shown: entry.shown.clone(),
            ..entry.event(id, State::Requested)
        };
        let ticket = self.ticket(id, entry.deadline, false);
        table.entries.insert(id, entry);
        Ok((ticket, Some(event)))
    }

    fn bounded(&self, table: &Table, held: &Held) -> Result<(), RefusedRequest> {
        let (mut open, mut yours, mut bytes) = (0, 0, held.shown.bytes());
        for entry in table.entries.values().filter(|e| !e.state.is_over()) {
            open += 1;
            let asks = &held.binding.requester.person;
            yours += usize::from(entry.binding.requester.person == *asks);
            bytes += entry.shown.as_ref().map_or(0, |shown| shown.bytes());
        }
        if yours >= self.options.open_per_requester {
            return Err(RefusedRequest::TooManyOfYours(yours));
        }
        if open >= self.options.open {
            return Err(RefusedRequest::TooMany(open));
        }
        if bytes > self.options.bytes {
            return Err(RefusedRequest::TooMuch);
        }
        Ok(())
    }

    fn ticket(self: &Arc<Self>, id: Uuid, deadline: u64, joined: bool) -> Ticket {
        Ticket {
            id,
            deadline,
            joined,
            inner: Arc::clone(self),
        }
    }

    pub(super) fn keep(&self, id: Uuid) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            entry.kept = true;
        }
    }

    pub(super) fn let_go(this: &Arc<Self>, id: Uuid) {
        let mut table = this.lock();
        if let Some(entry) = table.entries.get_mut(&id) {
            entry.holders = entry.holders.saturating_sub(1);
        }
        let event = settle(&mut table, id);
        drop(table);
        this.tell(event);
    }

    pub(super) fn give_back(this: &Arc<Self>, id: Uuid) {
        let mut table = this.lock();
        if let Some(entry) = table.entries.get_mut(&id) {
            entry.lent = false;
            entry.changed.send_replace(());
        }
        let event = settle(&mut table, id);
        drop(table);
        this.tell(event);
    }

    pub(super) async fn release(this: &Arc<Self>, id: Uuid) -> Result<Released, NotReleased> {
        let event = {
            let mut table = this.lock();
            let entry = table.entries.get_mut(&id).ok_or(NotReleased::Expired)?;
            if entry.ends <= Instant::now() {
                let event = finish(&mut table, id, State::Expired);
                drop(table);
                this.tell(event);
                return Err(NotReleased::Expired);
            }
            finish(&mut table, id, State::Released).ok_or(NotReleased::Expired)?
        };
        let record = this.sink.record(&event).await?;
        Ok(Released { id, record })
    }

    fn expire_later(this: &Arc<Self>, id: Uuid) {
        let Some(ends) = this.lock().entries.get(&id).map(|entry| entry.ends) else {
            return;
        };
        let weak: Weak<Self> = Arc::downgrade(this);
        tokio::spawn(async move {
            tokio::time::sleep_until(ends).await;
            if let Some(inner) = weak.upgrade() {
                let event = settle(&mut inner.lock(), id);
                inner.tell(event);
            }
        });
    }

    /// Records what has narrowed access already.
    fn tell(&self, event: Option<Event>) {
        let Some(event) = event else { return };
        let sink = Arc::clone(&self.sink);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if sink.record(&event).await.is_err() {
                    tracing::error!(request = %event.id, "the end of an approval is not recorded");
                }
            });
        }
    }
}

fn lend(inner: &Arc<Inner>, id: Uuid, entry: &mut Entry) -> Grant {
    entry.lent = true;
    Grant {
        id,
        record: entry.record,
        inner: Arc::clone(inner),
        used: false,
    }
}

/// Ends a request whose time is over or whose client is gone.
fn settle(table: &mut Table, id: Uuid) -> Option<Event> {
    let entry = table.entries.get(&id)?;
    if entry.lent {
        return None;
    }
    if entry.ends <= Instant::now() {
        return finish(table, id, State::Expired);
    }
    if entry.holders == 0 && !entry.kept {
        return finish(table, id, State::Cancelled);
    }
    None
}

/// Ends a request that is not over, forgets its text and wakes who waits.
fn finish(table: &mut Table, id: Uuid, state: State) -> Option<Event> {
    let entry = table.entries.get_mut(&id)?;
    if entry.state.is_over() {
        return None;
    }
    entry.state = state;
    entry.lent = false;
    entry.shown = None;
    entry.changed.send_replace(());
    let event = entry.event(id, state);
    table.ended.push_back(id);
    if table.ended.len() > REMEMBERED
        && let Some(oldest) = table.ended.pop_front()
    {
        table.entries.remove(&oldest);
    }
    Some(event)
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
impl Approvals {
    pub(super) fn inner_size(&self) -> usize {
        self.inner.lock().entries.len()
    }
}
