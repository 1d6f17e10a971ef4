//! Logs in a directory of their own, and a disk that can be made to wait.
#![allow(
    dead_code,
    reason = "each test program uses another part of what they share"
)]

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chaperone_audit_log::{
    AppendError, Code, Disk, Expect, Listing, Log, LogOptions, Name, PrivateKey, Report, Segment,
    Seq, Storage,
    payload::{LoginDenied, LoginDeniedSealed},
    verify,
};

/// Longer than anything takes here.
pub const LONG: Duration = Duration::from_secs(30);

/// A directory in memory where there is one: thousands of syncs would wait for a disk.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() {
        memory
    } else {
        Path::new("/tmp")
    };
    tempfile::tempdir_in(place).unwrap()
}

/// Small segments.
pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::new(vec![PrivateKey::generate("auditor").unwrap().public()])
    }
}

/// A record with so many bytes to seal.
pub fn append(log: &Log, bytes: usize) -> Result<Seq, AppendError> {
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

/// The directory verifies.
pub fn checked(dir: &Path) -> Report {
    let report = verify(dir, &Expect::default()).unwrap();
    assert!(report.ok, "{:?}", report.problems);
    report
}

/// What starts have put aside.
pub fn cuts(dir: &Path) -> Vec<Vec<u8>> {
    Listing::read(dir)
        .unwrap()
        .runs
        .iter()
        .flat_map(|run| &run.cuts)
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}
/// Waits in `sync` as long as the gate is shut.
pub struct Held {
    pub disk: Disk,
    pub gate: Arc<AtomicBool>,
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
