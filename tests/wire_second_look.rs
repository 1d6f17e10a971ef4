//! What others make of the catalog past Chaperone: a late answer is looked at again before it leaves.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::time::Duration;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{self, Rig};
use chaperone_test_support::wire::{Step, VERSION_3_0, Wire, done};
use chaperone_test_support::{Chaperone, policies};

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");

/// How long a statement is kept waiting: longer than a session takes what it knows for current.
const LONG: Duration = Duration::from_millis(1300);

const SHOWN: &str = "\"public.shown\" = \"clear\"";
const VIEWS: &str = "DROP VIEW IF EXISTS shown, gone, secret;
    CREATE VIEW shown AS SELECT body::text AS v FROM item;
    CREATE VIEW secret AS SELECT ssn::text AS v FROM patient";
const SWAP: &str = "ALTER VIEW shown RENAME TO gone; ALTER VIEW secret RENAME TO shown";

/// A session that has read the view, and takes what it knows of it for current.
fn reader(rig: &Rig, proxy: &Chaperone) -> Wire {
    done(&mut rig.direct(), &query(VIEWS));
    let mut reader = Rig::through(proxy);
    done(&mut reader, &query("SELECT v FROM shown"));
    reader
}

/// Messages behind a statement that [`Held`] keeps waiting.
fn behind(messages: &[u8]) -> Vec<u8> {
    [&query("SELECT count(*) FROM big"), messages].concat()
}

fn extended(sql: &str) -> Vec<u8> {
    [run(sql, &[]), sync()].concat()
}

fn both_ways(sql: &str) -> [Vec<u8>; 2] {
    [query(sql), extended(sql)]
}

/// Whoever keeps readers of `big` waiting.
struct Held(Wire);

impl Held {
    /// Sends what then waits.
    fn behind(rig: &Rig, reader: &mut Wire, messages: &[u8]) -> Self {
        let mut held = Held(rig.direct());
        done(&mut held.0, &query("BEGIN; LOCK TABLE big"));
        reader.send(messages).unwrap();
        held.wait_for_the_other();
        held
    }

    fn wait_for_the_other(&mut self) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while self.0.ask(&query(waiting)).all("DataRow") != ["DataRow '1'"] {}
    }

    fn let_go(&mut self) {
        done(&mut self.0, &query("COMMIT"));
    }
}

/// Sends what begins with a read of `big` and keeps that waiting while `change` is made past Chaperone.
fn changed_past_us(
    rig: &Rig,
    reader: &mut Wire,
    messages: &[u8],
    ends: usize,
    change: &str,
) -> String {
    let mut held = Held::behind(rig, reader, messages);
    if !change.is_empty() {
        done(&mut rig.direct(), &query(change));
    }
    std::thread::sleep(LONG);
    held.let_go();
    reader.play(&[Step::Ready(ends)]).to_string()
}

/// Nobody told Chaperone, and the statement had been sent.
#[test]
fn what_was_changed_past_us_while_a_statement_waited_is_withheld() {
    let rig = Rig::take(BINARY);
    let proxy = rig.masking(BINARY, SHOWN).start().unwrap();
    for (messages, ends) in [
        (query("SELECT count(*) FROM big; SELECT v FROM shown"), 1),
        (behind(&query("SELECT v FROM shown")), 2),
        (behind(&extended("SELECT v FROM shown")), 2),
        (behind(&query("COPY (SELECT v FROM shown) TO STDOUT")), 2),
        // Its error would quote what it cannot read.
        (behind(&query("SELECT v::integer FROM shown")), 2),
    ] {
        let mut reader = reader(&rig, &proxy);
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
    let proxy = rig.masking(BINARY, SHOWN).start().unwrap();
    done(&mut rig.direct(), &query(VIEWS));
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
            let both = behind(&messages);
            let late = changed_past_us(&rig, &mut reader, &both, 2, change);
            let (_, last) = late.split_once("ReadyForQuery").unwrap();
            let (_, at_once) = at_once.split_once('\n').unwrap();
            assert!(last.trim().contains(at_once.trim()), "{at_once}\n{late}");
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
    let options = rig.masking(BINARY, SHOWN);
    let proxy = options
        .toml("[session]\ncatalog_age = \"1ms\"")
        .start()
        .unwrap();
    let mut reader = Rig::through(&proxy);
    let mut owner = rig.direct();
    let read = "SELECT v FROM shown";
    for ask in both_ways(read) {
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
    let proxy = rig.masking(BINARY, SHOWN).start().unwrap();
    // The server tells that it cuts the name off before it looks anything up.
    let long = format!("SELECT v || '' AS v FROM shown AS {}", "n".repeat(70));
    for late in both_ways(&long) {
        let mut reader = reader(&rig, &proxy);
        let mut changer = rig.direct();
        let mut held = Held::behind(&rig, &mut reader, &behind(&late));
        std::thread::sleep(LONG);
        done(&mut changer, &query(&format!("BEGIN; {SWAP}")));
        held.let_go();
        held.wait_for_the_other();
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
    let proxy = rig.masking(BINARY, SHOWN).start().unwrap();
    let declare = "DECLARE c CURSOR FOR SELECT v FROM shown";
    for declare in both_ways(declare) {
        let mut reader = reader(&rig, &proxy);
        done(&mut reader, &query("BEGIN"));
        let both = behind(&declare);
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
    let proxy = rig.masking(BINARY, SHOWN).start().unwrap();
    let insert = "INSERT INTO item VALUES (77, 'x') RETURNING (SELECT v FROM shown LIMIT 1)";
    for insert in both_ways(insert) {
        let mut reader = reader(&rig, &proxy);
        let both = behind(&insert);
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
    let mut first = Wire::connect(proxy.port())
        .unwrap()
        .tls(&proxy.ca_file())
        .unwrap();
    let account = [("user", narrow), ("database", rig::DATABASE)];
    let said = first.login(VERSION_3_0, &account, rig::TOKEN).unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    let both = behind(&query("SELECT count(*) FROM item"));
    let said = changed_past_us(&rig, &mut first, &both, 2, "");
    assert!(said.contains("DataRow '5'"), "{said}");
    let mut reader = Rig::through(&proxy);
    done(&mut reader, &query("SET search_path = apart, public"));
    let both = behind(&query("SELECT v FROM shown"));
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
    let both = behind(&query("SELECT v FROM shown"));
    let said = changed_past_us(&rig, &mut reader, &both, 2, "");
    let setting = "ALTER DATABASE wire RESET standard_conforming_strings";
    rig.postgres.script(rig::DATABASE, setting).unwrap();
    done(
        &mut rig.direct(),
        &query("DROP SCHEMA \"ap\\'art\" CASCADE"),
    );
    assert!(said.contains("DataRow 'of apart.'"), "{said}");
}

/// Where the database takes no further connection, what cannot be looked at is not shown.
#[test]
fn what_cannot_be_looked_at_again_is_withheld() {
    let rig = Rig::take(BINARY);
    let proxy = rig.masking(BINARY, SHOWN).start().unwrap();
    let limit = |limit: i32| {
        let sql = format!("ALTER ROLE {} CONNECTION LIMIT {limit}", rig::ROLE);
        rig.postgres.script(rig::DATABASE, &sql).unwrap();
    };
    for late in both_ways("SELECT v FROM shown, (SELECT count(*) FROM big) AS waits") {
        let mut reader = reader(&rig, &proxy);
        let mut held = Held::behind(&rig, &mut reader, &late);
        limit(0);
        std::thread::sleep(LONG);
        held.let_go();
        let said = reader.play(&[Step::Ready(1)]);
        limit(-1);
        assert!(!said.to_string().contains("item 1"), "{said}");
        assert_eq!(said.sqlstates(), ["0A000"], "{said}");
        let again = reader.ask(&query("SELECT v FROM shown"));
        assert!(again.to_string().contains("item 1"), "{said}\n{again}");
    }
    done(&mut rig.direct(), &query("DROP VIEW shown, secret"));
}

/// Nobody else can see what a transaction has defined, so it cannot be looked at again.
#[test]
fn what_its_own_transaction_has_defined_is_withheld_when_it_is_late() {
    let rig = Rig::take(BINARY);
    let labels = "\"public.own\" = \"clear\"";
    let proxy = rig.masking(BINARY, labels).start().unwrap();
    let mut reader = Rig::through(&proxy);
    done(&mut reader, &query("BEGIN"));
    done(
        &mut reader,
        &query("CREATE TABLE own AS SELECT 'mine'::text AS v"),
    );
    let said = reader.ask(&query("SELECT v FROM own"));
    assert!(said.to_string().contains("DataRow 'mine'"), "{said}");
    let late = behind(&query("SELECT v FROM own"));
    let said = changed_past_us(&rig, &mut reader, &late, 2, "");
    assert!(!said.contains("mine") && said.contains("0A000"), "{said}");
    assert!(said.trim_end().ends_with("ReadyForQuery E"), "{said}");
    done(&mut reader, &query("ROLLBACK"));
}
