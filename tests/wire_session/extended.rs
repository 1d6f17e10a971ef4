//! The extended protocol: pipelines, portals, descriptions and formats.

use chaperone_test_support::wire::Step;
use chaperone_test_support::wire::frontend::*;

use crate::{rig, same};

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
