//! Tasks that wait for the watermark, in the order of what they wait for.

use std::{
    collections::BTreeMap,
    pin::Pin,
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

    /// Resolves when the record is on disk or the log has failed.
    pub(super) fn wait<'a>(&'a self, log: &'a Log, seq: Seq) -> Wait<'a> {
        Wait {
            waiters: self,
            log,
            seq,
            id: None,
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Seq, u64), Waker>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Wait<'a> {
    waiters: &'a Waiters,
    log: &'a Log,
    seq: Seq,
    id: Option<u64>,
}

impl Wait<'_> {
    fn look(&self) -> Option<Result<Durable, LogFailed>> {
        match self.log.proof(self.seq) {
            Some(proof) => Some(Ok(proof)),
            None => self.log.failed().map(|failed| Err(failed.clone())),
        }
    }
}

impl Future for Wait<'_> {
    type Output = Result<Durable, LogFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.look() {
            return Poll::Ready(result);
        }
        let id = match self.id {
            Some(id) => id,
            None => self.waiters.ids.fetch_add(1, Ordering::Relaxed),
        };
        self.id = Some(id);
        self.waiters
            .lock()
            .insert((self.seq, id), context.waker().clone());
        // The writer moves the watermark before it looks at the list: what it did in between is
        // seen here, what it does from now on finds the waker.
        self.look().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.waiters.lock().remove(&(self.seq, id));
        }
    }
}
