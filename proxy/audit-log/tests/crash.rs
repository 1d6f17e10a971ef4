//! What a crash, a full disk or a failing disk leaves, and what the next run makes of it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use chaperone_audit_log::{
    AppendError, Code, Disk, Ending, Expect, Listing, Log, LogOptions, Name, PrivateKey, Progress,
    Report, Segment, SegmentReader, Seq, StartError, Step, Storage,
    payload::{LoginDenied, LoginDeniedSealed},
    verify,
};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(30);

/// A directory in memory where there is one: thousands of syncs would wait for a disk.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() {
        memory
    } else {
        Path::new("/tmp")
    };
    tempfile::tempdir_in(place).unwrap()
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::new(vec![PrivateKey::generate("auditor").unwrap().public()])
    }
}

fn append(log: &Log, bytes: usize) -> Result<Seq, AppendError> {
    log.append(
        &LoginDenied {
            code: Code::from_words("test"),
            client_address: Name::new("127.0.0.1"),
        },
        Some(&LoginDeniedSealed {
            detail: "x".repeat(bytes),
            ..LoginDeniedSealed::default()
        }),
        None,
    )
}

fn checked(dir: &Path) -> Report {
    let report = verify(dir, &Expect::default()).unwrap();
    assert!(report.ok, "{:?}", report.problems);
    report
}

/// A run that was not closed, with `batches` of one record each; its only segment, and where its
/// records are.
fn crashed(dir: &Path, batches: usize) -> (PathBuf, Vec<std::ops::Range<u64>>) {
    let log = Log::open(dir, options(), |_| {}).unwrap();
    for _ in 0..batches {
        let seq = append(&log, 30).unwrap();
        log.wait(seq, LONG).unwrap().unwrap();
    }
    let path = log.folder().join("000001.seg");
    drop(log);
    let mut reader = SegmentReader::open(&path).unwrap();
    reader.begin().unwrap();
    let mut records = Vec::new();
    loop {
        let from = reader.offset();
        match reader.step().unwrap() {
            Step::Record(frame) => records.push(from..from + frame.length as u64),
            _ => return (path, records),
        }
    }
}

fn cuts(dir: &Path) -> Vec<Vec<u8>> {
    Listing::read(dir)
        .unwrap()
        .runs
        .iter()
        .flat_map(|run| &run.cuts)
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_record_is_put_aside() {
    let made = scratch();
    let (path, records) = crashed(made.path(), 3);
    let bytes = std::fs::read(&path).unwrap();
    let relative = path.strip_prefix(made.path()).unwrap();
    let last = records.last().unwrap();
    for length in last.start..=last.end {
        for reserved in [false, true] {
            let dir = scratch();
            let path = dir.path().join(relative);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut torn = bytes[..usize::try_from(length).unwrap()].to_vec();
            if reserved {
                torn.resize(64 << 10, 0);
            }
            std::fs::write(&path, &torn).unwrap();
            let log = Log::open(dir.path(), options(), |_| {}).unwrap();
            log.close(&Code::from_words("test")).unwrap();
            let report = checked(dir.path());
            let whole = length == last.end;
            let kept = records.len() as u64 - u64::from(!whole);
            assert_eq!(report.runs[0].head.seq, Seq(kept), "at {length}");
            assert_eq!(report.runs[0].ending, Ending::Recovered);
            assert_eq!(report.kinds["recover"], 1);
            // Nothing is lost: what was cut off is kept, byte by byte.
            let cut: Vec<_> = bytes[usize::try_from(last.start).unwrap()..]
                .iter()
                .take(usize::try_from(length - last.start).unwrap())
                .copied()
                .collect();
            let end = cut.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            if whole || cut.is_empty() {
                assert!(cuts(dir.path()).is_empty());
            } else if reserved {
                assert_eq!(cuts(dir.path()), [&cut[..end]]);
            } else {
                assert!(cuts(dir.path())[0].starts_with(&cut[..end]));
            }
        }
    }
}

#[test]
fn a_batch_whose_pages_came_in_any_order_is_torn() {
    let made = scratch();
    let gate = Arc::new(AtomicBool::new(false));
    let storage = Held {
        disk: Disk,
        gate: Arc::clone(&gate),
    };
    let log = Log::open(
        made.path(),
        LogOptions {
            storage: Box::new(storage),
            ..options()
        },
        |_| {},
    )
    .unwrap();
    gate.store(true, Ordering::SeqCst);
    let first = append(&log, 30).unwrap();
    while log.health().queued_bytes == 0 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..3 {
        append(&log, 30).unwrap();
    }
    gate.store(false, Ordering::SeqCst);
    let batch = log.folder().join("000001.seg");
    drop(log);
    let mut reader = SegmentReader::open(&batch).unwrap();
    reader.begin().unwrap();
    let mut offsets = Vec::new();
    loop {
        let from = reader.offset();
        match reader.step().unwrap() {
            Step::Record(frame) => {
                let header = frame.parse_header().unwrap();
                if header.seq > first {
                    assert_eq!(header.synced, first, "one batch");
                    offsets.push(from);
                }
            }
            _ => break,
        }
    }
    assert_eq!(offsets.len(), 3);
    // The first of the three did not reach the disk, the two behind it did.
    let mut bytes = std::fs::read(&batch).unwrap();
    let hole = usize::try_from(offsets[0]).unwrap()..usize::try_from(offsets[1]).unwrap();
    bytes[hole].fill(0);
    std::fs::write(&batch, &bytes).unwrap();
    let log = Log::open(made.path(), options(), |_| {}).unwrap();
    log.close(&Code::from_words("test")).unwrap();
    let report = checked(made.path());
    assert_eq!(report.runs[0].head.seq, first);
}

#[test]
fn damage_that_is_no_torn_tail_refuses_to_start_and_changes_nothing() {
    let made = scratch();
    let (path, records) = crashed(made.path(), 4);
    let good = std::fs::read(&path).unwrap();
    // Every record but the last was on disk before another one was written.
    for (index, range) in records.iter().enumerate().take(records.len() - 1) {
        // The first records of a run are one batch: a torn one is believed until a record of a
        // later batch stands behind it, and one does.
        let mut bytes = good.clone();
        bytes[usize::try_from(range.start).unwrap() + 40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = Log::open(made.path(), options(), |_| {}).unwrap_err();
        let StartError::Damaged {
            segment,
            offset,
            seq,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (segment, *offset, seq.0),
            (&path, range.start, index as u64 + 1)
        );
        let text = error.to_string();
        assert!(text.contains("chaperone audit verify"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it was");
    }
    std::fs::write(&path, &good).unwrap();
    Log::open(made.path(), options(), |_| {}).unwrap();
}

#[test]
fn damage_in_an_earlier_segment_refuses_to_start_too() {
    let dir = scratch();
    let small = || LogOptions {
        segment_bytes: 4096,
        ..options()
    };
    let log = Log::open(dir.path(), small(), |_| {}).unwrap();
    for _ in 0..60 {
        append(&log, 100).unwrap();
    }
    drop(log);
    let run = Listing::read(dir.path()).unwrap().runs.remove(0);
    assert!(run.segments.len() > 4);
    for (_, path) in &run.segments[..run.segments.len() - 1] {
        let good = std::fs::read(path).unwrap();
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, &bytes).unwrap();
        let error = Log::open(dir.path(), small(), |_| {}).unwrap_err();
        assert!(
            matches!(&error, StartError::Damaged { segment, .. } if segment == path),
            "{error}"
        );
        std::fs::write(path, &good).unwrap();
    }
    Log::open(dir.path(), small(), |_| {}).unwrap();
}

#[test]
fn a_crash_between_two_segments_is_no_damage() {
    for first_line in [&b""[..], b"chaperone-audit 1\n", b"chaper", &[0; 500]] {
        let dir = scratch();
        let (path, _) = crashed(dir.path(), 2);
        let unused = path.with_file_name("000002.seg");
        std::fs::write(&unused, first_line).unwrap();
        checked(dir.path());
        let log = Log::open(dir.path(), options(), |_| {}).unwrap();
        log.close(&Code::from_words("test")).unwrap();
        checked(dir.path());
        assert!(!unused.exists());
    }
}

#[test]
fn a_crash_while_starting_leaves_a_run_without_records() {
    let dir = scratch();
    let folder = dir.path().join("019d0000-0000-7000-8000-000000000000");
    std::fs::create_dir(&folder).unwrap();
    checked(dir.path());
    std::fs::write(folder.join("000001.seg"), b"chaperone-au").unwrap();
    for _ in 0..2 {
        let log = Log::open(dir.path(), options(), |_| {}).unwrap();
        log.close(&Code::from_words("test")).unwrap();
    }
    checked(dir.path());
}

/// Waits in `sync` as long as the gate is shut.
struct Held {
    disk: Disk,
    gate: Arc<AtomicBool>,
}

impl Storage for Held {
    fn create(&mut self, path: &Path, reserve: u64) -> io::Result<Box<dyn Segment>> {
        Ok(Box::new(HeldSegment {
            inner: self.disk.create(path, reserve)?,
            gate: Arc::clone(&self.gate),
        }))
    }
}

struct HeldSegment {
    inner: Box<dyn Segment>,
    gate: Arc<AtomicBool>,
}

impl Segment for HeldSegment {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        while self.gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.inner.sync()
    }

    fn trim(&mut self, length: u64) -> io::Result<()> {
        self.inner.trim(length)
    }
}

#[test]
fn a_disk_that_hangs_means_back_pressure_not_memory() {
    let dir = scratch();
    let gate = Arc::new(AtomicBool::new(false));
    let log = Log::open(
        dir.path(),
        LogOptions {
            storage: Box::new(Held {
                disk: Disk,
                gate: Arc::clone(&gate),
            }),
            queue_records: 100,
            queue_bytes: 20_000,
            ..options()
        },
        |_| {},
    )
    .unwrap();
    gate.store(true, Ordering::SeqCst);
    assert!(matches!(
        append(&log, 30_000),
        Err(AppendError::TooLarge { .. })
    ));
    let (mut taken, mut last) = (0u32, Seq(0));
    let error = loop {
        match append(&log, 10) {
            Ok(seq) => (taken, last) = (taken + 1, seq),
            Err(error) => break error,
        }
        assert!(taken <= 100);
    };
    assert!(matches!(error, AppendError::Full), "{error}");
    assert!(log.health().queued_bytes <= 20_000);
    assert!(log.health().refused > 0);
    gate.store(false, Ordering::SeqCst);
    log.wait(last, LONG).unwrap().unwrap();
    // And it goes on.
    let seq = append(&log, 10).unwrap();
    log.wait(seq, LONG).unwrap().unwrap();
    log.close(&Code::from_words("test")).unwrap();
    checked(dir.path());
}

/// The disk, until it fails: in the nth call of a kind, or when it is full.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Sync(u64),
    Write(u64),
    Create(u64),
    /// So many bytes fit, the write that reaches them is short.
    Full(u64),
}

#[derive(Clone)]
struct Faulty {
    fault: Fault,
    calls: Arc<[AtomicU64; 3]>,
    room: Arc<AtomicU64>,
    /// Writes take only a part.
    short: bool,
}

impl Faulty {
    fn new(fault: Fault, short: bool) -> Self {
        let room = match fault {
            Fault::Full(bytes) => bytes,
            _ => u64::MAX,
        };
        Self {
            fault,
            calls: Arc::default(),
            room: Arc::new(AtomicU64::new(room)),
            short,
        }
    }

    fn call(&self, index: usize) -> io::Result<()> {
        let count = self.calls[index].fetch_add(1, Ordering::SeqCst) + 1;
        let fails = match self.fault {
            Fault::Sync(n) => index == 0 && count >= n,
            Fault::Write(n) => index == 1 && count >= n,
            Fault::Create(n) => index == 2 && count >= n,
            Fault::Full(_) => false,
        };
        if fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

struct FaultySegment(Box<dyn Segment>, Faulty);

impl Storage for Faulty {
    fn create(&mut self, path: &Path, reserve: u64) -> io::Result<Box<dyn Segment>> {
        self.call(2)?;
        Ok(Box::new(FaultySegment(
            Disk.create(path, reserve)?,
            self.clone(),
        )))
    }
}

impl Segment for FaultySegment {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.call(1)?;
        let room = usize::try_from(self.1.room.load(Ordering::SeqCst)).unwrap_or(usize::MAX);
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = if self.1.short {
            bytes.len().div_ceil(3)
        } else {
            bytes.len()
        };
        let count = self.0.write(&bytes[..count.min(room)])?;
        if let Fault::Full(_) = self.1.fault {
            self.1.room.fetch_sub(count as u64, Ordering::SeqCst);
        }
        Ok(count)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.call(0)?;
        self.0.sync()
    }

    fn trim(&mut self, length: u64) -> io::Result<()> {
        self.0.trim(length)
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (1u64..30).prop_map(Fault::Sync),
        (1u64..60).prop_map(Fault::Write),
        (1u64..5).prop_map(Fault::Create),
        (0u64..40_000).prop_map(Fault::Full),
    ]
}

/// Runs a log on a disk that fails and checks what was promised.
fn promised(fault: Fault, short: bool, appends: usize, pause: bool) {
    let dir = scratch();
    let (tell, told) = mpsc::channel();
    let opened = Log::open(
        dir.path(),
        LogOptions {
            storage: Box::new(Faulty::new(fault, short)),
            segment_bytes: 8192,
            ..options()
        },
        move |progress| {
            let _ = tell.send(progress);
        },
    );
    let mut durable = Seq(0);
    if let Ok(log) = opened {
        for _ in 0..appends {
            match append(&log, 100) {
                Ok(seq) if pause => {
                    let _ = log.wait(seq, LONG);
                }
                Ok(_) => {}
                Err(AppendError::Failed(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let closed = log.close(&Code::from_words("test"));
        durable = log.durable();
        let (mut highest, mut failed) = (Seq(0), 0);
        while let Ok(progress) = told.try_recv() {
            match progress {
                Progress::Durable(seq) => {
                    assert_eq!(failed, 0, "nothing becomes durable after a failure");
                    highest = seq;
                }
                Progress::Failed(_) => failed += 1,
            }
        }
        assert_eq!(highest, durable);
        assert_eq!(failed, i32::from(closed.is_err()), "told once");
        assert_eq!(log.failed().is_some(), closed.is_err());
        assert!(append(&log, 1).is_err());
    }
    // The machine is mended; what was promised is there, and it verifies.
    let before = Listing::read(dir.path()).unwrap().runs[0].log;
    let log = Log::open(dir.path(), options(), |_| {}).unwrap();
    log.close(&Code::from_words("test")).unwrap();
    let report = checked(dir.path());
    let run = report.runs.iter().find(|run| run.head.log == before);
    assert!(run.unwrap().head.seq >= durable);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn what_was_promised_survives_a_failing_disk(
        fault in fault(),
        short in any::<bool>(),
        appends in 0usize..80,
        pause in any::<bool>(),
    ) {
        promised(fault, short, appends, pause);
    }
}

#[test]
fn the_first_failed_sync_is_the_last_word() {
    let dir = scratch();
    let storage = Faulty::new(Fault::Sync(3), false);
    let calls = Arc::clone(&storage.calls);
    let log = Log::open(
        dir.path(),
        LogOptions {
            storage: Box::new(storage),
            ..options()
        },
        |_| {},
    )
    .unwrap();
    let before = log.durable();
    let seq = append(&log, 1).unwrap();
    assert!(log.wait(seq, LONG).unwrap().is_err());
    let syncs = calls[0].load(Ordering::SeqCst);
    let error = append(&log, 1).unwrap_err();
    assert!(error.to_string().contains("syncing"), "{error}");
    assert!(log.close(&Code::from_words("test")).is_err());
    assert_eq!(log.durable(), before);
    assert_eq!(calls[0].load(Ordering::SeqCst), syncs, "no second sync");
}

/// Every segment after the first is the device that is always full.
struct FullDevice(Mutex<u32>);

impl Storage for FullDevice {
    fn create(&mut self, _path: &Path, _reserve: u64) -> io::Result<Box<dyn Segment>> {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        let name = if *count == 1 {
            "/dev/null"
        } else {
            "/dev/full"
        };
        let file = File::options().write(true).open(name)?;
        Ok(Box::new(Device(file)))
    }
}

struct Device(File);

impl Segment for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_device_fails_the_log() {
    let dir = scratch();
    let log = Log::open(
        dir.path(),
        LogOptions {
            storage: Box::new(FullDevice(Mutex::new(0))),
            segment_bytes: 4096,
            ..options()
        },
        |_| {},
    )
    .unwrap();
    let mut last = Seq(0);
    while let Ok(seq) = append(&log, 500) {
        last = seq;
        let _ = log.wait(seq, LONG).unwrap();
    }
    assert!(log.durable() < last);
    let failed = log.failed().unwrap();
    assert_eq!(failed.error.raw_os_error(), Some(28), "{failed}");
}

/// The kernel's own short write and error, without a mount: a bound on file sizes.
#[test]
fn a_bound_on_file_sizes_fails_the_log() {
    const CHILD: &str = "AUDIT_LOG_CHILD_DIRECTORY";
    if let Some(dir) = std::env::var_os(CHILD) {
        let log = Log::open(
            Path::new(&dir),
            LogOptions {
                segment_bytes: 16 << 10,
                ..options()
            },
            |_| {},
        )
        .unwrap();
        let small = append(&log, 10).unwrap();
        log.wait(small, LONG).unwrap().unwrap();
        let large = append(&log, 200 << 10).unwrap();
        let failed = log.wait(large, LONG).unwrap().unwrap_err();
        assert_eq!(failed.error.raw_os_error(), Some(27), "{failed}");
        assert!(append(&log, 10).is_err());
        return;
    }
    let dir = scratch();
    let test = std::env::current_exe().unwrap();
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 128 || exit 9; exec \"$0\" \"$@\"")
        .arg(test)
        .args(["--exact", "a_bound_on_file_sizes_fails_the_log", "--quiet"])
        .env(CHILD, dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let log = Log::open(dir.path(), options(), |_| {}).unwrap();
    log.close(&Code::from_words("test")).unwrap();
    let report = checked(dir.path());
    assert_eq!(cuts(dir.path()).len(), 1, "the record that did not fit");
    // log-start, key, the small one, and the rotate record that makes room for the large one.
    assert_eq!(report.runs[0].head.seq, Seq(4));
}
