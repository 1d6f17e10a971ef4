//! Much of everything: large cells, long copies, many names. The proxy's memory is printed and
//! bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;
use std::sync::MutexGuard;
use std::time::Instant;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Message, Step, Wire};

const MIB: u64 = 1024;

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

/// KiB of a process's memory, now (`VmRSS`) or at most (`VmHWM`).
fn memory(process: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What `action` made the proxy's memory grow by at its largest, KiB.
fn growth(what: &str, process: u32, action: impl FnOnce()) -> u64 {
    // Forgets how large it once was.
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
    let before = memory(process, "VmRSS");
    let start = Instant::now();
    action();
    let grown = memory(process, "VmHWM").saturating_sub(before);
    println!("{what}: {grown} KiB more at most, {:?}", start.elapsed());
    grown
}

/// Reads messages up to the first ReadyForQuery, and keeps none.
fn drain(wire: &mut Wire, mut each: impl FnMut(&Message)) {
    loop {
        let message = wire.message().unwrap().expect("the connection was closed");
        each(&message);
        if message.kind == b'Z' {
            return;
        }
    }
}

#[test]
fn cells_of_a_hundred_megabytes() {
    const SIZE: usize = 100_000_000;
    let rig = rig();
    let process = rig.open.process_id();
    let mut wire = rig.open();
    wire.ask(&query("SELECT 1"));
    let out = growth("a cell of 100 MB to the client", process, || {
        wire.send(&query(&format!("SELECT repeat('x', {SIZE}), 7")))
            .unwrap();
        let mut longest = 0;
        drain(&mut wire, |message| {
            longest = longest.max(message.body.len())
        });
        assert_eq!(longest, SIZE + 2 + 4 + 4 + 1);
    });
    assert!(out < 8 * MIB, "{out} KiB");
    // A message with parameters is held whole, since policies may ask for them.
    let value = "y".repeat(SIZE);
    let held = growth("a parameter of 100 MB to the server", process, || {
        wire.send(&[run("SELECT length($1), md5($1)", &[Some(&value)]), sync()].concat())
            .unwrap();
        let mut rows = 0;
        drain(&mut wire, |message| {
            rows += usize::from(message.kind == b'D')
        });
        assert_eq!(rows, 1);
    });
    assert!(held < 400 * MIB, "{held} KiB");
}

#[test]
fn copies_of_a_gigabyte() {
    const CHUNKS: usize = 16_000;
    let rig = rig();
    let process = rig.open.process_id();
    let line = format!("{}\n", "z".repeat(1_023));
    let chunk = copy_data(&line.repeat(64));
    let mut wire = rig.open();
    wire.ask(&query("CREATE TEMP TABLE heap (v text)"));
    let inwards = growth("a COPY of 1 GB to the server", process, || {
        // All of it is read, and nothing kept.
        wire.send(&query("COPY heap FROM STDIN WHERE v IS NULL"))
            .unwrap();
        wire.play(&[Step::Until(b'G')]);
        for _ in 0..CHUNKS {
            wire.send(&chunk).unwrap();
        }
        wire.send(&copy_done()).unwrap();
        let mut tag = Vec::new();
        drain(&mut wire, |message| {
            if message.kind == b'C' {
                tag.clone_from(&message.body);
            }
        });
        assert_eq!(tag, b"COPY 0\0");
    });
    let outwards = growth("a COPY of 1 GB to the client", process, || {
        let lines = CHUNKS * 64;
        let text =
            format!("COPY (SELECT repeat('z', 1023) FROM generate_series(1, {lines})) TO STDOUT");
        wire.send(&query(&text)).unwrap();
        let mut bytes = 0;
        drain(&mut wire, |message| {
            if message.kind == b'd' {
                bytes += message.body.len();
            }
        });
        assert_eq!(bytes, CHUNKS * 64 * 1024);
    });
    assert!(
        inwards.max(outwards) < 16 * MIB,
        "{inwards}, {outwards} KiB"
    );
}

#[test]
fn thousands_of_prepared_statements() {
    const STATEMENTS: usize = 4_000;
    let rig = rig();
    let process = rig.open.process_id();
    let name = |i: usize| format!("statement number {i}");
    let mut wire = rig.open();
    let grown = growth("4,000 prepared statements", process, || {
        for part in (0..STATEMENTS).collect::<Vec<_>>().chunks(200) {
            let parses = part.iter().flat_map(|&i| {
                parse(
                    &name(i),
                    &format!("SELECT {i} + id FROM item WHERE id = $1"),
                    &[],
                )
            });
            let said = wire.ask(&[parses.collect(), sync()].concat());
            assert_eq!(said.all("ParseComplete").len(), part.len(), "{said}");
        }
    });
    assert!(grown < 32 * MIB, "{grown} KiB");
    for i in [0, 1, STATEMENTS / 2, STATEMENTS - 1] {
        let run = [bind("", &name(i), &[Some("1")], 0), execute("", 0), sync()].concat();
        let said = wire.ask(&run);
        assert_eq!(
            said.all("DataRow"),
            [format!("DataRow '{}'", i + 1)],
            "{said}"
        );
    }
    let count = query("SELECT count(*) FROM pg_prepared_statements");
    let said = wire.ask(&count);
    assert_eq!(
        said.all("DataRow"),
        [format!("DataRow '{STATEMENTS}'")],
        "{said}"
    );
    let closes = (0..STATEMENTS)
        .step_by(2)
        .flat_map(|i| close_statement(&name(i)));
    wire.ask(&[closes.collect(), sync()].concat());
    let said = wire.ask(&count);
    assert_eq!(
        said.all("DataRow"),
        [format!("DataRow '{}'", STATEMENTS / 2)]
    );
    let said = wire.ask(&[bind("", &name(0), &[Some("1")], 0), sync()].concat());
    assert_eq!(said.sqlstates(), ["26000"], "{said}");
    wire.ask(&query("DEALLOCATE ALL"));
    let said = wire.ask(&[bind("", &name(1), &[Some("1")], 0), sync()].concat());
    assert_eq!(said.sqlstates(), ["26000"], "{said}");
}
