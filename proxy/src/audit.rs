//! The audit log for asynchronous callers: append now, wait for the disk later.
//!
//! Waiting costs one lock; a waiter is woken once, when its own record is on disk, however many
//! others wait.

mod convert;
mod waiters;

use std::{
    future::poll_fn,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chaperone_audit_log::{
    AppendError, Blinder, Code, Durable, Health, Log, LogFailed, LogOptions, Payload, Progress,
    RecordRef, Seq, StartError,
};
use uuid::Uuid;

pub use convert::{
    action_codes, applied_masks, limit_codes, mask_code, object_names, session_start, sqlstate,
    verdict_code,
};

use waiters::{Place, Waiters};

/// Why a record is no evidence yet.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditError {
    /// It was not taken.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It was taken, and then the log failed.
    #[error(transparent)]
    Failed(#[from] LogFailed),
}

/// The process's audit log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    log: Arc<Log>,
    waiters: Arc<Waiters>,
}

impl Audit {
    /// Settles what earlier runs left behind and begins a new one. Blocks on the disk.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, StartError> {
        let waiters = Arc::new(Waiters::default());
        let tell = Arc::clone(&waiters);
        let log = Log::open(dir, options, move |progress| match progress {
            Progress::Durable(seq) => tell.wake(seq),
            Progress::Failed(failed) => {
                tracing::error!(error = %failed, "the audit log has failed; no statement will run");
                tell.wake_all();
            }
        })?;
        tracing::info!(log = %log.id(), folder = %log.folder().display(), "audit log opened");
        Ok(Self {
            log: Arc::new(log),
            waiters,
        })
    }

    /// The log itself.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// A reference to one of its records.
    #[must_use]
    pub fn reference(&self, seq: Seq) -> RecordRef {
        self.log.reference(seq)
    }

    /// Makes the digests of whatever may hold data.
    #[must_use]
    pub fn blinder(&self) -> &Blinder {
        self.log.blinder()
    }

    /// Takes a record into the queue; does not wait.
    pub fn append<P: Payload>(
        &self,
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Option<Uuid>,
    ) -> Result<Seq, AppendError> {
        self.log.append(clear, sealed, request)
    }

    /// The same for a caller that calls [`Self::settle`] soon, or waits for the record.
    pub fn enqueue<P: Payload>(
        &self,
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Option<Uuid>,
    ) -> Result<Seq, AppendError> {
        self.log.enqueue(clear, sealed, request)
    }

    /// Sees to what was taken where waiting for more wins nothing, or where it has waited long
    /// enough. What is left waits for [`Self::settle`], which the thread must call when it has
    /// nothing else to do.
    pub fn settle_if_due(&self) {
        /// A thread that is never idle has records written together that came within this time.
        const LATE: Duration = Duration::from_micros(500);
        if self.log.is_due(LATE) {
            self.settle();
        }
    }

    /// Sees to it that what was taken gets written; see [`Log::settle`].
    pub fn settle(&self) {
        self.log.settle();
    }

    /// What a task keeps that waits again and again.
    #[must_use]
    pub fn waiter(&self) -> Waiter {
        Waiter {
            audit: self.clone(),
            place: Place::default(),
        }
    }

    /// Waits until the record is on disk. Dropping the future gives up waiting, not the record.
    pub async fn wait_durable(&self, seq: Seq) -> Result<Durable, LogFailed> {
        self.settle();
        let mut waiter = self.waiter();
        poll_fn(|context| waiter.poll(seq, context)).await
    }

    /// Appends and waits.
    pub async fn record<P: Payload>(
        &self,
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Option<Uuid>,
    ) -> Result<Durable, AuditError> {
        let seq = self.append(clear, sealed, request)?;
        Ok(self.wait_durable(seq).await?)
    }

    /// Figures for health checks and metrics.
    #[must_use]
    pub fn health(&self) -> Health {
        self.log.health()
    }

    /// Whether records are being taken: what readiness and the start of a statement depend on.
    pub fn check(&self) -> Result<(), LogFailed> {
        self.log
            .failed()
            .map_or(Ok(()), |failed| Err(failed.clone()))
    }

    /// Writes all that was appended and a `log-stop`. Records appended from now on are refused.
    pub async fn close(&self, reason: &Code) -> Result<(), LogFailed> {
        let (log, reason) = (Arc::clone(&self.log), reason.clone());
        let closed = tokio::task::spawn_blocking(move || log.close(&reason)).await;
        match closed {
            Ok(result) => result,
            // The runtime is going down; the log's own drop writes what is queued.
            Err(_) => self.check(),
        }
    }
}

/// Waits for records to be on disk, one after another, always from the same task.
#[derive(Debug)]
pub struct Waiter {
    audit: Audit,
    place: Place,
}

impl Waiter {
    /// Ready when the record is on disk or the log has failed.
    pub fn poll(&mut self, seq: Seq, context: &Context<'_>) -> Poll<Result<Durable, LogFailed>> {
        let Audit { log, waiters } = &self.audit;
        self.place.poll(waiters, log, seq, context)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.place.leave(&self.audit.waiters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaperone_audit_log::{Name, PrivateKey, Segment, Storage, payload::LoginDenied};
    use std::{
        io,
        sync::atomic::{AtomicU64, Ordering},
    };

    /// Storage whose syncs begin to fail.
    struct Failing {
        syncs: Arc<AtomicU64>,
        from: u64,
    }

    impl Storage for Failing {
        fn create(&mut self, _path: &Path, _reserve: u64) -> io::Result<Box<dyn Segment>> {
            Ok(Box::new(Failing {
                syncs: Arc::clone(&self.syncs),
                from: self.from,
            }))
        }
    }

    impl Segment for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.syncs.fetch_add(1, Ordering::Relaxed) >= self.from {
                return Err(io::Error::from_raw_os_error(5));
            }
            Ok(())
        }

        fn trim(&mut self, _length: u64) -> io::Result<()> {
            Ok(())
        }
    }

    fn options() -> LogOptions {
        LogOptions::new(vec![PrivateKey::generate("auditor").unwrap().public()])
    }

    fn payload() -> LoginDenied {
        LoginDenied {
            code: Code::from_words("test"),
            client_address: Name::new("127.0.0.1"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_wait_and_each_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), options()).unwrap();
        let mut tasks = Vec::new();
        for _ in 0..200 {
            let audit = audit.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let seq = audit.append(&payload(), None, None).unwrap();
                    let proof = audit.wait_durable(seq).await.unwrap();
                    assert_eq!(proof.record().seq, seq);
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(audit.waiters.count(), 0);
        let health = audit.health();
        assert_eq!(health.durable, health.appended);
        assert!(health.syncs < 1000, "batched: {}", health.syncs);
        audit.close(&Code::from_words("test")).await.unwrap();
        assert!(audit.append(&payload(), None, None).is_err());
    }

    #[tokio::test]
    async fn a_failed_sync_tells_everybody_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Failing {
            syncs: Arc::default(),
            from: 2,
        };
        let audit = Audit::open(
            dir.path(),
            LogOptions {
                storage: Box::new(storage),
                ..options()
            },
        )
        .unwrap();
        let before = audit.log().durable();
        let waiting: Vec<_> = (0..10)
            .filter_map(|_| audit.append(&payload(), None, None).ok())
            .map(|seq| {
                let audit = audit.clone();
                tokio::spawn(async move { audit.wait_durable(seq).await })
            })
            .collect();
        assert!(!waiting.is_empty());
        for task in waiting {
            assert!(task.await.unwrap().is_err());
        }
        assert!(audit.check().is_err());
        assert!(audit.record(&payload(), None, None).await.is_err());
        assert_eq!(audit.log().durable(), before);
        assert!(audit.close(&Code::from_words("test")).await.is_err());
    }

    #[tokio::test]
    async fn giving_up_waiting_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), options()).unwrap();
        let never = audit.wait_durable(Seq(1_000_000));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), never)
                .await
                .is_err()
        );
        assert_eq!(audit.waiters.count(), 0);
    }
}
