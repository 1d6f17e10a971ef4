//! Cancel requests: the client gets the backend's real process id with a key of our own, so that
//! tools that look the process up find it, while only Chaperone can cancel (protocol section
//! "Canceling Requests in Progress").

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::startup::CancelKey;
use ring::rand::{SecureRandom, SystemRandom};

/// Sessions by the key that their client was given.
#[derive(Clone, Default)]
pub struct Cancels {
    sessions: Arc<Mutex<Live>>,
}

#[derive(Default)]
struct Live {
    by_key: HashMap<CancelKey, Arc<Asked>>,
    pids: HashSet<(Arc<str>, u32)>,
}

/// Whether a client has asked to cancel.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pending: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Asked {
    fn ask(&self) {
        self.pending.store(true, Ordering::Release);
        if let Some(waker) = self.waiting().take() {
            waker.wake();
        }
    }

    /// Ready when there may be something to take.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting();
        if !waiting
            .as_ref()
            .is_some_and(|one| one.will_wake(cx.waker()))
        {
            *waiting = Some(cx.waker().clone());
        }
        // Who asks from now on finds the waker.
        if self.pending.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes the request, if there is one. What was asked before a statement came is not meant for
    /// it: it is taken, and forgotten, before the statement is handled.
    pub(crate) fn take(&self) -> bool {
        self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::AcqRel)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's place in the registry; it leaves when this is dropped.
pub(crate) struct Registered {
    cancels: Cancels,
    target: Arc<str>,
    pub(crate) key: CancelKey,
    /// Told when the client asks to cancel.
    pub(crate) asked: Arc<Asked>,
}

impl Cancels {
    /// Registers a session whose backend has the given process id; the client's key gets a secret of
    /// `length` bytes.
    pub(crate) fn register(
        &self,
        target: &Arc<str>,
        pid: u32,
        length: usize,
    ) -> Result<Registered, ring::error::Unspecified> {
        let mut secret = vec![0u8; length];
        SystemRandom::new().fill(&mut secret)?;
        let key = CancelKey { pid, secret };
        let asked = Arc::new(Asked::default());
        let mut live = self.lock();
        live.by_key.insert(key.clone(), Arc::clone(&asked));
        live.pids.insert((Arc::clone(target), pid));
        Ok(Registered {
            cancels: self.clone(),
            target: Arc::clone(target),
            key,
            asked,
        })
    }

    /// Tells the session that its client wants to cancel. Says nothing about whether there is one.
    pub(crate) fn request(&self, key: &CancelKey) {
        if let Some(asked) = self.lock().by_key.get(key) {
            asked.ask();
        }
    }

    /// Whether the backend process belongs to a session of ours, whose NOTIFYs were decided upon.
    pub(crate) fn is_ours(&self, target: &Arc<str>, pid: u32) -> bool {
        self.lock().pids.contains(&(Arc::clone(target), pid))
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut live = self.cancels.lock();
        live.by_key.remove(&self.key);
        live.pids.remove(&(Arc::clone(&self.target), self.key.pid));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn only_the_right_key_reaches_a_session_and_only_while_it_lives() {
        let cancels = Cancels::default();
        let target: Arc<str> = "clinic".into();
        let session = cancels.register(&target, 42, 4).unwrap();
        let mut wrong = session.key.clone();
        wrong.secret[0] ^= 1;
        cancels.request(&wrong);
        let told = poll_fn(|cx| session.asked.poll(cx));
        let told = tokio::time::timeout(std::time::Duration::from_millis(20), told);
        assert!(told.await.is_err());
        let asked = Arc::clone(&session.asked);
        let waiting = tokio::spawn(async move { poll_fn(|cx| asked.poll(cx)).await });
        tokio::task::yield_now().await;
        cancels.request(&session.key);
        waiting.await.unwrap();
        assert!(session.asked.take());
        assert!(!session.asked.take());
        assert!(cancels.is_ours(&target, 42));
        drop(session);
        assert!(!cancels.is_ours(&target, 42));
    }
}
