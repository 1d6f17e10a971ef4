//! What stands in the log: whatever a client sends, before it has an effect, and after a crash.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::wire::frontend::{bind, execute, parse, sync};
use chaperone_test_support::wire::{Step, Wire};
use chaperone_test_support::{Chaperone, policies};
use serde_json::Value;
use ward::{AGENT, CHAPERONE, DATABASE, DBA, DOCTOR, PATIENCE, POSTGRES, has};

fn clinical() -> ChaperoneOptions {
    ward::people(ward::clinical(Chaperone::options(CHAPERONE)), &POSTGRES)
}

fn wild() -> ChaperoneOptions {
    wild_program(Path::new(CHAPERONE))
}

fn wild_program(program: &Path) -> ChaperoneOptions {
    let allow_all = policies::example("allow-all").unwrap();
    let options = Chaperone::options(program)
        .incomplete_facts(&["allow-all"])
        .policy("allow-all", allow_all, "");
    ward::people(options, &POSTGRES)
}

fn records(proxy: &Chaperone, kind: &str) -> usize {
    let shown = ward::audit(proxy, "show", &["--json", "--kind", kind]);
    shown.lines().filter(|line| !line.is_empty()).count()
}

fn json(lines: &str) -> Vec<Value> {
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_refusal_names_the_request_that_can_be_followed() {
    let proxy = clinical().start().unwrap();
    let psql = proxy.psql(DATABASE, "agent_ro", AGENT);
    let said = psql.run("SELECT amount FROM claims").unwrap().text();
    let id = ward::ids(&said)
        .pop()
        .expect("no request id in the refusal");
    let trace = ward::audit(&proxy, "trace", &[&id]);
    for kind in ["session-start", "operation", "decision"] {
        has(&trace, kind);
    }
    has(&trace, "outside-scope");
    assert!(!trace.contains("amount FROM"), "clear text: {trace}");
    let key = proxy.auditor_key();
    let opened = ward::audit(&proxy, "trace", &[&id, "--key", &key.to_string_lossy()]);
    has(&opened, "SELECT amount FROM claims");
    for (sql, code) in [
        ("COPY patients TO STDOUT", "42501"),
        ("DO $$ BEGIN END $$", "42501"),
    ] {
        let said = psql
            .clone()
            .argument("--set=VERBOSITY=verbose")
            .run(sql)
            .unwrap()
            .text();
        has(&said, code);
        let id = ward::ids(&said)
            .pop()
            .unwrap_or_else(|| panic!("{sql}: no id in {said}"));
        has(&ward::audit(&proxy, "trace", &[&id]), "session-start");
    }
}

/// While the backend still works on a change, its intent is on disk and its outcome is not.
#[test]
fn the_intent_comes_before_the_effect() {
    let proxy = wild().start().unwrap();
    let mut holder = POSTGRES.superuser(DATABASE).session().unwrap();
    let lock = "BEGIN;\nLOCK TABLE import_2019;";
    holder.run(lock, PATIENCE).unwrap();
    let mut session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    session.run("SELECT 1;", PATIENCE).unwrap();
    let (intents, outcomes) = (records(&proxy, "intent"), records(&proxy, "outcome"));
    session
        .send("INSERT INTO import_2019 VALUES (77, 'x');")
        .unwrap();
    ward::wait_for("the intent", || records(&proxy, "intent") > intents);
    assert_eq!(records(&proxy, "outcome"), outcomes);
    holder.run("COMMIT;", PATIENCE).unwrap();
    has(&session.wait(PATIENCE).unwrap(), "INSERT 0 1");
    assert_eq!(records(&proxy, "outcome"), outcomes + 1);
}

/// Changes that a client sends without waiting share syncs, and none is let go before its own
/// intent is on disk.
#[test]
fn pipelined_changes_share_syncs() {
    const CHANGES: u64 = 100;
    let proxy = wild().plaintext().start().unwrap();
    let mut wire = Wire::connect(proxy.port()).unwrap();
    let account = [("user", "dba"), ("database", DATABASE)];
    wire.login(3 << 16, &account, DBA).unwrap();
    let sql = "INSERT INTO import_2019 VALUES ($1, 'x')";
    let mut batch = parse("change", sql, &[]);
    for id in 0..CHANGES {
        let id = (10_000 + id).to_string();
        batch.extend(bind("", "change", &[Some(&id)], 0));
        batch.extend(execute("", 0));
    }
    batch.extend(sync());
    let said = wire.play(&[Step::Send(batch), Step::Ready(1)]);
    assert_eq!(said.all("CommandComplete").len() as u64, CHANGES, "{said}");

    let number = |record: &Value, path: &str| record.pointer(path).and_then(Value::as_u64).unwrap();
    let shown = |kind| json(&ward::audit(&proxy, "show", &["--json", "--kind", kind]));
    let intents = shown("intent");
    assert_eq!(intents.len() as u64, CHANGES);
    let syncs: HashSet<u64> = intents
        .iter()
        .map(|intent| number(intent, "/synced"))
        .collect();
    assert!(syncs.len() < 20, "{} syncs", syncs.len());
    for outcome in shown("outcome") {
        let intent = outcome.pointer("/refs/intent").and_then(Value::as_str);
        let (_, intent) = intent.unwrap().split_once('/').unwrap();
        let intent: u64 = intent.parse().unwrap();
        assert!(number(&outcome, "/synced") >= intent, "{outcome}");
        let backend = number(&outcome, "/body/backend_micros");
        assert!(
            backend <= number(&outcome, "/body/total_micros"),
            "{outcome}"
        );
    }
}

/// What a record says was sent depends on what was sent, and on nothing else.
#[test]
fn an_execution_tells_what_it_sent() {
    let proxy = wild().start().unwrap();
    let mut session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    for sql in [
        "SELECT generate_series(1, 3);",
        "SELECT generate_series(1, 4);",
        "SELECT generate_series(1, 3);",
        "SELECT 1 WHERE false;",
    ] {
        session.run(sql, PATIENCE).unwrap();
    }
    let shown = json(&ward::audit(
        &proxy,
        "show",
        &["--json", "--kind", "execution"],
    ));
    let sent: Vec<Option<&str>> = shown
        .iter()
        .map(|record| record.pointer("/body/sent").and_then(Value::as_str))
        .collect();
    let [.., three, four, again, none] = sent.as_slice() else {
        panic!("{shown:?}");
    };
    assert!(three.is_some() && four.is_some() && three != four);
    assert_eq!((three, *none), (again, None));
}

#[test]
fn sigterm_lets_running_statements_end() {
    let mut proxy = wild().start().unwrap();
    let mut busy = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    let mut idle = proxy.psql(DATABASE, "agent_ro", AGENT).session().unwrap();
    idle.run("SELECT 1;", PATIENCE).unwrap();
    busy.run("SELECT 1;", PATIENCE).unwrap();
    busy.send("SELECT 'finished' FROM pg_sleep(4);").unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%finished%pg_sleep%' \
                   AND state = 'active' AND pid <> pg_backend_pid()";
    ward::wait_for("the statement", || {
        POSTGRES.value(DATABASE, running).unwrap() == "1"
    });
    proxy.process().signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    let refused = idle
        .run("SELECT 1;", PATIENCE)
        .unwrap_or_else(|error| error.to_string());
    has(&refused, "57P01");
    has(&busy.wait(PATIENCE).unwrap(), "finished");
    let ended = proxy.process().wait(PATIENCE).expect("it did not end");
    assert!(ended.success(), "{}", proxy.output());
    assert_eq!(records(&proxy, "log-stop"), 1);
    has(&ward::audit(&proxy, "verify", &[]), "OK");
}

fn start_in(folder: &Path) -> Chaperone {
    clinical().folder(folder).start().unwrap()
}

#[test]
fn a_killed_proxy_is_recovered_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start_in(folder.path());
    let mut session = first.psql(DATABASE, "clinician", DOCTOR).session().unwrap();
    for id in 1..20 {
        let sql = format!("SELECT name FROM patients WHERE id = {id};");
        session.run(&sql, PATIENCE).unwrap();
    }
    session
        .send("SELECT count(*) FROM patients, rooms;")
        .unwrap();
    first.process().signal("KILL");
    first.process().wait(PATIENCE).expect("it did not die");
    let executions = records(&first, "execution") + records(&first, "outcome");
    assert!(executions >= 19, "what was answered is not in the log");
    let second = start_in(folder.path());
    let said = second
        .psql(DATABASE, "clinician", DOCTOR)
        .run("SELECT 1")
        .unwrap();
    assert!(said.ok, "{}", said.text());
    assert_eq!(records(&second, "log-start"), 2);
    assert!(records(&second, "recover") >= 1, "no recover record");
    has(&ward::audit(&second, "verify", &[]), "OK");
}
