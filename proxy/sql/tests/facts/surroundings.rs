//! What the session, the configuration and the catalog have to say.

use chaperone_sql::{Catalog, Labelling, Options, SessionView, analyze};

use crate::{catalog, check, facts, summary};

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
