//! The same messages, to PostgreSQL and through a proxy that lets everything pass: the answers
//! must be the same, byte for byte in all that matters.

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
fn an_extended_query() {
    let said = same(
        &[
            parse(
                "",
                "SELECT id, body FROM item WHERE id > $1 ORDER BY id",
                &[23],
            ),
            bind("", "", &[Some("2")], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        1,
    );
    assert_eq!(said.all("DataRow").len(), 3);
    same(
        &[
            parse("", "", &[]),
            bind("", "", &[], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse("", "SELECT", &[]),
            bind("", "", &[], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse(
                "",
                "UPDATE item SET body = $2 WHERE id = $1 RETURNING *",
                &[],
            ),
            describe_statement(""),
            bind("", "", &[Some("2"), None], 0),
            execute("", 0),
            sync(),
        ],
        1,
    );
}

#[test]
fn a_pipeline_of_one_sync() {
    let insert = |id: &str| run("INSERT INTO item VALUES ($1, 'new')", &[Some(id)]);
    let count = || run("SELECT count(*) FROM item", &[]);
    same(&[insert("10"), count(), insert("11"), count(), sync()], 1);
    // The second fails: nothing of it stays and everything up to Sync is skipped.
    same(
        &[insert("10"), insert("1"), count(), sync(), count(), sync()],
        2,
    );
    same(
        &[
            insert("10"),
            parse("x", "SELEC", &[]),
            count(),
            parse("y", "SELECT 1", &[]),
            sync(),
            bind("", "y", &[], 0),
            sync(),
            count(),
            sync(),
        ],
        3,
    );
}

#[test]
fn pipelined_syncs() {
    let insert = |id: &str| run("INSERT INTO item VALUES ($1, 'new')", &[Some(id)]);
    let count = || run("SELECT count(*) FROM item", &[]);
    same(
        &[
            insert("10"),
            sync(),
            insert("1"),
            count(),
            sync(),
            insert("11"),
            sync(),
            sync(),
            count(),
            sync(),
        ],
        5,
    );
    same(
        &[
            run("BEGIN", &[]),
            sync(),
            insert("1"),
            sync(),
            insert("11"),
            sync(),
            run("ROLLBACK", &[]),
            sync(),
            count(),
            sync(),
        ],
        5,
    );
    // Simple and extended mixed.
    same(
        &[
            insert("10"),
            query("SELECT 1"),
            insert("1"),
            sync(),
            query("SELECT count(*) FROM item"),
            count(),
            sync(),
        ],
        4,
    );
}

#[test]
fn a_pipeline_of_a_thousand_statements() {
    let mut parts = vec![parse("s", "SELECT id, body FROM item WHERE id = $1", &[])];
    for i in 0..1000 {
        let id = (i % 6).to_string();
        parts.push([bind("", "s", &[Some(&id)], 0), execute("", 0)].concat());
    }
    parts.push(sync());
    let said = same(&parts, 1);
    assert_eq!(said.all("CommandComplete").len(), 1000);
    // And each with a Sync of its own, one in seven failing.
    let mut parts = Vec::new();
    for i in 0..1000 {
        let divisor = (i % 7).to_string();
        parts.push([run("SELECT 100 / $1::int", &[Some(&divisor)]), sync()].concat());
    }
    let said = same(&parts, 1000);
    assert_eq!(said.all("ErrorResponse").len(), 143);
}

#[test]
fn statement_names() {
    // A second Parse of the name fails and the first stays.
    same(
        &[
            parse("a", "SELECT 1", &[]),
            sync(),
            parse("a", "SELECT 2", &[]),
            sync(),
            bind("", "a", &[], 0),
            execute("", 0),
            sync(),
        ],
        3,
    );
    same(
        &[
            parse("a", "SELECT 1", &[]),
            parse("a", "SELECT 2", &[]),
            sync(),
            bind("", "a", &[], 0),
            execute("", 0),
            sync(),
        ],
        2,
    );
    same(
        &[
            parse("a", "SELECT 1", &[]),
            sync(),
            parse("a", "SELECT 2, 3", &[]),
            bind("", "a", &[], 0),
            execute("", 0),
            sync(),
            bind("", "a", &[], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        3,
    );
    // A name whose Parse was skipped behind an error does not exist.
    same(
        &[
            run("SELECT 1/0", &[]),
            parse("b", "SELECT 1", &[]),
            sync(),
            bind("", "b", &[], 0),
            sync(),
        ],
        2,
    );
    // Closed and made anew, also one that never was.
    same(
        &[
            close_statement("c"),
            parse("c", "SELECT 1", &[]),
            close_statement("c"),
            parse("c", "SELECT 2", &[]),
            bind("", "c", &[], 0),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse("c", "SELECT 1", &[]),
            sync(),
            run("SELECT 1/0", &[]),
            close_statement("c"),
            sync(),
            bind("", "c", &[], 0),
            execute("", 0),
            sync(),
        ],
        3,
    );
    same(
        &[
            bind("", "nothing", &[], 0),
            sync(),
            describe_statement("nothing"),
            sync(),
            execute("nothing", 0),
            sync(),
        ],
        3,
    );
}

#[test]
fn the_unnamed_statement() {
    let one = || parse("", "SELECT 1", &[]);
    let again = || [bind("", "", &[], 0), execute("", 0), sync()].concat();
    same(&[one(), sync(), again(), again()], 3);
    same(&[one(), parse("", "SELECT 2", &[]), sync(), again()], 2);
    // A failed Parse takes the old one with it, and so does a simple query.
    same(
        &[one(), sync(), parse("", "SELEC", &[]), sync(), again()],
        3,
    );
    same(&[one(), sync(), query("SELECT 3"), again()], 3);
    same(&[one(), sync(), query("SELEC"), again()], 3);
    same(&[one(), close_statement(""), sync(), again()], 2);
    same(&[again()], 1);
}

#[test]
fn portals_are_executed_in_parts() {
    let open = || {
        [
            parse("s", "SELECT id FROM item ORDER BY id", &[]),
            bind("p", "s", &[], 0),
        ]
        .concat()
    };
    same(
        &[
            open(),
            execute("p", 2),
            execute("p", 2),
            execute("p", 2),
            execute("p", 2),
            sync(),
        ],
        1,
    );
    // They end with the transaction.
    same(
        &[open(), execute("p", 2), sync(), execute("p", 2), sync()],
        2,
    );
    same(
        &[
            query("BEGIN"),
            open(),
            execute("p", 2),
            sync(),
            describe_portal("p"),
            execute("p", 1),
            sync(),
            query("COMMIT"),
            execute("p", 2),
            sync(),
        ],
        5,
    );
    // The name is taken until it is closed; the unnamed one gives way.
    same(&[open(), bind("p", "s", &[], 0), sync(), open()], 1);
    same(
        &[
            open(),
            execute("p", 1),
            close_portal("p"),
            bind("p", "s", &[], 1),
            execute("p", 1),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse("s", "SELECT id FROM item ORDER BY id", &[]),
            bind("", "s", &[], 0),
            execute("", 1),
            bind("", "s", &[], 0),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse(
                "s",
                "INSERT INTO item VALUES (20, 'x'), (21, 'y') RETURNING id",
                &[],
            ),
            bind("p", "s", &[], 0),
            execute("p", 1),
            execute("p", 1),
            execute("p", 1),
            sync(),
            query("SELECT count(*) FROM item"),
        ],
        2,
    );
}

#[test]
fn describe() {
    same(
        &[
            parse(
                "s",
                "SELECT $1::int AS a, $2 || 'x' AS b, id FROM item",
                &[],
            ),
            describe_statement("s"),
            bind("p", "s", &[Some("1"), Some("y")], 1),
            describe_portal("p"),
            sync(),
            describe_portal("p"),
            sync(),
        ],
        2,
    );
    same(
        &[
            parse("s", "DELETE FROM item WHERE id = $1", &[]),
            describe_statement("s"),
            bind("", "s", &[Some("1")], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse("s", "SHOW work_mem", &[]),
            describe_statement("s"),
            bind("", "s", &[], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse("s", "SELECT nothing", &[]),
            describe_statement("s"),
            sync(),
        ],
        1,
    );
}

#[test]
fn formats() {
    let all = "SELECT id, body, $1::float8, now() IS NULL, ARRAY[1, 2], NULL::int FROM item ORDER BY id LIMIT 2";
    for formats in [&[][..], &[0], &[1], &[1, 0, 1, 0, 1, 0]] {
        let bind = bind_formats("", "", &[0], &[Some(b"1.5")], formats);
        same(
            &[
                parse("", all, &[]),
                bind,
                describe_portal(""),
                execute("", 0),
                sync(),
            ],
            1,
        );
    }
    // Binary parameters, and wrong counts of formats.
    let bind = |formats: &[u16], results: &[u16]| {
        bind_formats("", "", formats, &[Some(&[0, 0, 0, 3]), Some(b"z")], results)
    };
    let sum = || parse("", "SELECT $1::int + 1, $2::text", &[]);
    same(&[sum(), bind(&[1, 0], &[1]), execute("", 0), sync()], 1);
    same(&[sum(), bind(&[1], &[0]), execute("", 0), sync()], 1);
    same(&[sum(), bind(&[1, 0, 0], &[0]), execute("", 0), sync()], 1);
    same(
        &[sum(), bind(&[1, 0], &[0, 0, 0]), execute("", 0), sync()],
        1,
    );
    same(&[sum(), bind(&[0, 0], &[0, 0]), execute("", 0), sync()], 1);
    same(&[sum(), bind(&[7], &[0]), execute("", 0), sync()], 1);
}

#[test]
fn flush_without_sync() {
    let steps = [
        Step::Send([run("SELECT id FROM item ORDER BY id", &[]), flush()].concat()),
        Step::Until(b'C'),
        Step::Send([run("INSERT INTO item VALUES (9, 'x')", &[]), flush()].concat()),
        Step::Until(b'C'),
        Step::Send(
            [
                parse("t", "SELECT count(*) FROM item", &[]),
                describe_statement("t"),
                flush(),
            ]
            .concat(),
        ),
        Step::Until(b'T'),
        Step::Send([bind("", "t", &[], 1), execute("", 0), flush()].concat()),
        Step::Until(b'C'),
        Step::Send([run("SELECT 1/0", &[]), flush()].concat()),
        Step::Until(b'E'),
        Step::Send([run("SELECT 1", &[]), flush()].concat()),
        Step::Quiet,
        Step::Send(sync()),
        Step::Ready(1),
        Step::Send(query("SELECT count(*) FROM item")),
        Step::Ready(1),
    ];
    let said = rig().same(&steps);
    assert_eq!(said.all("ReadyForQuery").len(), 2);
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
fn prepared_statements_by_sql_and_by_message() {
    let by_message = |name: &str| [bind("", name, &[], 0), execute("", 0), sync()].concat();
    same(
        &[
            query("PREPARE a AS SELECT 7"),
            by_message("a"),
            query("EXECUTE a"),
        ],
        3,
    );
    same(
        &[
            parse("b", "SELECT 8", &[]),
            sync(),
            query("EXECUTE b"),
            query("DEALLOCATE b"),
            by_message("b"),
            parse("b", "SELECT 9", &[]),
            sync(),
            by_message("b"),
        ],
        6,
    );
    same(
        &[
            parse("b", "SELECT 8", &[]),
            sync(),
            query("DEALLOCATE ALL"),
            by_message("b"),
            parse("b", "SELECT 9", &[]),
            by_message("b"),
        ],
        4,
    );
    same(
        &[
            parse("b", "SELECT 8", &[]),
            sync(),
            query("DISCARD ALL"),
            by_message("b"),
            parse("b", "SELECT 9", &[]),
            by_message("b"),
        ],
        4,
    );
    // In one pipeline.
    same(
        &[
            parse("b", "SELECT 8", &[]),
            run("DEALLOCATE b", &[]),
            bind("", "b", &[], 0),
            execute("", 0),
            sync(),
            by_message("b"),
        ],
        2,
    );
    same(
        &[
            parse("b", "SELECT 8", &[]),
            run("DEALLOCATE b", &[]),
            parse("b", "SELECT 9", &[]),
            bind("", "b", &[], 0),
            execute("", 0),
            sync(),
            by_message("b"),
        ],
        2,
    );
    // Survives a rollback, as prepared statements do.
    same(
        &[
            query("BEGIN"),
            parse("b", "SELECT 8", &[]),
            sync(),
            query("DEALLOCATE b"),
            query("ROLLBACK"),
            by_message("b"),
            parse("c", "SELECT 9", &[]),
            sync(),
            query("BEGIN; SELECT 1/0"),
            query("ROLLBACK"),
            by_message("c"),
        ],
        8,
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
