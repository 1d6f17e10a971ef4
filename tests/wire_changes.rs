//! What one session makes of the catalog holds for the others from their next statement on.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::time::Duration;

use chaperone_test_support::wire::Wire;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");
const SSN: &str = "900-33-4455";
const READ: &str = "SELECT it FROM shifting";

#[track_caller]
fn done(wire: &mut Wire, messages: &[u8]) {
    let said = wire.ask(messages);
    assert!(said.sqlstates().is_empty(), "{said}");
}

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
