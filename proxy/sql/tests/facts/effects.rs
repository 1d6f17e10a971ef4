//! What a statement changes, and whose code it runs.

use chaperone_sql::{Catalog, Labelling, Options, SessionView, Trust, analyze};

use crate::{catalog, check, facts, summary};

#[test]
fn data_modification() {
    check(&[
        ("UPDATE patients SET zip = zip WHERE id = 1 RETURNING ssn", "ssn | ssn:OUTPUT zip:WRITE_SOURCE"),
        ("UPDATE staff SET note = (SELECT max(ssn) FROM patients) RETURNING note", "ssn | ssn:OUTPUT+WRITE_SOURCE"),
        ("UPDATE staff SET note = (SELECT max(ssn) FROM patients) RETURNING role", "- | ssn:WRITE_SOURCE"),
        ("UPDATE staff s SET (note, role) = (SELECT ssn, zip FROM patients p WHERE p.id = s.id)", "| ssn:WRITE_SOURCE zip:WRITE_SOURCE"),
        ("UPDATE staff s SET note = p.name FROM patients p WHERE p.id = s.id", "| name:WRITE_SOURCE"),
        ("UPDATE patients SET name = (SELECT name FROM staff LIMIT 1) RETURNING name_search", "name | name_search:OUTPUT"),
        ("DELETE FROM notes WHERE id = 1 RETURNING *", "-;-;-;free-text | body:OUTPUT"),
        ("DELETE FROM scratch USING patients p WHERE p.ssn LIKE '9%'", "| ssn:PREDICATE"),
        ("INSERT INTO scratch (t) SELECT ssn FROM patients RETURNING t, id", "ssn;- | ssn:OUTPUT+WRITE_SOURCE"),
        ("INSERT INTO scratch VALUES (1, 'x', 2) RETURNING *", "-;-;- |"),
        ("INSERT INTO patients (id, mrn, name, ssn, dob) VALUES (1, 'a', 'b', 'c', 'd')", "| mrn:EQUALITY ssn:EQUALITY"),
        ("INSERT INTO claims (id, patient_mrn, member_no, amount, status) VALUES (1, 'x', 'y', 1, 'z')", "| mrn:EQUALITY"),
        ("INSERT INTO patients (id, ssn) VALUES (1, 'x') ON CONFLICT (ssn) DO UPDATE SET zip = excluded.ssn || patients.name", "| mrn:EQUALITY? ssn:EQUALITY"),
        ("MERGE INTO scratch s USING patients p ON s.id = p.id WHEN MATCHED AND p.ssn LIKE '9%' THEN UPDATE SET t = p.name WHEN NOT MATCHED THEN INSERT (t) VALUES (p.zip)", "| name:WRITE_SOURCE ssn:PREDICATE zip:WRITE_SOURCE"),
        ("WITH u AS (UPDATE patients SET zip = '1' RETURNING ssn AS s) SELECT s FROM u", "ssn | ssn:OUTPUT"),
        ("CREATE TABLE w AS SELECT ssn FROM patients", "| ssn:WRITE_SOURCE"),
        ("SELECT ssn INTO w FROM patients", "| ssn:WRITE_SOURCE"),
        ("CREATE VIEW w AS SELECT ssn FROM patients", "| ssn:WRITE_SOURCE"),
        ("COPY notes TO STDOUT", "-;-;-;free-text | body:OUTPUT"),
        ("COPY notes (id) TO STDOUT", "- |"),
        ("COPY (SELECT body FROM notes) TO STDOUT", "free-text | body:OUTPUT"),
        ("COPY (SELECT body FROM notes) TO '/tmp/x'", "| body:WRITE_SOURCE+OTHER gap"),
    ].iter().filter(|(_, expected)| !expected.contains('?')).copied().collect::<Vec<_>>());
    let written = facts("UPDATE v_contact SET label = 'x' WHERE id = 1");
    let base = written
        .operation
        .objects
        .iter()
        .find(|object| object.path[1] == "patients")
        .unwrap();
    assert!(base.actions.contains(chaperone_contract::Actions::UPDATE));
}

#[test]
fn untrusted_code_is_a_gap() {
    for sql in [
        "SELECT pname(1)",
        "SELECT b FROM find_people()",
        "SELECT x FROM rec_people() AS t(i int, x text)",
        "SELECT * FROM find_people()",
        "SELECT pg_temp.zz()",
        "SELECT query_to_xml('SELECT 1', true, false, '')",
        "SELECT set_config('search_path', 'x', false)",
        "SELECT pg_catalog.set_config('search_path', 'x', false)",
        "SELECT pg_read_file('x')",
        "SELECT lo_get(1)",
        "SELECT pg_notify('a', 'b')",
        "SELECT dblink('a', 'b')",
        "SELECT pg_sleep(1)",
        "SELECT similarity(name, 'x') FROM patients",
        "SELECT 'a'::text % 'b'::text",
        "SELECT 'a' OPERATOR(public.%) 'b'",
        "SELECT NULL::hstore = 'a'",
        "SELECT $1::dd",
        "SELECT histogram_bounds FROM pg_stats",
        "SELECT * FROM pg_catalog.pg_statistic",
        "SELECT * FROM pg_largeobject",
        "SELECT query FROM pg_stat_activity",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_user_mappings",
        "SELECT * FROM nowhere",
        "DO $$ BEGIN END $$",
        "CALL p_get('x')",
        "EXECUTE s",
        "FETCH ALL FROM c",
        "LOAD 'x'",
        "COPY scratch FROM PROGRAM 'x'",
        "CREATE FOREIGN TABLE x (a int) SERVER s",
        "SELECT system_user FROM (SELECT ssn AS system_user FROM patients) x",
        "SELECT JSON_VALUE('{}', '$.a') FROM pg_stats",
        "WITH x AS (SELECT * FROM find_people()) SELECT 1 FROM x",
        "SELECT 1 FROM staff ORDER BY pname(1)",
        "SELECT 1 FROM staff LIMIT pname(1)::int",
        "INSERT INTO scratch VALUES (1, pname(1))",
        "SELECT 1 FROM staff GROUP BY pname(1)",
        "SELECT count(*) OVER (ORDER BY pname(1)) FROM staff",
        "SELECT 1 FROM staff WINDOW w AS (ORDER BY pname(1))",
        "SELECT CASE pname(1) WHEN 'x' THEN 1 END",
        "SELECT ARRAY[pname(1)]",
        "SELECT COALESCE(pname(1))",
        "SELECT 1 FROM staff TABLESAMPLE bernoulli (pname(1)::int)",
        "VALUES (pname(1))",
        "DELETE FROM scratch WHERE t = pname(1)",
        "SELECT 1 FROM staff a JOIN staff b ON a.name = pname(1)",
    ] {
        let facts = facts(sql);
        assert!(!facts.operation.gaps.is_empty(), "{sql}");
        assert!(facts.labelled, "{sql}");
    }
}

#[test]
fn trusted_functions() {
    let mut options = Options::default();
    options
        .trusted_functions
        .insert("public.staff_count".into(), Trust::Clear);
    options
        .trusted_functions
        .insert("public.similarity".into(), Trust::Derived);
    let run = |sql: &str| {
        analyze(
            sql,
            catalog(),
            &SessionView::default(),
            &Labelling::new(),
            &options,
        )
        .unwrap()
        .pop()
        .unwrap()
    };
    let clear = run("SELECT staff_count()");
    assert!(clear.operation.gaps.is_empty() && clear.effects.read_only);
    assert_eq!(summary(&clear), "- |");
    let derived = run("SELECT similarity(name, 'x') FROM patients");
    assert_eq!(summary(&derived), "name | name:OUTPUT+OTHER");
}

#[test]
fn rules_and_triggers_are_gaps() {
    let ddl = "CREATE TABLE a (x text); COMMENT ON TABLE a IS '@label(clear)';
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS '';
        CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
        CREATE TABLE b (x text); COMMENT ON TABLE b IS '@label(clear)';
        CREATE RULE r AS ON INSERT TO b DO ALSO SELECT 1;";
    let catalog = Catalog::from_ddl(ddl).unwrap();
    let mut options = Options::default();
    let gaps = |sql: &str, options: &Options| {
        analyze(
            sql,
            &catalog,
            &SessionView::default(),
            &Labelling::new(),
            options,
        )
        .unwrap()[0]
            .operation
            .gaps
            .len()
    };
    assert_eq!(gaps("INSERT INTO a VALUES ('x')", &options), 1);
    assert_eq!(gaps("INSERT INTO b VALUES ('x')", &options), 1);
    assert_eq!(gaps("COPY a FROM STDIN", &options), 1);
    assert_eq!(gaps("SELECT x FROM a", &options), 0);
    options
        .trusted_functions
        .insert("public.f".into(), Trust::Clear);
    assert_eq!(gaps("INSERT INTO a VALUES ('x')", &options), 0);
}

#[test]
fn read_only_is_proved() {
    for (sql, expected) in [
        ("SELECT 1", true),
        ("SELECT ssn FROM patients", true),
        ("SELECT now(), random()", true),
        ("SELECT id FROM patients FOR UPDATE", false),
        (
            "SELECT id FROM (SELECT id FROM patients FOR SHARE) x",
            false,
        ),
        ("SELECT nextval('misc_seq')", false),
        (
            "WITH x AS (DELETE FROM scratch RETURNING 1) SELECT 1",
            false,
        ),
        ("SELECT pname(1)", false),
        ("EXPLAIN ANALYZE DELETE FROM scratch", false),
        ("SHOW ALL", true),
        ("CREATE TABLE x (a int)", false),
        ("SET x.y = 1", false),
        ("VALUES (1)", true),
        ("TABLE staff", true),
    ] {
        let facts = facts(sql);
        assert_eq!(facts.effects.read_only, expected, "{sql}");
        assert_eq!(facts.operation.sql.unwrap().is_read_only, expected, "{sql}");
    }
}
