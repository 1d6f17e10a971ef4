//! How many records a second, and how long until one is on disk.
//!
//! `cargo run --release -p chaperone-audit-log --example throughput -- DIR [SUBMITTERS] [SECONDS]`
//!
//! Each submitter appends one record, waits until it is on disk, and goes on; a record is about what
//! an execution makes (200 bytes sealed). Say what disk it was: the sync is the limit, and disks
//! with burst credit are fast only for a while.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chaperone_audit_log::{
    Code, Log, LogOptions, Name, PrivateKey,
    payload::{LoginDenied, LoginDeniedSealed},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("give a directory")?);
    let submitters: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let key = PrivateKey::generate("throughput")?;
    let log = Arc::new(Log::open(
        &dir,
        LogOptions::new(vec![key.public()]),
        |_| {},
    )?);
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let threads: Vec<_> = (0..submitters)
        .map(|_| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || submit(&log, end))
        })
        .collect();
    let mut waits = Vec::new();
    for thread in threads {
        waits.extend(thread.join().map_err(|_| "a submitter failed")?);
    }
    let elapsed = began.elapsed();
    waits.sort_unstable();
    let at = |share: usize| {
        waits
            .get(waits.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let health = log.health();
    println!(
        "{submitters} submitters: {} records in {elapsed:.1?}, {:.0}/s, {} syncs, {} bytes a record",
        waits.len(),
        waits.len() as f64 / elapsed.as_secs_f64(),
        health.syncs,
        health.written_bytes / health.durable.max(1),
    );
    println!("until on disk: p50 {:?}, p99 {:?}", at(50), at(99));
    log.close(&Code::from_words("done"))?;
    Ok(())
}

fn submit(log: &Log, end: Instant) -> Vec<Duration> {
    let clear = LoginDenied {
        code: Code::from_words("throughput"),
        client_address: Name::new("127.0.0.1"),
    };
    let sealed = LoginDeniedSealed {
        detail: "x".repeat(160),
        ..LoginDeniedSealed::default()
    };
    let mut waits = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let Ok(seq) = log.append(&clear, Some(&sealed), None) else {
            break;
        };
        if !matches!(log.wait(seq, Duration::from_secs(30)), Some(Ok(_))) {
            break;
        }
        waits.push(began.elapsed());
    }
    waits
}
