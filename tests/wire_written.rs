//! What a write runs besides itself: functions in defaults, checks, domains, indexes and generated
//! columns, and the writes that foreign keys carry on. The catalog is a real server's.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::sync::LazyLock;

use chaperone_test_support::wire::frontend::query;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::{Chaperone, Postgres, PsqlSession};
use ward::{CHAPERONE, DATABASE, DBA, PATIENCE};

/// Ends with this program: its guardian sees to it.
static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let postgres = ward::clinic();
    postgres
        .script(DATABASE, &format!("SET ROLE clinic_owner; {TABLES}"))
        .unwrap();
    postgres
});

/// `look` reads what it likes with the rights of whoever writes; the tables are clear.
const TABLES: &str = "
    CREATE FUNCTION look(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE FUNCTION made() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN ''made''; END';
    CREATE FUNCTION shorter(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE DOMAIN looked AS text CHECK (look(VALUE));
    CREATE TYPE pair AS (a looked, b int);
    CREATE TABLE import_default (id int, x text DEFAULT made());
    CREATE TABLE import_check (id int, x text CHECK (look(x)));
    CREATE TABLE import_domain (id int, x looked);
    CREATE TABLE import_array (id int, x looked[]);
    CREATE TABLE import_pair (id int, x pair);
    CREATE TABLE import_index (id int, x text);
    CREATE INDEX index_x ON import_index (shorter(x));
    CREATE TABLE import_partial (id int, x text);
    CREATE INDEX partial_x ON import_partial (id) WHERE look(x);
    CREATE TABLE import_statistics (id int, x text);
    CREATE STATISTICS statistics_x ON (shorter(x)) FROM import_statistics;
    CREATE TABLE import_generated (id int, x text GENERATED ALWAYS AS (shorter('a')) STORED);
    CREATE TABLE import_partition (id int, x text) PARTITION BY LIST (shorter(x));
    CREATE TABLE import_partition_1 PARTITION OF import_partition DEFAULT;
    CREATE TABLE import_own (id int, x text DEFAULT query_to_xml('SELECT 1', true, true, '')::text);
    CREATE TABLE import_harmless (
        id serial PRIMARY KEY, at timestamptz DEFAULT now(), key uuid DEFAULT gen_random_uuid(),
        x varchar(9) DEFAULT 'a' CHECK (length(x) > 0 AND x ~ '^[a-z]+$'),
        born date DEFAULT CURRENT_DATE CHECK (born + interval '1 day' > '1900-01-01'),
        y text GENERATED ALWAYS AS (upper(x)) STORED);
    CREATE TABLE import_kept (id int PRIMARY KEY);
    INSERT INTO import_kept VALUES (1), (2);
    CREATE TABLE carried (id int REFERENCES import_kept ON DELETE CASCADE, ssn text);
    COMMENT ON COLUMN carried.ssn IS '@label(ssn)';
    DO $$ DECLARE name text; BEGIN
        FOREACH name IN ARRAY '{import_default,import_check,import_domain,import_array,import_pair,import_index,import_partial,import_statistics,
            import_generated,import_partition,import_partition_1,import_own,import_harmless,import_kept}'::text[] LOOP
            EXECUTE format('COMMENT ON TABLE %I IS ''@label(clear)''', name);
        END LOOP;
    END $$;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO dba;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO dba;
";

fn open() -> (Chaperone, PsqlSession) {
    let options = ward::clinical(Chaperone::options(CHAPERONE));
    let proxy = ward::people(options, &POSTGRES).start().unwrap();
    let session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    (proxy, session)
}

#[test]
fn functions_that_a_write_runs_must_be_known() {
    let (_proxy, mut session) = open();
    for (table, what) in [
        ("import_default", "public.made"),
        ("import_check", "public.look"),
        ("import_domain", "public.look"),
        ("import_array", "public.look"),
        ("import_pair", "public.look"),
        ("import_index", "public.shorter"),
        ("import_partial", "public.look"),
        ("import_statistics", "public.shorter"),
        ("import_generated", "public.shorter"),
        ("import_partition", "public.shorter"),
        ("import_own", "pg_catalog.query_to_xml"),
    ] {
        for sql in [
            format!("INSERT INTO {table} (id) VALUES (1);"),
            format!("UPDATE {table} SET id = 2 WHERE id = 1;"),
        ] {
            let said = session.run(&sql, PATIENCE).unwrap();
            assert!(said.contains("0A000"), "{sql} {said}");
            assert!(said.contains(what), "{sql} {said}");
        }
    }
}

#[test]
fn what_only_computes_is_no_obstacle() {
    let (_proxy, mut session) = open();
    let said = session
        .run("INSERT INTO import_harmless (x) VALUES ('abc');", PATIENCE)
        .unwrap();
    assert!(said.contains("INSERT 0 1"), "{said}");
    let said = session
        .run(
            "SELECT y, born = CURRENT_DATE FROM import_harmless;",
            PATIENCE,
        )
        .unwrap();
    assert!(said.contains("ABC | t"), "{said}");
}

#[test]
fn a_delete_that_is_carried_on_is_decided_where_it_goes() {
    let (_proxy, mut session) = open();
    let said = session
        .run("DELETE FROM import_kept WHERE id = 1;", PATIENCE)
        .unwrap();
    assert!(said.contains("42501"), "{said}");
    assert_eq!(
        POSTGRES
            .value(DATABASE, "SELECT count(*) FROM import_kept")
            .unwrap(),
        "2"
    );
}

/// A trigger's condition is computed whether or not its function, which may be vouched for, runs.
#[test]
fn functions_in_the_conditions_of_triggers_must_be_known() {
    let rig = Rig::take(CHAPERONE);
    let direct = |sql: &str| {
        let said = rig.direct().ask(&query(sql));
        assert!(said.sqlstates().is_empty(), "{sql}: {said}");
    };
    let body = "LANGUAGE plpgsql AS 'BEGIN RETURN";
    direct(&format!(
        "CREATE FUNCTION peek() RETURNS boolean {body} true; END'"
    ));
    // The rig's configuration vouches for the name.
    direct(&format!(
        "CREATE FUNCTION say() RETURNS trigger {body} NULL; END'"
    ));
    let trigger = |condition: &str| {
        direct(&format!(
            "DROP TRIGGER IF EXISTS peeks ON item; CREATE TRIGGER peeks
             AFTER INSERT OR DELETE ON item FOR EACH ROW {condition} EXECUTE FUNCTION say()"
        ));
    };
    trigger("");
    let proxy = rig.masking(CHAPERONE, "").start().unwrap();
    let changes = [
        "INSERT INTO item VALUES (6)",
        "DELETE FROM item WHERE id = 6",
    ];
    for sql in changes {
        let said = Rig::through(&proxy).ask(&query(sql));
        assert!(said.sqlstates().is_empty(), "{sql}: {said}");
    }
    trigger("WHEN (peek())");
    for sql in changes {
        let said = Rig::through(&proxy).ask(&query(sql));
        assert_eq!(said.sqlstates(), ["0A000"], "{sql}: {said}");
        assert!(said.to_string().contains("public.peek"), "{said}");
    }
}
