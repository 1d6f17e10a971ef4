//! A statement that policies refuse, wherever it stands: what the client hears and what the server
//! holds afterwards must be as if the server itself had failed at that place, apart from the
//! error's words.
//!
//! A refusal falls when a statement is bound, so a value that fits no parameter is the server's own
//! failure that it is compared with.

use std::sync::MutexGuard;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, Transcript};

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

/// A statement in the extended protocol that the server itself refuses at Bind.
fn failing() -> Vec<u8> {
    run(
        "SELECT v FROM item, forbidden WHERE item.id = $1",
        &[Some("x")],
    )
}

/// The same, which only a policy has something against.
fn refused() -> Vec<u8> {
    run(
        "SELECT v FROM item, forbidden WHERE item.id = $1",
        &[Some("1")],
    )
}

fn insert(id: &str) -> Vec<u8> {
    run("INSERT INTO item VALUES ($1, 'new')", &[Some(id)])
}

fn count() -> Vec<u8> {
    run("SELECT count(*) FROM item", &[])
}

/// Plays what `parts` makes of the failing statement, all at once, and wants no difference.
fn as_failing(parts: impl Fn(Vec<u8>) -> Vec<Vec<u8>>, ready: usize) -> Transcript {
    let steps = |x| {
        [
            Step::Send(parts(x).concat()),
            Step::Ready(ready),
            Step::Quiet,
        ]
    };
    rig().refused_as(&steps(failing()), &steps(refused()))
}

/// The same, waiting for the answer to each part.
fn as_failing_stepwise(parts: impl Fn(Vec<u8>) -> Vec<Vec<u8>>) -> Transcript {
    let steps = |x| {
        let step = |part| [Step::Send(part), Step::Ready(1)];
        let mut steps: Vec<_> = parts(x).into_iter().flat_map(step).collect();
        steps.push(Step::Quiet);
        steps
    };
    rig().refused_as(&steps(failing()), &steps(refused()))
}

/// The same for simple queries: `parts` gets the text.
fn as_failing_query(parts: impl Fn(&str) -> Vec<Vec<u8>>, ready: usize) -> Transcript {
    let steps = |x: &str| {
        [
            Step::Send(parts(x).concat()),
            Step::Ready(ready),
            Step::Quiet,
        ]
    };
    let refused = "SELECT v FROM forbidden";
    let said = rig().refused_as(&steps("SELECT v FROM forbidden_not"), &steps(refused));
    let stepwise = |x: &str| {
        let step = |part| [Step::Send(part), Step::Ready(1)];
        parts(x).into_iter().flat_map(step).collect::<Vec<_>>()
    };
    if parts("").len() == ready {
        rig().refused_as(&stepwise("SELECT v FROM forbidden_not"), &stepwise(refused));
    }
    said
}

#[test]
fn alone() {
    as_failing(|x| vec![x, sync()], 1);
    as_failing_query(|x| vec![query(x)], 1);
    as_failing_query(
        |x| vec![query(x), query("SELECT 1"), query(x), query("SELECT 2")],
        4,
    );
    as_failing(
        |x| {
            vec![
                [x.clone(), sync()].concat(),
                [x, sync()].concat(),
                [count(), sync()].concat(),
            ]
        },
        3,
    );
}

#[test]
fn what_comes_before_it_in_the_pipeline_is_not_committed() {
    let said = as_failing(|x| vec![insert("10"), x, sync()], 1);
    assert_eq!(said.all("CommandComplete"), ["CommandComplete INSERT 0 1"]);
    as_failing(
        |x| vec![insert("10"), count(), x, count(), sync(), count(), sync()],
        2,
    );
    as_failing(
        |x| {
            vec![
                insert("10"),
                sync(),
                insert("11"),
                x,
                insert("12"),
                sync(),
                count(),
                sync(),
            ]
        },
        3,
    );
}

#[test]
fn what_comes_behind_it_is_skipped() {
    let said = as_failing(
        |x| vec![x, insert("10"), count(), sync(), count(), sync()],
        2,
    );
    assert_eq!(said.all("CommandComplete"), ["CommandComplete SELECT 1"]);
    // One error only, though two are refused.
    let said = as_failing(
        |x| vec![count(), x.clone(), x, insert("10"), sync(), count(), sync()],
        2,
    );
    assert_eq!(said.sqlstates().len(), 1);
    // Also a message that makes a name.
    as_failing(
        |x| {
            vec![
                x,
                parse("s", "SELECT 1", &[]),
                sync(),
                bind("", "s", &[], 0),
                execute("", 0),
                sync(),
            ]
        },
        2,
    );
    as_failing(
        |x| {
            vec![
                parse("s", "SELECT 1", &[]),
                sync(),
                x,
                close_statement("s"),
                parse("t", "SELECT 1", &[]),
                sync(),
                bind("", "s", &[], 0),
                execute("", 0),
                describe_statement("t"),
                sync(),
            ]
        },
        3,
    );
}

#[test]
fn behind_an_error_of_the_server_it_is_not_mentioned() {
    // Here the server's own error comes first, so nothing of ours may be heard.
    let steps = |x| {
        [
            Step::Send([run("SELECT 1/0", &[]), x, sync(), count(), sync()].concat()),
            Step::Ready(2),
            Step::Quiet,
        ]
    };
    let rig = rig();
    let direct = rig.direct().play(&steps(failing()));
    let proxied = rig.ruled().play(&steps(refused()));
    assert_eq!(direct, proxied);
}

#[test]
fn several_pipelines_at_once() {
    as_failing(
        |x| {
            vec![
                insert("10"),
                sync(),
                x.clone(),
                insert("11"),
                sync(),
                insert("12"),
                x,
                sync(),
                sync(),
                count(),
                sync(),
            ]
        },
        5,
    );
    as_failing(
        |x| {
            vec![
                insert("10"),
                x,
                sync(),
                query("SELECT count(*) FROM item"),
                insert("11"),
                sync(),
            ]
        },
        3,
    );
}

#[test]
fn in_a_transaction() {
    let begin = || query("BEGIN");
    let said = as_failing_stepwise(|x| {
        vec![
            begin(),
            query("INSERT INTO item VALUES (10, 'new')"),
            [x, sync()].concat(),
            query("SELECT 1"),
            query("COMMIT"),
            query("SELECT count(*) FROM item"),
        ]
    });
    assert_eq!(said.all("ReadyForQuery E").len(), 2);
    as_failing_stepwise(|x| {
        vec![
            begin(),
            [x, sync()].concat(),
            query("ROLLBACK"),
            query("SELECT 1"),
        ]
    });
    as_failing(
        |x| {
            vec![
                begin(),
                insert("10"),
                x,
                sync(),
                query("ROLLBACK"),
                count(),
                sync(),
            ]
        },
        4,
    );
    as_failing(
        |x| {
            vec![
                run("BEGIN", &[]),
                insert("10"),
                sync(),
                x,
                sync(),
                count(),
                sync(),
                run("COMMIT", &[]),
                sync(),
                count(),
                sync(),
            ]
        },
        5,
    );
    as_failing_query(
        |x| {
            vec![
                begin(),
                query("INSERT INTO item VALUES (10, 'new')"),
                query(x),
                query("SELECT 1"),
                query("COMMIT"),
                query("SELECT count(*) FROM item"),
            ]
        },
        6,
    );
}

#[test]
fn behind_a_savepoint() {
    as_failing_stepwise(|x| {
        vec![
            query("BEGIN"),
            query("INSERT INTO item VALUES (10, 'new')"),
            query("SAVEPOINT a"),
            [x, sync()].concat(),
            query("ROLLBACK TO a"),
            query("SELECT count(*) FROM item"),
            query("COMMIT"),
        ]
    });
    as_failing_query(
        |x| {
            vec![
                query("BEGIN; SAVEPOINT a"),
                query(x),
                query("ROLLBACK TO a"),
                query("INSERT INTO item VALUES (10, 'new')"),
                query("COMMIT"),
            ]
        },
        5,
    );
}

#[test]
fn a_string_of_statements_is_refused_whole() {
    let rig = rig();
    for text in [
        "INSERT INTO item VALUES (10, 'new'); SELECT v FROM forbidden",
        "SELECT v FROM forbidden; INSERT INTO item VALUES (10, 'new')",
        "SELECT 1; INSERT INTO item VALUES (10, 'new'); COMMIT; SELECT v FROM forbidden; SELECT 2",
        "BEGIN; INSERT INTO item VALUES (10, 'new'); COMMIT; SELECT v FROM forbidden",
    ] {
        let mut wire = rig.ruled();
        let said = wire.play(&[Step::Send(query(text)), Step::Ready(1), Step::Quiet]);
        assert_eq!(said.sqlstates(), ["42501"], "{text}\n{said}");
        assert_eq!(said.0.len(), 2, "{text}\n{said}");
        assert_eq!(said.0[1], "ReadyForQuery I", "{text}\n{said}");
        assert!(!rig.items().contains("10"), "{text}");
        let said = wire.ask(&query("SELECT 1"));
        assert_eq!(said.0.len(), 4, "{said}");
    }
    // In a transaction, all of it is lost, as after any error.
    let mut wire = rig.ruled();
    wire.ask(&query("BEGIN"));
    wire.ask(&query("INSERT INTO item VALUES (10, 'new')"));
    let said = wire.ask(&query("COMMIT; SELECT v FROM forbidden"));
    assert_eq!(said.0.last().unwrap(), "ReadyForQuery E", "{said}");
    wire.ask(&query("COMMIT"));
    assert!(!rig.items().contains("10"));
}

#[test]
fn the_error_comes_at_once_without_sync() {
    let steps = |x: Vec<u8>| {
        vec![
            Step::Send([insert("10"), x, flush()].concat()),
            Step::Until(b'E'),
            Step::Send([count(), flush()].concat()),
            Step::Quiet,
            Step::Send(sync()),
            Step::Ready(1),
            Step::Quiet,
        ]
    };
    rig().refused_as(&steps(failing()), &steps(refused()));
    let alone = |x: Vec<u8>| {
        vec![
            Step::Send(x),
            Step::Until(b'E'),
            Step::Quiet,
            Step::Send([count(), sync()].concat()),
            Step::Ready(1),
            Step::Quiet,
        ]
    };
    rig().refused_as(&alone(failing()), &alone(refused()));
}

#[test]
fn names_stay_as_a_failure_leaves_them() {
    let text = "SELECT v FROM item, forbidden WHERE item.id = $1";
    let steps = |value: &str, name: &str| {
        let parts = [
            parse("s", "SELECT 1", &[]),
            bind("p", "s", &[], 0),
            sync(),
            parse(name, text, &[]),
            describe_statement(name),
            bind("q", name, &[Some(value)], 0),
            sync(),
            describe_statement(name),
            bind("", "s", &[], 0),
            execute("", 0),
            sync(),
            execute("q", 0),
            sync(),
            close_statement(name),
            sync(),
        ];
        [Step::Send(parts.concat()), Step::Ready(5), Step::Quiet]
    };
    for name in ["", "x"] {
        rig().refused_as(&steps("x", name), &steps("1", name));
    }
    // A simple query takes the unnamed statement with it, also one that is refused.
    as_failing_query(
        |x| {
            vec![
                [parse("", "SELECT 1", &[]), sync()].concat(),
                query(x),
                [bind("", "", &[], 0), execute("", 0), sync()].concat(),
            ]
        },
        3,
    );
}

#[test]
fn open_portals_end_with_the_refused_pipeline() {
    as_failing(
        |x| {
            vec![
                parse("s", "SELECT id FROM item ORDER BY id", &[]),
                bind("p", "s", &[], 0),
                execute("p", 2),
                x,
                execute("p", 2),
                sync(),
                execute("p", 2),
                sync(),
            ]
        },
        2,
    );
    as_failing_stepwise(|x| {
        vec![
            query("BEGIN"),
            [
                parse("s", "SELECT id FROM item ORDER BY id", &[]),
                bind("p", "s", &[], 0),
                execute("p", 2),
                sync(),
            ]
            .concat(),
            [x, sync()].concat(),
            [execute("p", 2), sync()].concat(),
            query("ROLLBACK"),
        ]
    });
}

#[test]
fn effects_of_refused_statements() {
    let rig = rig();
    let mut wire = rig.ruled();
    for text in [
        "DELETE FROM forbidden",
        "UPDATE forbidden SET v = 'x'",
        "INSERT INTO forbidden VALUES (2, 'x')",
        "WITH d AS (DELETE FROM forbidden RETURNING *) SELECT 1",
        "INSERT INTO item SELECT id + 100, v FROM forbidden",
        "COPY forbidden FROM STDIN",
        "COPY forbidden TO STDOUT",
        "COPY (SELECT v FROM forbidden) TO STDOUT",
        "TRUNCATE forbidden",
    ] {
        let said = wire.ask(&query(text));
        assert_eq!(said.sqlstates().len(), 1, "{text}\n{said}");
        assert_eq!(said.0.len(), 2, "{text}\n{said}");
    }
    let v = rig
        .postgres
        .value("wire", "SELECT v FROM forbidden")
        .unwrap();
    assert_eq!(v.trim(), "one");
    assert!(!rig.items().contains("101"));
}

#[test]
fn thousands_of_refusals_leave_the_session_in_step() {
    let mut parts = Vec::new();
    for i in 0..300 {
        let x = if i % 3 == 1 { refused() } else { count() };
        parts.push([count(), x, sync()].concat());
    }
    let rig = rig();
    let said = rig
        .ruled()
        .play(&[Step::Send(parts.concat()), Step::Ready(300), Step::Quiet]);
    assert_eq!(said.all("ErrorResponse").len(), 100);
    assert_eq!(said.all("DataRow '5'").len(), 500);
}
