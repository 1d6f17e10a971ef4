//! Who gets a session, as which role, and when it ends.
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

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chaperone_test_support::chaperone::{ChaperoneOptions, token_digest};
use chaperone_test_support::{Chaperone, PsqlSession, policies};
use ward::{AGENT, CHAPERONE, DATABASE, DBA, PATIENCE, POSTGRES, has};

fn open() -> ChaperoneOptions {
    let module = policies::example("allow-all").unwrap();
    let options = Chaperone::options(CHAPERONE)
        .incomplete_facts(&["allow-all"])
        .policy("allow-all", module, "");
    ward::people(options, &POSTGRES)
}

/// Sends until the session refuses, which `ended` has to say.
fn end_of(session: &mut PsqlSession) -> String {
    session
        .run("SELECT 1;", PATIENCE)
        .unwrap_or_else(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_may_get_a_session() {
    let proxy = open()
        .toml(&format!(
            "[[identity.static]]\nname = \"late\"\ntoken_sha3 = {:?}\ngroups = [\"agents\"]\n\
             purpose = \"quality-review\"\nexpires = \"2020-01-01T00:00:00Z\"",
            token_digest("token-of-somebody-late-0123456789")
        ))
        .start()
        .unwrap();
    let refused = [
        (DATABASE, "clinician", AGENT, &["28000", "28P01"][..]),
        (DATABASE, "nobody", AGENT, &["28000", "28P01"]),
        (DATABASE, "postgres", DBA, &["28000", "28P01"]),
        (DATABASE, "agent_ro", "wrong", &["28P01"]),
        (
            DATABASE,
            "agent_ro",
            "token-of-somebody-late-0123456789",
            &["28P01", "28000"],
        ),
        ("elsewhere", "agent_ro", AGENT, &["3D000", "28000"]),
        ("postgres", "agent_ro", AGENT, &["3D000", "28000"]),
    ];
    for (database, role, token, codes) in refused {
        let error = proxy.client(database, role, token).await.unwrap_err();
        let code = error.code().map_or("none", |code| code.code()).to_owned();
        assert!(
            codes.contains(&code.as_str()),
            "{database} {role}: {error:?}"
        );
    }
    proxy.client(DATABASE, "agent_ro", AGENT).await.unwrap();
    let denied = ward::audit(&proxy, "show", &["--kind", "login-denied", "--json"]);
    assert_eq!(denied.lines().filter(|line| !line.is_empty()).count(), 7);
    ward::audit(&proxy, "verify", &[]);
}

#[test]
fn an_idle_session_ends() {
    let options = open().toml("[session]\nidle_timeout = \"4s\"\nabsolute_timeout = \"8h\"");
    let proxy = options.start().unwrap();
    let psql = proxy.psql(DATABASE, "agent_ro", AGENT);
    let mut session = psql.session().unwrap();
    let start = Instant::now();
    // A session that works lives on beyond the time.
    while start.elapsed() < Duration::from_secs(8) {
        let said = session.run("SELECT 1 AS one;", PATIENCE).unwrap();
        has(&said, "(1 row)");
        thread::sleep(Duration::from_millis(200));
    }
    // So does one that waits for its statement.
    let said = session
        .run("SELECT 1 AS one FROM pg_sleep(6);", PATIENCE)
        .unwrap();
    has(&said, "(1 row)");
    thread::sleep(Duration::from_secs(6));
    has(&end_of(&mut session), "57P01");
    ward::wait_for("the record", || {
        ward::audit(&proxy, "show", &["--kind", "session-end", "--json"]).contains("idle")
    });
}

#[test]
fn a_session_ends_at_its_absolute_time() {
    let options = open().toml("[session]\nidle_timeout = \"2s\"\nabsolute_timeout = \"3s\"");
    let proxy = options.start().unwrap();
    let mut session = proxy.psql(DATABASE, "agent_ro", AGENT).session().unwrap();
    let start = Instant::now();
    let mut said = String::new();
    while start.elapsed() < Duration::from_secs(20) && !said.contains("57P01") {
        said = end_of(&mut session);
        thread::sleep(Duration::from_millis(100));
    }
    has(&said, "57P01");
}

/// RFC 3339, seconds since 1970 as a civil date (proleptic Gregorian, UTC).
fn timestamp(seconds: u64) -> String {
    let sql = format!(
        "SELECT to_char(to_timestamp({seconds}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    );
    POSTGRES.value("postgres", &sql).unwrap()
}

#[test]
fn a_session_ends_with_its_identity() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = "token-of-somebody-who-leaves-0123456789";
    let expires = timestamp(now.as_secs() + 20);
    let proxy = open()
        .toml(&format!(
            "[[identity.static]]\nname = \"leaver\"\ntoken_sha3 = {:?}\ngroups = [\"agents\"]\n\
             purpose = \"quality-review\"\nexpires = {expires:?}",
            token_digest(token)
        ))
        .start()
        .unwrap();
    let mut session = proxy.psql(DATABASE, "agent_ro", token).session().unwrap();
    has(
        &session.run("SELECT 1 AS one;", PATIENCE).unwrap(),
        "(1 row)",
    );
    let mut said = String::new();
    ward::wait_for("the end", || {
        said = end_of(&mut session);
        !said.contains("(1 row)")
    });
    has(&said, "57P01");
    let late = proxy
        .psql(DATABASE, "agent_ro", token)
        .run("SELECT 1")
        .unwrap();
    assert!(!late.ok);
}
