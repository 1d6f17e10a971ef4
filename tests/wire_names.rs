//! What a name stands for is settled by the server later than by the proxy: portals of statements that
//! name things when they run, settings that the end of a batch takes back, EXECUTE.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::sync::MutexGuard;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, Transcript};

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

/// Plays the steps under the policies; what is masked there must not show, nor rows be gone.
fn stays_hidden(steps: &[Step]) -> Transcript {
    let rig = rig();
    let before = rig.items();
    let said = rig.ruled().play(steps);
    assert!(!said.to_string().contains("900-11"), "{said}");
    assert_eq!(before, rig.items(), "{said}");
    said
}

#[test]
fn a_portal_of_execute_runs_what_it_was_bound_for_or_nothing() {
    for other in ["DELETE FROM item", "SELECT name || ssn FROM patient"] {
        let said = stays_hidden(&[
            Step::Send(query("BEGIN")),
            Step::Ready(1),
            Step::Send(
                [
                    parse("s", "SELECT 'x'::text", &[]),
                    parse("e", "EXECUTE s", &[]),
                    bind("p", "e", &[], 0),
                    sync(),
                ]
                .concat(),
            ),
            Step::Ready(1),
            Step::Send(query("DEALLOCATE s")),
            Step::Ready(1),
            Step::Send([parse("s", other, &[]), sync()].concat()),
            Step::Ready(1),
            Step::Send([execute("p", 0), sync()].concat()),
            Step::Ready(1),
            Step::Send(query("COMMIT")),
            Step::Ready(1),
        ]);
        assert_eq!(said.sqlstates(), ["0A000"], "{said}");
    }
}

#[test]
fn a_portal_of_fetch_reads_the_cursor_that_it_was_bound_for_or_nothing() {
    let said = stays_hidden(&[
        Step::Send(query("BEGIN")),
        Step::Ready(1),
        Step::Send(query("DECLARE c CURSOR FOR SELECT body FROM item")),
        Step::Ready(1),
        Step::Send(
            [
                parse("f", "FETCH ALL FROM c", &[]),
                bind("p", "f", &[], 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
        Step::Send(query("CLOSE c")),
        Step::Ready(1),
        Step::Send(
            [
                parse("", "SELECT ssn FROM patient", &[]),
                bind("c", "", &[], 0),
                execute("p", 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
    ]);
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
}

#[test]
fn execute_and_fetch_right_behind_their_bind_are_what_they_were() {
    let said = rig().ruled().play(&[
        Step::Send([parse("s", "SELECT 'x'::text", &[]), sync()].concat()),
        Step::Ready(1),
        Step::Send([unsynced("EXECUTE s"), sync()].concat()),
        Step::Ready(1),
        Step::Send(query("EXECUTE s")),
        Step::Ready(1),
        Step::Send(query("BEGIN")),
        Step::Ready(1),
        Step::Send(query("DECLARE c CURSOR FOR SELECT id FROM item")),
        Step::Ready(1),
        Step::Send(
            [
                parse("f", "FETCH 2 FROM c", &[]),
                bind("", "f", &[], 0),
                describe_portal(""),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
    ]);
    assert!(said.sqlstates().is_empty(), "{said}");
    assert_eq!(said.all("DataRow").len(), 4, "{said}");
}

#[test]
fn arguments_of_execute_are_decided_too() {
    let argument = "query_to_xml('select ssn from patient', true, false, '')::text";
    let said = stays_hidden(&[
        Step::Send([parse("w", "SELECT $1::text", &[]), sync()].concat()),
        Step::Ready(1),
        Step::Send(query(&format!("EXECUTE w({argument})"))),
        Step::Ready(1),
        Step::Send(query("EXECUTE w('plain' || 'er')")),
        Step::Ready(1),
        Step::Send(query("EXECUTE w('plain')")),
        Step::Ready(1),
        Step::Send(query("EXECUTE w(NULL)")),
        Step::Ready(1),
        Step::Send(query("EXECUTE w(-1)")),
        Step::Ready(1),
    ]);
    assert_eq!(said.sqlstates(), ["0A000", "0A000"], "{said}");
    let rows = ["DataRow 'plain'", "DataRow NULL", "DataRow '-1'"];
    assert_eq!(said.all("DataRow"), rows, "{said}");
}

#[test]
fn execute_behind_another_statement_of_its_text_is_not_understood() {
    let said = stays_hidden(&[
        Step::Send([parse("s", "SELECT 'x'::text", &[]), sync()].concat()),
        Step::Ready(1),
        Step::Send(query(
            "DEALLOCATE s; PREPARE s AS DELETE FROM item; EXECUTE s",
        )),
        Step::Ready(1),
    ]);
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
}

#[test]
fn what_the_end_of_a_batch_takes_back_does_not_govern_the_next() {
    let hidden = "SELECT '\\', ', name || ssn FROM patient --'";
    let again = |end: Vec<u8>| {
        vec![
            Step::Send(query("SET standard_conforming_strings = off")),
            Step::Ready(1),
            Step::Send(
                [
                    unsynced("SET LOCAL standard_conforming_strings = on"),
                    unsynced("SELECT id FROM item LIMIT 1"),
                    end,
                    query(hidden),
                ]
                .concat(),
            ),
            Step::Ready(2),
        ]
    };
    stays_hidden(&again(sync()));
    stays_hidden(&again(query("SELECT 1")));
}

#[test]
fn what_an_error_takes_back_does_not_govern_the_next_batch() {
    let hidden = "SELECT '\\', ', name || ssn FROM patient --'";
    stays_hidden(&[
        Step::Send(query("SET standard_conforming_strings = off")),
        Step::Ready(1),
        Step::Send(
            [
                unsynced("SET standard_conforming_strings = on"),
                unsynced("SELECT id FROM item LIMIT 1"),
                unsynced("SELECT 1/0"),
                sync(),
                unsynced(hidden),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(2),
    ]);
}

/// Two statements with columns that look the same.
const PLAIN: &str = "SELECT lower(body) FROM item WHERE id = 1";
const PROTECTED: &str = "SELECT lower(ssn) FROM patient WHERE id = 1";

/// The server keeps 63 bytes of a name, and these two are one to it.
#[test]
fn names_are_told_apart_as_the_server_does() {
    let (one, other) = ("a".repeat(63) + "x", "a".repeat(63) + "y");
    stays_hidden(&[
        Step::Send([parse(&one, PLAIN, &[]), sync()].concat()),
        Step::Ready(1),
        Step::Send(
            [
                close_statement(&other),
                parse(&other, PROTECTED, &[]),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
        Step::Send([bind("", &one, &[], 0), execute("", 0), sync()].concat()),
        Step::Ready(1),
    ]);
    stays_hidden(&[
        Step::Send(
            [
                parse("", PLAIN, &[]),
                bind(&one, "", &[], 0),
                close_portal(&other),
                parse("", PROTECTED, &[]),
                bind(&other, "", &[], 0),
                execute(&one, 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
    ]);
}

/// The server turns names into its own encoding.
#[test]
fn a_name_in_another_encoding_is_not_taken_for_another_name() {
    let latin: &[u8] = b"\xe9\0";
    let close = message(b'C', &[b"S", latin].concat());
    let parse_again = message(b'P', &[latin, PROTECTED.as_bytes(), &[0; 3]].concat());
    let said = stays_hidden(&[
        Step::Send([parse("\u{e9}", PLAIN, &[]), sync()].concat()),
        Step::Ready(1),
        Step::Send(query("SET client_encoding = LATIN1")),
        Step::Ready(1),
        Step::Send([close, parse_again, sync()].concat()),
        Step::Ready(1),
        Step::Send(query("SET client_encoding = UTF8")),
        Step::Ready(1),
        Step::Send([bind("", "\u{e9}", &[], 0), execute("", 0), sync()].concat()),
        Step::Ready(1),
    ]);
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
    assert_eq!(said.all("DataRow"), ["DataRow 'item 1'"], "{said}");
}

/// Cursors and portals from before a savepoint are there when it is rolled back.
#[test]
fn what_a_savepoint_takes_back_leaves_earlier_cursors() {
    let mut steps = Vec::new();
    for sql in [
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id",
    ] {
        steps.extend([Step::Send(query(sql)), Step::Ready(1)]);
    }
    let portal = [parse("", PLAIN, &[]), bind("p", "", &[], 0), sync()].concat();
    steps.extend([Step::Send(portal), Step::Ready(1)]);
    for sql in [
        "SAVEPOINT s",
        "SELECT 1/0",
        "ROLLBACK TO s",
        "FETCH 2 FROM c",
    ] {
        steps.extend([Step::Send(query(sql)), Step::Ready(1)]);
    }
    steps.extend([
        Step::Send([execute("p", 0), sync()].concat()),
        Step::Ready(1),
    ]);
    let said = stays_hidden(&steps);
    assert_eq!(said.sqlstates(), ["22012"], "{said}");
    assert_eq!(said.all("DataRow").len(), 3, "{said}");
}

/// What Chaperone refuses by itself it refuses under a name too.
#[test]
fn a_role_is_not_changed_by_execute() {
    let rig = rig();
    let proxy = rig
        .masking(env!("CARGO_BIN_EXE_chaperone"), "")
        .start()
        .unwrap();
    let mut wire = Rig::through(&proxy);
    wire.ask(&[parse("s", "SET ROLE app", &[]), sync()].concat());
    for message in [
        query("EXECUTE s"),
        [unsynced("EXECUTE s"), sync()].concat(),
        [bind("", "s", &[], 0), execute("", 0), sync()].concat(),
    ] {
        let said = wire.ask(&message);
        assert_eq!(said.sqlstates(), ["42501"], "{said}");
    }
}

#[test]
fn a_portal_of_an_aborted_transaction_is_there_until_that_ends() {
    let run = || Step::Send([execute("p", 1), sync()].concat());
    let said = rig().same(&[
        Step::Send(query("BEGIN; SAVEPOINT a")),
        Step::Ready(1),
        Step::Send(
            [
                parse(
                    "",
                    "SELECT 1 / (g - 1) FROM generate_series(0, 3) AS g",
                    &[],
                ),
                bind("p", "", &[], 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
        run(),
        Step::Ready(1),
        run(),
        Step::Ready(1),
        run(),
        Step::Ready(1),
        // What comes behind the end of what failed finds nothing.
        Step::Send([query("ROLLBACK TO a"), execute("p", 1), sync()].concat()),
        Step::Ready(2),
        run(),
        Step::Ready(1),
        Step::Send(query("ROLLBACK")),
        Step::Ready(1),
    ]);
    assert_eq!(
        said.sqlstates(),
        ["22012", "25P02", "34000", "34000"],
        "{said}"
    );
}
