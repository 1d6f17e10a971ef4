//! The audit log fails while the proxy runs: the disk takes no more.
//!
//! The process's file size is limited from outside, so that the log's next write beyond it fails
//! as on a full disk.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chaperone_test_support::{Chaperone, PsqlSession, http};
use ward::{AGENT, APPROVER, CHAPERONE, DATABASE, DBA, DOCTOR, PATIENCE, POSTGRES, has};

/// Longer than what the process says, shorter than what the log needs for some hundred statements.
const ROOM: u64 = 128 << 10;

/// The proxy, which gets an error for a write beyond its limit instead of a signal.
fn program(folder: &Path) -> PathBuf {
    let script = folder.join("chaperone");
    let text = format!("#!/bin/sh\ntrap '' XFSZ\nexec '{CHAPERONE}' \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn start(folder: &Path) -> Chaperone {
    let options = ward::clinical(Chaperone::options(program(folder)))
        .folder(folder)
        .toml("[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]");
    ward::people(options, &POSTGRES).start().unwrap()
}

fn table(name: &str) {
    let ddl = format!(
        "SET ROLE clinic_owner; CREATE TABLE {name} (id integer);
         COMMENT ON TABLE {name} IS '@label(clear)';"
    );
    POSTGRES.script(DATABASE, &ddl).unwrap();
}

fn count(table: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    POSTGRES.value(DATABASE, &sql).unwrap().parse().unwrap()
}

fn limit_files(proxy: &Chaperone, bytes: u64) {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", proxy.process_id()))
        .arg(format!("--fsize={bytes}:"))
        .status()
        .unwrap();
    assert!(status.success());
}

/// What psql says, also where it ends with its session.
fn ask(session: &mut PsqlSession, sql: &str) -> String {
    session
        .run(sql, PATIENCE)
        .unwrap_or_else(|error| error.to_string())
}

/// Inserts one row after the other until one is refused; how many were acknowledged.
fn fill(session: &mut PsqlSession, table: &str) -> (u64, String) {
    for done in 0..5000 {
        let said = ask(session, &format!("INSERT INTO {table} VALUES ({done});"));
        if !said.contains("INSERT 0 1") {
            return (done, said);
        }
    }
    panic!("the log did not fail");
}

fn records(proxy: &Chaperone, kind: &str) -> u64 {
    let shown = ward::audit(proxy, "show", &["--json", "--kind", kind]);
    shown.lines().filter(|line| !line.is_empty()).count() as u64
}

#[test]
fn a_full_disk_ends_everything_and_a_restart_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "import_filling",
        "import_open",
        "import_held",
        "import_locked",
    ] {
        table(name);
    }
    let secret = "INSERT INTO import_locked VALUES (12345);";
    POSTGRES.script(DATABASE, secret).unwrap();
    let proxy = start(folder.path());
    let dba = || proxy.psql(DATABASE, "dba", DBA).session().unwrap();

    // One of each: idle, in a transaction with a change, held, and waiting for a result.
    let mut idle = proxy.psql(DATABASE, "clinician", DOCTOR).session().unwrap();
    has(&ask(&mut idle, "SELECT 1 AS one;"), "(1 row)");
    let mut open = dba();
    let begun = "BEGIN;\nINSERT INTO import_open VALUES (1);";
    has(&ask(&mut open, begun), "INSERT 0 1");
    let mut held = dba();
    held.send("UPDATE import_held SET id = id + 1;").unwrap();
    let mut ids = Vec::new();
    ward::wait_for("the held statement", || {
        ids = ward::ids(&ward::words(&ward::approvals(&proxy, APPROVER, &["list"])));
        !ids.is_empty()
    });
    // Longer than what travels with one record. What is asked again needs no new decision.
    let long = "SELECT id, repeat('x', 1000) FROM import_locked, generate_series(1, 3000);";
    let mut longer = dba();
    has(&ask(&mut longer, long), "(3000 rows)");
    let mut holder = POSTGRES.superuser(DATABASE).session().unwrap();
    let lock = "BEGIN;\nLOCK TABLE import_locked;";
    has(&ask(&mut holder, lock), "LOCK");
    let mut running = dba();
    running.send("SELECT id FROM import_locked;").unwrap();
    longer.send(long).unwrap();
    let waiting = || {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        POSTGRES.value(DATABASE, sql).unwrap() == "2"
    };
    ward::wait_for("the statements", waiting);

    limit_files(&proxy, ROOM);
    let mut writer = dba();
    let (acknowledged, said) = fill(&mut writer, "import_filling");
    has(&said, "58030");

    // What was under way comes to its end, and is withheld.
    has(&ask(&mut holder, "COMMIT;"), "COMMIT");
    let said = running
        .wait(PATIENCE)
        .unwrap_or_else(|error| error.to_string());
    has(&said, "58030");
    assert!(!said.contains("12345"), "{said}");
    let said = longer
        .wait(PATIENCE)
        .unwrap_or_else(|error| error.to_string());
    has(&said, "58030");
    assert!(!said.contains("12345"), "{said}");
    // Nothing new runs, wherever it comes from; reads are no exception.
    has(&ask(&mut idle, "SELECT name FROM rooms;"), "58030");
    has(&ask(&mut idle, "SELECT 1 AS one;"), "58030");
    has(&ask(&mut open, "COMMIT;"), "58030");
    let late = proxy.psql(DATABASE, "agent_ro", AGENT);
    let late = late.argument("--set=VERBOSITY=verbose");
    let said = late.run("SELECT 1").unwrap();
    has(&said.text(), "audit log cannot be written");
    // Nor can anything be approved, or known to be ready.
    let answer = ward::approvals(&proxy, APPROVER, &["approve", &ids[0]]);
    assert!(!answer.status.success());
    has(&ward::words(&answer), "audit log");
    let ready = http::get(proxy.admin(), "/readyz").unwrap();
    assert_eq!(ready.status, 503);
    has(&ready.body, "audit log");
    let metrics = http::get(proxy.admin(), "/metrics").unwrap().body;
    has(&metrics, "chaperone_audit_failed 1");

    // What was open is undone.
    assert_eq!(count("import_open"), 0);
    let rows = count("import_filling");
    assert!(
        rows >= acknowledged,
        "{acknowledged} acknowledged, {rows} done"
    );

    // Room alone does not bring it back: nobody knows what a failed write left.
    limit_files(&proxy, 1 << 40);
    has(
        &late.run("SELECT 1").unwrap().text(),
        "audit log cannot be written",
    );
    drop((idle, open, held, running, longer, writer));
    drop(proxy);
    let proxy = start(folder.path());
    // Nothing happened that the log does not know of.
    let intents = records(&proxy, "intent");
    assert!(intents > rows, "{intents} intents, {rows} rows");
    let mut again = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    let insert = "INSERT INTO import_filling VALUES (-1);";
    has(&ask(&mut again, insert), "INSERT 0 1");
    has(&ward::audit(&proxy, "verify", &[]), "OK");
    assert!(
        records(&proxy, "recover") >= 1,
        "nothing tells of the failure"
    );
    assert_eq!(count("import_filling"), rows + 1);
}
