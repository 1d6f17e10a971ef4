//! What a crash leaves, and what the next run makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "common/scratch.rs"]
mod scratch;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chaperone_audit_log::{
    Code, Disk, Ending, Listing, Log, LogOptions, SegmentReader, Seq, StartError, Step,
};
use scratch::{Held, LONG, append, checked, cuts, options, scratch};

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
