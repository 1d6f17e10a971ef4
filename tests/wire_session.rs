//! The same messages, to PostgreSQL and through a proxy that lets everything pass: the answers
//! must be the same, byte for byte in all that matters.

#[path = "wire_session/extended.rs"]
mod extended;
#[path = "wire_session/prepared.rs"]
mod prepared;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, Transcript};
use std::sync::MutexGuard;

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

/// Sends it all at once and reads `ready` ReadyForQuery, then until nothing comes.
fn same(parts: &[Vec<u8>], ready: usize) -> Transcript {
    let steps = [Step::Send(parts.concat()), Step::Ready(ready), Step::Quiet];
    rig().same(&steps)
}

#[test]
fn a_simple_query() {
    let said = same(&[query("SELECT id, body FROM item ORDER BY id")], 1);
    assert_eq!(said.all("DataRow").len(), 5);
    same(&[query("")], 1);
    same(&[query(" ; ; -- nothing\n")], 1);
    same(&[query("SELECT")], 1);
    same(&[query("SELECT FROM item")], 1);
}

#[test]
fn several_statements_in_one_query() {
    same(
        &[query(
            "SELECT 1; UPDATE item SET body = 'x' WHERE id < 3; SELECT 2",
        )],
        1,
    );
    same(
        &[query(
            "INSERT INTO item VALUES (9, 'x'); SELECT 1/0; SELECT 2",
        )],
        1,
    );
    same(
        &[
            query("BEGIN; INSERT INTO item VALUES (9, 'x'); COMMIT; SELECT 1"),
            query("SELECT count(*) FROM item"),
        ],
        2,
    );
    same(
        &[
            query("BEGIN; SELECT 1/0; COMMIT"),
            query("SELECT 1"),
            query("ROLLBACK"),
            query("SELECT 1"),
        ],
        4,
    );
}

#[test]
fn queries_are_answered_one_by_one() {
    let queries: Vec<_> = (0..50).map(|i| query(&format!("SELECT {i}"))).collect();
    same(&queries, 50);
}

#[test]
fn an_error_has_all_its_fields() {
    let said = same(
        &[
            query("SELECT body::int FROM item"),
            query("INSERT INTO item VALUES (1, 'again')"),
            query("SELEC 1"),
        ],
        3,
    );
    assert_eq!(said.sqlstates(), ["22P02", "23505", "42601"]);
    same(
        &[
            parse("", "SELEC 1", &[]),
            sync(),
            parse("", "SELECT body::int FROM item", &[]),
            sync(),
        ],
        2,
    );
}

#[test]
fn transactions() {
    let begun = [
        query("BEGIN"),
        query("INSERT INTO item VALUES (9, 'x')"),
        query("SELECT 1/0"),
        query("SELECT 1"),
    ];
    same(
        &[
            &begun[..],
            &[query("COMMIT"), query("SELECT count(*) FROM item")],
        ]
        .concat(),
        6,
    );
    let saved = [
        query("BEGIN"),
        query("SAVEPOINT a"),
        query("SELECT 1/0"),
        query("ROLLBACK TO a"),
    ];
    same(
        &[
            &saved[..],
            &[
                query("SELECT 1"),
                query("COMMIT AND CHAIN"),
                query("ROLLBACK"),
            ],
        ]
        .concat(),
        7,
    );
    same(
        &[
            query("COMMIT"),
            query("ROLLBACK"),
            query("BEGIN"),
            query("BEGIN"),
            query("END"),
        ],
        5,
    );
}

#[test]
fn notices_come_in_their_place() {
    let warn = "SELECT say('it')";
    let said = same(&[query(&format!("SELECT 1; {warn}; SELECT 2"))], 1);
    assert_eq!(said.all("NoticeResponse").len(), 2);
    same(
        &[
            run("SELECT 1", &[]),
            run(warn, &[]),
            run("SELECT 2", &[]),
            sync(),
        ],
        1,
    );
    same(
        &[query("DROP TABLE IF EXISTS nothing_here"), query("COMMIT")],
        2,
    );
}

#[test]
fn parameter_status() {
    let said = same(
        &[
            query("SET TimeZone = 'Asia/Tokyo'"),
            query("SELECT 1"),
            query("RESET TimeZone"),
            query("BEGIN; SET LOCAL DateStyle = 'German'; ROLLBACK"),
        ],
        4,
    );
    assert_eq!(said.all("ParameterStatus").len(), 2);
    same(
        &[
            query("SET client_encoding = 'LATIN1'"),
            query("SELECT chr(233)"),
            query("RESET ALL"),
        ],
        3,
    );
}

#[test]
fn settings_change_how_text_is_read() {
    same(
        &[
            query("SET application_name = 'x'"),
            query("SHOW application_name"),
            query("DISCARD ALL"),
            query("SHOW application_name"),
        ],
        4,
    );
}

#[test]
fn cursors_by_sql() {
    same(
        &[
            query("BEGIN; DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id"),
            query("FETCH 2 FROM c"),
            query("MOVE c"),
            query("FETCH ALL c"),
            query("CLOSE c"),
            query("COMMIT"),
        ],
        6,
    );
    same(
        &[
            query("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM item ORDER BY id"),
            query("FETCH 2 FROM c"),
            bind("", "", &[], 0),
            sync(),
            execute("c", 1),
            sync(),
            query("CLOSE ALL"),
            query("FETCH c"),
        ],
        6,
    );
}
