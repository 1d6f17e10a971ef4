//! Somebody is changing a table while others work: statements wait where they would wait at the
//! server, and nowhere else; and names of prepared statements stay what they were.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::sync::{LazyLock, MutexGuard};

use chaperone_test_support::wire::Step;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::{Chaperone, Postgres, PsqlSession};
use ward::{CHAPERONE, DATABASE, DOCTOR, PATIENCE, has};

/// Ends with this program: its guardian sees to it.
static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let postgres = ward::clinic();
    postgres.script(DATABASE, TABLES).unwrap();
    postgres
});

const TABLES: &str = "
    SET ROLE clinic_owner;
    CREATE TABLE bed (id int, kind text);
    INSERT INTO bed VALUES (1, 'old');
    CREATE VIEW beds AS SELECT kind FROM bed;
    CREATE TABLE secured (id int);
    ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    CREATE POLICY few ON secured USING (id IN (SELECT id FROM bed));
    COMMENT ON TABLE bed IS '@label(clear)';
    COMMENT ON VIEW beds IS '@label(clear)';
    COMMENT ON TABLE secured IS '@label(clear)';
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO clinician, agent_ro;
";

fn proxy() -> Chaperone {
    let options = ward::clinical(Chaperone::options(CHAPERONE));
    ward::people(options, &POSTGRES).start().unwrap()
}

fn doctor(proxy: &Chaperone) -> PsqlSession {
    proxy.psql(DATABASE, "clinician", DOCTOR).session().unwrap()
}

/// Whether a session of this role waits for a lock.
fn waits(role: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND wait_event_type = 'Lock'"
    );
    POSTGRES.value(DATABASE, &sql).unwrap() != "0"
}

#[test]
fn a_change_under_way_stops_those_alone_who_would_wait_for_it() {
    let proxy = proxy();
    let mut owner = POSTGRES.superuser(DATABASE).session().unwrap();
    let change = "BEGIN; DROP VIEW beds; ALTER TABLE bed ADD COLUMN more int;
        CREATE VIEW beds AS SELECT 'new'::text AS kind FROM bed;
        COMMENT ON TABLE bed IS '@label(clear)';
        GRANT SELECT ON beds TO clinician;";
    owner.run(change, PATIENCE).unwrap();
    // New here, so the catalog has to be asked for.
    let mut doctor = doctor(&proxy);
    has(
        &doctor.run("SELECT count(*) FROM rooms;", PATIENCE).unwrap(),
        "(1 row)",
    );
    doctor.send("SELECT kind FROM beds;").unwrap();
    ward::wait_for("the doctor to wait", || waits("clinician"));
    owner.run("COMMIT;", PATIENCE).unwrap();
    has(&doctor.wait(PATIENCE).unwrap(), "new");
}

/// PostgreSQL settles names when it prepares a statement, and does not look again because something
/// of the same name has come before it in the search path.
#[test]
fn a_prepared_statement_does_not_run_under_the_labels_of_another_table() {
    let rig = Rig::take(CHAPERONE);
    let labels = "\"hidden.patient\" = \"clear\"";
    let proxy = rig.masking(CHAPERONE, labels).start().unwrap();
    rig.direct().ask(&query("CREATE SCHEMA hidden"));
    let mut wire = Rig::through(&proxy);
    wire.ask(&query("SET search_path = hidden, public"));
    let again = || [bind("", "s", &[], 0), execute("", 0), sync()].concat();
    let sql = "SELECT ssn FROM patient WHERE id = 1";
    let said = wire.ask(&[parse("s", sql, &[]), again()].concat());
    assert_eq!(said.all("DataRow").len(), 1, "{said}");
    assert!(!said.to_string().contains("900-11"), "{said}");

    rig.direct()
        .ask(&query("CREATE TABLE hidden.patient (LIKE public.patient)"));
    ward::wait_for("the new table to be noticed", || {
        let said = wire.ask(&again());
        assert!(!said.to_string().contains("900-11"), "{said}");
        said.sqlstates() == ["0A000"]
    });
    // Prepared again it is the other table.
    let said = wire.ask(&[close_statement("s"), parse("s", sql, &[]), again()].concat());
    assert!(said.sqlstates().is_empty(), "{said}");
    assert_eq!(said.all("DataRow").len(), 0, "{said}");
    rig.direct().ask(&query("DROP SCHEMA hidden CASCADE"));
}

/// A proxy for which the view `shown` is clear, whatever it shows; and whom it stands before.
fn with_a_clear_view() -> (MutexGuard<'static, Rig>, Chaperone) {
    let rig = Rig::take(CHAPERONE);
    let labels = "\"public.shown\" = \"clear\"";
    let proxy = rig.masking(CHAPERONE, labels).start().unwrap();
    (rig, proxy)
}

/// Makes that view show a column of a table.
fn shown(table: &str, column: &str) -> Vec<u8> {
    query(&format!(
        "CREATE OR REPLACE VIEW shown AS SELECT {column}::text AS v FROM {table}"
    ))
}

/// The server goes by the catalog as it is, and such a transaction sees the one of its start.
#[test]
fn a_transaction_that_sees_an_old_catalog_is_not_understood() {
    let (rig, proxy) = with_a_clear_view();
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
        "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ] {
        rig.direct().ask(&shown("item", "body"));
        let mut wire = Rig::through(&proxy);
        wire.ask(&query("SELECT v FROM shown"));
        for statement in begin.split("; ") {
            wire.ask(&query(statement));
        }
        // Settles the transaction's snapshot, whatever comes of it.
        wire.ask(&query("SAVEPOINT s"));
        wire.ask(&query("SELECT id FROM item"));
        wire.ask(&query("ROLLBACK TO s"));
        rig.direct().ask(&shown("patient", "ssn"));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let said = wire.ask(&query("SELECT v FROM shown"));
        assert!(!said.to_string().contains("900-11"), "{begin}: {said}");
        assert_eq!(said.sqlstates(), ["0A000"], "{begin}: {said}");
        wire.ask(&query("ROLLBACK"));
        // Outside of a block each statement sees what is.
        let said = wire.ask(&query("SET default_transaction_isolation = serializable"));
        assert!(said.sqlstates().is_empty(), "{said}");
        let said = wire.ask(&query("SELECT id FROM item"));
        assert_eq!(said.all("DataRow").len(), 5, "{said}");
        wire.ask(&query("BEGIN"));
        let said = wire.ask(&query("SELECT id FROM item"));
        assert_eq!(said.sqlstates(), ["0A000"], "{said}");
    }
    rig.direct().ask(&query("DROP VIEW shown"));
}

/// A batch without a block is a transaction too.
#[test]
fn a_long_batch_that_sees_an_old_catalog_is_not_understood() {
    let (rig, proxy) = with_a_clear_view();
    rig.direct().ask(&shown("item", "body"));
    let mut wire = Rig::through(&proxy);
    wire.ask(&query("SELECT v FROM shown"));
    let set = unsynced("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    let begin = [set, unsynced("SELECT v FROM shown"), flush()].concat();
    let said = wire.play(&[Step::Send(begin), Step::Quiet]);
    assert_eq!(said.all("DataRow").len(), 5, "{said}");
    rig.direct().ask(&shown("patient", "ssn"));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let said = wire.ask(&[unsynced("SELECT v FROM shown"), sync()].concat());
    assert!(!said.to_string().contains("900-11"), "{said}");
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
    let said = wire.ask(&[unsynced("SELECT v FROM shown"), sync()].concat());
    assert!(said.sqlstates().is_empty(), "{said}");
    rig.direct().ask(&query("DROP VIEW shown"));
}

/// What the server reads by can be changed for sessions that run.
#[test]
fn a_setting_that_an_administrator_changes_is_noticed() {
    let rig = Rig::take(CHAPERONE);
    let proxy = rig.masking(CHAPERONE, "").start().unwrap();
    let mut wire = Rig::through(&proxy);
    let hidden = "SELECT '\\', ', name || ssn FROM patient --'";
    let said = wire.ask(&query(hidden));
    assert_eq!(said.all("DataRow").len(), 1, "{said}");
    let change = |to: &str| {
        let sql = format!("ALTER SYSTEM {to};\nSELECT pg_reload_conf();");
        rig.postgres.script("postgres", &sql).unwrap();
    };
    for (to, noticed) in [
        ("SET standard_conforming_strings = off", "off"),
        ("RESET standard_conforming_strings", "on"),
    ] {
        change(to);
        ward::wait_for("the server's own notice", || {
            let said = wire.ask(&query("SHOW standard_conforming_strings"));
            said.all("DataRow") == [format!("DataRow '{noticed}'")]
        });
        let said = wire.ask(&query(hidden));
        assert!(!said.to_string().contains("900-11"), "{said}");
    }
    // Those that it tells nobody of are noticed within a second.
    let negated = "SELECT id FROM item WHERE body = NULL";
    wire.ask(&query(negated));
    change("SET transform_null_equals = on");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let said = wire.ask(&query(negated));
    change("RESET transform_null_equals");
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
}
