//! What Chaperone does not understand runs as the backend alone would run it, where one module may
//! decide on incomplete facts and none masks; everywhere else it is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{MutexGuard, Once};

use chaperone_test_support::Chaperone;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, Rig};
use chaperone_test_support::wire::{Step, Transcript, Wire};

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");

/// A statement that the unmasked value of `patient` would show in.
const SSN: &str = "900-11-2233";

const MORE: &str = "
    CREATE ROLE deputy;
    GRANT deputy TO app;
    GRANT SELECT ON public.patient TO deputy;
    CREATE FUNCTION public.cursor_of(what text) RETURNS refcursor LANGUAGE plpgsql AS $$
        DECLARE c refcursor := 'hidden'; BEGIN OPEN c FOR EXECUTE what; RETURN c; END $$;
    CREATE FUNCTION public.prepare(what text) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN EXECUTE 'PREPARE hidden AS ' || what; RETURN 1; END $$;
";

fn rig() -> MutexGuard<'static, Rig> {
    static MADE: Once = Once::new();
    let rig = Rig::take(BINARY);
    MADE.call_once(|| rig.postgres.script(DATABASE, MORE).unwrap());
    rig
}

fn same(parts: &[Vec<u8>], ready: usize) -> Transcript {
    let steps = [Step::Send(parts.concat()), Step::Ready(ready), Step::Quiet];
    rig().same(&steps)
}

fn same_queries(texts: &[&str]) -> Transcript {
    let parts: Vec<_> = texts.iter().map(|text| query(text)).collect();
    same(&parts, texts.len())
}

#[test]
fn texts_that_settings_change_the_meaning_of() {
    let said = same_queries(&[
        "SET escape_string_warning = off",
        "SET standard_conforming_strings = off",
        r"SELECT 'it\'s', 2",
        r"SELECT 'a\'b'; SELECT 1/0; SELECT 'c\\d'",
        r"SELECT U&'\0061'",
        r"BEGIN; INSERT INTO item VALUES (7, 'x\\y'); SELECT body FROM item WHERE id = 7",
        "COMMIT",
        r"ROLLBACK; SELECT 'e\\'; ",
        "RESET standard_conforming_strings",
        r"SELECT 'plain \'",
    ]);
    assert!(said.to_string().contains(r"it\'s"), "{said}");
}

#[test]
fn prepared_under_one_setting_and_bound_under_another() {
    let run = |name: &str| [bind("", name, &[], 0), execute("", 0), sync()].concat();
    same(
        &[
            query("SET standard_conforming_strings = off; SET escape_string_warning = off"),
            parse("s", r"SELECT 'it\'s' || ' --'", &[]),
            describe_statement("s"),
            sync(),
            query("RESET standard_conforming_strings"),
            run("s"),
            parse("t", r"SELECT 'a\\b'", &[]),
            run("t"),
            run("s"),
        ],
        6,
    );
}

#[test]
fn copies_in_such_texts() {
    let off = query("SET standard_conforming_strings = off; SET escape_string_warning = off");
    let copy_in = r"COPY item FROM STDIN (DELIMITER '\t')";
    let steps = [
        Step::Send([off, query(copy_in)].concat()),
        Step::Until(b'G'),
        Step::Send([copy_data("70\tseventy\n"), copy_done()].concat()),
        Step::Ready(1),
        Step::Send(query(
            r"COPY item TO STDOUT (DELIMITER '\t'); SELECT 'after\\'",
        )),
        Step::Ready(1),
        // In the extended protocol the backend ignores a Sync while it takes data.
        Step::Send(
            [
                parse("", copy_in, &[]),
                bind("", "", &[], 0),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Until(b'G'),
        Step::Send([copy_data("71\tx\n"), copy_fail("no more"), sync()].concat()),
        Step::Ready(1),
        Step::Send(
            [
                parse("", r"SELECT '\\'", &[]),
                bind("", "", &[], 0),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
        Step::Quiet,
    ];
    let said = rig().same(&steps);
    assert!(said.all("CopyData").len() == 6, "{said}");
}

#[test]
fn texts_beyond_our_grammar() {
    // PostgreSQL 18, whose grammar is ours, no longer takes this one itself.
    let said = same_queries(&[
        "CREATE TABLE never (a int) PARTITION BY MAGIC (a)",
        "SELECT 1",
    ]);
    assert_eq!(said.sqlstates().len(), 1, "{said}");
    same_queries(&["BEGIN", "SELECT 1/0", "ROLLBACK; SELECT 1", "SELECT 2"]);
}

#[test]
fn answers_other_than_foreseen() {
    same_queries(&["SELECT * FROM unnest('base:7 hidden:6'::tsvector)"]);
    same(
        &[
            run("SELECT * FROM unnest('base:7 hidden:6'::tsvector)", &[]),
            sync(),
        ],
        1,
    );
}

#[test]
fn other_roles() {
    let said = same_queries(&[
        "SET ROLE deputy",
        "SELECT current_user, session_user",
        "SELECT name FROM patient ORDER BY id",
        "SELECT count(*) FROM item",
        "RESET ROLE",
        "SELECT current_user",
        "BEGIN; SET LOCAL ROLE deputy; SELECT current_user; COMMIT",
        "SELECT current_user",
        "SET SESSION AUTHORIZATION deputy",
        "SET ROLE nobody_at_all",
        "SELECT count(*) FROM item",
    ]);
    assert!(said.to_string().contains("permission denied"), "{said}");
}

#[test]
fn names_that_functions_give() {
    let said = same_queries(&[
        "SELECT prepare('SELECT 7 AS seven')",
        "EXECUTE hidden",
        "DEALLOCATE hidden",
        "EXECUTE hidden",
        "BEGIN",
        "SELECT cursor_of('SELECT ssn FROM patient ORDER BY id')",
        "FETCH 1 FROM hidden",
        "MOVE 1 IN hidden",
        "FETCH NEXT FROM hidden",
        "COMMIT",
        "FETCH 1 FROM hidden",
        "PREPARE p AS SELECT ssn FROM patient WHERE id = $1",
        "EXECUTE p(1)",
        "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT name FROM patient ORDER BY id",
        "FETCH ALL FROM c; FETCH BACKWARD 1 FROM c",
        "COMMIT",
    ]);
    assert_eq!(said.sqlstates(), ["26000", "34000"], "{said}");
    assert!(said.to_string().contains(SSN), "{said}");
}

#[test]
fn function_calls() {
    // pi(), and one that fails in a transaction.
    let said = same(
        &[
            function_call(1610, &[]),
            query("BEGIN"),
            function_call(999_999, &[]),
            function_call(1610, &[]),
            query("ROLLBACK"),
            query("SELECT 1"),
        ],
        6,
    );
    assert_eq!(said.all("FunctionCallResponse").len(), 1, "{said}");
}

/// A client's time-out that ends a question of Chaperone's own ends no more than one statement.
#[test]
fn a_question_of_ours_that_is_cut_off() {
    let rig = rig();
    for mut wire in [rig.open(), rig.ruled()] {
        wire.ask(&query("SET statement_timeout = 1"));
        let said = wire.ask(&query("SELECT count(*) FROM item"));
        assert_eq!(said.sqlstates(), ["57014"], "{said}");
        wire.ask(&query("SET statement_timeout = 0"));
        let said = wire.ask(&query("SELECT count(*) FROM item"));
        assert_eq!(said.all("DataRow"), ["DataRow '5'"], "{said}");
    }
}

/// A proxy whose one policy may guess, while another one masks.
fn guarded(rig: &Rig) -> Chaperone {
    let options = rig.masking(BINARY, "");
    options.incomplete_facts(&["allow-all"]).start().unwrap()
}

/// Every way around the masks above, for a caller to whom masks apply.
fn nothing_passes(mut wire: Wire) {
    for (sqlstate, text) in [
        ("", "SET standard_conforming_strings = off"),
        ("0A000", r"SELECT 'a\', ssn FROM patient --'"),
        ("0A000", r"COPY patient TO STDOUT (DELIMITER '\t')"),
        ("", "RESET standard_conforming_strings"),
        ("42501", "SET ROLE deputy"),
        ("42501", "SET LOCAL ROLE deputy"),
        ("42501", "SET SESSION AUTHORIZATION deputy"),
        ("26000", "EXECUTE hidden"),
        ("34000", "FETCH 1 FROM hidden"),
        ("42601", "SELECT ssn FROM patient WHERE"),
    ] {
        let said = wire.ask(&query(text));
        let states = said.sqlstates().concat();
        assert!(states == sqlstate, "{text}: {said}");
        assert!(!said.to_string().contains(SSN), "{text}: {said}");
    }
    let said = wire.ask(&function_call(1610, &[]));
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
    let said = wire.ask(&query("SELECT current_user, count(*) FROM item"));
    assert_eq!(said.all("DataRow"), ["DataRow 'app' '5'"], "{said}");
}

#[test]
fn where_masks_apply_it_is_refused() {
    let rig = rig();
    nothing_passes(rig.ruled());
    let proxy = guarded(&rig);
    nothing_passes(Rig::through(&proxy));
    let mut wire = Rig::through(&proxy);
    // A function that gives a name is not understood either, and may run: what it names may not.
    for (made, used) in [
        (
            "SELECT prepare('SELECT ssn FROM patient')",
            "EXECUTE hidden",
        ),
        (
            "BEGIN; SELECT cursor_of('SELECT ssn FROM patient ORDER BY id')",
            "FETCH 1 FROM hidden",
        ),
    ] {
        wire.ask(&query(made));
        let said = wire.ask(&query(used));
        assert_eq!(said.sqlstates().len(), 1, "{used}: {said}");
        assert!(!said.to_string().contains(SSN), "{used}: {said}");
    }
}
