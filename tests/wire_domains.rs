//! Types of users whose values are checked by functions: PostgreSQL reads a constant as such a value
//! where it finds one, as early as when it parses.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::sync::MutexGuard;

use chaperone_test_support::Chaperone;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");

/// `tell` shows what is masked, and leaves a trace in `item`.
const TYPES: &[&str] = &[
    "CREATE FUNCTION tell(what text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO item SELECT 1 + max(id), what FROM item;
        RAISE NOTICE 'it is %', (SELECT ssn FROM patient WHERE id = 1);
        RETURN true; END $$",
    "CREATE DOMAIN told AS text CHECK (tell(VALUE))",
    "CREATE TYPE telling AS (a told, b int)",
    "CREATE TYPE told_range AS RANGE (subtype = told)",
    "CREATE TABLE held (id int, x telling, y told[], r told_range, m told_multirange, plain told)",
    "CREATE VIEW seen AS SELECT id, x AS z FROM held",
    "INSERT INTO held VALUES (1, NULL, NULL, NULL, NULL, NULL)",
];

/// A rig with these types, behind a proxy that masks.
fn start() -> (MutexGuard<'static, Rig>, Chaperone) {
    let rig = Rig::take(BINARY);
    let drop = "DROP TABLE IF EXISTS held CASCADE; DROP TYPE IF EXISTS told_range;
        DROP TYPE IF EXISTS telling; DROP DOMAIN IF EXISTS told; DROP FUNCTION IF EXISTS tell";
    for sql in [drop].iter().chain(TYPES) {
        let said = rig.direct().ask(&query(sql));
        assert!(said.sqlstates().is_empty(), "{sql}: {said}");
    }
    rig.reset();
    let proxy = rig
        .masking(BINARY, "\"public.held\" = \"clear\"")
        .start()
        .unwrap();
    (rig, proxy)
}

fn bound(sql: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let parts = [parse("", sql, &[]), bind("", "", parameters, 0)];
    [&parts.concat()[..], &execute("", 0), &sync()].concat()
}

#[test]
fn constants_that_would_be_read_as_such_a_value_are_not_understood() {
    let (rig, proxy) = start();
    let untouched = rig.items();
    let mut wire = Rig::through(&proxy);
    let prepared = |sql| [parse("", sql, &[]), sync()].concat();
    let messages = [
        ("parse", prepared("SELECT '(abc,1)'::telling")),
        ("parse of an array", prepared("SELECT '{abc}'::told[]")),
        ("parse of a range", prepared("SELECT '[a,b)'::told_range")),
        (
            "parse of a comparison",
            prepared("SELECT id FROM held WHERE x = '(abc,1)'"),
        ),
        (
            "parse of what is not known",
            prepared("SELECT nobody('(abc,1)'::telling)"),
        ),
        (
            "parse of two",
            prepared("SELECT '(abc,1)'::telling; SELECT 1"),
        ),
        (
            "a parameter",
            bound("SELECT id FROM held WHERE x = $1", &[Some("(abc,1)")]),
        ),
        (
            "a parameter for an array",
            bound("SELECT id FROM held WHERE y @> $1", &[Some("{abc}")]),
        ),
    ];
    let queries = [
        "SELECT id FROM held WHERE x = '(abc,1)'",
        "SELECT id FROM seen WHERE z = '(abc,1)'",
        "SELECT id FROM held WHERE y = '{abc}'",
        "SELECT id FROM held WHERE r @> 'abc'",
        "SELECT id FROM held WHERE m = '{[a,b)}'",
        "SELECT id FROM held WHERE x = ANY ('{\"(abc,1)\"}')",
        "SELECT id FROM held WHERE x IN ('(abc,1)', '(d,2)')",
        "SELECT id FROM held WHERE x IS DISTINCT FROM '(abc,1)'",
        "SELECT id FROM held WHERE x BETWEEN '(abc,1)' AND '(d,1)'",
        "SELECT id FROM held WHERE (x, id) = ('(abc,1)', 1)",
        "SELECT id FROM held WHERE held = '(1,\"(abc,1)\",,,,)'",
        "SELECT id FROM held ORDER BY coalesce(x, '(abc,1)')",
        "SELECT x FROM held UNION SELECT '(abc,1)'",
        "SELECT 1 FROM (SELECT x FROM held UNION SELECT '(abc,1)') AS u",
        "WITH RECURSIVE u AS (SELECT x FROM held UNION SELECT '(abc,1)' FROM u) SELECT 1 FROM u",
        "SELECT 1 FROM (VALUES ((SELECT x FROM held)), ('(abc,1)')) AS v(a)",
        "SELECT CASE WHEN id = 1 THEN x ELSE '(abc,1)' END FROM held",
        "SELECT CASE x WHEN '(abc,1)' THEN 1 END FROM held",
        "SELECT ARRAY[x, '(abc,1)'] FROM held",
        "SELECT least(x, '(abc,1)'), nullif(x, '(abc,1)') FROM held",
        "SELECT lag(x, 1, '(abc,1)') OVER () FROM held",
        "SELECT array_append(y, 'abc') FROM held",
        "SELECT y || 'abc' FROM held",
        "SELECT jsonb_populate_record(held, '{\"y\": [\"abc\"]}') FROM held",
        "SELECT jsonb_populate_recordset(held, '[{\"y\": [\"abc\"]}]') FROM held",
        "SELECT jsonb_populate_record(held, to_jsonb(id)) FROM held",
        "CREATE TABLE other (x telling DEFAULT '(abc,1)')",
        "ALTER TABLE held ALTER x SET DEFAULT '(abc,1)'",
        "ALTER TABLE held ADD COLUMN more told",
        "ALTER DOMAIN told VALIDATE CONSTRAINT told_check",
        "CREATE INDEX ON held (id) WHERE x = '(abc,1)'",
    ];
    let queries = queries.iter().map(|sql| (*sql, query(sql)));
    let mut wrong = Vec::new();
    for (what, message) in messages.into_iter().chain(queries) {
        let said = wire.ask(&message);
        let told = said.to_string().contains("900-11") || rig.items() != untouched;
        if told || !said.to_string().contains("C=0A000 | M=refused: ") {
            wrong.push(format!("{what}: {said}"));
        }
        rig.reset();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_makes_no_such_value_is_understood() {
    let (_rig, proxy) = start();
    let mut wire = Rig::through(&proxy);
    for message in [
        query("SELECT * FROM held WHERE id = 1"),
        query("SELECT 'a', x, y FROM held WHERE x IS NULL AND y IS NULL ORDER BY x, y"),
        query("SELECT (x).b + 1, array_length(y, 1), y[1] FROM held"),
        query("SELECT id FROM held WHERE plain = 'abc' OR lower(plain) IN ('d', 'e')"),
        query("SELECT x FROM held UNION SELECT z FROM seen"),
        bound("SELECT x FROM held WHERE id = $1", &[Some("1")]),
        bound(
            "SELECT lower(body) FROM item WHERE body <> $1",
            &[Some("abc")],
        ),
        query("ALTER TABLE held ADD COLUMN more int DEFAULT 1"),
    ] {
        let said = wire.ask(&message);
        assert!(said.sqlstates().is_empty(), "{said}");
    }
    // What only names a prepared statement is parsed as before.
    wire.ask(&[parse("s", "SELECT id FROM item", &[]), sync()].concat());
    let said = wire.ask(&bound("EXECUTE s", &[]));
    assert_eq!(said.all("DataRow").len(), 5, "{said}");
}
