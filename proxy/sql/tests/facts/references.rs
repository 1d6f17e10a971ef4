//! How names, rows and queries inside of queries lead to columns.

use crate::{check, facts, summary};

#[test]
fn plain_references_and_aliases() {
    check(&[
        (
            "SELECT id, ssn AS note_count FROM patients",
            "-;ssn | ssn:OUTPUT",
        ),
        (
            "SELECT q.d FROM patients AS q(a,b,c,d,e)",
            "ssn | ssn:OUTPUT",
        ),
        ("SELECT PATIENTS.SSN FROM Patients", "ssn | ssn:OUTPUT"),
        (
            "SELECT \"public\".\"patients\".ssn FROM public.patients",
            "ssn | ssn:OUTPUT",
        ),
        ("SELECT ssn FROM ONLY patients", "ssn | ssn:OUTPUT"),
        ("SELECT \"SSN\" FROM patients", "unknown |  gap"),
        ("SELECT p.ssn FROM patients", "unknown |  gap"),
        ("SELECT patients.ssn FROM patients p", "unknown |  gap"),
        ("SELECT name FROM staff, patients", "unknown |  gap"),
        ("SELECT id FROM patients", "- |"),
        ("SELECT count(*) FROM patients", "- |"),
        ("SELECT address FROM patients", "unknown | address:OUTPUT"),
        ("SELECT c1 FROM patients_bak", "unknown | c1:OUTPUT gap"),
        ("SELECT ctid, xmin, tableoid FROM patients", "-;-;- |"),
        (
            "SELECT name_search FROM patients",
            "name | name_search:OUTPUT",
        ),
        (
            "SELECT ssn FROM patients, pg_class LIMIT 1",
            "ssn | ssn:OUTPUT",
        ),
    ]);
}

#[test]
fn rows_as_values() {
    check(&[
        ("SELECT (p).ssn FROM patients p", "ssn | ssn:OUTPUT"),
        ("SELECT ssn(p) FROM patients p", "ssn | ssn:OUTPUT"),
        (
            "SELECT (s.p).ssn FROM (SELECT p FROM patients p) s",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT q FROM (SELECT id, ssn FROM patients) q",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT (q).a FROM (SELECT id AS a, ssn AS b FROM patients) q",
            "- |",
        ),
        ("SELECT (ROW(id, ssn)).f2 FROM patients", "ssn | ssn:OUTPUT"),
        ("SELECT (ROW(id, ssn)).f1 FROM patients", "- |"),
        (
            "SELECT x.f2 FROM (SELECT ROW(id, ssn) AS r FROM patients) y, LATERAL (SELECT (y.r).f2) x",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT ((SELECT p FROM patients p LIMIT 1)).ssn",
            "ssn | ssn:OUTPUT",
        ),
        ("SELECT to_json(n) FROM notes n", "free-text | body:OUTPUT"),
        ("SELECT n::text FROM notes n", "free-text | body:OUTPUT"),
        (
            "SELECT array_agg(n) FROM notes n",
            "free-text | body:OUTPUT",
        ),
        ("SELECT count(n.*) FROM notes n", "free-text | body:OUTPUT"),
        ("SELECT (n.*)::text FROM notes n", "free-text | body:OUTPUT"),
        ("SELECT notes FROM notes", "free-text | body:OUTPUT"),
        ("SELECT (id, patient_id) = (1, 2) FROM notes", "- |"),
    ]);
    for sql in [
        "SELECT p.ptag FROM patients p",
        "SELECT (p).ptag FROM patients p",
        "SELECT ptag(p) FROM patients p",
        "SELECT (contact_of(1)).how",
        "SELECT avals(hstore(p)) FROM patients p",
    ] {
        assert!(!facts(sql).operation.gaps.is_empty(), "{sql}");
        assert!(!facts(sql).effects.read_only, "{sql}");
    }
}

#[test]
fn row_types_keep_their_names_under_aliases() {
    for sql in [
        "SELECT (s.q).ssn FROM (SELECT q FROM patients q(ssn, mrn, name, id)) s",
        "SELECT (s.q).label FROM (SELECT q FROM v_contact q(label, id)) s",
        "SELECT (s.q).* FROM (SELECT q FROM patients q(ssn, mrn, name, id)) s",
    ] {
        let facts = facts(sql);
        assert!(
            !facts.operation.gaps.is_empty(),
            "{sql}: {}",
            summary(&facts)
        );
    }
}

#[test]
fn subqueries_and_ctes() {
    check(&[
        (
            "WITH x AS (SELECT ssn AS a FROM patients) SELECT a FROM x",
            "ssn | ssn:OUTPUT",
        ),
        (
            "WITH x(role) AS (SELECT ssn FROM patients) SELECT role FROM x",
            "ssn | ssn:OUTPUT",
        ),
        (
            "WITH staff AS (SELECT id, ssn AS name FROM patients) SELECT name FROM staff",
            "ssn | ssn:OUTPUT",
        ),
        (
            "WITH staff AS (SELECT ssn AS name FROM patients) SELECT name FROM public.staff",
            "- |",
        ),
        (
            "WITH a AS (SELECT name FROM staff), staff AS (SELECT ssn AS name FROM patients) SELECT name FROM a",
            "- |",
        ),
        (
            "WITH RECURSIVE a AS (SELECT name FROM staff), staff AS (SELECT ssn AS name FROM patients) SELECT name FROM a",
            "unknown |  gap",
        ),
        (
            "WITH RECURSIVE a AS (SELECT CASE WHEN true THEN (SELECT max(name) FROM staff) END AS n), staff AS (SELECT ssn AS name FROM patients) SELECT n FROM a",
            "unknown |  gap",
        ),
        (
            "SELECT (WITH x AS (SELECT ssn FROM patients) SELECT max(ssn) FROM x)",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT s.name, (SELECT max(ssn) FROM patients WHERE id = s.id) FROM staff s",
            "-;ssn | ssn:OUTPUT",
        ),
        (
            "SELECT (SELECT p.ssn FROM staff LIMIT 1) FROM patients p",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT (SELECT ssn FROM pg_class LIMIT 1) FROM patients",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT a FROM (SELECT b AS a FROM (SELECT ssn AS b FROM patients) x) y",
            "ssn | ssn:OUTPUT",
        ),
        ("SELECT k FROM (SELECT id AS k, ssn FROM patients) x", "- |"),
        (
            "VALUES ((SELECT max(ssn) FROM patients))",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT column2 FROM (VALUES (1, (SELECT max(ssn) FROM patients))) v",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT column1 FROM (VALUES (1, (SELECT max(ssn) FROM patients))) v",
            "- |",
        ),
        (
            "SELECT v.b FROM (VALUES (1, 'x'), (2, (SELECT max(ssn) FROM patients))) v(a, b)",
            "ssn | ssn:OUTPUT",
        ),
        ("SELECT ARRAY(SELECT ssn FROM patients)", "ssn | ssn:OUTPUT"),
        (
            "SELECT l.x FROM patients p, LATERAL (SELECT p.ssn AS x) l",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT l.x FROM patients p LEFT JOIN LATERAL (SELECT p.ssn AS x) l ON true",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT x FROM unnest(ARRAY(SELECT ssn FROM patients)) AS x",
            "ssn | ssn:OUTPUT+OTHER",
        ),
        (
            "SELECT b FROM ROWS FROM (generate_series(1,2), unnest(ARRAY(SELECT ssn FROM patients))) AS t(a,b)",
            "ssn | ssn:OUTPUT+OTHER",
        ),
        (
            "SELECT a FROM ROWS FROM (generate_series(1,2), unnest(ARRAY(SELECT zip FROM patients))) AS t(a,b)",
            "- | zip:OTHER",
        ),
        (
            "SELECT ssn FROM patients TABLESAMPLE SYSTEM (100)",
            "ssn | ssn:OUTPUT",
        ),
        ("TABLE v_nested", "-;name | name:OUTPUT"),
    ]);
}

#[test]
fn recursion_carries_values_between_columns() {
    check(&[
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM t WHERE n<3) SELECT n FROM t",
            "- |",
        ),
        (
            "WITH RECURSIVE t(a,b,c,d) AS (SELECT ssn, 'x', 'y', 'z' FROM patients UNION ALL SELECT d, a, b, c FROM t) SELECT c FROM t",
            "ssn | ssn:OUTPUT",
        ),
        (
            "WITH RECURSIVE t(a,b) AS (SELECT 'x', 1 UNION ALL SELECT (SELECT max(ssn) FROM patients), b+1 FROM t WHERE b < 3) SELECT a FROM t",
            "ssn | ssn:OUTPUT+PREDICATE+OTHER",
        ),
        (
            "WITH RECURSIVE t(a) AS (SELECT ssn FROM patients UNION SELECT a FROM t) SELECT 1 FROM t",
            "- | ssn:GROUP",
        ),
    ]);
}

#[test]
fn joins() {
    check(&[
        (
            "SELECT name FROM staff FULL JOIN patients USING (name)",
            "name | name:OUTPUT+JOIN",
        ),
        (
            "SELECT staff.name FROM staff JOIN patients USING (name)",
            "- | name:JOIN",
        ),
        (
            "SELECT * FROM (SELECT id, phone AS x FROM patients) a NATURAL JOIN staff",
            "-;phone;-;-;-;- | phone:OUTPUT",
        ),
        (
            "SELECT j.ssn FROM (patients JOIN diagnoses ON patients.id = diagnoses.patient_id) j",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT patients.ssn FROM (patients CROSS JOIN staff) j",
            "unknown |  gap",
        ),
        (
            "SELECT u.name FROM staff JOIN patients USING (name) AS u",
            "name | name:OUTPUT+JOIN",
        ),
        (
            "SELECT 1 FROM patients p JOIN (VALUES ('x')) d(v) ON p.ssn = d.v",
            "- | ssn:JOIN",
        ),
        (
            "SELECT 1 FROM patients p, claims c WHERE p.mrn = c.patient_mrn",
            "- | mrn:JOIN patient_mrn:JOIN",
        ),
        (
            "SELECT 1 FROM patients p, patients q WHERE p.ssn < q.ssn",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT p.id, count(d.id) FROM patients p LEFT JOIN diagnoses d ON d.patient_id = p.id GROUP BY p.id",
            "-;- |",
        ),
    ]);
}

#[test]
fn set_operations() {
    check(&[
        (
            "SELECT id::text FROM staff UNION ALL SELECT ssn FROM patients",
            "ssn | ssn:OUTPUT",
        ),
        (
            "SELECT ssn FROM patients UNION SELECT 'x'",
            "ssn | ssn:OUTPUT+GROUP",
        ),
        (
            "SELECT 'x' EXCEPT SELECT ssn FROM patients",
            "ssn | ssn:OUTPUT+GROUP",
        ),
        (
            "SELECT count(*) FROM (SELECT 'x' INTERSECT ALL SELECT ssn FROM patients) q",
            "- | ssn:GROUP",
        ),
        (
            "SELECT name FROM staff UNION ALL SELECT role FROM staff ORDER BY 1",
            "- |",
        ),
        (
            "SELECT name FROM patients UNION ALL SELECT role FROM staff ORDER BY name",
            "name | name:OUTPUT+ORDER",
        ),
    ]);
}

#[test]
fn views() {
    check(&[
        ("SELECT x FROM v_nested", "name | name:OUTPUT"),
        ("SELECT k FROM v_nested", "- |"),
        (
            "SELECT entry FROM mv_directory",
            "name+phone | name:OUTPUT phone:OUTPUT",
        ),
        ("SELECT name FROM v_roster", "- |"),
        ("SELECT id FROM v_ssn_ok", "- | ssn:PREDICATE"),
        (
            "SELECT (v).contact FROM v_contact v",
            "phone | phone:OUTPUT",
        ),
    ]);
    let facts = facts("SELECT x FROM v_nested");
    let paths: Vec<String> = facts
        .operation
        .objects
        .iter()
        .map(|object| object.path.join("."))
        .collect();
    assert_eq!(
        paths,
        ["public.v_nested", "public.v_contact", "public.patients"]
    );
    assert!(!facts.operation.objects[0].labels.is_clear());
}
