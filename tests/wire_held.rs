//! An approval is for what the approver was shown: what means something else by its release does
//! not run.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use chaperone_test_support::wire::frontend::{parse, query, sync};
use chaperone_test_support::wire::{VERSION_3_0, Wire};
use chaperone_test_support::{Chaperone, PsqlSession};
use ward::{APPROVER, CHAPERONE, DATABASE, DBA, PATIENCE, POSTGRES, has};

/// A table whose `id` counts how often the held change ran.
struct Held {
    proxy: Chaperone,
    table: String,
    session: PsqlSession,
}

impl Held {
    fn open(name: &str, wait: &str) -> Held {
        let table = format!("import_{name}");
        alter(&format!(
            "CREATE SCHEMA before_{name};
             CREATE TABLE {table} (id integer, line text);
             COMMENT ON TABLE {table} IS '@label(clear)';
             INSERT INTO {table} VALUES (0, 'x');"
        ));
        let options = ward::clinical(Chaperone::options(CHAPERONE)).toml(&format!(
            "[approvals]\nwait = {wait:?}\ngroups = [\"approvers\"]"
        ));
        let proxy = ward::people(options, &POSTGRES).start().unwrap();
        let mut session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
        let path = format!("SET search_path = before_{name}, public;");
        session.run(&path, PATIENCE).unwrap();
        Held {
            proxy,
            table,
            session,
        }
    }

    fn change(&self) -> String {
        let table = &self.table;
        format!("UPDATE {table} SET id = id + 1;")
    }

    fn approve(&self) {
        ward::wait_for("a held statement", || !self.listed().is_empty());
        let id = self.listed().remove(0);
        let output = ward::approvals(&self.proxy, APPROVER, &["approve", &id]);
        assert!(output.status.success(), "{}", ward::words(&output));
    }

    fn listed(&self) -> Vec<String> {
        let output = ward::approvals(&self.proxy, APPROVER, &["list"]);
        assert!(output.status.success(), "{}", ward::words(&output));
        ward::ids(&ward::words(&output))
    }

    fn count(&self) -> String {
        let sql = format!("SELECT id FROM public.{}", self.table);
        POSTGRES.value(DATABASE, &sql).unwrap()
    }

    /// Alters the database while the change is held; then it must not run.
    fn refused_after(mut self, sql: &str) {
        self.session.send(&self.change()).unwrap();
        ward::wait_for("a held statement", || !self.listed().is_empty());
        alter(sql);
        self.approve();
        let said = self.session.wait(PATIENCE).unwrap();
        has(&said, "55000");
        has(&said, "has changed since it was shown to the approver");
        assert_eq!(self.count(), "0");
        let log = ward::audit(&self.proxy, "show", &["--kind", "decision", "--json"]);
        has(&log, "meaning-changed");
        has(&self.session.run("SELECT 1;", PATIENCE).unwrap(), "(1 row)");
    }
}

/// Straight to the server, where the proxy does not see it.
fn alter(sql: &str) {
    POSTGRES
        .script(DATABASE, &format!("SET ROLE clinic_owner; {sql}"))
        .unwrap();
}

#[test]
fn a_table_that_was_altered_meanwhile_is_another_question() {
    Held::open("altered", "60s").refused_after(
        "ALTER TABLE import_altered ADD CHECK (id < 9), ALTER COLUMN id TYPE bigint;",
    );
}

#[test]
fn a_table_that_hides_the_approved_one_is_another_question() {
    Held::open("hidden", "60s").refused_after(
        "CREATE TABLE before_hidden.import_hidden (id integer, line text);
         COMMENT ON TABLE before_hidden.import_hidden IS '@label(clear)';
         GRANT ALL ON before_hidden.import_hidden TO dba;",
    );
}

#[test]
fn a_trigger_that_came_meanwhile_is_another_question() {
    Held::open("trigger", "60s").refused_after(
        "CREATE FUNCTION before_trigger.more() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN NEW.id := 77; RETURN NEW; END';
         CREATE TRIGGER more BEFORE UPDATE ON import_trigger
             FOR EACH ROW EXECUTE FUNCTION before_trigger.more();",
    );
}

#[test]
fn a_ticket_is_for_what_was_shown() {
    let mut held = Held::open("ticket", "1s");
    let change = held.change();
    has(&held.session.run(&change, PATIENCE).unwrap(), "55000");
    held.approve();
    alter("ALTER TABLE import_ticket ALTER COLUMN id TYPE bigint;");
    // At once, when the session may still hold what it knew of the catalog to be true.
    has(&held.session.run(&change, PATIENCE).unwrap(), "55000");
    assert_eq!(held.count(), "0");
    // And later: it is a question of its own.
    has(&held.session.run(&change, PATIENCE).unwrap(), "55000");
    assert_eq!(held.count(), "0");
}

/// What a prepared statement is executed with is part of what the approver was shown.
#[test]
fn a_ticket_for_execute_is_for_its_arguments() {
    let held = Held::open("execute", "1s");
    let wire = Wire::connect(held.proxy.port()).unwrap();
    let mut wire = wire.tls(&held.proxy.ca_file()).unwrap();
    let who = [("user", "dba"), ("database", DATABASE)];
    let said = wire.login(VERSION_3_0, &who, DBA).unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    let sql = format!("UPDATE {} SET line = $1", held.table);
    let said = wire.ask(&[parse("u", &sql, &[]), sync()].concat());
    assert!(said.sqlstates().is_empty(), "{said}");
    let mut execute = |word: &str| wire.ask(&query(&format!("EXECUTE u('{word}')")));
    assert_eq!(execute("harmless").sqlstates(), ["55000"]);
    held.approve();
    // Somebody else's question, for which there is no answer yet.
    assert_eq!(execute("evil").sqlstates(), ["55000"]);
    let line = format!("SELECT line FROM public.{}", held.table);
    assert_eq!(POSTGRES.value(DATABASE, &line).unwrap(), "x");
    let said = execute("harmless");
    assert!(said.sqlstates().is_empty(), "{said}");
    assert_eq!(POSTGRES.value(DATABASE, &line).unwrap(), "harmless");
}
