//! The log that is being written.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    blind::Blinder,
    key::PublicKey,
    payload::{DataKeyRecord, LogStart, LogStop, Payload},
    queue::{Item, Queue, Shared, Unsent, lock_mutex},
    record::{Durable, RecordRef, Seq},
    seal::{DataKey, WrappedKey},
    start::{self, StartError},
    storage::{Disk, Storage},
    value::{Code, Digest, Name},
    writer::{self, Writer},
};

/// How a log is written.
pub struct LogOptions {
    /// Who can open sealed parts. At least one.
    pub recipients: Vec<PublicKey>,
    /// A segment that has grown to this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// Most records that wait to become durable; more are refused.
    pub queue_records: usize,
    /// Most bytes that wait to become durable; more are refused.
    pub queue_bytes: usize,
    /// What the first record says about this process.
    pub about: About,
    /// Where segments go.
    pub storage: Box<dyn Storage>,
}

/// What the first record of a run says about the process.
#[derive(Clone, Debug)]
pub struct About {
    /// The machine.
    pub host: Name,
    /// Chaperone's version.
    pub build: Name,
    /// The policy engine and its version.
    pub engine: Name,
    /// How the engine was set up.
    pub engine_flags: Name,
    /// Digest of the configuration.
    pub configuration: Digest,
}

impl Default for About {
    fn default() -> Self {
        Self {
            host: Name::new(""),
            build: Name::new(""),
            engine: Name::new(""),
            engine_flags: Name::new(""),
            configuration: Digest::ZERO,
        }
    }
}

impl LogOptions {
    /// Smallest segment in bytes.
    pub const MIN_SEGMENT: u64 = 4096;

    /// The usual ones: segments of 64 MiB, 65,536 records or 64 MiB waiting.
    #[must_use]
    pub fn new(recipients: Vec<PublicKey>) -> Self {
        Self {
            recipients,
            segment_bytes: 64 << 20,
            queue_records: 1 << 16,
            queue_bytes: 64 << 20,
            about: About::default(),
            storage: Box::new(Disk),
        }
    }
}

/// The log has failed, for good: after an error of a write or sync nobody knows what is on disk, and
/// a second sync would lie. Only a new run can go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the audit log has failed while {doing}: {error}; no statement can run until the cause is mended and the proxy restarted"
)]
pub struct LogFailed {
    /// What it was doing.
    pub doing: &'static str,
    /// What the system said.
    pub error: Arc<io::Error>,
}

impl LogFailed {
    pub(crate) fn new(doing: &'static str, error: io::Error) -> Self {
        Self {
            doing,
            error: Arc::new(error),
        }
    }
}

/// Why a record was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The log has failed.
    #[error(transparent)]
    Failed(#[from] LogFailed),
    /// Too much is waiting for the disk already.
    #[error("the audit log's queue is full: the disk does not keep up")]
    Full,
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
    /// The record is larger than a record may be.
    #[error("the record is too large: {bytes} bytes, at most {most}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The payload is no JSON.
    #[error("the record cannot be written as JSON")]
    Encode,
}

/// What the writer tells after each batch.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Everything up to this sequence is on disk.
    Durable(Seq),
    /// The log has failed. Nothing else follows.
    Failed(LogFailed),
}

/// Figures for health checks and metrics.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The last sequence that was given out.
    pub appended: u64,
    /// The last one that is on disk.
    pub durable: u64,
    /// Bytes that wait.
    pub queued_bytes: usize,
    /// Records refused because the queue was full.
    pub refused: u64,
    /// Syncs done.
    pub syncs: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// The current segment's number.
    pub segment: u32,
    /// How long the last write and sync took, in microseconds.
    pub last_sync_micros: u64,
    /// Why it failed.
    pub failed: Option<LogFailed>,
}

/// An append-only log that one process run writes.
///
/// [`Log::append`] gives out sequences and never blocks on the disk; one thread seals, chains,
/// writes and syncs whatever has come together, and then moves the watermark
/// ([`Log::durable`]). Where storage is as quick as memory, [`Log::settle`] does the same on the
/// caller's thread. Dropping a log writes what was appended but no `log-stop`; the next run
/// records that. Use [`Log::close`].
pub struct Log {
    shared: Arc<Shared>,
    recipients: Vec<PublicKey>,
    folder: PathBuf,
    blinder: Blinder,
    keys: AtomicU32,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as this process may write to the run.
    lock: Mutex<Option<File>>,
}

impl Log {
    /// Settles what earlier runs left behind, begins a new run and waits until its first records
    /// are on disk. `on_progress` is called after each batch, on the thread that wrote it; it should
    /// only wake others.
    pub fn open(
        dir: &Path,
        options: LogOptions,
        on_progress: impl Fn(Progress) + Send + 'static,
    ) -> Result<Self, StartError> {
        let LogOptions {
            recipients,
            segment_bytes,
            queue_records,
            queue_bytes,
            about,
            storage,
        } = options;
        check_recipients(&recipients)?;
        if segment_bytes < LogOptions::MIN_SEGMENT {
            return Err(StartError::SmallSegments(segment_bytes));
        }
        let starting = start::lock_directory(dir)?;
        let past = start::settle(dir)?;
        let log = Uuid::now_v7();
        let (folder, lock) = start::make_run(dir, log)?;
        let shared = Arc::new(Shared::new(log, segment_bytes, queue_records, queue_bytes));
        let first = DataKey::generate(shared.log, 1, &recipients)?;
        let writer = Writer::open(
            Arc::clone(&shared),
            folder.clone(),
            storage,
            segment_bytes,
            Box::new(on_progress),
        )?;
        let log = Self {
            shared: Arc::clone(&shared),
            recipients,
            blinder: first.0.blinder().clone(),
            folder,
            keys: AtomicU32::new(1),
            writer: Arc::new(Mutex::new(writer)),
            thread: Mutex::new(None),
            lock: Mutex::new(Some(lock)),
        };
        let last = log.begin(about, past, first)?;
        // The first batch is written here, so that an unusable directory is an error of `open`.
        lock_mutex(&log.writer).batch()?;
        let writer = Arc::clone(&log.writer);
        let spawned = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || writer::run(&writer, &shared))
            .map_err(|error| LogFailed::new("starting its thread", error))?;
        *lock_mutex(&log.thread) = Some(spawned);
        debug_assert_eq!(last, log.durable());
        drop(starting);
        Ok(log)
    }

    fn begin(
        &self,
        about: About,
        past: start::Past,
        (key, wrapped): (DataKey, Vec<WrappedKey>),
    ) -> Result<Seq, StartError> {
        let taken = |error| match error {
            AppendError::Failed(failed) => StartError::Failed(failed),
            other => StartError::Failed(LogFailed::new("beginning", io::Error::other(other))),
        };
        self.append(
            &LogStart {
                predecessors: past.predecessors,
                host: about.host,
                build: about.build,
                engine: about.engine,
                engine_flags: about.engine_flags,
                configuration: about.configuration,
                process: std::process::id(),
            },
            None,
            None,
        )
        .map_err(taken)?;
        let mut last = self.add_key(key, wrapped).map_err(taken)?;
        for recovered in &past.recovered {
            last = self.append(recovered, None, None).map_err(taken)?;
        }
        Ok(last)
    }

    /// This run's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.shared.log
    }

    /// The folder with this run's segments.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A reference to a record of this log.
    #[must_use]
    pub fn reference(&self, seq: Seq) -> RecordRef {
        RecordRef {
            log: self.shared.log,
            seq,
        }
    }

    /// Takes a record into the queue and gives its sequence. It is evidence once
    /// [`Log::durable`] has reached that.
    pub fn append<P: Payload>(
        &self,
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Option<Uuid>,
    ) -> Result<Seq, AppendError> {
        let seq = self.enqueue(clear, sealed, request)?;
        self.shared.wake(lock_mutex(&self.shared.queue));
        Ok(seq)
    }

    /// The same for a caller that calls [`Log::settle`] soon, when it has nothing more to append.
    pub fn enqueue<P: Payload>(
        &self,
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Option<Uuid>,
    ) -> Result<Seq, AppendError> {
        let unsent = Unsent::new(clear, sealed, request)?;
        let mut queue = self.ready(unsent.size())?;
        self.shared.push(&mut queue, unsent, Item::Record)
    }

    /// Whether [`Log::settle`] should be called at once: a record has been waiting for that for
    /// longer than `most`, or at all where storage is so quick that nothing is won by writing
    /// several together.
    #[must_use]
    pub fn is_due(&self, most: Duration) -> bool {
        let since = self.shared.waiting_since.load(Ordering::Relaxed);
        let waits = || Duration::from_micros(self.shared.micros().saturating_sub(since));
        since > 0 && (self.shared.pace.is_instant() || waits() > most)
    }

    /// Sees to it that what was appended gets written: by the writer's thread, or at once on this
    /// one where storage is so quick that waking another would take longer.
    pub fn settle(&self) {
        /// So many batches in a row, which others have filled meanwhile.
        const ROUNDS: usize = 4;
        for _ in 0..ROUNDS {
            let queue = lock_mutex(&self.shared.queue);
            if queue.items.is_empty() {
                return;
            }
            if queue.rotates || !self.shared.pace.is_quick() {
                return self.shared.wake(queue);
            }
            drop(queue);
            let mut writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Whoever writes looks for more when it is done.
                Err(TryLockError::WouldBlock) => return,
            };
            if !writer.attempt() {
                return;
            }
        }
        self.shared.wake(lock_mutex(&self.shared.queue));
    }

    /// Seals what follows with a new data key.
    pub fn renew_key(&self) -> Result<Seq, AppendError> {
        let id = self.keys.fetch_add(1, Ordering::Relaxed) + 1;
        let (key, wrapped) = DataKey::generate(self.shared.log, id, &self.recipients)
            .map_err(|error| LogFailed::new("making a data key", io::Error::other(error)))?;
        self.add_key(key, wrapped)
    }

    fn add_key(&self, key: DataKey, wrapped: Vec<WrappedKey>) -> Result<Seq, AppendError> {
        let id = key.id();
        let unsent = Unsent::new(&DataKeyRecord { id, wrapped }, None, None)?;
        let mut queue = self.ready(unsent.size())?;
        let seq = self
            .shared
            .push(&mut queue, unsent, |draft| Item::Key(draft, Box::new(key)))?;
        self.shared.wake(queue);
        Ok(seq)
    }

    /// Makes the digests of statements, parameters, facts and whatever else may hold data.
    #[must_use]
    pub fn blinder(&self) -> &Blinder {
        &self.blinder
    }

    /// The last sequence up to which everything is on disk.
    #[must_use]
    pub fn durable(&self) -> Seq {
        Seq(self.shared.durable.load(Ordering::Acquire))
    }

    /// Proof that a record is on disk, if it is.
    #[must_use]
    pub fn proof(&self, seq: Seq) -> Option<Durable> {
        (seq.0 > 0 && seq <= self.durable()).then(|| Durable::new(self.reference(seq)))
    }

    /// Why the log has failed, if it has.
    #[must_use]
    pub fn failed(&self) -> Option<&LogFailed> {
        self.shared.failed.get()
    }

    /// Blocks until a record is on disk, the log has failed (`Some(Err)`) or the time is over
    /// (`None`).
    #[must_use]
    pub fn wait(&self, seq: Seq, time: Duration) -> Option<Result<Durable, LogFailed>> {
        let end = Instant::now() + time;
        let mut sleepers = lock_mutex(&self.shared.sleepers);
        *sleepers += 1;
        let result = loop {
            if let Some(proof) = self.proof(seq) {
                break Some(Ok(proof));
            }
            if let Some(failed) = self.failed() {
                break Some(Err(failed.clone()));
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                break None;
            };
            sleepers = self
                .shared
                .moved
                .wait_timeout(sleepers, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        *sleepers -= 1;
        result
    }

    /// Figures for health checks.
    #[must_use]
    pub fn health(&self) -> Health {
        let (appended, queued_bytes, segment) = {
            let queue = lock_mutex(&self.shared.queue);
            (queue.next - 1, queue.bytes, queue.segment)
        };
        Health {
            appended,
            durable: self.durable().0,
            queued_bytes,
            refused: self.shared.refused.load(Ordering::Relaxed),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            written_bytes: self.shared.written.load(Ordering::Relaxed),
            segment,
            last_sync_micros: self.shared.last_sync.load(Ordering::Relaxed),
            failed: self.failed().cloned(),
        }
    }

    /// Writes everything that was appended and a `log-stop`, and ends the writer. Later appends
    /// fail. A second call does nothing.
    pub fn close(&self, reason: &Code) -> Result<(), LogFailed> {
        let stop = LogStop {
            reason: reason.clone(),
        };
        if let Ok(unsent) = Unsent::new(&stop, None, None) {
            let mut queue = lock_mutex(&self.shared.queue);
            if !queue.closing {
                // Beyond the queue's bounds if need be: nothing follows it.
                let _ = self.shared.push(&mut queue, unsent, Item::Record);
                queue.closing = true;
            }
            self.shared.wake(queue);
        }
        self.join();
        self.failed().map_or(Ok(()), |failed| Err(failed.clone()))
    }

    fn join(&self) {
        if let Some(thread) = lock_mutex(&self.thread).take() {
            // A panic of the writer has poisoned the log by then.
            let _ = thread.join();
        }
        // Somebody else may have taken the last batch.
        drop(lock_mutex(&self.writer));
        lock_mutex(&self.lock).take();
    }

    fn ready(&self, bytes: usize) -> Result<MutexGuard<'_, Queue>, AppendError> {
        if let Some(failed) = self.failed() {
            return Err(failed.clone().into());
        }
        if bytes > self.shared.queue_bytes {
            return Err(AppendError::TooLarge {
                bytes,
                most: self.shared.queue_bytes,
            });
        }
        let queue = lock_mutex(&self.shared.queue);
        let waiting = (queue.next - 1).saturating_sub(self.durable().0);
        if queue.closing {
            return Err(self
                .failed()
                .map_or(AppendError::Closed, |failed| failed.clone().into()));
        }
        if waiting >= self.shared.queue_records || queue.bytes + bytes > self.shared.queue_bytes {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AppendError::Full);
        }
        Ok(queue)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let mut queue = lock_mutex(&self.shared.queue);
        queue.closing = true;
        self.shared.wake(queue);
        self.join();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({}, durable {})", self.shared.log, self.durable())
    }
}

fn check_recipients(recipients: &[PublicKey]) -> Result<(), StartError> {
    if recipients.is_empty() {
        return Err(StartError::NoRecipient);
    }
    let mut seen = std::collections::HashSet::new();
    for recipient in recipients {
        if !seen.insert(recipient.fingerprint()) {
            return Err(StartError::SameRecipient(recipient.name().clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;

    #[test]
    fn a_record_waits_for_company_only_where_that_saves_something() {
        let dir = tempfile::tempdir().unwrap();
        let recipient = PrivateKey::generate("auditor").unwrap().public();
        let log = Log::open(dir.path(), LogOptions::new(vec![recipient]), |_| ()).unwrap();
        let reason = LogStop {
            reason: Code::from_words("test"),
        };
        let enqueue = || log.enqueue(&reason, None, None).unwrap();
        // While this is held the writer's thread, which may still be awake, takes nothing away.
        let held = lock_mutex(&log.writer);
        assert!(!log.is_due(Duration::ZERO));
        enqueue();
        assert!(!log.is_due(Duration::MAX));
        std::thread::sleep(Duration::from_millis(1));
        // Not for ever, on a thread that is never idle.
        assert!(log.is_due(Duration::ZERO));
        drop(held);

        // Once it is written nothing waits.
        let last = log.append(&reason, None, None).unwrap();
        assert!(matches!(
            log.wait(last, Duration::from_secs(60)),
            Some(Ok(_))
        ));
        assert!(!log.is_due(Duration::ZERO));

        // Not at all once storage is known to be as quick as memory.
        let held = lock_mutex(&log.writer);
        (0..100).for_each(|_| log.shared.pace.note(Duration::ZERO));
        enqueue();
        assert!(log.is_due(Duration::MAX));
        drop(held);
    }
}
