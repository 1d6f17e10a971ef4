//! Reads that fail on the proxy's side when the server is content already: what is told of them must be
//! true of everything that was sent behind them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/guest.rs"]
mod guest;

use std::path::PathBuf;
use std::sync::{LazyLock, MutexGuard};

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, Transcript, Wire};

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");

/// A policy that limits as the statement's text tells it to.
static WHIMS: LazyLock<PathBuf> =
    LazyLock::new(|| guest::build("whims", "whims", include_str!("common/whims.rs")));

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(BINARY)
}

fn whims(rig: &Rig) -> ChaperoneOptions {
    rig.bare(BINARY).policy("whims", &*WHIMS, "")
}

/// A session that knows the catalog of this moment, right before somebody adds a column to `item`.
fn before_a_change(rig: &Rig) -> Wire {
    let mut wire = rig.ruled();
    let said = wire.ask(&query("SELECT *, 1 FROM item"));
    assert_eq!(said.all("DataRow").len(), 5, "{said}");
    rig.direct()
        .ask(&query("ALTER TABLE item ADD COLUMN more int"));
    wire
}

fn without_the_change(rig: &Rig) {
    rig.direct()
        .ask(&query("ALTER TABLE item DROP COLUMN more"));
}

/// A client that was told of an error and goes on has to find nothing done.
#[track_caller]
fn told_the_truth(rig: &Rig, said: &Transcript) {
    let done = rig.items().contains("77");
    let goes_on = said
        .0
        .last()
        .is_some_and(|line| line.starts_with("ReadyForQuery"));
    let error = !said.sqlstates().is_empty();
    assert!(!(done && goes_on && error), "done, and yet: {said}");
    assert!(!said.to_string().contains("TIMEOUT"), "{said}");
    assert!(!said.sqlstates().contains(&"08P01"), "{said}");
}

#[test]
fn an_answer_that_does_not_fit_denies_nothing_that_was_done_behind_it() {
    let rig = rig();
    let insert = "INSERT INTO item (id) VALUES (77)";
    let batches = [
        vec![Step::Send(
            [unsynced("SELECT *, 1 FROM item"), unsynced(insert), sync()].concat(),
        )],
        vec![
            Step::Send(query("BEGIN")),
            Step::Ready(1),
            Step::Send(
                [
                    query("SELECT *, 1 FROM item"),
                    query(insert),
                    query("COMMIT"),
                ]
                .concat(),
            ),
        ],
    ];
    for mut steps in batches {
        rig.reset();
        let mut wire = before_a_change(&rig);
        steps.push(Step::Quiet);
        let said = wire.play(&steps);
        told_the_truth(&rig, &said);
        without_the_change(&rig);
    }
}

/// The server commits what stands beside it in its text or its batch.
#[test]
fn an_answer_that_does_not_fit_denies_nothing_that_was_done_beside_it() {
    let rig = rig();
    // With functions of its own in the database, a change has the catalog looked at again.
    for function in ["say", "blurt", "look_up"] {
        let drop = format!("DROP FUNCTION IF EXISTS {function}");
        rig.direct().ask(&query(&drop));
    }
    let insert = "INSERT INTO item (id) VALUES (77)";
    let select = "SELECT *, 1 FROM item";
    for batch in [
        query(&format!("{insert}; {select}")),
        query(&format!("{select}; {insert}")),
        query(&format!("BEGIN; {insert}; {select}; COMMIT")),
        [unsynced(insert), unsynced(select), sync()].concat(),
        [
            parse("s", select, &[]),
            bind("p", "s", &[], 0),
            unsynced(insert),
            execute("p", 0),
            sync(),
        ]
        .concat(),
    ] {
        rig.reset();
        let mut wire = before_a_change(&rig);
        let said = wire.play(&[Step::Send(batch), Step::Quiet]);
        without_the_change(&rig);
        told_the_truth(&rig, &said);
    }
    // Where an error can still undo it, it does, and the session goes on.
    rig.reset();
    let mut wire = before_a_change(&rig);
    let said = wire.ask(&query(&format!("BEGIN; {insert}; {select}")));
    without_the_change(&rig);
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
    assert_eq!(said.all("ReadyForQuery E").len(), 1, "{said}");
    told_the_truth(&rig, &said);
}

#[test]
fn a_second_sync_waits_for_what_the_first_batch_comes_to() {
    let rig = rig();
    let proxy = whims(&rig).start().unwrap();
    for _ in 0..10 {
        let mut wire = Rig::through(&proxy);
        let said = wire.play(&[
            Step::Send(query("BEGIN")),
            Step::Ready(1),
            Step::Send([unsynced("SELECT id AS whim_rows FROM item"), sync(), sync()].concat()),
            Step::Ready(2),
            Step::Quiet,
        ]);
        assert_eq!(said.sqlstates(), ["53400"], "{said}");
        assert_eq!(said.all("ReadyForQuery E").len(), 2, "{said}");
    }
}

#[test]
fn a_large_buffer_is_no_place_to_wait_in_for_ever() {
    let rig = rig();
    let proxy = whims(&rig)
        .toml("[statement]\nbuffer = \"4MiB\"")
        .start()
        .unwrap();
    let said = Rig::through(&proxy).ask(&query("SELECT * FROM big"));
    assert_eq!(said.all("DataRow").len(), 12_000);
}

/// What was known of a text's columns is not what the server makes of it when it reads it anew.
#[test]
fn masks_stay_on_their_columns_when_one_goes_and_another_comes() {
    let rig = rig();
    rig.direct().ask(&query(
        "CREATE TABLE shifting (a text, name text, ssn text);
         INSERT INTO shifting VALUES ('a', 'Testperson Shifting', '900-22-3344')",
    ));
    let labels =
        "\"public.shifting\" = { a = \"clear\", b = \"clear\", name = \"name\", ssn = \"ssn\" }";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let mut wire = Rig::through(&proxy);
    let all = [unsynced("SELECT * FROM shifting"), sync()].concat();
    let said = wire.ask(&all);
    assert_eq!(said.all("DataRow").len(), 1, "{said}");
    rig.direct().ask(&query(
        "ALTER TABLE shifting DROP COLUMN a, ADD COLUMN b text",
    ));
    for _ in 0..20 {
        let said = wire.ask(&all).to_string();
        assert!(
            !said.contains("Testperson") && !said.contains("900-22"),
            "{said}"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    rig.direct().ask(&query("DROP TABLE shifting"));
}

/// A policy's time is the statement's own: it begins when the server turns to it.
#[test]
fn a_time_limit_ends_the_statement_that_it_is_for() {
    let rig = rig();
    let proxy = whims(&rig).start().unwrap();
    let mut holder = rig.direct();
    holder.ask(&query("BEGIN"));
    holder.ask(&query("LOCK TABLE item"));
    let mut wire = Rig::through(&proxy);
    // The first has no limit and waits longer than the second may take.
    let first = "SELECT count(*) AS n FROM item";
    wire.send(&[query(first), query("SELECT id AS whim_time FROM item")].concat())
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(900));
    holder.ask(&query("COMMIT"));
    let said = wire.play(&[Step::Ready(2)]);
    assert!(said.sqlstates().is_empty(), "{said}");
    assert_eq!(said.all("DataRow").len(), 6, "{said}");
    // What takes longer than it may is cancelled, and nothing else.
    holder.ask(&query("BEGIN"));
    holder.ask(&query("LOCK TABLE item"));
    wire.send(&[query("SELECT id AS whim_time FROM item"), query("SELECT 7")].concat())
        .unwrap();
    let said = wire.play(&[Step::Ready(2)]);
    assert_eq!(said.sqlstates(), ["57014"], "{said}");
    assert_eq!(said.all("DataRow"), ["DataRow '7'"], "{said}");
}
