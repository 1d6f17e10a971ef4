//! Rows of the failure table (docs/failures.md) that no other test shows as a whole.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/guest.rs"]
mod guest;
#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::{Chaperone, Issuer, Postgres, PsqlSession, clinic, http};
use serde_json::json;
use ward::{AGENT, CHAPERONE, DATABASE, DBA, DOCTOR, PATIENCE, POSTGRES, has};

static WHIMS: LazyLock<PathBuf> =
    LazyLock::new(|| guest::build("whims", "whims", include_str!("common/whims.rs")));

fn clinical() -> ChaperoneOptions {
    ward::people(ward::clinical(Chaperone::options(CHAPERONE)), &POSTGRES)
}

fn whims() -> Chaperone {
    let options = whimsical().incomplete_facts(&["whims"]);
    ward::people(options, &POSTGRES).start().unwrap()
}

fn whimsical() -> ChaperoneOptions {
    Chaperone::options(CHAPERONE).policy("whims", &*WHIMS, "")
}

fn session(proxy: &Chaperone) -> PsqlSession {
    let psql = proxy.psql(DATABASE, "clinician", DOCTOR);
    psql.argument("-qAt").session().unwrap()
}

fn ask(session: &mut PsqlSession, sql: &str) -> String {
    session.run(sql, PATIENCE).unwrap()
}

/// Refused with this code, and the session goes on.
#[track_caller]
fn refused(session: &mut PsqlSession, sql: &str, code: &str) -> String {
    let said = ask(session, sql);
    has(&said, "ERROR:");
    has(&said, code);
    has(&ask(session, "SELECT 'alive' AS it;"), "alive");
    said
}

fn recorded(proxy: &Chaperone, kind: &str, part: &str) -> bool {
    ward::audit(proxy, "show", &["--kind", kind, "--json"]).contains(part)
}

#[test]
fn without_policies_it_does_not_start() {
    let none = ward::people(Chaperone::options(CHAPERONE), &POSTGRES);
    let error = none.start().unwrap_err().to_string();
    has(&error, "policies");
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.wasm");
    fs::write(&broken, b"\0asm\x01\0\0\0 and no more").unwrap();
    let error = clinical().policy("broken", broken, "").start().unwrap_err();
    has(&error.to_string(), "broken.wasm");
}

#[test]
fn a_policy_that_fails_denies_that_statement() {
    let proxy = whims();
    let mut session = session(&proxy);
    for whim in ["trap", "loop", "hog", "deep"] {
        let sql = format!("SELECT name AS whim_{whim} FROM rooms;");
        let said = refused(&mut session, &sql, "42501");
        assert!(!said.contains("as told"), "{said}");
    }
    for failure in ["trap", "timeout", "memory"] {
        assert!(recorded(&proxy, "decision", failure), "no {failure}");
    }
}

#[test]
fn where_no_policy_speaks_nothing_runs() {
    let proxy = whims();
    let said = refused(&mut session(&proxy), "SELECT 1 AS whim_abstain;", "42501");
    has(&said, "no policy");
}

#[test]
fn long_deep_and_wrong_statements_are_refused() {
    let proxy = clinical().start().unwrap();
    let mut session = session(&proxy);
    let deep = format!("SELECT {} true;", "NOT ".repeat(3_000));
    refused(&mut session, &deep, "54001");
    let long = format!("SELECT '{}';", "x".repeat(1 << 20));
    refused(&mut session, &long, "54000");
    let said = refused(&mut session, "SELEC 'CANARY-LITERAL';", "42601");
    has(&said, "syntax error");
}

#[test]
fn what_is_not_understood_is_refused() {
    let proxy = ward::people(whimsical(), &POSTGRES).start().unwrap();
    let mut session = session(&proxy);
    let said = refused(&mut session, "SELECT pg_sleep(0);", "0A000");
    has(&said, "pg_sleep");
}

#[test]
fn a_setting_that_changes_how_sql_is_read_is_noticed() {
    let proxy = clinical().start().unwrap();
    let mut session = session(&proxy);
    let look = "SELECT name, 'a\\b' AS it FROM rooms WHERE id = 1;";
    let before = ask(&mut session, look);
    for (name, other, usual) in [
        ("standard_conforming_strings", "off", "on"),
        ("client_encoding", "LATIN1", "UTF8"),
    ] {
        ask(&mut session, &format!("SET {name} = '{other}';"));
        let said = ask(&mut session, look);
        has(&said, "0A000");
        has(&said, name);
        ask(&mut session, &format!("SET {name} = '{usual}';"));
        assert_eq!(ask(&mut session, look), before);
    }
}

#[test]
fn what_nobody_speaks_about_is_withheld() {
    let proxy = whims();
    let mut session = session(&proxy);
    let sql =
        "SELECT id, name AS whim_silent, upper(name), name IS NULL FROM patients WHERE id = 1;";
    assert_eq!(ask(&mut session, sql), "1|||\n");
    // Nor is what comes from nobody knows where.
    let unknown = "SELECT 1, lo_get(0) AS whim_silent WHERE false UNION ALL SELECT 7, '\\xCAFE';";
    let said = ask(&mut session, unknown);
    assert_eq!(said, "7|\n");
}

#[test]
fn a_mask_that_does_not_fit_is_null() {
    let proxy = whims();
    let mut session = session(&proxy);
    let sql = "SELECT id AS whim_fixed, name FROM staff WHERE id = 1;";
    assert_eq!(ask(&mut session, sql), "|fixed\n");
}

#[test]
fn a_rewrite_that_fails_lets_no_row_out() {
    let proxy = whims();
    let mut session = session(&proxy);
    let rewritten = |whim: &str| format!("SELECT id, name AS whim_{whim} FROM staff ORDER BY id;");
    for whim in ["few", "fail", "fall"] {
        let said = refused(&mut session, &rewritten(whim), "42501");
        assert!(!said.contains('|'), "a row left: {said}");
    }
    has(&ask(&mut session, &rewritten("bend")), "|bent");
    assert!(recorded(&proxy, "execution", "withheld"));
}

#[test]
fn limits_end_a_statement_and_say_so() {
    let proxy = whims();
    let mut session = session(&proxy);
    let said = refused(
        &mut session,
        "SELECT id AS whim_rows FROM patients;",
        "53400",
    );
    assert!(
        said.lines().filter(|line| !line.contains(':')).count() <= 3,
        "{said}"
    );
    refused(
        &mut session,
        "SELECT name AS whim_bytes FROM patients;",
        "53400",
    );
    let slow = "SELECT 1 AS whim_time FROM pg_sleep(60);";
    refused(&mut session, slow, "57014");
    for (status, at_least) in [("limited", 2), ("cancelled", 1)] {
        let all = ["execution", "outcome"].map(|kind| {
            let shown = ward::audit(&proxy, "show", &["--kind", kind, "--json"]);
            shown.matches(&format!("{status:?}")).count()
        });
        assert!(all.iter().sum::<usize>() >= at_least, "{status} {all:?}");
    }
}

#[test]
fn a_backend_that_closes_ends_the_session() {
    let mut postgres = Postgres::start().unwrap();
    clinic::seed(&postgres).unwrap();
    let options = whimsical().incomplete_facts(&["whims"]);
    let proxy = ward::people(options, &postgres).start().unwrap();
    let dba = proxy.psql(DATABASE, "dba", DBA).argument("-qAt");
    let mut running = dba.session().unwrap();
    ask(&mut running, "SELECT 1;");
    let change = "INSERT INTO import_2019 SELECT 1, 'x' FROM pg_sleep(600);";
    running.send(change).unwrap();
    ward::wait_for("the intent", || recorded(&proxy, "intent", "seq"));
    postgres.crash();
    let said = running
        .wait(PATIENCE)
        .unwrap_or_else(|error| error.to_string());
    // Its own last words, or ours.
    assert!(said.contains("57P0") || said.contains("08006"), "{said}");
    ward::wait_for("the outcome", || recorded(&proxy, "outcome", "\"unknown\""));
    let said = dba
        .argument("--set=VERBOSITY=verbose")
        .run("SELECT 1")
        .unwrap();
    assert!(!said.ok);
    has(&said.stderr, "not reachable");
    let ready = http::get(proxy.admin(), "/readyz").unwrap();
    assert_eq!(ready.status, 503);
    has(&ready.body, "backend");
    ward::audit(&proxy, "verify", &[]);
}

#[test]
fn without_the_provider_sessions_go_on_and_none_begins() {
    let issuer = Issuer::start().unwrap();
    let provider = format!(
        "[[identity.providers]]\nissuer = {:?}\naudience = \"chaperone\"\nca = \"issuer.pem\"",
        issuer.url()
    );
    let start = || {
        let options = clinical()
            .toml(&provider)
            .file("issuer.pem", issuer.ca_pem());
        options.start().unwrap()
    };
    let claims = json!({"groups": ["clinicians"], "purpose": "treatment"});
    let token = issuer.token("dr-open", &claims).unwrap();
    let proxy = start();
    let psql = proxy.psql(DATABASE, "clinician", &token).argument("-qAt");
    let mut open = psql.session().unwrap();
    has(&ask(&mut open, "SELECT 'in' AS it;"), "in");
    issuer.set_reachable(false);
    has(&ask(&mut open, "SELECT 'still in' AS it;"), "still in");
    // A proxy that never saw the provider's keys can check nobody.
    let fresh = start();
    let late = fresh.psql(DATABASE, "clinician", &token);
    let said = late.run("SELECT 1").unwrap();
    assert!(!said.ok);
    has(&said.stderr, "provider-unreachable");
    assert!(recorded(&fresh, "login-denied", "provider-unreachable"));
    let answer = ward::approvals(&fresh, &token, &["list"]);
    assert!(!answer.status.success());
    has(&ward::words(&answer), "cannot be reached");
    // Whoever needs no provider still gets in.
    let said = fresh.psql(DATABASE, "agent_ro", AGENT).run("SELECT 1");
    assert!(said.unwrap().ok);
}
