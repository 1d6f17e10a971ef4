//! The requests themselves: what is known of each, and how one ends.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use chaperone_audit_log::RecordRef;
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    Approver, Binding, Event, EventSink, Grant, Held, NotReleased, Options, Person, RefusedAnswer,
    RefusedRequest, Released, Shown, State, Summary, Ticket,
};

/// Ended requests of which the end is remembered, so that an approver who is late learns why.
const REMEMBERED: usize = 512;

pub(super) struct Entry {
    pub(super) binding: Arc<Binding>,
    pub(super) shown: Option<Arc<Shown>>,
    pub(super) command: String,
    pub(super) groups: Vec<String>,
    pub(super) needed: u8,
    pub(super) yes: Vec<Person>,
    pub(super) state: State,
    /// Its request is not durable yet: nobody can see or answer it.
    pub(super) opening: bool,
    /// Its grant is in somebody's hands.
    pub(super) lent: bool,
    pub(super) holders: usize,
    pub(super) kept: bool,
    pub(super) requested_at: u64,
    pub(super) deadline: u64,
    pub(super) ends: Instant,
    pub(super) decision: Option<RecordRef>,
    pub(super) record: Option<RecordRef>,
    pub(super) comment: Option<String>,
    /// One answer at a time, over the wait for the log.
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
    pub(super) changed: watch::Sender<()>,
}

impl Entry {
    pub(super) fn missing(&self) -> u8 {
        let yes = u8::try_from(self.yes.len()).unwrap_or(u8::MAX);
        self.needed.saturating_sub(yes)
    }

    pub(super) fn summary(&self, id: Uuid) -> Summary {
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

    pub(super) fn event(&self, id: Uuid, state: State) -> Event {
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
pub(super) struct Table {
    pub(super) entries: HashMap<Uuid, Entry>,
    pub(super) ended: VecDeque<Uuid>,
}

pub(super) struct Inner {
    pub(super) options: Options,
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) table: Mutex<Table>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Approvals(..)")
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn groups<'a>(&'a self, of_entry: &'a [String]) -> &'a [String] {
        if of_entry.is_empty() {
            &self.options.groups
        } else {
            of_entry
        }
    }

    pub(super) fn gate(&self, id: Uuid) -> Result<Arc<tokio::sync::Mutex<()>>, RefusedAnswer> {
        let table = self.lock();
        let entry = table.entries.get(&id).ok_or(RefusedAnswer::Unknown)?;
        Ok(Arc::clone(&entry.gate))
    }

    pub(super) fn visible<'t>(
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

    pub(super) fn answerable<'t>(
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
    pub(super) fn enter(
        self: &Arc<Self>,
        held: Held,
    ) -> Result<(Ticket, Option<Event>), RefusedRequest> {
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

    pub(super) fn bounded(&self, table: &Table, held: &Held) -> Result<(), RefusedRequest> {
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

    pub(super) fn ticket(self: &Arc<Self>, id: Uuid, deadline: u64, joined: bool) -> Ticket {
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

    pub(super) fn expire_later(this: &Arc<Self>, id: Uuid) {
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
    pub(super) fn tell(&self, event: Option<Event>) {
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

pub(super) fn lend(inner: &Arc<Inner>, id: Uuid, entry: &mut Entry) -> Grant {
    entry.lent = true;
    Grant {
        id,
        record: entry.record,
        inner: Arc::clone(inner),
        used: false,
    }
}

/// Ends a request whose time is over or whose client is gone.
pub(super) fn settle(table: &mut Table, id: Uuid) -> Option<Event> {
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
pub(super) fn finish(table: &mut Table, id: Uuid, state: State) -> Option<Event> {
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
