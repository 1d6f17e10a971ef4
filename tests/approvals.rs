//! Statements that wait for a person: who may answer, what runs, how often, and what ends the wait.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/gate.rs"]
mod gate;
#[path = "common/guest.rs"]
mod guest;
#[path = "common/ward.rs"]
mod ward;

use std::time::{Duration, Instant};

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::{Chaperone, Issuer, PsqlSession, http};
use serde_json::json;
use ward::{APPROVER, CHAPERONE, DATABASE, DBA, PATIENCE, POSTGRES, has};

/// A proxy with approvals and a table with one row, whose `id` counts how often a change ran.
struct Desk {
    proxy: Chaperone,
    table: String,
}

impl Desk {
    fn open(name: &str, wait: &str, ttl: &str) -> Desk {
        Desk::with(name, wait, ttl, |options| options)
    }

    fn with(
        name: &str,
        wait: &str,
        ttl: &str,
        further: impl Fn(ChaperoneOptions) -> ChaperoneOptions,
    ) -> Desk {
        let table = format!("import_{name}");
        let ddl = format!(
            "SET ROLE clinic_owner; CREATE TABLE {table} (id integer, line text);
             COMMENT ON COLUMN {table}.id IS '@label(clear)';
             COMMENT ON COLUMN {table}.line IS '@label(clear)';
             INSERT INTO {table} VALUES (0, 'x');"
        );
        POSTGRES.script(DATABASE, &ddl).unwrap();
        let risky = ward::RISKY.replace("ttl_seconds = 900", &format!("ttl_seconds = {ttl}"));
        let options = ward::with_risky(Chaperone::options(CHAPERONE), &risky).toml(&format!(
            "[approvals]\nwait = {wait:?}\ngroups = [\"approvers\"]"
        ));
        let proxy = further(ward::people(options, &POSTGRES)).start().unwrap();
        Desk { proxy, table }
    }

    fn session(&self) -> PsqlSession {
        self.proxy.psql(DATABASE, "dba", DBA).session().unwrap()
    }

    fn change(&self) -> String {
        format!("UPDATE {} SET id = id + 1;", self.table)
    }

    fn count(&self) -> String {
        let sql = format!("SELECT id FROM {}", self.table);
        POSTGRES.value(DATABASE, &sql).unwrap()
    }

    fn listed(&self) -> Vec<String> {
        let output = ward::approvals(&self.proxy, APPROVER, &["list"]);
        assert!(output.status.success(), "{}", ward::words(&output));
        ward::ids(&ward::words(&output))
    }

    fn held(&self) -> String {
        ward::wait_for("a held statement", || !self.listed().is_empty());
        self.listed().remove(0)
    }

    fn answer(&self, token: &str, arguments: &[&str]) -> (bool, String) {
        let output = ward::approvals(&self.proxy, token, arguments);
        (output.status.success(), ward::words(&output))
    }

    /// The status of an answer by HTTP, and what it says.
    fn post(&self, token: &str, id: &str, answer: &str) -> (u16, String) {
        let path = format!("/v1/approvals/{id}/{answer}");
        let answer = http::request(self.proxy.admin(), "POST", &path, Some(token), None);
        let answer = answer.unwrap();
        (answer.status, answer.body)
    }

    fn approve(&self, id: &str) {
        let (ok, words) = self.answer(APPROVER, &["approve", id]);
        assert!(ok, "{words}");
    }

    /// The states of all approvals, as the log has them.
    fn recorded(&self, state: &str) -> bool {
        let shown = ward::audit(&self.proxy, "show", &["--kind", "approval", "--json"]);
        shown.contains(&format!("{state:?}"))
    }
}

#[test]
fn another_person_approves_and_it_runs_once() {
    let desk = Desk::open("once", "60s", "900");
    let mut session = desk.session();
    session.send(&desk.change()).unwrap();
    let id = desk.held();
    let (_, shown) = desk.answer(APPROVER, &["show", &id]);
    has(&shown, desk.change().trim_end_matches(';'));
    // The dba is in the approvers' group, but asks.
    let (ok, words) = desk.answer(DBA, &["approve", &id]);
    assert!(!ok, "the requester could approve: {words}");
    let (ok, words) = desk.answer(ward::AGENT, &["approve", &id]);
    assert!(!ok, "somebody outside the group could approve: {words}");
    assert_eq!(desk.count(), "0");
    desk.approve(&id);
    has(&session.wait(PATIENCE).unwrap(), "UPDATE 1");
    assert_eq!(desk.count(), "1");
    // The same once more is a new question.
    session.send(&desk.change()).unwrap();
    let next = desk.held();
    assert_ne!(next, id);
    assert_eq!(desk.count(), "1");
    let (ok, _) = desk.answer(APPROVER, &["approve", &id]);
    assert!(!ok, "an approval that is used up can be given again");
    let (ok, words) = desk.answer(APPROVER, &["deny", &next, "--reason", "once is enough"]);
    assert!(ok, "{words}");
    let said = session.wait(PATIENCE).unwrap();
    has(&said, "42501");
    has(&said, "once is enough");
    assert_eq!(desk.count(), "1");
    let after = session
        .run("SELECT count(*) FROM rooms;", PATIENCE)
        .unwrap();
    has(&after, "(1 row)");
    ward::audit(&desk.proxy, "verify", &[]);
    for state in ["requested", "seen", "granted", "denied", "released"] {
        assert!(desk.recorded(state), "no {state} in the log");
    }
}

/// Two say yes at the same instant, and two sessions wait for it.
#[test]
fn of_two_answers_at_once_one_counts_and_it_runs_once() {
    const SECOND: &str = "token-of-the-second-approver-0123456789";
    let desk = Desk::with("race", "60s", "900", |options| {
        options.identity("second", SECOND, &["approvers"], "on-call")
    });
    for round in 1..=5 {
        let mut sessions = [desk.session(), desk.session()];
        for session in &mut sessions {
            session.send(&desk.change()).unwrap();
        }
        let id = desk.held();
        // Both wait for the one request.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(desk.listed(), [id.as_str()]);
        let statuses = std::thread::scope(|scope| {
            let answers = [APPROVER, SECOND].map(|token| {
                let (desk, id) = (&desk, &id);
                scope.spawn(move || desk.post(token, id, "approve").0)
            });
            answers.map(|answer| answer.join().unwrap())
        });
        let [mut low, mut high] = statuses;
        if low > high {
            (low, high) = (high, low);
        }
        assert_eq!((low, high), (200, 409), "{statuses:?}");
        let said = sessions.map(|mut session| session.wait(PATIENCE).unwrap());
        let ran = said.iter().filter(|said| said.contains("UPDATE 1")).count();
        assert_eq!(ran, 1, "{said:?}");
        assert!(said.iter().any(|said| said.contains("55000")), "{said:?}");
        assert_eq!(desk.count(), round.to_string());
    }
    // A yes against a no: whichever was first.
    let mut session = desk.session();
    session.send(&desk.change()).unwrap();
    let id = desk.held();
    let (yes, no) = std::thread::scope(|scope| {
        let yes = scope.spawn(|| desk.post(APPROVER, &id, "approve").0);
        let no = scope.spawn(|| desk.post(SECOND, &id, "deny").0);
        (yes.join().unwrap(), no.join().unwrap())
    });
    let said = session.wait(PATIENCE).unwrap();
    match (yes, no) {
        (200, 409) => has(&said, "UPDATE 1"),
        (409, 200) => has(&said, "42501"),
        both => panic!("{both:?}"),
    }
    assert_eq!(desk.count(), if yes == 200 { "6" } else { "5" });
}

/// An agent acts for somebody (RFC 8693): neither of the two can approve, whatever their groups,
/// nor anybody whose token is in another's hands.
#[test]
fn nobody_on_the_asking_side_can_approve() {
    let issuer = Issuer::start().unwrap();
    let desk = Desk::with("behalf", "60s", "900", |options| {
        options.file("issuer.pem", issuer.ca_pem()).toml(&format!(
            "[[identity.providers]]\nissuer = {:?}\naudience = \"chaperone\"\nca = \"issuer.pem\"",
            issuer.url()
        ))
    });
    let groups = ["dbas", "approvers"];
    let token = |subject: &str, actors: serde_json::Value| {
        let claims = json!({"groups": groups, "purpose": "maintenance", "act": actors});
        issuer.token(subject, &claims).unwrap()
    };
    let nobody = serde_json::Value::Null;
    let chain = json!({"sub": "agent-7", "act": {"sub": "runner"}});
    let asking = token("dr-boss", chain);
    let mut session = desk.proxy.psql(DATABASE, "dba", &asking).session().unwrap();
    session.send(&desk.change()).unwrap();
    let id = desk.held();
    for involved in ["dr-boss", "agent-7", "runner"] {
        let own = token(involved, nobody.clone());
        for answer in ["approve", "deny"] {
            let (status, body) = desk.post(&own, &id, answer);
            assert!(
                status == 403 && body.contains("involved"),
                "{involved}: {body}"
            );
        }
    }
    for (subject, actor) in [("dr-other", "agent-7"), ("dr-other", "some-tool")] {
        let lent = token(subject, json!({"sub": actor}));
        let (status, body) = desk.post(&lent, &id, "approve");
        assert!(
            status == 403 && body.contains("delegated"),
            "{actor}: {body}"
        );
    }
    let (status, body) = desk.post(&asking, &id, "approve");
    assert_eq!(status, 403, "{body}");
    assert_eq!(desk.count(), "0");
    let (status, body) = desk.post(&token("dr-other", nobody), &id, "approve");
    assert_eq!(status, 200, "{body}");
    has(&session.wait(PATIENCE).unwrap(), "UPDATE 1");
    assert_eq!(desk.count(), "1");
}

#[test]
fn a_ticket_outlives_its_session_and_nobody_else_can_use_it() {
    const OTHER: &str = "token-of-the-other-dba-0123456789abcdef";
    let desk = Desk::with("outlives", "1s", "900", |options| {
        options.identity("other", OTHER, &["dbas"], "maintenance")
    });
    has(
        &desk.session().run(&desk.change(), PATIENCE).unwrap(),
        "55000",
    );
    let id = desk.held();
    desk.approve(&id);
    let mut other = desk.proxy.psql(DATABASE, "dba", OTHER).session().unwrap();
    has(&other.run(&desk.change(), PATIENCE).unwrap(), "55000");
    assert_eq!(desk.count(), "0");
    let mut again = desk.session();
    has(&again.run(&desk.change(), PATIENCE).unwrap(), "UPDATE 1");
    assert_eq!(desk.count(), "1");
}

#[test]
fn an_approval_that_is_not_used_in_time_is_over() {
    let desk = Desk::open("unused", "1s", "4");
    let mut session = desk.session();
    has(&session.run(&desk.change(), PATIENCE).unwrap(), "55000");
    let id = desk.held();
    desk.approve(&id);
    ward::wait_for("its end", || desk.recorded("expired"));
    let (ok, words) = desk.answer(APPROVER, &["approve", &id]);
    assert!(!ok, "{words}");
    let said = session.run(&desk.change(), PATIENCE).unwrap();
    has(&said, "55000");
    assert!(!said.contains(&id), "the old ticket again: {said}");
    assert_eq!(desk.count(), "0");
}

#[test]
fn one_requester_cannot_fill_the_desk() {
    let desk = Desk::open("many", "1s", "900");
    let statements = (1..=17).map(|by| format!("UPDATE {} SET id = {by};", desk.table));
    let said: Vec<String> = std::thread::scope(|scope| {
        let asking = statements.map(|statement| {
            let mut session = desk.session();
            scope.spawn(move || session.run(&statement, PATIENCE).unwrap())
        });
        let asking: Vec<_> = asking.collect();
        asking.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let refused = said.iter().filter(|said| said.contains("of your requests"));
    assert_eq!(refused.count(), 1, "{said:?}");
    assert!(said.iter().all(|said| said.contains("55000")), "{said:?}");
    assert_eq!(desk.listed().len(), 16);
    assert_eq!(desk.count(), "0");
}

#[test]
fn it_expires() {
    let desk = Desk::open("expires", "60s", "2");
    let mut session = desk.session();
    session.send(&desk.change()).unwrap();
    let id = desk.held();
    has(&session.wait(PATIENCE).unwrap(), "55000");
    let (ok, _) = desk.answer(APPROVER, &["approve", &id]);
    assert!(!ok, "it can be approved after its end");
    assert_eq!(desk.count(), "0");
    has(
        &session.run("SELECT 1 AS one;", PATIENCE).unwrap(),
        "(1 row)",
    );
    assert!(desk.recorded("expired"));
}

#[test]
fn a_ticket_is_good_for_one_run_of_the_same_statement() {
    let desk = Desk::open("ticket", "1s", "900");
    let mut session = desk.session();
    let said = session.run(&desk.change(), PATIENCE).unwrap();
    has(&said, "55000");
    let id = desk.held();
    has(&said, &id);
    desk.approve(&id);
    assert_eq!(desk.count(), "0");
    let other = format!("UPDATE {} SET id = id + 10;", desk.table);
    has(&session.run(&other, PATIENCE).unwrap(), "55000");
    assert_eq!(desk.count(), "0");
    has(&session.run(&desk.change(), PATIENCE).unwrap(), "UPDATE 1");
    has(&session.run(&desk.change(), PATIENCE).unwrap(), "55000");
    assert_eq!(desk.count(), "1");
    assert!(ward::audit(&desk.proxy, "trace", &[&id]).contains("released"));
}

#[test]
fn in_a_transaction_the_ticket_comes_at_once() {
    let desk = Desk::open("transaction", "60s", "900");
    let mut session = desk.session();
    session.run("BEGIN;", PATIENCE).unwrap();
    let start = Instant::now();
    let said = session.run(&desk.change(), PATIENCE).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "it waited");
    has(&said, "55000");
    let id = desk.held();
    has(&said, &id);
    // As after any failing statement.
    has(&session.run("SELECT 1;", PATIENCE).unwrap(), "25P02");
    has(&session.run("COMMIT;", PATIENCE).unwrap(), "ROLLBACK");
    desk.approve(&id);
    let again = format!("BEGIN; {} COMMIT;", desk.change());
    let lines = again.replace("; ", ";\n");
    has(&session.run(&lines, PATIENCE).unwrap(), "UPDATE 1");
    assert_eq!(desk.count(), "1");
}

#[test]
fn parameters_belong_to_what_is_approved() {
    let desk = Desk::open("parameters", "1s", "900");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let session = desk.proxy.client(DATABASE, "dba", DBA).await.unwrap();
        let text = format!("UPDATE {} SET id = id + $1", desk.table);
        let statement = session.client.prepare(&text).await.unwrap();
        let change = |by: i32| {
            let (client, statement) = (&session.client, &statement);
            async move { client.execute(statement, &[&by]).await }
        };
        let code = |error: tokio_postgres::Error| error.code().unwrap().code().to_owned();
        assert_eq!(code(change(1).await.unwrap_err()), "55000");
        desk.approve(&desk.held());
        assert_eq!(code(change(100).await.unwrap_err()), "55000");
        assert_eq!(change(1).await.unwrap(), 1);
        assert_eq!(code(change(1).await.unwrap_err()), "55000");
    });
    assert_eq!(desk.count(), "1");
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let desk = Desk::open("gone", "60s", "900");
    let mut session = desk.session();
    session.send(&desk.change()).unwrap();
    let id = desk.held();
    drop(session);
    ward::wait_for("the request's end", || desk.listed().is_empty());
    let (ok, _) = desk.answer(APPROVER, &["approve", &id]);
    assert!(!ok);
    assert_eq!(desk.count(), "0");
    ward::wait_for("the record", || desk.recorded("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_ends_the_wait() {
    let desk = Desk::open("cancel", "60s", "900");
    let session = desk.proxy.client(DATABASE, "dba", DBA).await.unwrap();
    let token = session.client.cancel_token();
    let change = desk.change();
    let waiting = session.client.batch_execute(&change);
    let cancelling = async {
        while tokio::task::block_in_place(|| desk.listed()).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        token.cancel_query(desk.proxy.tls()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(waiting, cancelling);
    assert_eq!(ended.unwrap_err().code().unwrap().code(), "57014");
    ward::wait_for("the request's end", || desk.listed().is_empty());
    assert_eq!(desk.count(), "0");
    session.client.batch_execute("SELECT 1").await.unwrap();
}

#[test]
fn a_policy_that_denies_by_then_wins() {
    let desk = Desk::open("stricter", "60s", "900");
    let mut session = desk.session();
    session.send(&desk.change()).unwrap();
    let id = desk.held();
    gate::drop_in(&desk.proxy, "gate", &gate::build("SHUT"));
    let agent = desk.proxy.psql(DATABASE, "agent_ro", ward::AGENT);
    let mut said = String::new();
    for _ in 0..300 {
        said = agent
            .run("SELECT name FROM rooms WHERE id = 1")
            .unwrap()
            .text();
        if said.contains("shut") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(said.contains("shut"), "{said}\n{}", desk.proxy.output());
    // Whoever approves now may find it gone already; it must not run in any case.
    let _ = desk.answer(APPROVER, &["approve", &id]);
    has(&session.wait(PATIENCE).unwrap(), "42501");
    assert_eq!(desk.count(), "0");
    has(&session.run("SELECT 1;", PATIENCE).unwrap(), "42501");
    ward::audit(&desk.proxy, "verify", &[]);
}
