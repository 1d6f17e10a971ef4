//! What a record costs the caller and the writer: `cargo bench -p chaperone-audit-log`.
//!
//! The log is in memory where there is `/dev/shm`; a disk's syncs are for `examples/throughput`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark stops where something is not as it should be"
)]

use std::{path::Path, time::Duration};

use chaperone_audit_log::{
    Code, Log, LogOptions, PrivateKey, Seq,
    payload::{Effects, Execution, ExecutionSealed, Intent, Parameter, SessionEnd, Status},
};
use divan::Bencher;
use tempfile::TempDir;

fn main() {
    divan::main();
}

fn open() -> (TempDir, Log) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let folder = folder.unwrap();
    let key = PrivateKey::generate("bench").unwrap();
    let log = Log::open(
        folder.path(),
        LogOptions::new(vec![key.public()]),
        |_progress| {},
    );
    let log = log.unwrap();
    // How quick storage is has to be learnt before a caller writes for itself.
    for _ in 0..100 {
        let seq = log.append(&end(&log), None, None).unwrap();
        log.wait(seq, Duration::from_secs(10)).unwrap().unwrap();
    }
    (folder, log)
}

fn end(log: &Log) -> SessionEnd {
    SessionEnd {
        session: log.reference(Seq(1)),
        cause: Code::from_words("client"),
        executions: 1,
        denied: 0,
        rows: 1,
        bytes: 12,
    }
}

/// What a point read with one parameter makes.
fn execution(log: &Log) -> (Execution, ExecutionSealed) {
    let value = "4711";
    let clear = Execution {
        intent: Intent {
            decision: log.reference(Seq(3)),
            approval: None,
            ordinal: 1,
            portal: None,
            read_only: true,
            in_transaction: false,
            parameter_count: 1,
            parameters: Some(log.blinder().of(value.as_bytes())),
        },
        effects: Effects {
            status: Status::Ok,
            code: None,
            rows: 1,
            bytes: 12,
            outputs: Vec::new(),
            truncated_after: None,
            charges: Vec::new(),
            sent: Some(log.blinder().of(b"row")),
            backend_micros: 120,
            total_micros: 140,
        },
    };
    let sealed = ExecutionSealed {
        parameters: vec![Parameter::Text(value.to_owned())],
        error: None,
    };
    (clear, sealed)
}

/// A record from its parts to its place in the file, on the thread that made it.
#[divan::bench]
fn execution_sealed_chained_written(bencher: Bencher<'_, '_>) {
    let (_folder, log) = open();
    let (clear, sealed) = execution(&log);
    bencher.bench_local(|| {
        log.enqueue(&clear, Some(&sealed), None).unwrap();
        log.settle();
    });
    log.close(&Code::from_words("done")).unwrap();
}

/// The same in batches, as concurrent sessions make them.
#[divan::bench(args = [4, 16, 64])]
fn a_batch_of_executions(bencher: Bencher<'_, '_>, records: usize) {
    let (_folder, log) = open();
    let (clear, sealed) = execution(&log);
    bencher.counter(records).bench_local(|| {
        for _ in 0..records {
            log.enqueue(&clear, Some(&sealed), None).unwrap();
        }
        log.settle();
    });
    log.close(&Code::from_words("done")).unwrap();
}

/// Nothing to seal.
#[divan::bench]
fn a_clear_record(bencher: Bencher<'_, '_>) {
    let (_folder, log) = open();
    let end = end(&log);
    bencher.bench_local(|| {
        log.enqueue(&end, None, None).unwrap();
        log.settle();
    });
    log.close(&Code::from_words("done")).unwrap();
}

/// The digest of what is sent, by bytes.
#[divan::bench(args = [70, 32_768])]
fn sent(bencher: Bencher<'_, '_>, bytes: usize) {
    let (_folder, log) = open();
    let rows = vec![b'x'; bytes];
    let mut sent = log.blinder().sent();
    bencher
        .counter(divan::counter::BytesCount::new(bytes))
        .bench_local(|| {
            sent.update(&rows);
            sent.take()
        });
}
