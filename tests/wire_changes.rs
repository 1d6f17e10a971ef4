//! What one session makes of the catalog holds for the others from their next statement on.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::time::Duration;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, done};

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");
const SSN: &str = "900-33-4455";
const READ: &str = "SELECT it FROM shifting";

/// Well within the age up to which a session takes what it knows of the catalog for current.
#[test]
fn a_label_holds_for_all_sessions_from_their_next_statement_on() {
    let rig = Rig::take(BINARY);
    let proxy = rig.masking(BINARY, "").start().unwrap();
    let mut maker = Rig::through(&proxy);
    let mut reader = Rig::through(&proxy);
    let mut owner = rig.direct();
    done(&mut owner, &query("CREATE TABLE shifting (it text)"));
    let clear = "COMMENT ON COLUMN shifting.it IS '@label(clear)'";
    let secret = "COMMENT ON COLUMN shifting.it IS '@label(ssn)'";
    done(&mut owner, &query(clear));
    let insert = format!("INSERT INTO shifting VALUES ('{SSN}')");
    done(&mut owner, &query(&insert));
    let batch = [run(secret, &[]), sync()].concat();
    let ways: [&[Vec<u8>]; 4] = [
        &[query(secret)],
        &[query("BEGIN"), query(secret), query("COMMIT")],
        &[query(&format!("SELECT 1; {secret}"))],
        &[batch],
    ];
    for way in ways {
        done(&mut owner, &query(clear));
        // By its age.
        std::thread::sleep(Duration::from_millis(1100));
        for _ in 0..3 {
            let said = reader.ask(&query(READ));
            assert!(said.to_string().contains(SSN), "{said}");
        }
        for messages in way {
            done(&mut maker, messages);
        }
        for read in [query(READ), [run(READ, &[]), sync()].concat()] {
            let said = reader.ask(&read);
            assert!(!said.to_string().contains(SSN), "{said}");
            assert_eq!(said.all("DataRow").len(), 1, "{said}");
        }
    }
    done(&mut owner, &query("DROP TABLE shifting"));
}

/// Nobody else sees it before, so nobody else looks at the catalog for it: what was changed around
/// Chaperone meanwhile is the probe.
#[test]
fn a_definition_whose_batch_is_not_ended_makes_nobody_look() {
    let rig = Rig::take(BINARY);
    let seldom = "[session]\ncatalog_age = \"1m\"";
    let proxy = rig.masking(BINARY, "").toml(seldom).start().unwrap();
    let mut maker = Rig::through(&proxy);
    let mut reader = Rig::through(&proxy);
    let mut owner = rig.direct();
    done(&mut owner, &query("CREATE TABLE shifting (it text)"));
    let clear = "COMMENT ON COLUMN shifting.it IS '@label(clear)'";
    let secret = "COMMENT ON COLUMN shifting.it IS '@label(ssn)'";
    let insert = format!("INSERT INTO shifting VALUES ('{SSN}')");
    done(&mut owner, &query(&insert));
    let mut shows = |expected: bool| {
        for read in [query(READ), [run(READ, &[]), sync()].concat()] {
            let said = reader.ask(&read);
            assert_eq!(said.to_string().contains(SSN), expected, "{said}");
            assert_eq!(said.all("DataRow").len(), 1, "{said}");
        }
    };
    // By its Sync, and by a simple Query in its place.
    for end in [sync(), query("SELECT 1")] {
        done(&mut owner, &query(secret));
        done(&mut maker, &query("COMMENT ON TABLE item IS NULL"));
        shows(false);
        let define = run("CREATE VIEW not_yet AS SELECT 1 AS one", &[]);
        let steps = [Step::Send([define, flush()].concat()), Step::Until(b'C')];
        let said = maker.play(&steps);
        assert!(said.sqlstates().is_empty(), "{said}");
        done(&mut owner, &query(clear));
        shows(false);
        done(&mut maker, &end);
        shows(true);
        done(&mut owner, &query("DROP VIEW not_yet"));
    }
    done(&mut owner, &query("DROP TABLE shifting"));
}

/// A session's statement that waits behind another one of its own was decided by what was there when
/// it was sent.
#[test]
fn what_was_changed_while_a_statement_waited_is_withheld() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let views = "DROP VIEW IF EXISTS shown, gone, secret;
        CREATE VIEW shown AS SELECT body::text AS v FROM item;
        CREATE VIEW secret AS SELECT ssn::text AS v FROM patient";
    let rename = [
        "BEGIN",
        "ALTER VIEW shown RENAME TO gone",
        "ALTER VIEW secret RENAME TO shown",
        "COMMIT",
    ];
    let mut maker = Rig::through(&proxy);
    let extended = |sql: &str| [run(sql, &[]), sync()].concat();
    let waits = query("SELECT count(*) FROM big");
    for (messages, ends) in [
        (query("SELECT count(*) FROM big; SELECT v FROM shown"), 1),
        ([waits.clone(), query("SELECT v FROM shown")].concat(), 2),
        ([waits.clone(), extended("SELECT v FROM shown")].concat(), 2),
        (
            [waits.clone(), query("COPY (SELECT v FROM shown) TO STDOUT")].concat(),
            2,
        ),
        ([waits.clone(), query("SELECT id FROM item")].concat(), 2),
    ] {
        let mut owner = rig.direct();
        done(&mut owner, &query(views));
        let mut reader = Rig::through(&proxy);
        done(&mut reader, &query("SELECT v FROM shown"));
        let mut holder = rig.direct();
        done(&mut holder, &query("BEGIN"));
        done(&mut holder, &query("LOCK TABLE big"));
        reader.send(&messages).unwrap();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while owner.ask(&query(waiting)).all("DataRow") != ["DataRow '1'"] {}
        // What is behind it was sent by now.
        std::thread::sleep(Duration::from_millis(500));
        for sql in rename {
            done(&mut maker, &query(sql));
        }
        done(&mut holder, &query("COMMIT"));
        let said = reader.play(&[Step::Ready(ends)]);
        assert!(!said.to_string().contains("900-11"), "{said}");
        let of_others = said.to_string().contains("DataRow '5'");
        let withheld = said.sqlstates() == ["0A000"];
        assert!(of_others != withheld, "{said}");
        // Sent again it is what it is now.
        let said = reader.ask(&query("SELECT v FROM shown"));
        assert_eq!(said.all("DataRow").len(), 2, "{said}");
        assert!(!said.to_string().contains("900-11"), "{said}");
    }
    done(&mut rig.direct(), &query("DROP VIEW shown, gone"));
}
