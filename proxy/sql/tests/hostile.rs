//! Input that is meant to hurt: nesting, size, odd bytes. On a stack of 2 MiB, as a runtime's
//! worker threads have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use chaperone_sql::{
    Catalog, Labelling, Limits, Options, ParseError, SessionView, analyze, classify,
};

fn catalog() -> Catalog {
    Catalog::from_ddl(include_str!("hospital.sql")).expect("the test hospital is sound")
}

fn shared() -> &'static Catalog {
    static CATALOG: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    CATALOG.get_or_init(catalog)
}

fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(work)
        .expect("threads can be had")
        .join()
        .expect("no panic")
}

/// What became of a text: refused, or facts.
fn run(text: String) -> Result<usize, ParseError> {
    on_small_stack(move || {
        let session = SessionView::default();
        let options = Options::default();
        let _ = classify(&text, &Limits::default());
        analyze(&text, shared(), &session, &Labelling::new(), &options).map(|facts| facts.len())
    })
}

fn nested(depth: usize) -> Vec<(&'static str, String)> {
    let r = |text: &str| text.repeat(depth);
    vec![
        ("not", format!("SELECT {} true", r("NOT "))),
        ("plus", format!("SELECT 1{}", r("+1"))),
        ("concat", format!("SELECT ssn{} FROM patients", r("||ssn"))),
        ("minus", format!("SELECT {}1", r("- "))),
        ("parens", format!("SELECT {}1{}", r("("), r(")"))),
        ("rows", format!("SELECT {}1{}", r("ROW("), r(")"))),
        ("arrays", format!("SELECT {}1{}", r("ARRAY["), r("]"))),
        ("calls", format!("SELECT {}1{}", r("abs("), r(")"))),
        ("casts", format!("SELECT 1{}", r("::text"))),
        (
            "case",
            format!("SELECT {}1{}", r("CASE WHEN true THEN "), r(" END")),
        ),
        ("coalesce", format!("SELECT {}1{}", r("coalesce("), r(")"))),
        ("scalar", format!("SELECT {}1{}", r("(SELECT "), r(")"))),
        (
            "exists",
            format!("SELECT {}1{}", r("EXISTS (SELECT 1 WHERE "), r(")")),
        ),
        (
            "from",
            format!("{}SELECT 1{}", r("SELECT * FROM ("), r(") x")),
        ),
        (
            "with",
            format!("{}SELECT 1{}", r("WITH a AS ("), r(") SELECT * FROM a")),
        ),
        ("union", format!("SELECT 1{}", r(" UNION ALL SELECT 1"))),
        (
            "union parens",
            format!("{}SELECT 1{}", r("("), r(" UNION SELECT 2)")),
        ),
        (
            "joins",
            format!("SELECT 1 FROM staff{}", r(" NATURAL JOIN staff")),
        ),
        (
            "join parens",
            format!("SELECT 1 FROM {}staff{}", r("("), r(" CROSS JOIN staff)")),
        ),
        (
            "and or",
            format!("SELECT {}true{}", r("(true AND (false OR "), r("))")),
        ),
        ("subscripts", format!("SELECT tags{} FROM intake", r("[1]"))),
        (
            "nested subscripts",
            format!("SELECT {}1{} FROM intake", r("tags["), r("]")),
        ),
        ("fields", format!("SELECT (p){} FROM patients p", r(".ssn"))),
        ("dots", format!("SELECT a{}", r(".a"))),
        ("collate", format!("SELECT 'a'{}", r(" COLLATE \"C\""))),
        ("is null", format!("SELECT 1{}", r(" IS NULL"))),
        ("in", format!("SELECT {}1{}", r("1 IN ("), r(")"))),
        (
            "between",
            format!("SELECT {}1{}", r("1 BETWEEN 0 AND ("), r(")")),
        ),
        (
            "grouping sets",
            format!(
                "SELECT 1 FROM staff GROUP BY {}id{}",
                r("GROUPING SETS ("),
                r(")")
            ),
        ),
        ("explain", format!("{}SELECT 1", r("EXPLAIN "))),
        ("prepare", format!("{}SELECT 1", r("PREPARE a AS "))),
        ("json", format!("SELECT {}1{}", r("JSON_ARRAY("), r(")"))),
        (
            "xml",
            format!("SELECT {}1{}", r("xmlelement(name a, "), r(")")),
        ),
        (
            "filter",
            format!("SELECT {}true{}", r("count(*) FILTER (WHERE "), r(") > 0")),
        ),
        (
            "over",
            format!("SELECT {}1{}", r("sum(1) OVER (ORDER BY "), r(")")),
        ),
        (
            "limit",
            format!("{}SELECT 1{}", r("SELECT 1 LIMIT ("), r(")")),
        ),
        (
            "quantified",
            format!("SELECT {}1{}", r("1 = ANY (ARRAY["), r("])")),
        ),
        ("list", format!("SELECT 1{}", r(",1"))),
        ("values", format!("VALUES (1){}", r(",(1)"))),
        ("statements", "SELECT 1;".repeat(depth)),
        ("semicolons", ";".repeat(depth)),
        (
            "insert",
            format!(
                "{}SELECT 1{}",
                r("WITH a AS (INSERT INTO scratch "),
                r(" RETURNING 1) SELECT 1")
            ),
        ),
        (
            "update",
            format!("UPDATE scratch SET t = {}1{}", r("(SELECT "), r(")")),
        ),
        (
            "lateral",
            format!("SELECT 1 FROM staff{}", r(", LATERAL (SELECT 1) x")),
        ),
        ("relations", {
            use std::fmt::Write as _;
            let mut text = "SELECT 1 FROM a".to_owned();
            for n in 0..depth {
                let _ = write!(text, ",a{n}");
            }
            text
        }),
        ("names", {
            use std::fmt::Write as _;
            let mut text = "SELECT a".to_owned();
            for n in 0..depth {
                let _ = write!(text, ",f{n}(a{n})");
            }
            text
        }),
        ("whole rows", format!("SELECT 1{} FROM patients p", r(",p"))),
        (
            "many selves",
            format!("SELECT 1 FROM patients{}", r(",patients")),
        ),
        (
            "type mods",
            format!("SELECT 1::numeric({}1{})", r("("), r(")")),
        ),
        (
            "default",
            format!("CREATE TABLE x (a int DEFAULT {}1{})", r("("), r(")")),
        ),
        (
            "check",
            format!("CREATE TABLE x (a int CHECK ({} true))", r("NOT ")),
        ),
        (
            "view",
            format!("CREATE VIEW x AS SELECT {} true", r("NOT ")),
        ),
        ("set", format!("SET x = 1{}", r(",1"))),
        (
            "schema",
            format!("CREATE SCHEMA a{}", r(" CREATE TABLE b (c int)")),
        ),
    ]
}

#[test]
fn nesting_is_refused_and_never_overflows() {
    for depth in [10, 100, 120, 127, 1_000, 9_000, 40_000] {
        for (name, text) in nested(depth) {
            if text.len() > 1 << 20 {
                continue;
            }
            let started = std::time::Instant::now();
            let result = run(text);
            let taken = started.elapsed();
            assert!(taken.as_secs() < 5, "{name} at {depth} takes {taken:?}");
            if std::env::var_os("SLOW").is_some() && taken.as_millis() > 100 {
                eprintln!("{name} {depth} {taken:?}");
            }
            if depth == 10 {
                assert!(
                    result.is_ok() || matches!(name, "default" | "explain" | "prepare"),
                    "{name}: {result:?}"
                );
            }
        }
    }
}

#[test]
fn deep_nesting_says_so() {
    for name in [
        "not", "plus", "concat", "case", "scalar", "from", "union", "calls",
    ] {
        let (_, text) = nested(4_000)
            .into_iter()
            .find(|(known, _)| *known == name)
            .expect("it is in the list");
        let error = run(text).expect_err(name);
        assert!(
            matches!(
                error,
                ParseError::TooDeep { .. } | ParseError::Syntax { .. }
            ),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn size_is_bounded() {
    let text = format!("SELECT '{}'", "x".repeat(1 << 20));
    assert!(matches!(run(text), Err(ParseError::TooLong { .. })));
    assert!(matches!(
        run("SELECT 1;".repeat(5_000)),
        Err(ParseError::TooMany { .. })
    ));
    assert!(matches!(
        run(format!("SELECT 1{}", ",1".repeat(400_000))),
        Err(ParseError::TooLarge { .. })
    ));
    assert_eq!(
        run("SELECT '\0'".to_owned()),
        Err(ParseError::Nul { position: 8 })
    );
}

#[test]
fn errors_quote_nothing() {
    for text in [
        "SELECT 'secret-917' FROM FROM",
        "SELEC '917-31-2041'",
        "SELECT * FROM patients WHERE ssn = '917-31-2041' 'x'y'",
        "SELECT 'unterminated 917",
        "SELECT E'\\u00'",
        "SELECT \"917-31",
        "917-31-2041",
        "SELECT E'\\xff'",
        "SELECT U&'\\+FFFFFF'",
        "SELECT $a$ 917",
        "SELECT 917abc",
    ] {
        if let Err(error) = run(text.to_owned()) {
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("917") && !shown.contains("secret"),
                "{shown}"
            );
        }
    }
    assert_eq!(
        run("SELECT 1 FORM staff x".to_owned()),
        Err(ParseError::Syntax { position: Some(14) })
    );
}

/// Views on views on views.
#[test]
fn chains_of_views_are_bounded() {
    use std::fmt::Write as _;
    let mut ddl = String::from(
        "CREATE TABLE t (a int); COMMENT ON TABLE t IS '@label(clear)'; CREATE VIEW v0 AS SELECT a FROM t;",
    );
    for n in 1..150 {
        write!(
            ddl,
            "CREATE VIEW v{n} AS SELECT x.a FROM v{} x JOIN v{} y ON x.a = y.a;",
            n - 1,
            n - 1
        )
        .unwrap();
    }
    let result = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || Catalog::from_ddl(&ddl))
        .unwrap()
        .join()
        .unwrap();
    let catalog = result.expect("the views are sound");
    on_small_stack(move || {
        for n in [1, 10, 149] {
            let _ = analyze(
                &format!("SELECT a FROM v{n}"),
                &catalog,
                &SessionView::default(),
                &Labelling::new(),
                &Options::default(),
            );
        }
    });
}
