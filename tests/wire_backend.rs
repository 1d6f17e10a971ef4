//! Backends that are told to stop, killed, or stall, and cancel requests at any moment.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Command;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, Rig};
use chaperone_test_support::wire::{Step, Transcript, Wire};

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

fn signal(process: u32, name: &str) {
    let kill = format!("kill -s {name} {process}");
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

fn count(wire: &mut Wire) -> Transcript {
    wire.ask(&query("SELECT count(*) FROM item"))
}

/// The lines of a session's end, apart from what is another one's every time.
fn last_words(said: &Transcript) -> Vec<String> {
    said.0
        .iter()
        .map(|line| line.replace('\u{1f}', " "))
        .collect()
}

#[test]
fn a_backend_that_is_told_to_stop() {
    let rig = rig();
    let stop = |mut wire: Wire, busy: bool| {
        let process = wire.key.0;
        if busy {
            wire.send(&query("SELECT pg_sleep(30)")).unwrap();
            thread::sleep(Duration::from_millis(300));
        }
        let terminate = format!("SELECT pg_terminate_backend({process})");
        rig.postgres.value(DATABASE, &terminate).unwrap();
        let said = wire.play(&[Step::End]);
        last_words(&said)
    };
    for busy in [false, true] {
        let direct = stop(rig.direct(), busy);
        let proxied = stop(rig.open(), busy);
        assert!(direct.concat().contains("57P01"), "{direct:?}");
        assert_eq!(direct, proxied, "busy: {busy}");
    }
}

/// How many outcomes on record end with the backend's last words.
fn told_to_stop(rig: &Rig) -> u64 {
    let mut show = rig.open.command(&["audit", "show"]);
    show.arg(rig.open.audit_folder());
    let output = show.args(["--json", "--kind", "outcome"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines = shown
        .lines()
        .filter(|line| line.contains(r#""code":"57p01""#));
    // Nobody knows what was done before.
    let unknown = lines.filter(|line| line.contains(r#""status":"unknown""#));
    unknown.count() as u64
}

/// The backend's last words and its end come at any moment of the writing.
#[test]
fn a_backend_that_is_told_to_stop_while_the_client_keeps_writing() {
    const ROUNDS: u64 = 20;
    let rig = rig();
    let before = told_to_stop(&rig);
    let chunk = copy_data(&format!("{}\n", "z".repeat(127)).repeat(64));
    for round in 0..ROUNDS {
        let mut wire = rig.open();
        let process = wire.key.0;
        wire.ask(&query("CREATE TEMP TABLE heap (v text)"));
        wire.send(&query("COPY heap FROM STDIN WHERE v IS NULL"))
            .unwrap();
        wire.play(&[Step::Until(b'G')]);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20 + round));
                let stop = format!("SELECT pg_terminate_backend({process}, 30000)");
                assert_eq!(rig.postgres.value(DATABASE, &stop).unwrap(), "t");
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                wire.send(&chunk).unwrap();
            }
        });
        let said = wire.play(&[Step::End]);
        assert_eq!(said.sqlstates(), ["57P01"], "{round}: {said}");
    }
    assert_eq!(told_to_stop(&rig), before + ROUNDS);
}

#[test]
fn a_backend_that_is_killed_in_the_middle_of_a_row() {
    let rig = rig();
    let mut wire = rig.open();
    wire.send(&query("SELECT * FROM big")).unwrap();
    // Nobody reads, so the server waits with half of the rows in the sockets.
    thread::sleep(Duration::from_millis(500));
    signal(wire.key.0, "KILL");
    let said = wire.play(&[Step::End]);
    let end = said.0.iter().rev().take(2).cloned().collect::<String>();
    assert!(end.contains("08006"), "{end}");
}

#[test]
fn a_server_that_starts_again() {
    let rig = rig();
    let mut idle = rig.open();
    let mut busy = rig.open();
    busy.send(&query("SELECT pg_sleep(30)")).unwrap();
    thread::sleep(Duration::from_millis(300));
    // One killed backend makes the server end all of them and recover.
    signal(busy.key.0, "KILL");
    let said = busy.play(&[Step::End]);
    assert!(said.to_string().contains("08006"), "{said}");
    let said = idle.play(&[Step::End]);
    let told = said.sqlstates();
    assert!(
        told.is_empty() || matches!(told[0], "57P02" | "08006"),
        "{said}"
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    let back = loop {
        if rig.postgres.value(DATABASE, "SELECT 1").is_ok() {
            break true;
        }
        if Instant::now() > deadline {
            break false;
        }
        thread::sleep(Duration::from_millis(100));
    };
    assert!(back, "the server did not come back");
    let said = count(&mut rig.open());
    assert_eq!(said.all("DataRow"), ["DataRow '5'"], "{said}");
}

#[test]
fn a_backend_that_stalls() {
    let rig = rig();
    let mut stalled = rig.open();
    count(&mut stalled);
    signal(stalled.key.0, "STOP");
    stalled.send(&query("SELECT count(*) FROM item")).unwrap();
    // Others do not notice.
    let start = Instant::now();
    let said = count(&mut rig.open());
    assert_eq!(said.all("DataRow"), ["DataRow '5'"], "{said}");
    assert!(start.elapsed() < Duration::from_secs(10));
    // Nor is anything made up in the meantime.
    let said = stalled.play(&[Step::Quiet]);
    assert!(said.0.is_empty(), "{said}");
    signal(stalled.key.0, "CONT");
    let said = stalled.play(&[Step::Ready(1)]);
    assert_eq!(said.all("DataRow"), ["DataRow '5'"], "{said}");
    // A client that gives up on one takes nothing with it.
    signal(stalled.key.0, "STOP");
    stalled.send(&query("SELECT 1")).unwrap();
    let process = stalled.key.0;
    drop(stalled);
    thread::sleep(Duration::from_millis(300));
    signal(process, "CONT");
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {process}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.postgres.value(DATABASE, &gone).unwrap() != "0" {
        assert!(Instant::now() < deadline, "the backend stays");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Requests at any moment: each hits a statement that runs in the session that it names, or nothing.
#[test]
fn cancel_requests_race_with_statements() {
    let rig = rig();
    let port = rig.open.port();
    let mut target = rig.open();
    let mut other = rig.open();
    let (pid, secret) = target.key.clone();
    let over = AtomicBool::new(false);
    let (cancelled, asked) = thread::scope(|scope| {
        let canceller = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                let mut wire = Wire::connect(port).unwrap();
                wire.send(&cancel_request(pid, &secret)).unwrap();
                wire.play(&[Step::End]);
                asked += 1;
                thread::sleep(Duration::from_millis(asked % 40));
            }
            asked
        });
        let bystander = scope.spawn(|| {
            for _ in 0..150 {
                let said = other.ask(&query("SELECT count(*), pg_sleep(0.002) FROM item"));
                assert!(said.sqlstates().is_empty(), "{said}");
            }
        });
        let mut cancelled = 0;
        for round in 0..200 {
            let text = format!("SELECT {round}, pg_sleep(0.004)");
            let parts = match round % 2 {
                0 => query(&text),
                _ => [run(&text, &[]), sync()].concat(),
            };
            let said = target.ask(&parts);
            match said.sqlstates().as_slice() {
                [] => {
                    let row = format!("DataRow '{round}' ''");
                    assert_eq!(said.all("DataRow"), [row], "{said}");
                }
                ["57014"] => cancelled += 1,
                _ => panic!("{said}"),
            }
        }
        over.store(true, Ordering::Relaxed);
        bystander.join().unwrap();
        (cancelled, canceller.join().unwrap())
    });
    println!("{cancelled} of 200 statements cancelled by {asked} requests");
    assert!(cancelled > 0);
    // None is left over.
    for _ in 0..20 {
        let said = target.ask(&query("SELECT pg_sleep(0.01)"));
        assert!(said.sqlstates().is_empty(), "{said}");
    }
}
