//! Tasks that wait for the watermark, in the order of what they wait for.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use chaperone_audit_log::{Durable, Log, LogFailed, Seq};

/// Who waits for which sequence. The second number tells waiters for one sequence apart.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    list: Mutex<BTreeMap<(Seq, u64), Waker>>,
    ids: AtomicU64,
}

impl Waiters {
    /// Wakes those whose record is on disk.
    pub(super) fn wake(&self, durable: Seq) {
        let ready = {
            let mut list = self.lock();
            if list.first_key_value().is_none_or(|(at, _)| at.0 > durable) {
                return;
            }
            let later = list.split_off(&(Seq(durable.0.saturating_add(1)), 0));
            std::mem::replace(&mut *list, later)
        };
        ready.into_values().for_each(Waker::wake);
    }

    /// Wakes everybody: nothing more will become durable.
    pub(super) fn wake_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().for_each(Waker::wake);
    }

    /// A number for a new waiter.
    pub(super) fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Seq, u64), Waker>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter's place in the list, kept from one poll to the next.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// What it is listed under.
    listed: Option<(Seq, u64)>,
}

impl Place {
    /// Ready when the record is on disk or the log has failed. The task must be the same in all
    /// polls.
    pub(super) fn poll(
        &mut self,
        waiters: &Waiters,
        log: &Log,
        seq: Seq,
        context: &Context<'_>,
    ) -> Poll<Result<Durable, LogFailed>> {
        if let Some(result) = look(log, seq) {
            return Poll::Ready(result);
        }
        if self.listed.is_some_and(|(listed, _)| listed == seq) {
            // Who is listed for what is not on disk has not been woken.
            return Poll::Pending;
        }
        self.leave(waiters);
        let place = (seq, waiters.id());
        waiters.lock().insert(place, context.waker().clone());
        self.listed = Some(place);
        // The writer moves the watermark before it looks at the list: what it did in between is
        // seen here, what it does from now on finds the waker.
        look(log, seq).map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes it off the list.
    pub(super) fn leave(&mut self, waiters: &Waiters) {
        if let Some(place) = self.listed.take() {
            waiters.lock().remove(&place);
        }
    }
}

fn look(log: &Log, seq: Seq) -> Option<Result<Durable, LogFailed>> {
    match log.proof(seq) {
        Some(proof) => Some(Ok(proof)),
        None => log.failed().map(|failed| Err(failed.clone())),
    }
}
