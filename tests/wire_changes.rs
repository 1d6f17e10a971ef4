//! What one session makes of the catalog holds for the others from their next statement on.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::time::Duration;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{self, Rig};
use chaperone_test_support::wire::{Step, VERSION_3_0, Wire};
use chaperone_test_support::{Chaperone, policies};

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

/// How long a statement is kept waiting: longer than a session takes what it knows for current.
const LONG: Duration = Duration::from_millis(1300);

/// Sends what begins with a read of `big` and keeps that waiting while `change` is made past Chaperone.
fn changed_past_us(
    rig: &Rig,
    reader: &mut Wire,
    messages: &[u8],
    ends: usize,
    change: &str,
) -> String {
    let mut holder = rig.direct();
    done(&mut holder, &query("BEGIN; LOCK TABLE big"));
    reader.send(messages).unwrap();
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while holder.ask(&query(waiting)).all("DataRow") != ["DataRow '1'"] {}
    if !change.is_empty() {
        done(&mut rig.direct(), &query(change));
    }
    std::thread::sleep(LONG);
    done(&mut holder, &query("COMMIT"));
    reader.play(&[Step::Ready(ends)]).to_string()
}

const VIEWS: &str = "DROP VIEW IF EXISTS shown, gone, secret;
    CREATE VIEW shown AS SELECT body::text AS v FROM item;
    CREATE VIEW secret AS SELECT ssn::text AS v FROM patient";
const SWAP: &str = "ALTER VIEW shown RENAME TO gone; ALTER VIEW secret RENAME TO shown";

/// Nobody told Chaperone, and the statement had been sent.
#[test]
fn what_was_changed_past_us_while_a_statement_waited_is_withheld() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let waits = query("SELECT count(*) FROM big");
    let extended = |sql: &str| [run(sql, &[]), sync()].concat();
    for (messages, ends) in [
        (query("SELECT count(*) FROM big; SELECT v FROM shown"), 1),
        ([waits.clone(), query("SELECT v FROM shown")].concat(), 2),
        ([waits.clone(), extended("SELECT v FROM shown")].concat(), 2),
        (
            [waits.clone(), query("COPY (SELECT v FROM shown) TO STDOUT")].concat(),
            2,
        ),
        // Its error would quote what it cannot read.
        (
            [waits.clone(), query("SELECT v::integer FROM shown")].concat(),
            2,
        ),
    ] {
        done(&mut rig.direct(), &query(VIEWS));
        let mut reader = Rig::through(&proxy);
        done(&mut reader, &query("SELECT v FROM shown"));
        let said = changed_past_us(&rig, &mut reader, &messages, ends, SWAP);
        assert!(said.contains("DataRow '12000'"), "{said}");
        assert!(!said.contains("900-11"), "{said}");
        assert!(said.contains("0A000") || said.contains("22P02"), "{said}");
        // Sent again it is what it is now.
        let said = reader.ask(&query("SELECT v FROM shown"));
        assert_eq!(said.all("DataRow").len(), 2, "{said}");
        assert!(!said.to_string().contains("900-11"), "{said}");
    }
    done(&mut rig.direct(), &query("DROP VIEW shown, gone"));
}

/// A late answer to what nobody has changed is the answer that it would have been.
#[test]
fn what_waited_and_is_what_it_was_is_shown() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    done(&mut rig.direct(), &query(VIEWS));
    let waits = query("SELECT count(*) FROM big");
    let beside = "CREATE TABLE beside (a integer); DROP TABLE beside;
                  CREATE TABLE IF NOT EXISTS another (a integer)";
    let of_temporary = query("SELECT m.a, s.v FROM mine m, shown s");
    let of_patients = query("SELECT name, ssn FROM patient");
    for change in ["", beside] {
        for (own, messages) in [
            (vec![], query("SELECT v FROM shown")),
            (vec![], of_patients.clone()),
            (
                vec!["CREATE TEMP TABLE mine AS SELECT 7 AS a"],
                of_temporary.clone(),
            ),
            (
                vec!["SET search_path = public, pg_catalog"],
                query("SELECT v FROM shown"),
            ),
            (vec![], query("SELECT 1 / (SELECT 0 FROM shown LIMIT 1)")),
        ] {
            let mut reader = Rig::through(&proxy);
            for sql in own {
                done(&mut reader, &query(sql));
            }
            let at_once = reader.ask(&messages).to_string();
            let both = [waits.clone(), messages].concat();
            let late = changed_past_us(&rig, &mut reader, &both, 2, change);
            let (_, behind) = late.split_once("ReadyForQuery").unwrap();
            let (_, at_once) = at_once.split_once('\n').unwrap();
            assert!(behind.trim().contains(at_once.trim()), "{at_once}\n{late}");
        }
    }
    done(
        &mut rig.direct(),
        &query("DROP VIEW shown, secret; DROP TABLE another"),
    );
}

/// With the shortest age a change holds at once, also a stranger's.
#[test]
fn where_nothing_known_may_be_old_a_change_past_us_holds_at_once() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let options = rig.masking(BINARY, labels);
    let proxy = options
        .toml("[session]\ncatalog_age = \"1ms\"")
        .start()
        .unwrap();
    let mut reader = Rig::through(&proxy);
    let mut owner = rig.direct();
    let read = "SELECT v FROM shown";
    for ask in [query(read), [run(read, &[]), sync()].concat()] {
        done(&mut owner, &query(VIEWS));
        let said = reader.ask(&ask);
        assert!(said.to_string().contains("item 1"), "{said}");
        done(&mut owner, &query(SWAP));
        let said = reader.ask(&ask);
        assert_eq!(said.all("DataRow").len(), 2, "{said}");
        for shown in ["item 1", "900-11"] {
            assert!(!said.to_string().contains(shown), "{said}");
        }
    }
    done(&mut owner, &query("DROP VIEW shown, gone"));
}

/// What the server says before it has locked what it reads is no reason not to look once more.
#[test]
fn a_notice_before_the_locks_does_not_stand_for_the_answer() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    // The server tells that it cuts the name off before it looks anything up.
    let long = format!("SELECT v || '' AS v FROM shown AS {}", "n".repeat(70));
    for behind in [query(&long), [run(&long, &[]), sync()].concat()] {
        done(&mut rig.direct(), &query(VIEWS));
        let mut reader = Rig::through(&proxy);
        done(&mut reader, &query("SELECT v FROM shown"));
        let (mut holder, mut changer) = (rig.direct(), rig.direct());
        done(&mut holder, &query("BEGIN; LOCK TABLE big"));
        let waits = query("SELECT count(*) FROM big");
        reader.send(&[waits, behind].concat()).unwrap();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while holder.ask(&query(waiting)).all("DataRow") != ["DataRow '1'"] {}
        std::thread::sleep(LONG);
        done(&mut changer, &query(&format!("BEGIN; {SWAP}")));
        done(&mut holder, &query("COMMIT"));
        while holder.ask(&query(waiting)).all("DataRow") != ["DataRow '1'"] {}
        // Long enough to look.
        std::thread::sleep(LONG);
        done(&mut changer, &query("COMMIT"));
        let said = reader.play(&[Step::Ready(2)]).to_string();
        assert!(said.contains("DataRow '12000'"), "{said}");
        assert!(!said.contains("900-11"), "{said}");
    }
    done(&mut rig.direct(), &query("DROP VIEW shown, gone"));
}

/// A cursor is opened by its DECLARE, which answers with no rows.
#[test]
fn a_cursor_that_was_opened_on_something_else_is_not_read() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let waits = query("SELECT count(*) FROM big");
    let declare = "DECLARE c CURSOR FOR SELECT v FROM shown";
    for declare in [query(declare), [run(declare, &[]), sync()].concat()] {
        done(&mut rig.direct(), &query(VIEWS));
        let mut reader = Rig::through(&proxy);
        done(&mut reader, &query("SELECT v FROM shown"));
        done(&mut reader, &query("BEGIN"));
        let both = [waits.clone(), declare].concat();
        let said = changed_past_us(&rig, &mut reader, &both, 2, SWAP);
        assert!(said.contains("DataRow '12000'"), "{said}");
        let said = reader.ask(&query("FETCH ALL FROM c"));
        assert!(!said.to_string().contains("900-11"), "{said}");
    }
    done(&mut rig.direct(), &query("DROP VIEW shown, gone"));
}

/// A client that is told of an error takes it that nothing was changed.
#[test]
fn what_has_changed_data_is_not_told_to_have_failed() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let waits = query("SELECT count(*) FROM big");
    let insert = "INSERT INTO item VALUES (77, 'x') RETURNING (SELECT v FROM shown LIMIT 1)";
    for insert in [query(insert), [run(insert, &[]), sync()].concat()] {
        done(&mut rig.direct(), &query(VIEWS));
        let mut reader = Rig::through(&proxy);
        done(&mut reader, &query("SELECT v FROM shown"));
        let both = [waits.clone(), insert].concat();
        let said = changed_past_us(&rig, &mut reader, &both, 2, SWAP);
        assert!(!said.contains("900-11"), "{said}");
        let count = "SELECT count(*) FROM item WHERE id = 77";
        let found = rig.direct().ask(&query(count));
        let lasts = found.all("DataRow") == ["DataRow '1'"];
        let ended = said.contains("FATAL");
        assert!(!lasts || ended, "{said}");
        done(&mut rig.direct(), &query("DELETE FROM item WHERE id = 77"));
    }
    done(&mut rig.direct(), &query("DROP VIEW shown, gone"));
}

/// Whoever looked before may not see all the schemas by which definitions are printed.
#[test]
fn a_late_answer_is_looked_at_with_the_log_in_of_its_own_session() {
    let rig = Rig::take(BINARY);
    let narrow = "narrow";
    let sql = "DROP SCHEMA IF EXISTS apart CASCADE; CREATE SCHEMA apart;
        CREATE TABLE apart.note AS SELECT 'of apart'::text AS v;
        SET search_path = apart; CREATE VIEW shown AS SELECT v || '.' AS v FROM note;
        RESET search_path; GRANT SELECT ON big, item TO narrow";
    rig.postgres
        .script(
            rig::DATABASE,
            "DROP ROLE IF EXISTS narrow; CREATE ROLE narrow LOGIN",
        )
        .unwrap();
    done(&mut rig.direct(), &query(sql));
    let (columns, _) = rig::LABELS.split_once("[targets.functions]").unwrap();
    let labels = format!("{columns}\"apart.note\" = \"clear\"\n\"apart.shown\" = \"clear\"");
    let roles: [(&str, &[&str]); 2] = [(rig::ROLE, &["testers"]), (narrow, &["testers"])];
    let proxy = Chaperone::options(BINARY)
        .target(&rig.postgres, rig::DATABASE, &roles, &labels)
        .identity("tester", rig::TOKEN, &["testers"], "testing")
        .policy("allow-all", policies::example("allow-all").unwrap(), "")
        .start()
        .unwrap();
    let waits = query("SELECT count(*) FROM big");
    let mut first = Wire::connect(proxy.port())
        .unwrap()
        .tls(&proxy.ca_file())
        .unwrap();
    let account = [("user", narrow), ("database", rig::DATABASE)];
    let said = first.login(VERSION_3_0, &account, rig::TOKEN).unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    let both = [waits.clone(), query("SELECT count(*) FROM item")].concat();
    let said = changed_past_us(&rig, &mut first, &both, 2, "");
    assert!(said.contains("DataRow '5'"), "{said}");
    let mut reader = Rig::through(&proxy);
    done(&mut reader, &query("SET search_path = apart, public"));
    let both = [waits, query("SELECT v FROM shown")].concat();
    let said = changed_past_us(&rig, &mut reader, &both, 2, "");
    assert!(said.contains("DataRow 'of apart.'"), "{said}");
    drop((first, reader));
    done(&mut rig.direct(), &query("DROP SCHEMA apart CASCADE"));
    rig.postgres
        .script(rig::DATABASE, "DROP OWNED BY narrow; DROP ROLE narrow")
        .unwrap();
}

/// Where the database reads backslashes in texts, a schema's name is still its name.
#[test]
fn a_late_answer_is_looked_at_by_the_path_of_its_session_whatever_names_hold() {
    let rig = Rig::take(BINARY);
    let labels = "\"ap\\\\'art.note\" = \"clear\"\n\"ap\\\\'art.shown\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let setting = "ALTER DATABASE wire SET standard_conforming_strings = off";
    rig.postgres.script(rig::DATABASE, setting).unwrap();
    let sql = "CREATE SCHEMA \"ap\\'art\"; SET search_path = \"ap\\'art\";
        CREATE TABLE note AS SELECT 'of apart'::text AS v;
        CREATE VIEW shown AS SELECT v || '.' AS v FROM note";
    done(&mut rig.direct(), &query(sql));
    let mut reader = Wire::connect(proxy.port())
        .unwrap()
        .tls(&proxy.ca_file())
        .unwrap();
    let account = [
        ("user", rig::ROLE),
        ("database", rig::DATABASE),
        ("standard_conforming_strings", "on"),
        ("search_path", "\"ap\\'art\", public"),
    ];
    let said = reader.login(VERSION_3_0, &account, rig::TOKEN).unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    let waits = query("SELECT count(*) FROM big");
    let both = [waits, query("SELECT v FROM shown")].concat();
    let said = changed_past_us(&rig, &mut reader, &both, 2, "");
    let setting = "ALTER DATABASE wire RESET standard_conforming_strings";
    rig.postgres.script(rig::DATABASE, setting).unwrap();
    done(
        &mut rig.direct(),
        &query("DROP SCHEMA \"ap\\'art\" CASCADE"),
    );
    assert!(said.contains("DataRow 'of apart.'"), "{said}");
}
