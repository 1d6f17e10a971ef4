//! What statements are found to do, by classes of attack and of honest use. Expectations are
//! written as `output labels | uses of labelled fields | gap?`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by panicking

use chaperone_contract::Usages;
use chaperone_sql::{
    Catalog, Facts, Kind, Labelling, Options, SessionView, Trust, analyze, classify,
};

fn catalog() -> &'static Catalog {
    static CATALOG: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    CATALOG.get_or_init(|| {
        Catalog::from_ddl(include_str!("hospital.sql")).expect("the test hospital is sound")
    })
}

fn all(sql: &str) -> Vec<Facts> {
    analyze(
        sql,
        catalog(),
        &SessionView::default(),
        &Labelling::new(),
        &Options::default(),
    )
    .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn facts(sql: &str) -> Facts {
    all(sql).pop().expect("there is a statement")
}

/// `ssn;- | ssn:OUTPUT | gap`: labels of each output, usages of each labelled field, gaps.
fn summary(facts: &Facts) -> String {
    let operation = &facts.operation;
    let outputs: Vec<String> = operation
        .outputs
        .iter()
        .map(|output| {
            let labels = operation.output_labels(output).to_list();
            if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join("+")
            }
        })
        .collect();
    let mut uses: Vec<String> = operation
        .uses
        .iter()
        .filter(|used| !used.labels.is_clear())
        .map(|used| {
            let names: Vec<&str> = used.usages.iter_names().map(|(name, _)| name).collect();
            format!("{}:{}", used.field, names.join("+"))
        })
        .collect();
    uses.sort();
    let gap = if operation.gaps.is_empty() {
        ""
    } else {
        " gap"
    };
    format!("{} | {}{gap}", outputs.join(";"), uses.join(" "))
        .trim()
        .to_owned()
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, expected) in table {
        let found = summary(&facts(sql));
        if found != *expected {
            wrong.push(format!("{sql}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

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

#[test]
fn total_expressions_are_outputs_only() {
    for expression in [
        "left(ssn, 6) || '~' || right(ssn, 5)",
        "'k=' || ssn",
        "concat_ws('|', mrn, name, dob)",
        "md5(ssn)",
        "reverse(ssn)",
        "upper(ssn)",
        "substr(ssn, 1, 3)",
        "split_part(ssn, '-', 1)",
        "format('%s/%s', id, ssn)",
        "quote_literal(ssn)",
        "json_build_object('k', ssn)",
        "coalesce(NULL, ssn)",
        "nullif(ssn, '')",
        "greatest(ssn, '')",
        "(ARRAY[zip, ssn])[2]",
        "xmlelement(name a, ssn)",
        "CASE WHEN ssn LIKE '9%' THEN 'a' ELSE 'b' END",
        "ssn LIKE '917%'",
        "ssn ~ '^9'",
        "ssn = 'x'",
        "ssn IS NULL",
        "ssn IN ('a', 'b')",
        "ssn BETWEEN 'a' AND 'b'",
        "ssn::text",
        "ssn COLLATE \"C\"",
        "dob::text",
        "to_char(dob, 'YYYY')",
        "extract(year FROM dob)",
        "min(ssn)",
        "string_agg(ssn, ',')",
        "mode() WITHIN GROUP (ORDER BY ssn)",
        "encode(convert_to(name, 'UTF8'), 'base64')",
        "row_to_json(p)",
        "regexp_replace(ssn, '\\d', 'x', 'g')",
    ] {
        let facts = facts(&format!("SELECT {expression} FROM patients p"));
        let operation = &facts.operation;
        assert!(
            operation.gaps.is_empty(),
            "{expression}: {:?}",
            operation.gaps
        );
        assert!(facts.effects.read_only, "{expression}");
        assert!(
            !operation.output_labels(&operation.outputs[0]).is_clear(),
            "{expression}"
        );
        for used in &operation.uses {
            assert_eq!(used.usages, Usages::OUTPUT, "{expression}: {}", used.field);
        }
    }
}

#[test]
fn expressions_that_can_fail_show() {
    for expression in [
        "ssn::int",
        "name::json",
        "('<a>' || ssn)::xml",
        "ssn::bytea",
        "1/(ascii(substr(ssn, 2, 1)) - 49)",
        "repeat('x', ascii(ssn))",
        "substr(ssn, 1, ascii(ssn) - 60)",
        "substr(ssn, 1, -1)",
        "split_part(ssn, '-', 0)",
        "lpad('x', ascii(ssn) * 1000000)",
        "to_number(ssn, '999')",
        "dob - date '1900-01-01'",
        "ssn LIKE name",
        "ssn LIKE '917\\'",
        "ssn ~ name",
        "nullif(ssn, '917-31-2041') ~ '('",
        "format(ssn)",
        "format('%I', nullif(ssn, 'x'))",
        "convert_to(name, 'LATIN1')",
        "chr(ascii(ssn))",
        "CASE WHEN ssn LIKE '9%' THEN 1/0 ELSE 1 END",
        "CASE WHEN ssn LIKE '9%' THEN (SELECT count(*) FROM generate_series(1, 100000000)) END",
        "CASE WHEN ssn LIKE '9%' THEN nextval('misc_seq') END",
        "CASE WHEN ssn LIKE '9%' THEN random() END",
        "coalesce(nullif(ssn, 'x'), (1/0)::text)",
        "ssn LIKE '9%' AND 1/0 = 1",
        "repeat(' ', 1073741800) || ssn",
        "json_object_agg(ssn, 1)",
        "regexp_split_to_table(ssn, '')",
        "generate_series(1, ascii(ssn))",
        "unnest(string_to_array(ssn, '-'))",
        "to_tsvector('simple', ssn)",
        "xmlparse(document ssn)",
        "ARRAY[ssn] || ARRAY[[name]]",
        "setval('misc_seq', ascii(ssn))",
    ] {
        let facts = facts(&format!("SELECT {expression} FROM patients p"));
        let used = facts
            .operation
            .uses
            .iter()
            .find(|used| used.field == "ssn" || used.field == "name" || used.field == "dob")
            .unwrap_or_else(|| panic!("{expression} uses nothing"));
        assert!(
            used.usages.contains(Usages::OTHER),
            "{expression}: {:?}",
            used.usages
        );
    }
}

#[test]
fn inference_channels() {
    check(&[
        (
            "SELECT id FROM patients WHERE ssn = '1'",
            "- | ssn:EQUALITY",
        ),
        (
            "SELECT id FROM patients WHERE ssn = $1 AND id > 3",
            "- | ssn:EQUALITY",
        ),
        ("SELECT id FROM patients WHERE $1 = ssn", "- | ssn:EQUALITY"),
        (
            "SELECT id FROM patients WHERE ssn = '1' OR id = 2",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE NOT ssn = '1'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE ssn IN ('1')",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE ssn = ANY(ARRAY['1'])",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE md5(ssn) = '1'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE ssn LIKE '9%'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE (ssn, name) > ('9', '')",
            "- | name:PREDICATE ssn:PREDICATE",
        ),
        ("SELECT id FROM patients ORDER BY ssn", "- | ssn:ORDER"),
        (
            "SELECT ssn AS id2 FROM patients ORDER BY id2",
            "ssn | ssn:OUTPUT+ORDER",
        ),
        (
            "SELECT id FROM patients ORDER BY CASE WHEN ssn LIKE '9%' THEN 1 END",
            "- | ssn:ORDER",
        ),
        ("SELECT id FROM patients GROUP BY id, ssn", "- | ssn:GROUP"),
        (
            "SELECT count(*) FROM patients GROUP BY GROUPING SETS ((zip), ())",
            "- | zip:GROUP",
        ),
        (
            "SELECT count(*) FROM patients GROUP BY ROLLUP (zip)",
            "- | zip:GROUP",
        ),
        (
            "SELECT zip AS z, count(*) FROM patients GROUP BY z",
            "zip;- | zip:OUTPUT+GROUP",
        ),
        (
            "SELECT DISTINCT zip FROM patients",
            "zip | zip:OUTPUT+GROUP",
        ),
        (
            "SELECT DISTINCT ON (zip) id FROM patients",
            "- | zip:ORDER+GROUP",
        ),
        (
            "SELECT id FROM patients HAVING max(ssn) > '5'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT count(*) FILTER (WHERE ssn LIKE '9%') FROM patients",
            "ssn | ssn:OUTPUT+PREDICATE",
        ),
        (
            "SELECT count(DISTINCT ssn) FROM patients",
            "ssn | ssn:OUTPUT+GROUP",
        ),
        (
            "SELECT array_agg(id ORDER BY ssn) FROM patients",
            "- | ssn:ORDER",
        ),
        (
            "SELECT rank() OVER (ORDER BY ssn) FROM patients",
            "ssn | ssn:OUTPUT+ORDER",
        ),
        (
            "SELECT rank() OVER w FROM patients WINDOW w AS (PARTITION BY zip ORDER BY ssn)",
            "zip+ssn | ssn:OUTPUT+ORDER zip:OUTPUT+GROUP",
        ),
        (
            "SELECT id FROM patients LIMIT (SELECT length(max(ssn)) FROM patients)",
            "- | ssn:OTHER",
        ),
        (
            "SELECT EXISTS (SELECT FROM patients WHERE ssn = '1')",
            "ssn | ssn:OUTPUT+PREDICATE",
        ),
        (
            "SELECT name FROM staff s WHERE EXISTS (SELECT 1 FROM patients p WHERE p.name = s.name)",
            "- | name:PREDICATE+JOIN",
        ),
        (
            "SELECT 1 FROM staff WHERE name IN (SELECT name FROM patients)",
            "- | name:PREDICATE",
        ),
        (
            "SELECT 1 FROM staff WHERE name = (SELECT max(name) FROM patients)",
            "- | name:PREDICATE+JOIN",
        ),
        (
            "SELECT 1 FROM generate_series(1, (SELECT length(max(ssn)) FROM patients))",
            "- | ssn:OTHER",
        ),
        (
            "EXPLAIN SELECT 1 FROM patients WHERE ssn < '5'",
            "ssn | ssn:OUTPUT+PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE name::int > 0",
            "- | name:PREDICATE+OTHER",
        ),
    ]);
}

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
fn catalogs_are_clear() {
    for sql in [
        "SELECT relname FROM pg_class WHERE relkind='r' AND relnamespace='public'::regnamespace ORDER BY 1",
        "SELECT column_name FROM information_schema.columns WHERE table_name='patients' AND table_schema='public' ORDER BY ordinal_position",
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(patients)$' COLLATE pg_catalog.default AND pg_catalog.pg_table_is_visible(c.oid)",
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef) FROM pg_catalog.pg_attribute a WHERE a.attrelid = '16384' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        "SELECT typname, typlen FROM pg_type WHERE oid = ANY(ARRAY[16,17]::oid[])",
        "select current_schema(), version(), current_setting('server_version_num')::int",
        "SHOW transaction_isolation",
    ] {
        let facts = facts(sql);
        assert!(
            facts.operation.gaps.is_empty(),
            "{sql}: {:?}",
            facts.operation.gaps
        );
        assert!(!facts.labelled && facts.effects.read_only, "{sql}");
    }
}

#[test]
fn commands_objects_and_kinds() {
    use chaperone_contract::Actions;
    for (sql, command, object, actions) in [
        (
            "DROP TABLE patients, staff",
            "DROP TABLE",
            "table public.patients",
            Actions::DEFINE,
        ),
        (
            "ALTER USER bob SUPERUSER",
            "ALTER ROLE",
            "role bob",
            Actions::DEFINE,
        ),
        (
            "CREATE ROLE bob",
            "CREATE ROLE",
            "role bob",
            Actions::DEFINE,
        ),
        ("DROP USER bob", "DROP ROLE", "role bob", Actions::DEFINE),
        (
            "GRANT SELECT ON patients TO bob",
            "GRANT",
            "table public.patients",
            Actions::GRANT,
        ),
        (
            "GRANT admin TO bob",
            "GRANT ROLE",
            "role admin",
            Actions::GRANT,
        ),
        (
            "REVOKE ALL ON patients FROM PUBLIC",
            "REVOKE",
            "table public.patients",
            Actions::GRANT,
        ),
        (
            "GRANT USAGE ON SCHEMA public TO bob",
            "GRANT",
            "schema ",
            Actions::GRANT,
        ),
        (
            "TRUNCATE patients",
            "TRUNCATE TABLE",
            "table public.patients",
            Actions::DELETE,
        ),
        (
            "CREATE INDEX i ON patients (ssn)",
            "CREATE INDEX",
            "table public.patients",
            Actions::DEFINE,
        ),
        (
            "ALTER TABLE patients ADD COLUMN x int",
            "ALTER TABLE",
            "table public.patients",
            Actions::DEFINE,
        ),
        (
            "ALTER VIEW v_contact RENAME TO x",
            "ALTER VIEW",
            "view public.v_contact",
            Actions::DEFINE,
        ),
        (
            "DROP FUNCTION pname(int)",
            "DROP FUNCTION",
            "function pname",
            Actions::DEFINE,
        ),
        (
            "CREATE EXTENSION dblink",
            "CREATE EXTENSION",
            "extension dblink",
            Actions::DEFINE,
        ),
        (
            "CREATE SCHEMA s",
            "CREATE SCHEMA",
            "schema s",
            Actions::DEFINE,
        ),
        (
            "DROP DATABASE d",
            "DROP DATABASE",
            "database d",
            Actions::DEFINE,
        ),
        (
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "CREATE VIEW",
            "view v",
            Actions::DEFINE,
        ),
        (
            "COMMENT ON COLUMN patients.ssn IS 'x'",
            "COMMENT",
            "table public.patients",
            Actions::DEFINE,
        ),
        (
            "VACUUM patients",
            "VACUUM",
            "table public.patients",
            Actions::CONTROL,
        ),
        (
            "LOCK TABLE patients",
            "LOCK TABLE",
            "table public.patients",
            Actions::CONTROL,
        ),
        (
            "INSERT INTO scratch VALUES (1)",
            "INSERT",
            "table public.scratch",
            Actions::CREATE,
        ),
        (
            "DELETE FROM scratch",
            "DELETE",
            "table public.scratch",
            Actions::DELETE,
        ),
        (
            "REFRESH MATERIALIZED VIEW mv_directory",
            "REFRESH MATERIALIZED VIEW",
            "materialized view public.mv_directory",
            Actions::DEFINE,
        ),
        (
            "ALTER ROLE bob SET search_path = x",
            "ALTER ROLE",
            "role bob",
            Actions::DEFINE,
        ),
        (
            "CREATE SERVER s FOREIGN DATA WRAPPER f",
            "CREATE SERVER",
            "server s",
            Actions::DEFINE,
        ),
        (
            "CREATE DOMAIN d AS text",
            "CREATE DOMAIN",
            "domain d",
            Actions::DEFINE,
        ),
        (
            "ALTER TABLE patients OWNER TO bob",
            "ALTER TABLE",
            "table public.patients",
            Actions::DEFINE,
        ),
    ] {
        let facts = facts(sql);
        let operation = &facts.operation;
        assert_eq!(operation.command, command, "{sql}");
        let named: Vec<String> = operation
            .objects
            .iter()
            .map(|object| format!("{} {}", object.kind, object.path.join(".")))
            .collect();
        let at = named.iter().position(|name| name == object);
        let at = at.unwrap_or_else(|| panic!("{sql}: {named:?}"));
        assert!(operation.objects[at].actions.contains(actions), "{sql}");
        assert!(operation.actions.contains(actions), "{sql}");
        assert!(!facts.effects.read_only, "{sql}");
    }
}

#[test]
fn kinds() {
    let kind = |sql: &str| {
        classify(sql, &chaperone_sql::Limits::default())
            .unwrap()
            .pop()
            .unwrap()
            .kind
    };
    assert_eq!(kind(""), Kind::Empty);
    assert_eq!(kind(" ; -- x"), Kind::Empty);
    assert_eq!(kind("begin"), Kind::Begin);
    assert_eq!(kind("START TRANSACTION READ ONLY"), Kind::Begin);
    assert_eq!(kind("END"), Kind::Commit { chain: false });
    assert_eq!(kind("ABORT AND CHAIN"), Kind::Rollback { chain: true });
    assert_eq!(kind("ROLLBACK TO s"), Kind::RollbackTo { name: "s".into() });
    assert_eq!(
        kind("SET LOCAL statement_timeout = '5s'"),
        Kind::Set {
            name: "statement_timeout".into(),
            local: true,
            value: Some("5s".into())
        }
    );
    assert_eq!(
        kind("SET search_path = a, b"),
        Kind::Set {
            name: "search_path".into(),
            local: false,
            value: Some("a, b".into())
        }
    );
    assert_eq!(
        kind("SET ROLE x"),
        Kind::Set {
            name: "role".into(),
            local: false,
            value: Some("x".into())
        }
    );
    assert_eq!(kind("RESET ALL"), Kind::Reset { name: None });
    assert_eq!(
        kind("DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
        Kind::Declare {
            cursor: "c".into(),
            hold: true
        }
    );
    assert_eq!(
        kind("DECLARE c CURSOR FOR SELECT 1"),
        Kind::Declare {
            cursor: "c".into(),
            hold: false
        }
    );
    assert_eq!(
        kind("EXPLAIN (ANALYZE) SELECT 1"),
        Kind::Explain { analyze: true }
    );
    assert_eq!(
        kind("EXPLAIN (ANALYZE off) SELECT 1"),
        Kind::Explain { analyze: false }
    );
    assert_eq!(
        kind("EXPLAIN ANALYZE SELECT 1"),
        Kind::Explain { analyze: true }
    );
    assert_eq!(kind("SELECT 1 INTO x"), Kind::Definition);
    assert_eq!(kind("DISCARD ALL"), Kind::Discard { all: true });
    assert_eq!(
        kind("CREATE FOREIGN TABLE x (a int) SERVER s"),
        Kind::Definition
    );
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

#[test]
fn filters_and_limits() {
    let sql = |sql: &str| facts(sql).operation.sql.unwrap();
    assert!(!sql("SELECT * FROM staff").is_filtered);
    assert!(!sql("SELECT * FROM staff WHERE true").is_filtered);
    assert!(!sql("SELECT * FROM staff WHERE 1 = 1").is_filtered);
    assert!(!sql("SELECT * FROM staff WHERE id = id").is_filtered);
    assert!(!sql("SELECT * FROM staff WHERE id = 1 OR true").is_filtered);
    assert!(!sql("SELECT * FROM staff, scratch WHERE staff.id = 1").is_filtered);
    assert!(!sql("DELETE FROM scratch").is_filtered);
    assert!(sql("SELECT 1").is_filtered);
    assert!(sql("SELECT * FROM staff WHERE id = 1").is_filtered);
    assert!(sql("SELECT * FROM staff JOIN scratch ON staff.id = scratch.id").is_filtered);
    assert!(sql("SELECT * FROM (SELECT * FROM staff) s WHERE s.id = 1").is_filtered);
    assert!(sql("UPDATE scratch SET t = 'x' WHERE id = 1").is_filtered);
    assert_eq!(sql("SELECT 1 LIMIT 10").row_limit, Some(10));
    assert_eq!(sql("SELECT 1 FETCH FIRST 3 ROWS ONLY").row_limit, Some(3));
    assert_eq!(sql("SELECT 1 LIMIT $1").row_limit, None);
    assert_eq!(sql("SELECT 1").row_limit, None);
    assert_eq!(sql("SELECT lower('A')").functions, ["pg_catalog.lower"]);
}

#[test]
fn origins_and_names() {
    let columns = |sql: &str| -> Vec<(String, Option<(u32, i16)>)> {
        facts(sql)
            .columns
            .into_iter()
            .map(|column| (column.name, column.origin))
            .collect()
    };
    let oid = |name: &str| catalog().relation("public", name).unwrap().oid;
    assert_eq!(
        columns(
            "SELECT s.id, name || 'x', count(*), 1::int, (SELECT 1 AS q), CASE WHEN true THEN 1 END FROM staff s"
        ),
        [
            ("id".to_owned(), Some((oid("staff"), 1))),
            ("?column?".to_owned(), Some((0, 0))),
            ("count".to_owned(), Some((0, 0))),
            ("int4".to_owned(), Some((0, 0))),
            ("q".to_owned(), Some((0, 0))),
            ("case".to_owned(), Some((0, 0))),
        ]
    );
    assert_eq!(
        columns("SELECT label FROM v_contact"),
        [("label".to_owned(), Some((oid("v_contact"), 2)))]
    );
    assert_eq!(
        columns("WITH x(a) AS (SELECT name FROM staff) SELECT a FROM x"),
        [("a".to_owned(), Some((oid("staff"), 2)))]
    );
    assert_eq!(facts("SELECT $1, $7").parameters, 7);
}

#[test]
fn several_statements() {
    let gaps: Vec<bool> = all("SELECT 1; SET search_path = evil; SELECT name FROM staff; COMMIT")
        .iter()
        .map(|facts| facts.operation.gaps.is_empty())
        .collect();
    assert_eq!(gaps, [true, true, false, true]);
    for first in [
        "CREATE TEMP TABLE staff (a int)",
        "SELECT pname(1)",
        "DO $$ $$",
        "ROLLBACK",
        "RESET ALL",
        "SET ROLE x",
    ] {
        let facts = all(&format!("{first}; SELECT name FROM staff"));
        assert!(!facts[1].operation.gaps.is_empty(), "{first}");
    }
    let facts = all("SELECT 1; SELECT ssn FROM patients;\n SELECT 2");
    let texts: Vec<&str> = facts
        .iter()
        .map(|facts| facts.operation.text.as_str())
        .collect();
    assert_eq!(texts, ["SELECT 1", "SELECT ssn FROM patients", "SELECT 2"]);
}

#[test]
fn names_resolve_in_the_session() {
    let ddl = "CREATE TABLE staff (id int, name text); COMMENT ON TABLE staff IS '@label(clear)';
        CREATE TABLE p (ssn text); COMMENT ON COLUMN p.ssn IS '@label(ssn)';
        CREATE VIEW evil.staff AS SELECT 1 AS id, ssn AS name FROM p;
        CREATE TEMP VIEW staff AS SELECT 2 AS id, ssn AS name FROM public.p;";
    let catalog = Catalog::from_ddl(ddl).unwrap();
    let run = |path: &[&str], sql: &str| {
        let session = SessionView {
            search_path: path.iter().map(|&name| name.into()).collect(),
            temp_schema: Some("pg_temp_1".into()),
            ..SessionView::default()
        };
        let facts = analyze(
            sql,
            &catalog,
            &session,
            &Labelling::new(),
            &Options::default(),
        )
        .unwrap();
        summary(&facts[0])
    };
    assert_eq!(
        run(&["pg_catalog", "public"], "SELECT name FROM staff"),
        "- |"
    );
    assert_eq!(
        run(&["pg_catalog", "evil", "public"], "SELECT name FROM staff"),
        "ssn | ssn:OUTPUT"
    );
    assert_eq!(
        run(
            &["pg_temp_1", "pg_catalog", "public"],
            "SELECT name FROM staff"
        ),
        "ssn | ssn:OUTPUT"
    );
    assert_eq!(
        run(&["pg_catalog", "public"], "SELECT name FROM pg_temp.staff"),
        "ssn | ssn:OUTPUT"
    );
    assert_eq!(
        run(&["pg_catalog"], "SELECT name FROM staff"),
        "unknown |  gap"
    );
}

#[test]
fn settings_that_change_reading() {
    let session = SessionView {
        settings: vec![("standard_conforming_strings".into(), "off".into())],
        ..SessionView::default()
    };
    let run = |sql: &str| {
        analyze(
            sql,
            catalog(),
            &session,
            &Labelling::new(),
            &Options::default(),
        )
        .unwrap()[0]
            .operation
            .gaps
            .is_empty()
    };
    assert!(!run("SELECT 1"));
    assert!(run("ROLLBACK"));
    assert!(run("SET standard_conforming_strings = on"));
    assert!(run("RESET standard_conforming_strings"));
    assert!(!run("SET client_encoding = 'GBK'"));
}

#[test]
fn configured_labels_win() {
    let mut labels = Labelling::new();
    labels.set_column("public", "staff", "name", vec!["staff-name".into()]);
    labels.set_column("public", "patients", "ssn", vec![]);
    labels.set_relation("public", "patients_bak", vec![]);
    let run = |sql: &str| {
        let facts = analyze(
            sql,
            catalog(),
            &SessionView::default(),
            &labels,
            &Options::default(),
        )
        .unwrap();
        summary(&facts[0])
    };
    assert_eq!(
        run("SELECT name, role FROM staff"),
        "staff-name;- | name:OUTPUT"
    );
    assert_eq!(run("SELECT ssn, mrn FROM patients"), "-;mrn | mrn:OUTPUT");
    assert_eq!(run("SELECT c1 FROM patients_bak"), "- |");
}

#[test]
fn inheritance_shares_labels() {
    check(&[
        (
            "SELECT member_no FROM claims_archive",
            "member | member_no:OUTPUT",
        ),
        (
            "SELECT admitted_at FROM encounters_p1",
            "date | admitted_at:OUTPUT",
        ),
    ]);
    let ddl = "CREATE TABLE a (x text); COMMENT ON TABLE a IS '@label(clear)';
        CREATE TABLE b () INHERITS (a); COMMENT ON COLUMN b.x IS '@label(ssn)';";
    let catalog = Catalog::from_ddl(ddl).unwrap();
    let facts = analyze(
        "SELECT x FROM a",
        &catalog,
        &SessionView::default(),
        &Labelling::new(),
        &Options::default(),
    )
    .unwrap();
    assert_eq!(summary(&facts[0]), "ssn | x:OUTPUT");
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
fn psql_can_describe() {
    let text = include_str!("psql.sql");
    let (_, queries) = text.split_once('\n').unwrap();
    let mut count = 0;
    for query in queries
        .split("\n;;\n")
        .filter(|query| !query.trim().is_empty())
    {
        let facts = facts(query);
        let gaps: Vec<&String> = facts
            .operation
            .gaps
            .iter()
            // The test hospital has operators of this name on types of its own.
            .filter(|gap| !gap.starts_with("operator public."))
            .collect();
        assert!(
            gaps.is_empty() || gaps == ["an output column is of unknown origin"],
            "{query}: {gaps:?}"
        );
        count += 1;
    }
    assert!(count > 60, "{count}");
    let facts = facts("SELECT attmissingval FROM pg_attribute");
    assert!(!facts.operation.gaps.is_empty());
}
