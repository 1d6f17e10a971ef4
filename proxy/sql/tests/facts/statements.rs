//! Statements as a whole: filters, names of columns, several of them in one text.

use crate::{all, catalog, facts};

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
fn psql_can_describe() {
    let text = include_str!("../psql.sql");
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
