//! What a disk that hangs, fails or is full means for the log, and what the next run makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "common/scratch.rs"]
mod scratch;

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use chaperone_audit_log::{
    AppendError, Code, Disk, Listing, Log, LogOptions, Progress, Segment, Seq, Storage,
};
use proptest::prelude::*;
use scratch::{Held, LONG, append, checked, cuts, options, scratch};

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
