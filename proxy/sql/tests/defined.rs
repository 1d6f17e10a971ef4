//! What the expressions in definitions call, and what maintenance computes anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use chaperone_sql::{Catalog, Facts, Labelling, Options, SessionView, Trust, analyze};

const DDL: &str = "
    CREATE FUNCTION look(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
    CREATE TABLE t (id int, x text);
    CREATE TABLE checked (id int, x text CHECK (look(x)));
    CREATE MATERIALIZED VIEW seen AS SELECT look(x) AS y FROM t;
    CREATE MATERIALIZED VIEW plain AS SELECT lower(x) AS y FROM t;
    COMMENT ON TABLE t IS '@label(clear)';
    COMMENT ON TABLE checked IS '@label(clear)';
    CREATE DOMAIN looked AS text CHECK (look(VALUE));
    CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
    CREATE TYPE pair AS (a looked, b int);
    CREATE TABLE patient (id int, ssn text, shown looked);
    COMMENT ON COLUMN patient.id IS '@label(clear)';
    COMMENT ON COLUMN patient.ssn IS '@label(ssn)';
    CREATE TABLE pairs (id int, p pair);
    CREATE TABLE parted (id int, x text CHECK (look(x))) PARTITION BY LIST (x);
";

fn facts(sql: &str) -> Facts {
    let catalog = Catalog::from_ddl(DDL).expect("the test's own DDL");
    let (session, labelling) = (SessionView::default(), Labelling::new());
    let facts = analyze(sql, &catalog, &session, &labelling, &Options::default());
    let mut facts = facts.unwrap_or_else(|error| panic!("{sql}: {error}"));
    facts.pop().expect("there is a statement")
}

fn calls(sql: &str, function: &str) -> bool {
    let operation = facts(sql).operation;
    let mut functions = operation.sql.unwrap().functions.into_iter();
    let gap = format!("function {function}");
    functions.any(|known| known.ends_with(function))
        && operation.gaps.iter().any(|known| known.starts_with(&gap))
}

#[test]
fn an_expression_in_a_definition_runs_what_it_calls() {
    for sql in [
        "ALTER TABLE t ADD COLUMN leak text DEFAULT \
         query_to_xml('select ssn from patients', true, true, '')::text",
        "ALTER TABLE t ALTER COLUMN x TYPE xml USING query_to_xml(x, true, true, '')",
        "ALTER TABLE t ALTER COLUMN x SET DEFAULT query_to_xml('', true, true, '')::text",
        "CREATE TABLE n (x text DEFAULT query_to_xml('', true, true, '')::text)",
    ] {
        assert!(calls(sql, "query_to_xml"), "{sql}");
    }
    for sql in [
        "ALTER TABLE t ADD CHECK (look(x))",
        "ALTER TABLE t ADD EXCLUDE (look(x) WITH =) WHERE (id > 1)",
        "CREATE TABLE n (x text CHECK (look(x)))",
        "CREATE TABLE n (x text, CHECK (look(x)))",
        "CREATE TABLE n (x text) PARTITION BY LIST (look(x))",
        "CREATE TABLE n PARTITION OF t FOR VALUES IN (look('x'))",
        "CREATE INDEX ON t (look(x))",
        "CREATE INDEX ON t (id) WHERE look(x)",
        "CREATE DOMAIN d AS text CHECK (look(VALUE))",
        "ALTER DOMAIN d ADD CHECK (look(VALUE))",
        "ALTER DOMAIN d SET DEFAULT look('x')",
        "CREATE POLICY p ON t USING (look(x))",
        "ALTER POLICY p ON t WITH CHECK (look(x))",
        "CREATE STATISTICS s ON look(x), id FROM t",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW WHEN (look(NEW.x)) EXECUTE FUNCTION f()",
    ] {
        assert!(calls(sql, "public.look"), "{sql}");
    }
}

#[test]
fn maintenance_runs_what_a_relation_computes() {
    for sql in [
        "ANALYZE checked",
        "VACUUM",
        "CLUSTER checked",
        "REINDEX TABLE checked",
        "REINDEX INDEX whichever",
        "REFRESH MATERIALIZED VIEW seen",
        "ALTER TABLE checked ALTER COLUMN id TYPE bigint",
    ] {
        let gaps = facts(sql).operation.gaps;
        assert!(
            gaps.iter().any(|gap| gap.contains("public.look")),
            "{sql}: {gaps:?}"
        );
    }
}

#[test]
fn a_column_of_a_checked_type_runs_its_checks() {
    for sql in [
        "ALTER TABLE t ADD COLUMN d looked",
        "ALTER TABLE t ADD COLUMN d public.looked DEFAULT 'x'",
        "ALTER TABLE t ADD COLUMN d looked[] DEFAULT '{}'",
        "ALTER TABLE t ADD COLUMN d pair",
        "ALTER TABLE t ALTER COLUMN x TYPE looked",
        "ALTER DOMAIN looked VALIDATE CONSTRAINT c",
        "ALTER TABLE pairs ALTER COLUMN p SET DEFAULT '(a,1)'",
        "CREATE TABLE n (p pair DEFAULT '(a,1)')",
        "CREATE INDEX ON pairs (id) WHERE p = '(a,1)'",
        // The rows that are there are written anew, with their indexes.
        "ALTER TABLE checked ADD COLUMN n serial",
        "ALTER TABLE checked ADD COLUMN n text DEFAULT clock_timestamp()::text",
        "ALTER TABLE checked SET UNLOGGED",
        // Whatever a default partition holds is checked.
        "CREATE TABLE n PARTITION OF parted FOR VALUES IN ('a')",
    ] {
        let gaps = facts(sql).operation.gaps;
        assert!(
            gaps.iter().any(|gap| gap.contains("public.look")),
            "{sql}: {gaps:?}"
        );
    }
}

/// Relations that it touches, in order.
fn touched(sql: &str) -> Vec<String> {
    let objects = facts(sql).operation.objects.into_iter();
    let tables = objects.filter(|object| object.kind == "table");
    let mut names: Vec<String> = tables.filter_map(|mut one| one.path.pop()).collect();
    names.sort();
    names
}

#[test]
fn a_domain_that_changes_has_its_tables_checked() {
    for sql in [
        "ALTER DOMAIN looked VALIDATE CONSTRAINT c",
        "ALTER DOMAIN looked ADD CHECK (VALUE <> '')",
        "ALTER DOMAIN looked SET NOT NULL",
    ] {
        assert_eq!(touched(sql), ["pairs", "patient"], "{sql}");
        assert!(facts(sql).labelled, "{sql}");
    }
    assert!(touched("ALTER DOMAIN looked DROP NOT NULL").is_empty());
    assert!(touched("ALTER DOMAIN short SET NOT NULL").is_empty());
}

#[test]
fn parsing_runs_what_is_not_on_the_allow_list() {
    let catalog = Catalog::from_ddl(DDL).expect("the test's own DDL");
    let mut options = Options::default();
    assert!(catalog.parsing_runs_functions(&options));
    options
        .trusted_functions
        .insert("public.look".to_owned(), Trust::Clear);
    assert!(!catalog.parsing_runs_functions(&options));
    let none = Catalog::from_ddl("CREATE DOMAIN short AS text CHECK (length(VALUE) < 9)");
    let none = none.expect("the test's own DDL");
    assert!(!none.parsing_runs_functions(&Options::default()));
}

#[test]
fn what_a_policy_reads_is_touched() {
    for sql in [
        "CREATE POLICY p ON t USING (EXISTS (SELECT FROM patient WHERE ssn = t.x))",
        "ALTER POLICY p ON t WITH CHECK (x IN (SELECT ssn FROM patient))",
    ] {
        assert_eq!(touched(sql), ["patient", "t"], "{sql}");
        let facts = facts(sql);
        assert!(facts.labelled, "{sql}");
        let used = facts.operation.uses.iter().any(|used| used.field == "ssn");
        assert!(used, "{sql}: {:?}", facts.operation.uses);
    }
}

#[test]
fn what_runs_nobodys_code_is_no_gap() {
    for sql in [
        "ALTER TABLE t ADD COLUMN n int DEFAULT 1 CHECK (n > id)",
        "ALTER TABLE t ALTER COLUMN x TYPE varchar USING lower(x)",
        "CREATE TABLE n (id serial, x text DEFAULT lower('A'), y int GENERATED ALWAYS AS (z + 1) STORED, \
         z int, at timestamptz DEFAULT now(), CHECK (length(x) < y))",
        "CREATE INDEX ON t (lower(x)) WHERE id > 1",
        "CREATE DOMAIN d AS int CHECK (VALUE > 0)",
        "CREATE POLICY p ON t USING (id IN (SELECT id FROM checked WHERE x = t.x))",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.x <> OLD.x) EXECUTE FUNCTION f()",
        "CREATE TABLE n PARTITION OF t FOR VALUES FROM (MINVALUE) TO (10)",
        "ANALYZE t",
        "ALTER TABLE t ADD COLUMN d short DEFAULT 'x'",
        "ALTER TABLE checked ADD COLUMN n int DEFAULT 1",
        "CREATE TABLE n (d looked, p pair)",
        "ALTER DOMAIN short VALIDATE CONSTRAINT c",
        "REFRESH MATERIALIZED VIEW plain",
    ] {
        assert_eq!(facts(sql).operation.gaps, Vec::<String>::new(), "{sql}");
    }
}
