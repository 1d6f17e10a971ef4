//! Chaperone asks the backend's catalog on the client's own connection. What it asks leaves nothing
//! behind: no lock, no setting, and no aborted transaction where it fails.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{MutexGuard, Once};
use std::time::Duration;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, Rig};
use chaperone_test_support::wire::{Step, Transcript};

const PATIENCE: Duration = Duration::from_secs(60);

/// To print these views the backend locks what they read.
const MORE: &str = "
    CREATE VIEW public.seen AS SELECT id, body FROM item;
    CREATE VIEW public.seen_again AS SELECT id, upper(body) FROM seen;
    GRANT SELECT ON public.seen, public.seen_again TO app;
";

fn rig() -> MutexGuard<'static, Rig> {
    static MADE: Once = Once::new();
    let rig = Rig::take(env!("CARGO_BIN_EXE_chaperone"));
    MADE.call_once(|| rig.postgres.script(DATABASE, MORE).unwrap());
    rig
}

fn one_by_one(texts: &[&str]) -> Vec<Step> {
    let steps = texts.iter();
    steps
        .flat_map(|text| [Step::Send(query(text)), Step::Ready(1)])
        .collect()
}

fn same(texts: &[&str]) -> Transcript {
    rig().same(&one_by_one(texts))
}

/// After this the catalog is another one, for this session alone.
const CHANGE: &str = "CREATE TEMP TABLE own (a int)";
/// What the session has locked, apart from this statement's own.
const LOCKS: &str = "SELECT relation::regclass::text, mode FROM pg_locks \
                     WHERE pid = pg_backend_pid() AND relation <> 'pg_locks'::regclass \
                     AND relation <> 'own'::regclass ORDER BY 1, 2";

#[test]
fn a_transaction_holds_the_locks_of_its_own_statements_alone() {
    let said = same(&[
        "BEGIN",
        CHANGE,
        LOCKS,
        "SELECT count(*) FROM own",
        LOCKS,
        "COMMIT",
    ]);
    assert!(!said.to_string().contains("item"), "{said}");
}

#[test]
fn settings_of_the_client_stay() {
    same(&[
        "SET jit = on",
        "SET lock_timeout = '7s'",
        "SELECT id FROM seen ORDER BY id LIMIT 1",
        "SHOW jit",
        "SHOW lock_timeout",
        "BEGIN",
        CHANGE,
        "SELECT id FROM seen ORDER BY id LIMIT 1",
        "SHOW jit",
        "SHOW lock_timeout",
        "ROLLBACK",
    ]);
}

#[test]
fn what_is_open_in_a_transaction_stays_open() {
    let said = same(&[
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id",
        "FETCH 1 FROM c",
        "SAVEPOINT a",
        CHANGE,
        "FETCH 1 FROM c",
        "INSERT INTO item VALUES (70, 'x')",
        "ROLLBACK TO a",
        "FETCH 1 FROM c",
        "SELECT count(*) FROM seen_again",
        "COMMIT",
    ]);
    assert_eq!(said.all("DataRow").len(), 4, "{said}");
}

#[test]
fn a_portal_of_the_client_outlives_a_question() {
    let run = || Step::Send([execute("p", 1), sync()].concat());
    rig().same(&[
        Step::Send(query("BEGIN")),
        Step::Ready(1),
        Step::Send(
            [
                parse("", "SELECT id FROM item ORDER BY id", &[]),
                bind("p", "", &[], 0),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(1),
        run(),
        Step::Ready(1),
        Step::Send([query(CHANGE), query("SELECT count(*) FROM own")].concat()),
        Step::Ready(2),
        run(),
        Step::Ready(1),
        Step::Send(query("COMMIT")),
        Step::Ready(1),
    ]);
}

/// What is in flight when a question is asked may begin a transaction, or end one.
#[test]
fn questions_behind_statements_in_flight() {
    let texts = [
        "BEGIN",
        CHANGE,
        "SELECT id FROM seen ORDER BY id LIMIT 1",
        "COMMIT",
        "SHOW jit",
        "SELECT count(*) FROM own",
        "BEGIN; SELECT 1/0",
        "SELECT count(*) FROM seen",
        "ROLLBACK",
        "DROP TABLE own",
        "SELECT count(*) FROM seen",
    ];
    let sent: Vec<_> = texts.iter().flat_map(|text| query(text)).collect();
    rig().same(&[Step::Send(sent), Step::Ready(texts.len())]);
}

/// Nobody answers the question while somebody else has locked a catalog that the client's own
/// statement does not need.
#[test]
fn a_question_that_fails_aborts_no_transaction() {
    let rig = rig();
    let begun = [
        "BEGIN",
        CHANGE,
        "DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id",
    ];
    let asks = [
        "FETCH 1 FROM c",
        "SELECT id FROM item WHERE id = 2",
        "COMMIT",
    ];
    let (mut open, mut direct, mut ruled) = (rig.open(), rig.direct(), rig.ruled());
    for wire in [&mut open, &mut direct, &mut ruled] {
        wire.play(&one_by_one(&begun[..1]));
    }
    open.play(&one_by_one(&begun[1..]));
    direct.play(&one_by_one(&begun[1..]));
    let mut other = rig.postgres.superuser(DATABASE).session().unwrap();
    let lock = "BEGIN; LOCK TABLE pg_catalog.pg_description IN ACCESS EXCLUSIVE MODE;";
    other.run(lock, PATIENCE).unwrap();
    let expected = direct.play(&one_by_one(&asks));
    let said = open.play(&one_by_one(&asks));
    // Where something may be masked, nothing passes that is not understood.
    let refused = ruled.play(&one_by_one(&["SELECT id FROM item WHERE id = 2", "COMMIT"]));
    other.run("COMMIT;", PATIENCE).unwrap();
    assert_eq!(said.to_string(), expected.to_string());
    assert_eq!(said.all("DataRow").len(), 2, "{said}");
    assert_eq!(refused.sqlstates(), ["0A000"], "{refused}");
    let after = ruled.play(&one_by_one(&["SELECT id FROM item WHERE id = 2"]));
    assert_eq!(after.all("DataRow").len(), 1, "{after}");
}
