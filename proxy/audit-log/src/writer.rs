//! The writer takes what has come together, seals, chains, writes, syncs once, and then moves the
//! watermark. A thread does that; where storage is quick, also whoever has appended.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use crate::{
    frame::{self, Draft, MAGIC},
    log::{LogFailed, Progress},
    queue::{Item, Shared, lock_mutex},
    record::Seq,
    seal::DataKey,
    segment::segment_name,
    storage::{Segment, Storage},
    value::Digest,
};

/// How many bytes are gathered before they are handed to the system.
const CHUNK: usize = 1 << 20;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    folder: PathBuf,
    storage: Box<dyn Storage>,
    reserve: u64,
    segment: Box<dyn Segment>,
    /// Bytes in the segment.
    length: u64,
    head: Digest,
    last: Seq,
    key: Option<DataKey>,
    buffer: Vec<u8>,
    /// Room for the next batch's items.
    items: Vec<Item>,
    on_progress: Box<dyn Fn(Progress) + Send>,
}

impl Writer {
    pub(crate) fn open(
        shared: Arc<Shared>,
        folder: PathBuf,
        mut storage: Box<dyn Storage>,
        reserve: u64,
        on_progress: Box<dyn Fn(Progress) + Send>,
    ) -> Result<Self, LogFailed> {
        let segment = create(storage.as_mut(), &folder, 1, reserve)?;
        Ok(Self {
            shared,
            folder,
            storage,
            reserve,
            segment,
            length: MAGIC.len() as u64,
            head: Digest::ZERO,
            last: Seq(0),
            key: None,
            buffer: Vec::new(),
            items: Vec::new(),
            on_progress,
        })
    }

    /// Writes what is queued. False once the log has failed, now or earlier.
    pub(crate) fn attempt(&mut self) -> bool {
        if self.shared.failed.get().is_some() {
            return false;
        }
        // A panic (of the callback, say) must not leave the others waiting.
        let failed = match catch_unwind(AssertUnwindSafe(|| self.batch())) {
            Ok(Ok(())) => return true,
            Ok(Err(failed)) => failed,
            Err(_) => LogFailed::new("writing", io::Error::other("it ended unexpectedly")),
        };
        fail(&self.shared, failed.clone());
        let tell = AssertUnwindSafe(|| (self.on_progress)(Progress::Failed(failed)));
        // Whoever waits has been told already, apart from those that the callback tells.
        let _ = catch_unwind(tell);
        false
    }

    /// Writes what is queued and moves the watermark.
    pub(crate) fn batch(&mut self) -> Result<(), LogFailed> {
        let mut items = std::mem::take(&mut self.items);
        let (bytes, closing) = {
            let mut queue = lock_mutex(&self.shared.queue);
            std::mem::swap(&mut queue.items, &mut items);
            queue.rotates = false;
            self.shared.waiting_since.store(0, Ordering::Relaxed);
            (queue.bytes, queue.closing)
        };
        if items.is_empty() {
            self.items = items;
            return Ok(());
        }
        for item in items.drain(..) {
            match item {
                Item::Record(draft) => self.put(&draft)?,
                Item::Key(draft, key) => {
                    self.put(&draft)?;
                    self.key = Some(*key);
                }
                Item::Rotate(draft, next) => self.rotate(&draft, next)?,
            }
        }
        self.items = items;
        let began = Instant::now();
        self.write()?;
        self.sync()?;
        let took = began.elapsed();
        self.shared.pace.note(took);
        if closing {
            // Only reserved space is at stake; a reader copes with it.
            let _ = self.segment.trim(self.length);
        }
        lock_mutex(&self.shared.queue).bytes -= bytes;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.shared.last_sync.store(micros, Ordering::Relaxed);
        self.publish();
        Ok(())
    }

    fn put(&mut self, draft: &Draft) -> Result<(), LogFailed> {
        let synced = Seq(self.shared.durable.load(Ordering::Relaxed));
        self.head = frame::encode(
            draft,
            self.shared.log,
            synced,
            &self.head,
            self.key.as_ref(),
            &mut self.buffer,
        )
        .map_err(|error| LogFailed::new("sealing", io::Error::other(error)))?;
        self.last = draft.seq;
        if self.buffer.len() >= CHUNK {
            self.write()?;
        }
        Ok(())
    }

    /// The next segment is there before the record that leads to it, and everything in the old one
    /// is on disk before the first record of the new one: so a segment that is missing is missing,
    /// and a torn tail can only be in the last.
    fn rotate(&mut self, draft: &Draft, next: u32) -> Result<(), LogFailed> {
        let new = create(self.storage.as_mut(), &self.folder, next, self.reserve)?;
        self.put(draft)?;
        self.write()?;
        self.sync()?;
        let _ = self.segment.trim(self.length);
        self.publish();
        self.segment = new;
        self.length = MAGIC.len() as u64;
        Ok(())
    }

    fn write(&mut self) -> Result<(), LogFailed> {
        write_all(self.segment.as_mut(), &self.buffer)
            .map_err(|error| LogFailed::new("writing", error))?;
        let count = self.buffer.len() as u64;
        self.length += count;
        self.shared.written.fetch_add(count, Ordering::Relaxed);
        self.buffer.clear();
        self.buffer.shrink_to(2 * CHUNK);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogFailed> {
        self.segment
            .sync()
            .map_err(|error| LogFailed::new("syncing", error))?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn publish(&self) {
        self.shared.durable.store(self.last.0, Ordering::Release);
        self.shared.notify_waiters();
        (self.on_progress)(Progress::Durable(self.last));
    }
}

/// What the writer's thread does: batches until the log is closed or fails.
pub(crate) fn run(writer: &Mutex<Writer>, shared: &Shared) {
    while wait(shared) {
        if !lock_mutex(writer).attempt() {
            return;
        }
    }
}

/// Waits for something to do; false = nothing will come any more.
fn wait(shared: &Shared) -> bool {
    let mut queue = lock_mutex(&shared.queue);
    while queue.items.is_empty() {
        if queue.closing {
            return false;
        }
        queue.idle = true;
        queue = shared
            .wake
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
    }
    queue.idle = false;
    true
}

fn fail(shared: &Shared, failed: LogFailed) {
    let _ = shared.failed.set(failed);
    // What is queued is dropped: nobody was told that it is durable.
    let mut queue = lock_mutex(&shared.queue);
    queue.items = Vec::new();
    queue.closing = true;
    drop(queue);
    shared.notify_waiters();
}

fn create(
    storage: &mut dyn Storage,
    folder: &Path,
    number: u32,
    reserve: u64,
) -> Result<Box<dyn Segment>, LogFailed> {
    let mut made = || -> io::Result<Box<dyn Segment>> {
        let mut segment = storage.create(&folder.join(segment_name(number)), reserve)?;
        write_all(segment.as_mut(), MAGIC)?;
        segment.sync()?;
        Ok(segment)
    };
    made().map_err(|error| LogFailed::new("making a segment", error))
}

fn write_all(segment: &mut dyn Segment, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match segment.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
