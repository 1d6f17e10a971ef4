//! Each kind of risk, found by the facts of real statements.

use policy_sdk::Verdict;
use policy_sdk::testkit::{self, Answer, Catalog, Session};
use risky_commands::RiskyCommands;
use serde_json::{Value, json};

const DDL: &str = "
    CREATE TABLE p (id int PRIMARY KEY, ssn text, sex text);
    CREATE TABLE q (id int, x text);
    CREATE MATERIALIZED VIEW m AS SELECT id FROM p;
";

/// What a risk is called in settings, its code, and statements that have it.
const RISKS: [(&str, &str, &[&str]); 9] = [
    (
        "definitions",
        "definition",
        &[
            "CREATE TABLE t (id int)",
            "CREATE TEMP TABLE t (id int)",
            "CREATE TABLE t AS SELECT 1",
            "CREATE VIEW v AS SELECT id FROM p",
            "CREATE INDEX ON p (id)",
            "ALTER TABLE p RENAME COLUMN ssn TO id2",
            "ALTER TABLE p DISABLE ROW LEVEL SECURITY",
            "DROP TABLE p",
            "DROP SCHEMA public CASCADE",
            "REFRESH MATERIALIZED VIEW m",
        ],
    ),
    (
        "code",
        "code",
        &[
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE PROCEDURE f() LANGUAGE sql AS 'SELECT 1'",
            "CREATE TRIGGER t BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION f()",
            "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
            "CREATE RULE r AS ON INSERT TO p DO NOTHING",
            "CREATE OPERATOR === (leftarg = int, rightarg = int, function = f)",
            "CREATE CAST (int AS text) WITH FUNCTION f",
            "CREATE EXTENSION dblink",
            "CREATE LANGUAGE plperlu",
            "ALTER FUNCTION f() SECURITY DEFINER",
            "DO 'BEGIN END'",
            "CALL f()",
            "LOAD 'x'",
        ],
    ),
    (
        "roles",
        "role-change",
        &[
            "CREATE ROLE r",
            "CREATE USER r PASSWORD 'x'",
            "ALTER ROLE r SUPERUSER",
            "ALTER ROLE r SET search_path = x",
            "DROP ROLE r",
            "CREATE USER MAPPING FOR r SERVER s",
        ],
    ),
    (
        "grants",
        "grant",
        &[
            "GRANT SELECT ON p TO r",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO r",
            "REVOKE SELECT ON p FROM r",
            "GRANT a TO b",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r",
            "ALTER GROUP a ADD USER b",
            "REASSIGN OWNED BY a TO b",
            "ALTER TABLE p OWNER TO b",
            "CREATE POLICY y ON p USING (true)",
        ],
    ),
    (
        "labels",
        "label-change",
        &[
            "COMMENT ON COLUMN p.ssn IS '@label(clear)'",
            "COMMENT ON TABLE p IS '@label(clear)'",
            "SECURITY LABEL ON TABLE p IS 'x'",
        ],
    ),
    (
        "truncate",
        "truncate",
        &["TRUNCATE p", "TRUNCATE p, q CASCADE"],
    ),
    (
        "unfiltered-changes",
        "unfiltered-change",
        &[
            "DELETE FROM q",
            "UPDATE q SET x = 'y'",
            "DELETE FROM q WHERE true",
            "DELETE FROM q WHERE id = id",
            "DELETE FROM q USING p WHERE p.id = 1",
            // A condition on a second mention of the table.
            "DELETE FROM q USING q AS z WHERE z.id = 1",
            "DELETE FROM q WHERE EXISTS (SELECT 1 FROM q z WHERE z.id = 1)",
            "UPDATE q SET x = 'y' FROM q AS z WHERE z.id = 1",
            "DELETE FROM q WHERE id = 1 RETURNING x",
            "WITH d AS (DELETE FROM q) SELECT 1",
            "INSERT INTO p VALUES (1) ON CONFLICT (id) DO UPDATE SET sex = 'x'",
            "MERGE INTO q USING p ON true WHEN MATCHED THEN DELETE",
            "PREPARE s AS DELETE FROM q",
            "EXPLAIN ANALYZE DELETE FROM q",
        ],
    ),
    (
        "copy",
        "copy",
        &[
            "COPY q TO STDOUT",
            "COPY q FROM STDIN",
            "COPY (SELECT 1) TO STDOUT",
            // Reads of p have a rule.
            "INSERT INTO q SELECT id, ssn FROM p",
            "UPDATE q SET x = (SELECT ssn FROM p WHERE p.id = 1) WHERE q.id = 1",
            "CREATE TABLE t AS SELECT ssn FROM p",
            "SELECT ssn INTO t FROM p",
        ],
    ),
    (
        "server",
        "server-reach",
        &[
            "ALTER SYSTEM SET log_statement = 'all'",
            "COPY q FROM PROGRAM 'true'",
            "COPY q TO PROGRAM 'true'",
            "COPY q TO '/tmp/x'",
            "COPY q FROM '/tmp/x'",
            "CREATE SERVER s FOREIGN DATA WRAPPER w",
            "CREATE FOREIGN DATA WRAPPER w",
            "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION y",
            "CREATE PUBLICATION y FOR TABLE q",
            "CREATE DATABASE d",
            "ALTER DATABASE d SET search_path = x",
            "CREATE TABLESPACE t LOCATION '/tmp'",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT pg_catalog.pg_reload_conf()",
            "SELECT lo_export(1, '/tmp/x')",
            "SELECT set_config('log_statement', 'all', false)",
            "SELECT * FROM dblink('x', 'SELECT 1') AS t (id int)",
            "SELECT query_to_xml('SELECT 1', true, true, '')",
            "SELECT pg_terminate_backend(1)",
        ],
    ),
];

/// As configured, with every risk answered `allow` but these.
fn policy(others: &[(&str, &str)]) -> RiskyCommands {
    let mut answers: serde_json::Map<String, Value> = RISKS
        .iter()
        .map(|(name, ..)| ((*name).to_owned(), json!("allow")))
        .collect();
    answers.extend(
        others
            .iter()
            .map(|(name, answer)| ((*name).to_owned(), json!(answer))),
    );
    testkit::configured(&json!({
        "answers": answers,
        "exceptions": [{"groups": ["dbas"], "answers": {"definitions": "allow", "roles": "approval"}}],
        "reads": [{"tables": ["public.p"], "rows": 10}],
        "approvers": ["on-call"], "approvals": 2, "ttl_seconds": 60
    }))
}

fn answer(policy: &RiskyCommands, who: &Session, sql: &str) -> Answer {
    testkit::evaluate(policy, who, &Catalog::from_ddl(DDL).operation(sql))
}

#[test]
fn each_risk_is_found() {
    let nobody = Session::named("a");
    for (name, code, statements) in RISKS {
        let (denying, holding) = (policy(&[(name, "deny")]), policy(&[(name, "approval")]));
        for sql in statements {
            let denied = answer(&denying, &nobody, sql);
            let reason = denied.assert_denied(code);
            assert!(reason.hint.is_some(), "{sql}");
            let held = answer(&holding, &nobody, sql);
            let approval = held.assert_held(code);
            assert_eq!(approval.groups, ["on-call"], "{sql}");
            assert_eq!((approval.approvers, approval.ttl_seconds), (2, 60), "{sql}");
            let allowed = answer(&policy(&[]), &nobody, sql);
            assert_eq!(allowed.decision().verdict, Verdict::Abstain, "{sql}");
        }
    }
}

#[test]
fn what_is_not_risky_is_left_to_others() {
    let strict: RiskyCommands = testkit::configured(&json!({}));
    for sql in [
        "SELECT 1",
        "SELECT id, ssn FROM p",
        "SELECT count(*), max(id) FROM p GROUP BY sex",
        "INSERT INTO q VALUES (1, 'x') RETURNING id",
        "INSERT INTO q SELECT id, ssn FROM p",
        "UPDATE q SET x = 'y' WHERE id = 1",
        "DELETE FROM q WHERE id IN (SELECT id FROM p)",
        "DELETE FROM q USING p WHERE p.id = q.id AND p.ssn = 'x'",
        "MERGE INTO q USING p ON p.id = q.id WHEN MATCHED THEN DELETE",
        "LOCK TABLE p",
        "SET statement_timeout = '1s'",
    ] {
        answer(&strict, &Session::named("a"), sql).assert_abstained();
    }
}

#[test]
fn the_strictest_answer_counts_and_silence_is_a_denial() {
    let nobody = Session::named("a");
    // A definition, and a copy.
    let sql = "CREATE TABLE t AS SELECT ssn FROM p";
    answer(
        &policy(&[("definitions", "approval"), ("copy", "deny")]),
        &nobody,
        sql,
    )
    .assert_denied("copy");
    answer(&policy(&[("definitions", "approval")]), &nobody, sql).assert_held("definition");
    let silent: RiskyCommands = testkit::configured(&json!({"answers": {}}));
    for (_, _, statements) in RISKS {
        for sql in statements.iter().filter(|sql| !sql.contains("FROM p")) {
            let said = answer(&silent, &nobody, sql);
            assert!(matches!(said.decision().verdict, Verdict::Deny(_)), "{sql}");
        }
    }
}

#[test]
fn groups_may_have_other_answers() {
    let dba = Session::named("d").group("dbas");
    let strict = policy(&[
        ("definitions", "deny"),
        ("roles", "deny"),
        ("grants", "deny"),
    ]);
    answer(&strict, &dba, "DROP TABLE q").assert_abstained();
    answer(&strict, &dba, "CREATE ROLE r").assert_held("role-change");
    answer(&strict, &dba, "GRANT a TO b").assert_denied("grant");
    answer(&strict, &Session::named("a"), "DROP TABLE q").assert_denied("definition");
}

fn limited() -> RiskyCommands {
    testkit::configured(&json!({"reads": [
        {"groups": ["auditors"], "tables": ["public.*"]},
        {"groups": ["analysts"], "tables": ["public.p"], "approval_above": 1000, "rows": 5000},
        {"tables": ["public.p", "public.m*"], "approval_above": 100, "rows": 500, "bytes": 65536,
         "timeout_ms": 2000, "budget": {"name": "patients", "rows": 2000, "seconds": 3600}},
        {"tables": ["public.q"], "rows": 50},
    ]}))
}

#[test]
fn what_leaves_is_limited_by_group_whatever_the_condition() {
    let (policy, agent) = (limited(), Session::named("a"));
    for sql in [
        "SELECT id FROM p LIMIT 5",
        "SELECT id FROM p WHERE id = 1 LIMIT 1",
        "SELECT count(*) FROM p WHERE id > 0",
        "SELECT p.id FROM q JOIN p ON p.id = q.id LIMIT 5",
    ] {
        let said = answer(&policy, &agent, sql);
        let limits = said.assert_abstained().limits();
        let rows = if sql.contains("JOIN") { 50 } else { 500 };
        assert_eq!(limits.max_rows, Some(rows), "{sql}");
        assert_eq!(limits.max_bytes, Some(65536), "{sql}");
        assert_eq!(limits.timeout_ms, Some(2000), "{sql}");
        assert_eq!(limits.budgets.len(), 1, "{sql}");
    }
    let analyst = Session::named("b").group("analysts");
    answer(&policy, &analyst, "SELECT id FROM p LIMIT 999").assert_row_limit(5000);
    let auditor = Session::named("c").group("auditors");
    answer(&policy, &auditor, "SELECT id FROM p")
        .assert_abstained()
        .assert_row_limit(None);
    answer(&policy, &agent, "SELECT 1").assert_row_limit(None);
}

#[test]
fn what_may_be_large_is_held() {
    let (policy, agent) = (limited(), Session::named("a"));
    for sql in [
        "SELECT id FROM p",
        "SELECT id FROM p WHERE id = 1",
        "SELECT id FROM p LIMIT 101",
        "SELECT id FROM p LIMIT ALL",
        "SELECT id FROM p LIMIT (SELECT 5)",
        "SELECT id FROM m",
        "SELECT id FROM q WHERE id IN (SELECT id FROM p)",
        // A table in one row.
        "SELECT jsonb_agg(ssn) FROM p LIMIT 1",
        "SELECT ARRAY(SELECT ssn FROM p) LIMIT 1",
        "SELECT p FROM p LIMIT 1",
        "DECLARE c CURSOR FOR SELECT id FROM p LIMIT 1",
        "PREPARE s AS SELECT id FROM p LIMIT 1",
    ] {
        let said = answer(&policy, &agent, sql);
        said.assert_held("bulk-read");
        assert!(said.limits().max_rows.is_some(), "{sql}");
    }
    let analyst = Session::named("b").group("analysts");
    answer(&policy, &analyst, "SELECT id FROM p LIMIT 1000").assert_abstained();
    answer(&policy, &analyst, "SELECT id FROM p LIMIT 1001").assert_held("bulk-read");
    // A denial is stricter.
    answer(&policy, &agent, "COPY p TO STDOUT").assert_denied("copy");
}

#[test]
fn the_schema_names_every_risk() {
    use policy_sdk::Policy as _;
    let schema = RiskyCommands::manifest().settings_schema;
    let schema: Value = serde_json::from_str(&schema).unwrap_or_default();
    let named = &schema["$defs"]["answers"]["propertyNames"]["enum"];
    assert_eq!(*named, json!(RISKS.map(|(name, ..)| name)));
    for wrong in [
        json!({"answers": {"bulk-read": "allow"}}),
        json!({"answers": {"definitions": "alow"}}),
        json!({"answers": {"definition": "allow"}}),
        json!({"reads": [{"table": ["x"]}]}),
    ] {
        assert!(
            testkit::try_configured::<RiskyCommands>(&wrong).is_err(),
            "{wrong}"
        );
    }
}
