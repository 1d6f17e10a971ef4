//! The one thread that writes: it takes what has come together, seals, chains, writes, syncs once,
//! and then moves the watermark.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};

use crate::{
    frame::{self, Draft, MAGIC},
    log::{Item, LogFailed, Progress, Shared, lock_mutex},
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
            on_progress,
        })
    }

    /// Writes batches until the log is closed or fails.
    pub(crate) fn run(mut self) {
        // A panic (of the callback, say) must not leave the others waiting.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while self.wait() {
                self.batch()?;
            }
            Ok(())
        }));
        let failed = match ended {
            Ok(Ok(())) => return,
            Ok(Err(failed)) => failed,
            Err(_) => LogFailed::new("writing", io::Error::other("its thread ended unexpectedly")),
        };
        fail(&self.shared, failed.clone());
        (self.on_progress)(Progress::Failed(failed));
    }

    /// Waits for something to do; false = nothing will come any more.
    fn wait(&mut self) -> bool {
        let mut queue = lock_mutex(&self.shared.queue);
        while queue.items.is_empty() {
            if queue.closing {
                return false;
            }
            queue.idle = true;
            queue = self
                .shared
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        true
    }

    /// Writes what is queued and moves the watermark.
    pub(crate) fn batch(&mut self) -> Result<(), LogFailed> {
        let began = Instant::now();
        let (items, bytes, closing) = {
            let mut queue = lock_mutex(&self.shared.queue);
            (std::mem::take(&mut queue.items), queue.bytes, queue.closing)
        };
        for item in items {
            match item {
                Item::Record(draft) => self.put(&draft)?,
                Item::Key(draft, key) => {
                    self.put(&draft)?;
                    self.key = Some(*key);
                }
                Item::Rotate(draft, next) => self.rotate(&draft, next)?,
            }
        }
        self.write()?;
        self.sync()?;
        if closing {
            // Only reserved space is at stake; a reader copes with it.
            let _ = self.segment.trim(self.length);
        }
        lock_mutex(&self.shared.queue).bytes -= bytes;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
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
