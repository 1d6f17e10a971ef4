//! Errors, notices and notifications: word for word where nothing protected can be in them, reduced
//! to severity and SQLSTATE where it can.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::MutexGuard;

use chaperone_test_support::Chaperone;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, Rig};
use chaperone_test_support::wire::{Step, Transcript, Wire};

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");
/// A value of `patient` and `stay`.
const SSN: &str = "900-11-2233";

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(BINARY)
}

/// Sends each on its own and wants the server's own words for all of them.
fn same(queries: &[&str]) -> Transcript {
    let simple = queries
        .iter()
        .flat_map(|text| [Step::Send(query(text)), Step::Ready(1)]);
    let rig = rig();
    let said = rig.same(&simple.collect::<Vec<_>>());
    let extended = queries.iter().flat_map(|text| {
        [
            Step::Send(
                [
                    parse("", text, &[]),
                    bind("", "", &[], 0),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
            ),
            Step::Ready(1),
        ]
    });
    rig.reset();
    rig.same(&extended.collect::<Vec<_>>());
    said
}

/// Wants the SQLSTATEs of the queries in their order, and not a word more.
fn reduced(wire: &mut Wire, queries: &[&str], sqlstates: &[&str]) {
    let mut all = Vec::new();
    for text in queries {
        let said = wire.ask(&query(text));
        for error in said.all("ErrorResponse") {
            let fields: Vec<&str> = error.split('\u{1f}').collect();
            assert_eq!(fields.len(), 4, "{text}: {said}");
            assert!(error.contains("M=message withheld"), "{text}: {said}");
        }
        assert!(!said.to_string().contains(SSN), "{text}: {said}");
        all.extend(said.sqlstates().iter().map(|&state| state.to_owned()));
    }
    assert_eq!(all, sqlstates);
}

#[test]
fn names_that_are_unknown() {
    let said = same(&[
        "SELECT nosuch FROM item",
        "SELECT bod FROM item",
        "SELECT nosuch(1, 'x')",
        "SELECT * FROM nosuch",
        "SELECT id FROM item a, item b",
        "SELECT 1 WHERE 'a' + 1",
        "INSERT INTO item (nosuch) VALUES (1)",
        "SELECT nosuch FROM patient",
        "SELECT a.ssn, b.ssm FROM patient a, patient b",
        "SELECT ssn FROM patient GROUP BY name",
        "UPDATE patient SET nosuch = ssn",
    ]);
    assert_eq!(said.sqlstates().len(), 11, "{said}");
}

#[test]
fn statements_that_are_not_understood() {
    let said = same(&[
        "DO $$ BEGIN RAISE NOTICE 'n' USING DETAIL = 'd', HINT = 'h'; RAISE WARNING 'w'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'e' USING ERRCODE = '22012', DETAIL = 'd', TABLE = 't'; END $$",
        "CREATE TABLE mine (id int PRIMARY KEY, v int CHECK (v > 0))",
        "INSERT INTO mine VALUES (1, 1), (1, 1)",
        "INSERT INTO mine VALUES (2, -1)",
        "DROP TABLE IF EXISTS nothing_here",
        "DROP FUNCTION nothing_here()",
        "CREATE TABLE item (id int)",
        "SELECT 'x'::int",
        "SELECT blurt('x')",
        "SELECT look_up('x')",
        "SELECT v / 0 FROM mine",
        "DROP TABLE mine",
    ]);
    assert_eq!(said.all("NoticeResponse").len(), 3, "{said}");
    let rig = rig();
    let several = |text: &str| {
        rig.reset();
        rig.same(&[Step::Send(query(text)), Step::Ready(1)])
    };
    several("BEGIN; INSERT INTO item VALUES (7, 'x'); COMMIT; SELECT 1/0");
    several("CREATE TEMP TABLE t (v int); INSERT INTO t VALUES (1); SELECT v / 0 FROM t");
    several("SELECT 1/0; SELECT ssn FROM patient");
    let said = several("SELECT count(ssn) FROM patient; SELECT 1/0");
    assert_eq!(said.sqlstates(), ["22012"]);
}

#[test]
fn what_is_put_off() {
    same(&[
        "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO late VALUES (1), (1)",
        "BEGIN",
        "INSERT INTO late VALUES (2), (2)",
        "SELECT 1",
        "COMMIT",
        "BEGIN",
        "INSERT INTO late VALUES (3), (3)",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "ROLLBACK",
        "BEGIN",
        "DECLARE c CURSOR WITH HOLD FOR SELECT body::int FROM item",
        "COMMIT",
        "DROP TABLE late",
    ]);
}

#[test]
fn protected_data() {
    let rig = rig();
    let guarded = guarded(&rig);
    for mut wire in [rig.ruled(), Rig::through(&guarded), rig.open()] {
        let fails = "SELECT name, 1 / (id - id) FROM patient";
        reduced(&mut wire, &[fails], &["22012"]);
        let said = wire.ask(&query("SELECT body::int FROM item"));
        assert!(said.to_string().contains("item 1"), "{said}");
    }
    // Even under the policy that shows everything to everybody.
    let mut wire = rig.open();
    reduced(
        &mut wire,
        &[
            "SELECT ssn::int FROM patient",
            "SELECT id FROM patient WHERE ssn::int > 0",
            "SELECT blurt(ssn) FROM patient",
            "SELECT look_up(ssn) FROM patient",
            "SELECT ssn::regclass FROM patient",
            "SELECT ssn::regtype FROM patient",
            "SELECT query_to_xml('SELECT \"' || ssn || '\"', true, true, '') FROM patient",
            "INSERT INTO patient SELECT * FROM patient WHERE id = 1",
            "UPDATE patient SET id = 2",
            "EXPLAIN ANALYZE SELECT ssn::int FROM patient",
            "COPY (SELECT ssn::int FROM patient) TO STDOUT",
            "SELECT 1; SELECT ssn::int FROM patient; SELECT 2",
            // Only the cascade meets what is labelled.
            "DELETE FROM ward",
        ],
        &[
            "22P02", "22P02", "42703", "42703", "42P01", "42601", "42703", "23505", "23505",
            "22P02", "22P02", "22P02", "23503",
        ],
    );
    let said = wire.ask(
        &[
            parse("", "SELECT $1::text || ssn::int FROM patient", &[]),
            bind("", "", &[Some("x")], 0),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert!(
        said.sqlstates() == ["22P02"] && !said.to_string().contains(SSN),
        "{said}"
    );
    let said = wire.ask(&query("SELECT say(ssn) FROM patient WHERE id = 1"));
    let notices = said.all("NoticeResponse");
    assert!(
        notices.len() == 2 && notices.iter().all(|one| one.contains("M=message withheld")),
        "{said}"
    );
}

#[test]
fn protected_data_that_is_put_off() {
    let rig = rig();
    let mut wire = rig.open();
    let again = "INSERT INTO stay SELECT 1, ssn FROM patient WHERE id = 1";
    rig.postgres
        .script(
            DATABASE,
            "ALTER TABLE stay DROP CONSTRAINT stay_ssn_key CASCADE",
        )
        .unwrap();
    reduced(
        &mut wire,
        &[again, "BEGIN", again, "SELECT 1", "COMMIT", "BEGIN", again],
        &["23505", "23505"],
    );
    reduced(
        &mut wire,
        &["SET CONSTRAINTS ALL IMMEDIATE", "ROLLBACK"],
        &["23505"],
    );
    reduced(
        &mut wire,
        &[&format!("BEGIN; {again}; COMMIT; SELECT 1")],
        &["23505"],
    );
    reduced(&mut wire, &[&format!("{again}; SELECT 1")], &["23505"]);
    // The transaction goes on, so this error is its own.
    let said = wire.play(&[
        Step::Send(
            [
                query("BEGIN"),
                query(again),
                query("SELECT 1/0"),
                query("ROLLBACK"),
            ]
            .concat(),
        ),
        Step::Ready(4),
    ]);
    assert!(said.to_string().contains("division by zero"), "{said}");
    let hold = "DECLARE c CURSOR WITH HOLD FOR SELECT ssn::int FROM patient";
    reduced(&mut wire, &["BEGIN", hold, "COMMIT"], &["22P02"]);
    let said = wire.ask(
        &[
            parse("", again, &[]),
            bind("", "", &[], 0),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert!(
        said.sqlstates() == ["23505"] && !said.to_string().contains(SSN),
        "{said}"
    );
}

/// A proxy whose one policy may guess, while another one masks.
fn guarded(rig: &Rig) -> Chaperone {
    let options = rig.masking(BINARY, "");
    options.incomplete_facts(&["allow-all"]).start().unwrap()
}

#[test]
fn where_something_is_masked_the_unknown_is_reduced() {
    let rig = rig();
    let proxy = guarded(&rig);
    let mut wire = Rig::through(&proxy);
    let block = "DO $$ BEGIN RAISE NOTICE 'a name'; RAISE EXCEPTION 'a name'; END $$";
    let said = wire.ask(&query(block));
    assert!(
        said.sqlstates() == ["P0001"] && !said.to_string().contains("a name"),
        "{said}"
    );
    // An unknown name is still told.
    let said = wire.ask(&query("SELECT nosuch FROM patient"));
    assert!(said.to_string().contains("nosuch"), "{said}");
}

#[test]
fn notifications_of_others() {
    let rig = rig();
    let proxy = guarded(&rig);
    for (mut listener, heard) in [
        (rig.open(), "NotificationResponse other=a name"),
        (rig.ruled(), "NotificationResponse other="),
        (Rig::through(&proxy), "NotificationResponse other="),
    ] {
        listener.ask(&query("LISTEN other"));
        rig.direct().ask(&query("NOTIFY other, 'a name'"));
        assert_eq!(listener.play(&[Step::Until(b'A')]).0, [heard]);
    }
}

#[test]
fn no_module_lets_rows_past_the_masks() {
    let rig = rig();
    rig.reset();
    let value = "123-00-4567";
    let mut direct = rig.direct();
    direct.ask(&query(&format!(
        "INSERT INTO patient VALUES (77, 'n', NULL, '{value}')"
    )));
    let proxy = guarded(&rig);
    let mut wire = Rig::through(&proxy);
    for text in [
        "COPY patient TO STDOUT",
        "COPY (SELECT ssn FROM patient) TO STDOUT",
        "UPDATE patient SET id = id WHERE id = 77 RETURNING ssn",
        "BEGIN; DECLARE c CURSOR FOR SELECT ssn FROM patient",
        "PREPARE p AS SELECT ssn FROM patient",
        "EXPLAIN ANALYZE SELECT ssn FROM patient",
    ] {
        let said = wire.ask(&query(text));
        assert_eq!(said.sqlstates(), ["0A000"], "{text}: {said}");
        assert!(!said.to_string().contains(value), "{text}: {said}");
        wire.ask(&query("ROLLBACK"));
    }
    // What protects nothing goes on.
    assert!(
        wire.ask(&query("COPY item TO STDOUT"))
            .sqlstates()
            .is_empty()
    );
}
