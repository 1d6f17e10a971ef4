//! Errors at awkward places: the queue of expected replies must stay in step with the server, and
//! the session with what PostgreSQL alone would do.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::MutexGuard;

use chaperone_test_support::wire::Step;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

#[test]
fn a_query_behind_an_error_without_sync_is_skipped_like_all_that_follows() {
    let said = rig().same(&[
        Step::Send(query("SELECT 1")),
        Step::Ready(1),
        Step::Send([unsynced("SELECT 1/0"), query("SELECT 2")].concat()),
        Step::Quiet,
        Step::Send([query("SELECT 3"), query("SELECT 4")].concat()),
        Step::Quiet,
        Step::Send(sync()),
        Step::Ready(1),
        Step::Send(query("SELECT 5, 6")),
        Step::Ready(1),
        Step::Quiet,
    ]);
    assert_eq!(said.all("DataRow").len(), 2);
}

#[test]
fn whatever_queries_ask_for_they_are_skipped_behind_an_error_without_sync() {
    let rig = rig();
    for failing in [run("SELECT 1/0", &[]), parse("", "SELECT nothing", &[])] {
        // What changes settings has the next text looked at anew, by questions of the proxy's own.
        for query_text in [
            "SET TimeZone = 'UTC'",
            "SELECT 1",
            "SELEC 1",
            "COPY item FROM STDIN",
        ] {
            let insert = query("INSERT INTO item VALUES (50, 'x')");
            let said = rig.same(&[
                Step::Send(query("SET application_name = 'x'")),
                Step::Ready(1),
                Step::Send([failing.clone(), query(query_text), query("SELEC 1"), insert].concat()),
                Step::Quiet,
                Step::Send([sync(), query("SELECT count(*) FROM item")].concat()),
                Step::Ready(2),
            ]);
            assert_eq!(said.sqlstates().len(), 1, "{said}");
            assert_eq!(said.all("DataRow"), ["DataRow '5'"], "{said}");
        }
    }
}

/// A server that is told to execute the portal of a simple query that failed reads memory that it has
/// freed; some die of it, and all their sessions with them.
#[test]
fn the_unnamed_portal_goes_with_a_simple_query() {
    let rig = rig();
    for failing in [query("SELECT 1/0"), query("CREATE TABLE item (x int)")] {
        for at_once in [false, true] {
            let parts = [
                query("BEGIN"),
                [unsynced("SELECT 1"), sync()].concat(),
                failing.clone(),
                [execute("", 0), sync()].concat(),
            ];
            let mut wire = rig.open();
            let steps = if at_once {
                vec![Step::Send(parts.concat()), Step::Ready(4)]
            } else {
                let step = |part: &Vec<u8>| [Step::Send(part.clone()), Step::Ready(1)];
                parts.iter().flat_map(step).collect()
            };
            let said = wire.play(&steps);
            assert_eq!(said.sqlstates().len(), 2, "{said}");
            // The proxy's word, and not the server's.
            assert_eq!(said.sqlstates()[1], "34000", "{said}");
            assert_eq!(said.0.last().unwrap(), "ReadyForQuery E", "{said}");
        }
    }
}

#[test]
fn a_portal_does_not_close_itself() {
    for (text, state) in [("CLOSE ALL", "55000"), ("DISCARD ALL", "34000")] {
        let said = rig().same(&[
            Step::Send([unsynced(text), execute("", 0), sync()].concat()),
            Step::Ready(1),
            Step::Quiet,
        ]);
        assert_eq!(said.sqlstates(), [state], "{text}: {said}");
    }
}

#[test]
fn what_waits_for_a_name_is_skipped_when_giving_it_fails() {
    rig().same(&[
        Step::Send(query("PREPARE p AS SELECT 1")),
        Step::Ready(1),
        Step::Send(
            [
                unsynced("PREPARE p AS SELECT 1"),
                unsynced("SELECT 2"),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
        Step::Send(query("SELECT 3")),
        Step::Ready(1),
        Step::Quiet,
    ]);
}

#[test]
fn a_sync_inside_copy_is_not_waited_for() {
    let copy = || Step::Send([unsynced("COPY item FROM STDIN"), sync()].concat());
    for data in ["not-a-number\tx\n", "77\tx\n"] {
        rig().same(&[
            copy(),
            Step::Quiet,
            Step::Send([copy_data(data), copy_done()].concat()),
            Step::Quiet,
            Step::Send(sync()),
            Step::Ready(1),
            Step::Send(query("SELECT 1")),
            Step::Ready(1),
            Step::Quiet,
        ]);
    }
}

#[test]
fn copy_done_without_copy_is_ignored() {
    rig().same(&[
        Step::Send([copy_done(), query("SELECT 1")].concat()),
        Step::Ready(1),
        Step::Send([unsynced("SELECT 1"), copy_done(), sync()].concat()),
        Step::Ready(1),
        Step::Quiet,
    ]);
}

#[test]
fn a_batch_longer_than_the_queue_of_replies() {
    const TIMES: usize = 9_000;
    let mut batch = parse("one", "SELECT 1", &[]);
    for _ in 0..TIMES {
        batch.extend(bind("", "one", &[], 0));
        batch.extend(execute("", 0));
    }
    batch.extend(sync());
    let said = rig().open().ask(&batch);
    assert_eq!(said.all("CommandComplete").len(), TIMES);
    assert!(said.sqlstates().is_empty());
}
