//! How statements and sessions end: clients that leave, cancel or wait too long, and what is decided
//! anew because of a wait.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/gate.rs"]
mod gate;
#[path = "common/guest.rs"]
mod guest;
#[path = "common/ward.rs"]
mod ward;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, MutexGuard};
use std::time::Duration;

use chaperone_test_support::Chaperone;
use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{self, Rig};
use chaperone_test_support::wire::{Step, VERSION_3_0, Wire};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");
const APPROVER: &str = "token-of-the-approver-0123456789abcdef";

/// A policy that limits, holds and refuses as the statement's text tells it to.
static WHIMS: LazyLock<PathBuf> =
    LazyLock::new(|| guest::build("whims", "whims", include_str!("common/whims.rs")));

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(BINARY)
}

fn whims(rig: &Rig) -> ChaperoneOptions {
    whims_by(BINARY, rig)
}

fn whims_by(binary: impl Into<PathBuf>, rig: &Rig) -> ChaperoneOptions {
    rig.bare(binary)
        .identity("approver", APPROVER, &["approvers"], "on-call")
        .policy("whims", &*WHIMS, "")
        .incomplete_facts(&["whims"])
}

fn login(proxy: &Chaperone) -> Wire {
    let wire = Wire::connect(proxy.port()).unwrap();
    let mut wire = wire.tls(&proxy.ca_file()).unwrap();
    let parameters = [("user", rig::ROLE), ("database", rig::DATABASE)];
    let said = wire.login(VERSION_3_0, &parameters, rig::TOKEN).unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    wire
}

fn count(rig: &Rig, sql: &str) -> String {
    rig.postgres.value(rig::DATABASE, sql).unwrap()
}

fn running(rig: &Rig, mark: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
         AND pid <> pg_backend_pid() AND query LIKE '%{mark}%'"
    );
    count(rig, &sql) != "0"
}

/// The records of this kind, as `audit show` prints them.
fn records(proxy: &Chaperone, kind: &str) -> Vec<Value> {
    let shown = ward::audit(proxy, "show", &["--json", "--kind", kind]);
    shown
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn approve(proxy: &Chaperone) {
    let listed = || {
        let output = ward::approvals(proxy, APPROVER, &["list"]);
        assert!(output.status.success(), "{}", ward::words(&output));
        ward::ids(&ward::words(&output))
    };
    ward::wait_for("a held statement", || !listed().is_empty());
    let output = ward::approvals(proxy, APPROVER, &["approve", &listed()[0]]);
    assert!(output.status.success(), "{}", ward::words(&output));
}

/// What waits behind a statement must not keep it running for a client that is gone.
#[test]
fn a_client_that_vanishes_with_more_under_way_is_noticed() {
    let rig = rig();
    let proxy = whims(&rig).start().unwrap();
    let mut holder = rig.direct();
    let said = holder.ask(&[query("BEGIN"), query("LOCK TABLE item")].concat());
    assert!(said.sqlstates().is_empty(), "{said}");
    let mut wire = login(&proxy);
    // Bounded, so that what comes behind it has to wait for its end.
    let waits = "SELECT id FROM item /* whim_rows gone */";
    wire.send(&query(waits)).unwrap();
    ward::wait_for("the statement", || running(&rig, "gone */"));
    wire.send(&query("SELECT 1")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(wire);
    ward::wait_for("its cancellation", || !running(&rig, "gone */"));
}

/// A client that says goodbye has its statements run, as it would without a proxy.
#[test]
fn a_client_that_says_goodbye_has_its_statements_run() {
    let rig = rig();
    let proxy = whims(&rig).start().unwrap();
    let mut wire = login(&proxy);
    let batch = [
        query("SELECT count(*) FROM big a, big b WHERE a.id < 500 /* whim_rows */"),
        query("INSERT INTO item (id) VALUES (77)"),
        query("INSERT INTO item (id) VALUES (78)"),
        terminate(),
    ];
    wire.send(&batch.concat()).unwrap();
    drop(wire);
    let found = || count(&rig, "SELECT count(*) FROM item WHERE id IN (77, 78)");
    ward::wait_for("both", || found() == "2");
}

/// Rows that were held back until they had a record, and never left, count for nothing.
#[test]
fn rows_that_did_not_leave_before_the_end_are_not_on_record() {
    let rig = rig();
    let sections = "[session]\nidle_timeout = \"3s\"\nabsolute_timeout = \"3s\"";
    let proxy = whims(&rig).toml(sections).start().unwrap();
    let mut wire = login(&proxy);
    // More than the server holds back, and less than the proxy does.
    let held = "SELECT repeat('x', 1000) FROM generate_series(1, 20) \
                UNION ALL SELECT count(*)::text FROM big a, big b, big c";
    wire.send(&query(held)).unwrap();
    let said = wire.play(&[Step::End]);
    assert_eq!(said.sqlstates(), ["57P01"], "{said}");
    assert_eq!(said.all("DataRow").len(), 0, "{said}");
    ward::wait_for("the end", || !records(&proxy, "session-end").is_empty());
    let found = records(&proxy, "execution");
    let [record] = found.as_slice() else {
        panic!("{found:?}");
    };
    let text = record.to_string();
    assert!(text.contains("\"rows\":0"), "{text}");
    assert!(text.contains("session-ended"), "{text}");
}

/// A proxy whose disk takes its time.
fn slow_disk(rig: &Rig, folder: &Path) -> Chaperone {
    let library = folder.join("slow.so");
    let source = folder.join("slow.c");
    std::fs::write(&source, SLOW).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let status = compiler.arg(&library).arg(&source).status().unwrap();
    assert!(status.success());
    let program = folder.join("chaperone");
    let library = library.display();
    let text = format!("#!/bin/sh\nLD_PRELOAD='{library}' exec '{BINARY}' \"$@\"\n");
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    whims_by(program, rig).start().unwrap()
}

const SLOW: &str = "
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int file) { usleep(400000); return syscall(SYS_fdatasync, file); }
int fsync(int file) { usleep(400000); return syscall(SYS_fsync, file); }
";

/// A cancel request finds its statement, also where that still waits for its record.
#[test]
fn a_cancel_request_does_not_overtake_its_statement() {
    let rig = rig();
    let folder = tempfile::tempdir().unwrap();
    let proxy = slow_disk(&rig, folder.path());
    let mut wire = login(&proxy);
    let (pid, secret) = wire.key.clone();
    // Understood, so that nothing but its record keeps the next one.
    let insert = |id: u32, seconds: u32| {
        format!("INSERT INTO item (id, body) SELECT {id}, pg_sleep({seconds})::text")
    };
    for (id, seconds) in [(1001, 0), (1002, 30)] {
        let canceller = Wire::connect(proxy.port()).unwrap();
        let mut canceller = canceller.tls(&proxy.ca_file()).unwrap();
        wire.send(&query(&insert(id, seconds))).unwrap();
        if seconds > 0 {
            std::thread::sleep(Duration::from_millis(100));
            assert!(!running(&rig, "pg_sleep(30)"), "the disk is not slow");
            canceller.send(&cancel_request(pid, &secret)).unwrap();
        }
        let said = wire.play(&[Step::Ready(1)]);
        let expected: &[&str] = if seconds > 0 { &["57014"] } else { &[] };
        assert_eq!(said.sqlstates(), expected, "{said}");
    }
    // And it hit nothing else.
    assert!(
        wire.ask(&query("SELECT pg_sleep(1)"))
            .sqlstates()
            .is_empty()
    );
}

/// While a person thinks about one statement of a text, the rules for the others may change.
#[test]
fn what_was_allowed_before_a_wait_is_decided_again_behind_it() {
    const LATER: &str = r#"
        use policy_sdk::prelude::*;
        struct Later;
        impl Policy for Later {
            type Settings = NoSettings;
            fn manifest() -> Manifest {
                policy_sdk::manifest!().abilities(Abilities::DECIDES)
            }
            fn configure(_: NoSettings) -> Result<Self, String> {
                Ok(Later)
            }
            fn evaluate(&self, _: &Session, operation: &Operation) -> Result<Decision, Reason> {
                if operation.text().contains("part one") {
                    return Err(deny("too-late", "Not any more."));
                }
                Ok(Decision::abstain())
            }
        }
        policy_sdk::export_policy!(Later);
    "#;
    let later = guest::build("later", "later", LATER);
    let rig = rig();
    let sections = "[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]";
    let proxy = whims(&rig).toml(sections).start().unwrap();
    let text = "INSERT INTO item (id) VALUES (77) /* part one */; \
                INSERT INTO item (id) VALUES (78) /* whim_hold */";
    for with_change in [false, true] {
        rig.reset();
        let mut wire = login(&proxy);
        wire.send(&query(text)).unwrap();
        let held = || ward::words(&ward::approvals(&proxy, APPROVER, &["list"]));
        ward::wait_for("the hold", || !ward::ids(&held()).is_empty());
        if with_change {
            let before = gate::reloads(&proxy, "Ok");
            gate::drop_in(&proxy, "later", &later);
            ward::wait_for("the new set", || gate::reloads(&proxy, "Ok") > before);
        }
        approve(&proxy);
        let said = wire.play(&[Step::Ready(1)]);
        let expected: &[&str] = if with_change { &["42501"] } else { &[] };
        assert_eq!(said.sqlstates(), expected, "{said}");
        let found = count(&rig, "SELECT count(*) FROM item WHERE id IN (77, 78)");
        assert_eq!(found, if with_change { "0" } else { "2" });
    }
}

/// A portal is not a way to keep a permission.
#[test]
fn a_portal_that_waited_is_decided_again() {
    let rig = rig();
    let shut = gate::build("SHUT");
    let proxy = whims(&rig).start().unwrap();
    let mut wires = [login(&proxy), login(&proxy)];
    for wire in &mut wires {
        let bound = [
            query("BEGIN"),
            parse("", "SELECT body FROM item WHERE id = 1", &[]),
            bind("late", "", &[], 0),
            flush(),
        ];
        wire.send(&bound.concat()).unwrap();
        let said = wire.play(&[Step::Until(b'2')]);
        assert!(said.sqlstates().is_empty(), "{said}");
    }
    let [first, second] = &mut wires;
    // Later than at once.
    std::thread::sleep(Duration::from_millis(1200));
    let said = first.ask(&[execute("late", 0), sync()].concat());
    assert_eq!(said.all("DataRow").len(), 1, "{said}");
    let before = gate::reloads(&proxy, "Ok");
    gate::drop_in(&proxy, "gate", &shut);
    ward::wait_for("the new set", || gate::reloads(&proxy, "Ok") > before);
    let said = second.ask(&[execute("late", 0), sync()].concat());
    assert_eq!(said.sqlstates(), ["42501"], "{said}");
    assert_eq!(said.all("DataRow").len(), 0, "{said}");
    let said = second.ask(&query("ROLLBACK"));
    assert!(said.sqlstates().is_empty(), "{said}");
}

#[test]
fn prepared_statements_of_a_session_are_bounded_together() {
    let rig = rig();
    let mut wire = rig.open();
    let filler = "x".repeat(900 << 10);
    let named = |index: u32| {
        let text = format!("SELECT {index} /* {filler} */");
        [parse(&format!("s{index}"), &text, &[]), sync()].concat()
    };
    let mut prepared = 0;
    let refused = loop {
        let said = wire.ask(&named(prepared));
        if !said.sqlstates().is_empty() {
            break said;
        }
        prepared += 1;
        assert!(prepared < 100);
    };
    assert_eq!(refused.sqlstates(), ["54000"], "{refused}");
    assert!(
        refused.to_string().contains("prepared statements"),
        "{refused}"
    );
    assert!(prepared > 50, "{prepared}");
    // What was prepared can be used, and closing some makes room.
    let run = [bind("", "s3", &[], 0), execute("", 0), sync()].concat();
    assert!(wire.ask(&run).sqlstates().is_empty());
    let said = wire.ask(&[close_statement("s1"), close_statement("s2"), sync()].concat());
    assert!(said.sqlstates().is_empty(), "{said}");
    assert!(wire.ask(&named(200)).sqlstates().is_empty());
    assert!(wire.ask(&query("DEALLOCATE ALL")).sqlstates().is_empty());
    for index in 300..320 {
        assert!(wire.ask(&named(index)).sqlstates().is_empty());
    }
}

/// The data of several COPYs in one text may all come at once.
#[test]
fn several_copies_in_one_text_take_their_data_in_order() {
    let rig = rig();
    let text = "COPY item FROM STDIN; COPY item FROM STDIN; SELECT 1";
    let all = [
        query(text),
        copy_data("101\ta\n"),
        copy_done(),
        copy_data("102\tb\n"),
        copy_done(),
    ]
    .concat();
    for mut wire in [rig.direct(), rig.open()] {
        rig.reset();
        wire.send(&all).unwrap();
        let said = wire.play(&[Step::Ready(1)]);
        assert!(said.sqlstates().is_empty(), "{said}");
        let found = count(&rig, "SELECT count(*) FROM item WHERE id > 100");
        assert_eq!(found, "2", "{said}");
        let said = wire.ask(&query("SELECT 2"));
        assert_eq!(said.all("DataRow").len(), 1, "{said}");
    }
}
