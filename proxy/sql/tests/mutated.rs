//! Whatever text comes, there is an answer: facts or an error, never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use chaperone_sql::{Catalog, Labelling, Limits, Options, SessionView, analyze, classify};
use proptest::prelude::*;

fn catalog() -> &'static Catalog {
    static CATALOG: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    CATALOG.get_or_init(|| {
        Catalog::from_ddl(include_str!("hospital.sql")).expect("the test hospital is sound")
    })
}

const PIECES: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "patients",
    "staff",
    "p",
    "s",
    "ssn",
    "name",
    "id",
    "*",
    "(",
    ")",
    ",",
    "JOIN",
    "LEFT JOIN",
    "NATURAL JOIN",
    "USING (id)",
    "ON true",
    "AND",
    "OR",
    "NOT",
    "=",
    "<",
    "||",
    "+",
    "GROUP BY",
    "ORDER BY",
    "LIMIT 1",
    "UNION",
    "UNION ALL",
    "EXCEPT",
    "WITH x AS (",
    "x",
    "AS",
    "VALUES (1)",
    "count(*)",
    "max(ssn)",
    "OVER ()",
    "FILTER (WHERE",
    "CASE WHEN",
    "THEN",
    "ELSE",
    "END",
    "IN (",
    "EXISTS (",
    "INSERT INTO scratch",
    "UPDATE patients SET zip =",
    "DELETE FROM notes",
    "RETURNING",
    "MERGE INTO scratch USING",
    "WHEN MATCHED THEN",
    "LATERAL",
    "unnest(tags)",
    "intake",
    "doc",
    "->",
    "'a'",
    "::text",
    "::int",
    "::dd",
    ".",
    "[1]",
    "ARRAY[",
    "]",
    "ROW(",
    "DISTINCT",
    "ON CONFLICT DO NOTHING",
    "EXPLAIN",
    "COPY",
    "TO STDOUT",
    ";",
    "$1",
    "CREATE VIEW v AS",
    "v_nested",
    "TABLE",
    "json_each(doc)",
    "pname(1)",
    "generate_series(1,2)",
    "ROWS FROM (",
    "GROUPING SETS (",
    "RECURSIVE",
    "JSON_OBJECT('a':",
    "xmlelement(name a,",
    "FOR UPDATE",
    "TABLESAMPLE system (1)",
    "\"é\"",
    "e'\\xc3'",
    "U&'\\0061'",
    "GRANT SELECT ON",
    "DROP TABLE",
    "ALTER TABLE",
    "COMMENT ON",
    "IS 'x'",
    "SET",
    "PREPARE a AS",
    "DECLARE c CURSOR FOR",
    "WITH ORDINALITY",
    "CROSS JOIN",
    "excluded",
    "pg_class",
    "information_schema.columns",
    "ctid",
    "IS NULL",
    "BETWEEN 1 AND 2",
];

const STATEMENTS: &[&str] = &[
    "SELECT p.ssn, count(*) OVER (PARTITION BY zip ORDER BY dob) FROM patients p LEFT JOIN claims c ON c.patient_mrn = p.mrn WHERE p.id = $1 ORDER BY 1 LIMIT 10",
    "WITH RECURSIVE t(a, b) AS (SELECT 1, ssn FROM patients UNION ALL SELECT a + 1, b FROM t WHERE a < 3) SELECT * FROM t",
    "INSERT INTO scratch (id, t) SELECT id, name FROM staff ON CONFLICT (id) DO UPDATE SET t = excluded.t WHERE scratch.id > 1 RETURNING *",
    "MERGE INTO scratch s USING patients p ON s.id = p.id WHEN MATCHED THEN UPDATE SET t = p.name WHEN NOT MATCHED THEN INSERT (id) VALUES (p.id)",
    "SELECT (s.p).*, j.value FROM (SELECT p FROM patients p) s, LATERAL jsonb_each_text(to_jsonb(s.p)) j",
    "SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY(SELECT ssn FROM patients))) WITH ORDINALITY AS t(a, b, c)",
    "SELECT * FROM JSON_TABLE('{}'::jsonb, '$' COLUMNS (a text PATH '$.a', NESTED PATH '$.b' COLUMNS (c int PATH '$')))",
    "SELECT * FROM xmltable('/a' PASSING xmlelement(name a) COLUMNS b text PATH 'b')",
    "COPY (SELECT body FROM notes) TO STDOUT WITH (FORMAT csv)",
    "UPDATE staff s SET (note, role) = (SELECT ssn, zip FROM patients p WHERE p.id = s.id) RETURNING note",
    "SELECT a FROM (VALUES (1, 'x'), (2, 'y')) v(a, b) GROUP BY GROUPING SETS ((a), ()) HAVING count(*) > 1",
    "GRANT SELECT (ssn), UPDATE ON patients, staff TO bob, PUBLIC WITH GRANT OPTION",
    "ALTER TABLE patients ADD COLUMN x int DEFAULT 1, DROP COLUMN ssn CASCADE, ALTER name TYPE int USING name::int",
    "CREATE TABLE x (a int PRIMARY KEY REFERENCES patients(id), b text GENERATED ALWAYS AS (upper(c)) STORED, c text, LIKE staff)",
    "DROP FUNCTION IF EXISTS pname(int), public.ptag CASCADE; DROP OPERATOR =(int, int); DROP CAST (int AS text)",
];

fn look(text: &str) {
    let _ = classify(text, &Limits::default());
    if let Ok(all) = analyze(
        text,
        catalog(),
        &SessionView::default(),
        &Labelling::new(),
        &Options::default(),
    ) {
        for facts in all {
            assert_eq!(facts.columns.len(), facts.operation.outputs.len());
            assert!(text.get(facts.span.clone()).is_some());
            for output in &facts.operation.outputs {
                for used in output.lineage.uses() {
                    assert!((*used as usize) < facts.operation.uses.len());
                }
            }
            for used in &facts.operation.uses {
                assert!((used.object as usize) < facts.operation.objects.len());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,80}") {
        look(&text);
    }

    #[test]
    fn any_pieces(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..16)) {
        look(&pieces.join(" "));
        look(&format!("SELECT {}", pieces.join(" ")));
    }

    #[test]
    fn mutated_statements(
        which in 0..STATEMENTS.len(),
        other in proptest::sample::select(PIECES),
        at in 0_usize..40,
        length in 0_usize..4,
    ) {
        let words: Vec<&str> = STATEMENTS[which].split(' ').collect();
        let at = at.min(words.len());
        let end = (at + length).min(words.len());
        let mut mutated: Vec<&str> = words[..at].to_vec();
        mutated.push(other);
        mutated.extend(&words[end..]);
        look(&mutated.join(" "));
        let mut cut = words.clone();
        cut.drain(at..end);
        look(&cut.join(" "));
    }
}

#[test]
fn whole_statements() {
    for statement in STATEMENTS {
        assert!(
            classify(statement, &Limits::default()).is_ok(),
            "{statement}"
        );
        look(statement);
    }
}
