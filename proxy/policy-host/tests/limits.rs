//! What happens at the host's own limits: slow loads, and more calls than instances.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking, and is documented by its name"
)]

#[path = "support/guest.rs"]
mod guest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaperone_contract::{Context, Operation, Value, Verdict};
use chaperone_policy_host::{
    FailureCode, Host, HostOptions, Module, PolicySet, Problem, Ruling, SetOptions, Settings,
};
use guest::Guest;

const LOOP: &str = "(loop $l (br $l))";

fn load(host: &Host, guest: &Guest) -> Arc<Module> {
    host.load("guest.wasm", guest.module(), &Settings::new())
        .unwrap()
}

fn set(module: Arc<Module>) -> PolicySet {
    PolicySet::new(vec![module], SetOptions::default()).unwrap()
}

fn decide(set: &PolicySet) -> Ruling {
    let operation = Operation {
        protocol: "postgresql".into(),
        ..Operation::default()
    };
    let context = Context {
        parameters: vec![Value::Null],
        ..Context::default()
    };
    set.decide(&Arc::default(), &Arc::new(operation), &context)
}

fn code(ruling: &Ruling) -> String {
    match &ruling.verdict {
        Verdict::Deny(reason) => reason.code.clone(),
        other => panic!("{other:?}"),
    }
}

/// One instance, taken for `deadline` by whoever calls [`endless`].
fn narrow(deadline: Duration) -> Host {
    Host::new(HostOptions {
        deadline,
        instances: 1,
        ..HostOptions::default()
    })
    .unwrap()
}

fn endless(host: &Host) -> PolicySet {
    set(load(
        host,
        &Guest {
            name: "endless",
            evaluate: LOOP,
            ..Guest::default()
        },
    ))
}

#[test]
fn a_load_that_takes_too_long_is_given_up_and_the_host_goes_on() {
    let host = Host::new(HostOptions {
        load_timeout: Duration::from_secs(1),
        ..HostOptions::default()
    })
    .unwrap();
    let good = set(load(&host, &Guest::default()));
    let slow = Guest {
        configure: "(loop $l (br $l)) unreachable",
        ..Guest::default()
    };
    let start = Instant::now();
    let error = host
        .load("slow.wasm", slow.module(), &Settings::new())
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_millis(1_900));
    assert_eq!(error.file, "slow.wasm");
    assert!(matches!(error.problem, Problem::TooSlow(_)), "{error}");
    assert_eq!(decide(&good).verdict, Verdict::Allow);
    load(&host, &Guest::default());
}

#[test]
fn more_calls_than_instances_are_denied_and_none_hangs() {
    let host = narrow(Duration::from_millis(400));
    let (endless, good) = (endless(&host), set(load(&host, &Guest::default())));
    let start = Instant::now();
    let codes: Vec<String> = thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| code(&decide(&endless))))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(start.elapsed() < Duration::from_secs(4), "{codes:?}");
    let count = |code: FailureCode| codes.iter().filter(|c| *c == code.as_str()).count();
    assert!(count(FailureCode::Timeout) >= 1, "{codes:?}");
    assert!(count(FailureCode::Overloaded) >= 1, "{codes:?}");
    assert_eq!(
        count(FailureCode::Timeout) + count(FailureCode::Overloaded),
        4,
        "{codes:?}"
    );
    assert_eq!(decide(&good).verdict, Verdict::Allow);
}

#[test]
fn a_load_waits_for_an_instance_that_statements_have_taken() {
    let host = narrow(Duration::from_millis(300));
    let endless = endless(&host);
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            begun.store(true, Ordering::Relaxed);
            decide(&endless)
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        let module = load(&host, &Guest::default());
        assert_eq!(decide(&set(module)).verdict, Verdict::Allow);
    });
}

/// What one process has compiled the next one need not.
#[test]
fn compiled_modules_are_kept_for_the_next_start_and_bad_ones_are_not_used() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("compiled");
    let guest = Guest::default();
    let start = || {
        let host = Host::new(HostOptions {
            compiled: Some(folder.clone()),
            ..HostOptions::default()
        })
        .unwrap();
        let ruling = decide(&set(load(&host, &guest)));
        assert_eq!(ruling.verdict, Verdict::Allow);
        host.kept().unwrap()
    };
    let (found, compiled) = start();
    assert!(found == 0 && compiled > 0, "{found} {compiled}");
    assert_eq!(start(), (compiled, 0));
    // What is broken is compiled again.
    let mut open = vec![folder.clone()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    assert_eq!(start(), (0, compiled));
    assert_eq!(Host::new(HostOptions::default()).unwrap().kept(), None);
}
