//! Records on their way to the writer.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    clock::unix_micros,
    frame::{Draft, ENVELOPE, MAX_HEADER, MAX_SEALED, OVERHEAD},
    log::{AppendError, LogFailed},
    pace::Pace,
    payload::{Payload, Rotate},
    record::{Kind, RecordRef, Role, Seq},
    seal::{DataKey, TAG},
    value::Code,
};

/// What the log, its writer and its thread share.
pub(crate) struct Shared {
    pub(crate) log: Uuid,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) wake: Condvar,
    pub(crate) durable: AtomicU64,
    pub(crate) failed: OnceLock<LogFailed>,
    pub(crate) pace: Pace,
    /// For threads that wait for the watermark, and how many do.
    pub(crate) moved: Condvar,
    pub(crate) sleepers: Mutex<usize>,
    pub(crate) syncs: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) last_sync: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// When the oldest record was queued that nobody has begun to write, in microseconds of
    /// [`Self::micros`]; 0 = there is none.
    pub(crate) waiting_since: AtomicU64,
    began: Instant,
    segment_bytes: u64,
    pub(crate) queue_records: u64,
    pub(crate) queue_bytes: usize,
}

/// Records that wait for the writer.
pub(crate) struct Queue {
    pub(crate) items: Vec<Item>,
    /// Bytes that are queued or being written.
    pub(crate) bytes: usize,
    /// Whether the writer waits for a wake-up.
    pub(crate) idle: bool,
    /// A segment ends in it, which takes longer than a batch.
    pub(crate) rotates: bool,
    pub(crate) closing: bool,
    pub(crate) next: u64,
    pub(crate) segment: u32,
    segment_fill: u64,
}

/// What the writer has to do.
pub(crate) enum Item {
    Record(Draft),
    /// The last record of this segment, and the number of the next.
    Rotate(Draft, u32),
    /// A key record and the key that holds from the record behind it on.
    Key(Draft, Box<DataKey>),
}

impl Shared {
    pub(crate) fn new(
        log: Uuid,
        segment_bytes: u64,
        queue_records: usize,
        queue_bytes: usize,
    ) -> Self {
        Self {
            log,
            queue: Mutex::new(Queue {
                items: Vec::new(),
                bytes: 0,
                idle: false,
                rotates: false,
                closing: false,
                next: 1,
                segment: 1,
                segment_fill: 0,
            }),
            wake: Condvar::new(),
            durable: AtomicU64::new(0),
            failed: OnceLock::new(),
            pace: Pace::default(),
            moved: Condvar::new(),
            sleepers: Mutex::new(0),
            syncs: AtomicU64::new(0),
            written: AtomicU64::new(0),
            last_sync: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
            began: Instant::now(),
            segment_bytes,
            queue_records: queue_records as u64,
            queue_bytes,
        }
    }

    /// Gives a record its place, and begins a new segment where it does not fit.
    pub(crate) fn push(
        &self,
        queue: &mut Queue,
        unsent: Unsent,
        item: impl FnOnce(Draft) -> Item,
    ) -> Result<Seq, AppendError> {
        let size = unsent.size();
        let fill = queue.segment_fill + size as u64;
        if fill > self.segment_bytes && queue.segment_fill > 0 {
            let rotate = Rotate {
                segment: queue.segment,
                next: queue.segment + 1,
                reason: Code::from_words("size"),
            };
            let next = rotate.next;
            let rotate = Unsent::new(&rotate, None, None)?;
            queue.bytes += rotate.size();
            let draft = self.draft(queue, rotate);
            queue.items.push(Item::Rotate(draft, next));
            queue.rotates = true;
            queue.segment = next;
            queue.segment_fill = 0;
        }
        queue.segment_fill += size as u64;
        queue.bytes += size;
        let draft = self.draft(queue, unsent);
        let seq = draft.seq;
        if queue.items.is_empty() {
            self.waiting_since
                .store(draft.mono.max(1), Ordering::Relaxed);
        }
        queue.items.push(item(draft));
        Ok(seq)
    }

    fn draft(&self, queue: &mut Queue, unsent: Unsent) -> Draft {
        let seq = Seq(queue.next);
        queue.next += 1;
        Draft {
            seq,
            kind: unsent.kind,
            time: unix_micros(SystemTime::now()),
            mono: self.micros(),
            request: unsent.request,
            refs: unsent.refs,
            body: unsent.body,
            text: unsent.text,
        }
    }

    /// Microseconds since the run began, by a clock that is never set.
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Wakes the writer's thread, if it sleeps.
    pub(crate) fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let idle = std::mem::take(&mut queue.idle);
        drop(queue);
        if idle {
            self.wake.notify_one();
        }
    }

    pub(crate) fn notify_waiters(&self) {
        // Telling nobody is a system call as well.
        if *lock_mutex(&self.sleepers) > 0 {
            self.moved.notify_all();
        }
    }
}

/// A record before it has its place.
pub(crate) struct Unsent {
    kind: Kind,
    request: Option<Uuid>,
    refs: Vec<(Role, RecordRef)>,
    body: Vec<u8>,
    text: Option<Zeroizing<Vec<u8>>>,
}

impl Unsent {
    pub(crate) fn new<P: Payload>(
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Option<Uuid>,
    ) -> Result<Self, AppendError> {
        let body = json(clear)?;
        let text = sealed.map(json).transpose()?.map(Zeroizing::new);
        let most = MAX_HEADER - ENVELOPE;
        if body.len() > most {
            return Err(AppendError::TooLarge {
                bytes: body.len(),
                most,
            });
        }
        let most = MAX_SEALED - TAG;
        if let Some(text) = text.as_ref().filter(|text| text.len() > most) {
            return Err(AppendError::TooLarge {
                bytes: text.len(),
                most,
            });
        }
        let mut refs = Vec::new();
        clear.refs(&mut refs);
        Ok(Self {
            kind: P::KIND,
            request,
            refs,
            body,
            text,
        })
    }

    /// About as many bytes as it will have in the file.
    pub(crate) fn size(&self) -> usize {
        let sealed = self.text.as_ref().map_or(0, |text| text.len() + TAG);
        let request = self.request.map_or(0, |_| 45);
        OVERHEAD + 260 + request + 24 * self.refs.len() + self.body.len() + sealed
    }
}

/// JSON, in a buffer that most records fit into.
fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, AppendError> {
    let mut text = Vec::with_capacity(384);
    serde_json::to_writer(&mut text, value).map_err(|_| AppendError::Encode)?;
    Ok(text)
}

/// A mutex that a panic has left behind guards nothing that can be half done here.
pub(crate) fn lock_mutex<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
