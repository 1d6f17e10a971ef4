//! Types that users have made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use chaperone_sql::{Catalog, Labelling, Options, SessionView, analyze};

const DDL: &str = "
    CREATE TYPE mood AS ENUM ('calm', 'tense');
    CREATE TYPE cast_to AS ENUM ('a');
    CREATE FUNCTION to_cast(text) RETURNS cast_to LANGUAGE sql AS 'SELECT 1';
    CREATE CAST (text AS cast_to) WITH FUNCTION to_cast(text);
    CREATE DOMAIN checked AS text;
    CREATE TABLE ward (id int, mood mood, note text);
    CREATE TABLE bed (id int, note checked);
    COMMENT ON TABLE ward IS '@label(clear)';
";

fn gaps(sql: &str) -> Vec<String> {
    let catalog = Catalog::from_ddl(DDL).expect("the test's own DDL");
    let (session, labelling) = (SessionView::default(), Labelling::new());
    let facts = analyze(sql, &catalog, &session, &labelling, &Options::default());
    let facts = facts.unwrap_or_else(|error| panic!("{sql}: {error}"));
    facts
        .into_iter()
        .flat_map(|facts| facts.operation.gaps)
        .collect()
}

#[test]
fn an_enum_runs_nobodys_code() {
    for sql in [
        "SELECT id FROM ward WHERE mood = 'calm'",
        "SELECT id FROM ward WHERE mood = 'calm'::mood",
        "SELECT id FROM ward WHERE mood = $1::public.mood ORDER BY mood",
        "SELECT note::mood, count(*) FROM ward GROUP BY 1",
        "INSERT INTO ward VALUES (1, 'calm'::mood, 'x')",
    ] {
        assert_eq!(gaps(sql), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn what_may_run_somebodys_code_is_a_gap() {
    for sql in [
        "SELECT note::cast_to FROM ward",
        "SELECT lower(note)::cast_to FROM ward",
        "SELECT note::checked FROM ward",
        "SELECT ARRAY[note]::mood[] FROM ward",
    ] {
        assert!(!gaps(sql).is_empty(), "{sql}");
    }
}

#[test]
fn a_row_that_is_read_from_text_runs_the_checks_of_its_columns() {
    for sql in [
        "SELECT '(1,x)'::public.bed IS NULL",
        "SELECT $1::bed IS NULL",
        "SELECT ROW(1, 'x')::bed",
        "SELECT json_populate_record(NULL::public.bed, '{}')",
        "SELECT * FROM jsonb_populate_recordset(NULL::bed, '[]')",
        "SELECT '(1,calm,x)'::ward IS NULL",
    ] {
        assert!(!gaps(sql).is_empty(), "{sql}");
    }
    let sql = "SELECT id FROM json_populate_record(NULL::public.ward, '{}')";
    assert_eq!(gaps(sql), Vec::<String>::new());
}

#[test]
fn an_enum_of_a_value_is_of_what_the_value_is_of() {
    let catalog = Catalog::from_ddl(
        "CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE p (id int, ssn text);
         COMMENT ON TABLE p IS '@label(clear)'; COMMENT ON COLUMN p.ssn IS '@label(ssn)';",
    )
    .unwrap();
    let (session, labelling) = (SessionView::default(), Labelling::new());
    let sql = "SELECT ssn::mood FROM p";
    let facts = analyze(sql, &catalog, &session, &labelling, &Options::default()).unwrap();
    let operation = &facts.first().unwrap().operation;
    let output = operation.outputs.first().unwrap();
    assert_eq!(operation.output_labels(output).to_list(), ["ssn"]);
    // It can fail, and the error says what on.
    assert!(!operation.uses.first().unwrap().usages.is_empty());
}
