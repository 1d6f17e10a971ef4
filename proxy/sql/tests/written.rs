//! What a write sets off besides itself: what computes and checks values, and foreign keys.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use chaperone_contract::Actions;
use chaperone_sql::{Catalog, Facts, Labelling, Options, SessionView, Trust, analyze};

const DDL: &str = "
    CREATE FUNCTION look(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION made() RETURNS text LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE defaulted (id int, x text DEFAULT made());
    CREATE TABLE checked (id int, x text CHECK (look(x)));
    CREATE TABLE plain (id int, x text DEFAULT lower('A') CHECK (length(x) > 1));
    CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE, note text);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE,
                        code text REFERENCES parent (code) ON UPDATE CASCADE);
    CREATE TABLE grandchild (id int, child int REFERENCES child ON DELETE SET NULL);
    CREATE TABLE bystander (id int, parent int REFERENCES parent);
    CREATE TABLE tree (id int PRIMARY KEY, above int REFERENCES tree ON DELETE CASCADE);
    CREATE TABLE gp (a int, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY, note text);
    CREATE TABLE gc (g int REFERENCES gp ON UPDATE CASCADE);
    CREATE TABLE rooms (id int, name text);
    CREATE TABLE beds (id int, name text);
    CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE VIEW inner_view AS SELECT id, name FROM beds;
    CREATE TRIGGER t INSTEAD OF DELETE ON inner_view FOR EACH ROW EXECUTE FUNCTION instead();
    CREATE VIEW outer_view AS SELECT id, name FROM inner_view;
    CREATE VIEW plain_view AS SELECT id AS x, name AS y FROM beds WHERE id > 1;
    CREATE VIEW over_view AS SELECT x FROM plain_view;
    CREATE VIEW odd_view AS SELECT (SELECT max(id) FROM rooms) AS m FROM beds;
    CREATE VIEW joined_view AS SELECT beds.id FROM beds, rooms;
    COMMENT ON TABLE gp IS '@label(clear)';
    COMMENT ON TABLE gc IS '@label(clear)';
    COMMENT ON TABLE rooms IS '@label(clear)';
    COMMENT ON TABLE beds IS '@label(clear)';
    COMMENT ON TABLE defaulted IS '@label(clear)';
    COMMENT ON TABLE checked IS '@label(clear)';
    COMMENT ON TABLE plain IS '@label(clear)';
    COMMENT ON TABLE parent IS '@label(clear)';
    COMMENT ON TABLE child IS '@label(clear)';
    COMMENT ON TABLE grandchild IS '@label(clear)';
    COMMENT ON TABLE bystander IS '@label(clear)';
    COMMENT ON TABLE tree IS '@label(clear)';
";

fn facts_with(sql: &str, options: &Options) -> Facts {
    let catalog = Catalog::from_ddl(DDL).expect("the test's own DDL");
    let session = SessionView::default();
    analyze(sql, &catalog, &session, &Labelling::new(), options)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .pop()
        .expect("there is a statement")
}

fn facts(sql: &str) -> Facts {
    facts_with(sql, &Options::default())
}

/// `child:DELETE grandchild:UPDATE`: the relations touched, in order.
fn touched(sql: &str) -> String {
    let facts = facts(sql);
    assert!(
        facts.operation.gaps.is_empty(),
        "{sql}: {:?}",
        facts.operation.gaps
    );
    let mut all: Vec<String> = facts
        .operation
        .objects
        .iter()
        .map(|object| {
            let names: Vec<&str> = object.actions.iter_names().map(|(name, _)| name).collect();
            format!("{}:{}", object.path.last().unwrap(), names.join("+"))
        })
        .collect();
    all.sort();
    all.join(" ")
}

fn has_gap(sql: &str, part: &str) -> bool {
    let gaps = facts(sql).operation.gaps;
    gaps.iter().any(|gap| gap.contains(part))
}

#[test]
fn a_function_that_a_write_calls_must_be_on_the_allow_list() {
    for sql in [
        "INSERT INTO defaulted (id) VALUES (1)",
        "UPDATE defaulted SET x = DEFAULT",
        "COPY defaulted (id) FROM STDIN",
    ] {
        assert!(has_gap(sql, "calls public.made"), "{sql}");
    }
    for sql in [
        "INSERT INTO checked VALUES (1, 'a')",
        "UPDATE checked SET id = 2",
        "MERGE INTO checked USING plain ON checked.id = plain.id WHEN MATCHED THEN UPDATE SET id = 3",
        "WITH w AS (INSERT INTO checked VALUES (1, 'a')) SELECT 1",
    ] {
        assert!(has_gap(sql, "calls public.look"), "{sql}");
    }
    for sql in ["DELETE FROM checked", "INSERT INTO plain VALUES (1, 'a')"] {
        assert!(facts(sql).operation.gaps.is_empty(), "{sql}");
    }
}

#[test]
fn one_that_is_on_the_list_is_fine() {
    let mut options = Options::default();
    let functions = &mut options.trusted_functions;
    functions.insert("public.look".to_owned(), Trust::Derived);
    let facts = facts_with("INSERT INTO checked VALUES (1, 'a')", &options);
    assert!(facts.operation.gaps.is_empty());
}

#[test]
fn deletes_go_where_foreign_keys_carry_them() {
    assert_eq!(
        touched("DELETE FROM parent"),
        "child:DELETE grandchild:UPDATE parent:DELETE"
    );
    assert_eq!(
        touched("DELETE FROM child"),
        "child:DELETE grandchild:UPDATE"
    );
    assert_eq!(touched("DELETE FROM tree"), "tree:DELETE");
    assert_eq!(touched("DELETE FROM bystander"), "bystander:DELETE");
}

#[test]
fn updates_go_where_foreign_keys_carry_them() {
    assert_eq!(touched("UPDATE parent SET note = 'x'"), "parent:UPDATE");
    assert_eq!(
        touched("UPDATE parent SET code = 'x'"),
        "child:UPDATE parent:UPDATE"
    );
}

#[test]
fn a_key_that_is_generated_changes_with_what_it_is_generated_from() {
    assert_eq!(touched("UPDATE gp SET a = 5"), "gc:UPDATE gp:UPDATE");
    assert_eq!(touched("UPDATE gp SET note = 'x'"), "gp:UPDATE");
}

#[test]
fn a_view_writes_to_the_relation_that_it_is_from() {
    assert_eq!(
        touched("DELETE FROM odd_view"),
        "beds:READ+DELETE odd_view:DELETE rooms:READ"
    );
    assert_eq!(
        touched("UPDATE over_view SET x = 1"),
        "beds:READ+UPDATE over_view:UPDATE plain_view:READ+UPDATE"
    );
    assert!(has_gap("DELETE FROM joined_view", "a view writes to"));
}

#[test]
fn a_view_writes_through_the_triggers_of_a_view() {
    for sql in ["DELETE FROM inner_view", "DELETE FROM outer_view"] {
        assert!(has_gap(sql, "public.instead"), "{sql}");
    }
}

#[test]
fn truncate_cascades_to_whatever_refers() {
    let all = "bystander:DELETE child:DELETE grandchild:DELETE parent:DELETE";
    assert_eq!(touched("TRUNCATE parent CASCADE"), all);
    assert_eq!(touched("TRUNCATE parent"), "parent:DELETE");
    assert!(
        facts("TRUNCATE parent")
            .operation
            .actions
            .contains(Actions::DELETE)
    );
}
