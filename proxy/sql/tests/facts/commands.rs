//! Commands: their objects and actions, and what kind of statement each is.

use chaperone_sql::{Kind, classify};

use crate::facts;

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
