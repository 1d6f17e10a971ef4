//! A log's life: open, append, durable, close, and again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/scratch.rs"]
mod scratch;

use std::{path::Path, sync::mpsc};

use chaperone_audit_log::{
    AppendError, Code, Ending, Expect, Kind, Listing, Log, LogOptions, Name, PrivateKey, Progress,
    Sealed, Seq, StartError,
    payload::{LoginDenied, LoginDeniedSealed},
    read, verify,
};
use scratch::{LONG, scratch};

fn options(key: &PrivateKey) -> LogOptions {
    LogOptions {
        segment_bytes: 8192,
        ..LogOptions::new(vec![key.public()])
    }
}

fn append(log: &Log, detail: &str) -> Result<Seq, AppendError> {
    log.append(
        &LoginDenied {
            code: Code::from_words("bad token"),
            client_address: Name::new("127.0.0.1"),
        },
        Some(&LoginDeniedSealed {
            detail: detail.to_owned(),
            ..LoginDeniedSealed::default()
        }),
        None,
    )
}

fn all_bytes(dir: &Path) -> Vec<u8> {
    Listing::read(dir)
        .unwrap()
        .runs
        .iter()
        .flat_map(|run| &run.segments)
        .flat_map(|(_, path)| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn records_become_durable_and_text_is_sealed() {
    let dir = scratch();
    let key = PrivateKey::generate("auditor").unwrap();
    let (tell, told) = mpsc::channel();
    let log = Log::open(dir.path(), options(&key), move |progress| {
        tell.send(progress).unwrap();
    })
    .unwrap();
    let mut last = Seq(0);
    for _ in 0..100 {
        last = append(&log, "CANARY-7261 was here").unwrap();
    }
    let proof = log.wait(last, LONG).unwrap().unwrap();
    assert_eq!(proof.record(), log.reference(last));
    assert!(log.proof(Seq(last.0 + 1)).is_none());
    assert!(log.proof(Seq(0)).is_none());
    log.close(&Code::from_words("test")).unwrap();
    assert!(matches!(append(&log, ""), Err(AppendError::Closed)));
    let mut highest = Seq(0);
    while let Ok(progress) = told.try_recv() {
        match progress {
            Progress::Durable(seq) => {
                assert!(seq > highest);
                highest = seq;
            }
            Progress::Failed(failed) => panic!("{failed}"),
        }
    }
    assert_eq!(highest, log.durable());
    let bytes = all_bytes(dir.path());
    assert!(!bytes.windows(6).any(|window| window == b"CANARY"));
    let kinds = String::from_utf8_lossy(&bytes);
    for kind in [Kind::LogStart, Kind::Key, Kind::Rotate, Kind::LogStop] {
        assert!(kinds.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }
}

#[test]
fn two_runs_at_once_and_one_after() {
    let dir = scratch();
    let key = PrivateKey::generate("auditor").unwrap();
    let first = Log::open(dir.path(), options(&key), |_| {}).unwrap();
    let second = Log::open(dir.path(), options(&key), |_| {}).unwrap();
    assert_ne!(first.id(), second.id());
    append(&first, "a").unwrap();
    append(&second, "b").unwrap();
    first.close(&Code::from_words("test")).unwrap();
    drop(second);
    let third = Log::open(dir.path(), options(&key), |_| {}).unwrap();
    third.close(&Code::from_words("test")).unwrap();
    let text = String::from_utf8_lossy(&all_bytes(dir.path())).into_owned();
    assert_eq!(
        text.matches("\"kind\":\"recover\"").count(),
        1,
        "of the second"
    );
}

#[test]
fn a_log_that_is_being_written_verifies() {
    let dir = scratch();
    let key = PrivateKey::generate("auditor").unwrap();
    let log = Log::open(dir.path(), options(&key), |_| {}).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..3000 {
                let seq = append(&log, "text").unwrap();
                log.wait(seq, LONG).unwrap().unwrap();
            }
        });
        let mut looks = 0;
        while !writer.is_finished() || looks == 0 {
            let report = verify(dir.path(), &Expect::default()).unwrap();
            assert!(report.ok, "{:?}", report.problems);
            assert!(looks == 0 || report.runs[0].ending == Ending::Live);
            looks += 1;
        }
    });
    log.close(&Code::from_words("test")).unwrap();
    let report = verify(dir.path(), &Expect::default()).unwrap();
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!(report.runs[0].ending, Ending::Closed);
}

#[test]
fn a_renewed_key_seals_what_follows_and_the_reader_follows() {
    let dir = scratch();
    let (key, other) = (
        PrivateKey::generate("auditor").unwrap(),
        PrivateKey::generate("other").unwrap(),
    );
    let log = Log::open(dir.path(), options(&key), |_| {}).unwrap();
    append(&log, "before").unwrap();
    log.renew_key().unwrap();
    append(&log, "after").unwrap();
    log.close(&Code::from_words("test")).unwrap();
    assert!(verify(dir.path(), &Expect::default()).unwrap().ok);
    let sealed = |key: Option<&PrivateKey>| {
        let mut found = Vec::new();
        let stopped = read(dir.path(), key, |record| {
            if let Some(id) = record.header.key {
                found.push((id, record.sealed.clone()));
            }
            true
        });
        assert!(stopped.unwrap().is_empty());
        found
    };
    let text = |text: &str| Sealed::Open(serde_json::json!({ "detail": text }));
    assert_eq!(
        sealed(Some(&key)),
        [(1, text("before")), (2, text("after"))]
    );
    for key in [None, Some(&other)] {
        let closed = sealed(key);
        assert!(
            closed
                .iter()
                .all(|(_, part)| matches!(part, Sealed::Closed(_)))
        );
        assert_eq!(closed.len(), 2);
    }
}

#[test]
fn a_log_needs_a_reader_and_room() {
    let dir = scratch();
    let error = Log::open(dir.path(), LogOptions::new(Vec::new()), |_| {}).unwrap_err();
    assert!(matches!(error, StartError::NoRecipient), "{error}");
    let key = PrivateKey::generate("auditor").unwrap();
    let twice = LogOptions::new(vec![key.public(), key.public()]);
    let error = Log::open(dir.path(), twice, |_| {}).unwrap_err();
    assert!(matches!(error, StartError::SameRecipient(_)), "{error}");
    let small = LogOptions {
        segment_bytes: 1,
        ..LogOptions::new(vec![key.public()])
    };
    let error = Log::open(dir.path(), small, |_| {}).unwrap_err();
    assert!(matches!(error, StartError::SmallSegments(1)), "{error}");
}
