//! Each action, granted and not, on statements as PostgreSQL knows them.

use clinical_access::ClinicalAccess;
use policy_sdk::Reason;
use policy_sdk::testkit::{self, Answer, Catalog, Session};
use serde_json::json;

const DDL: &str = "
    CREATE TABLE patients (id int, ssn text);
    CREATE TABLE payroll (id int);
    CREATE TABLE \"pat.x\" (id int);
    CREATE SEQUENCE counter;
    CREATE FUNCTION age_of(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
";

/// Everything that is granted, one action a group.
fn policy() -> ClinicalAccess {
    let grant = |action: &str, objects: &[&str]| json!({"groups": [action], "objects": objects, "actions": [action]});
    testkit::configured(&json!({"grants": [
        grant("read", &["public.patients"]),
        grant("create", &["public.patients"]),
        grant("update", &["public.patients"]),
        grant("delete", &["public.patients"]),
        grant("define", &["public.patients", "role:billing"]),
        grant("grant", &["public.patients", "role:billing"]),
        grant("execute", &["public.age_of"]),
        grant("control", &["public.patients", "statement:CHECKPOINT"]),
        grant("other", &["public.patients"]),
        {"groups": ["nurses"], "purposes": ["treatment", "follow-up"], "objects": ["public.pat*"]},
    ]}))
}

fn answer(session: &Session, sql: &str) -> Answer {
    testkit::evaluate(&policy(), session, &Catalog::from_ddl(DDL).operation(sql))
}

fn refused(session: &Session, sql: &str) -> Reason {
    answer(session, sql).assert_denied("outside-scope").clone()
}

fn holding(actions: &[&str]) -> Session {
    let nobody = Session::named("n");
    actions.iter().fold(nobody, |who, action| who.group(action))
}

const ALL: [&str; 9] = [
    "read", "create", "update", "delete", "define", "grant", "execute", "control", "other",
];

/// A statement, and exactly what it takes.
const STATEMENTS: [(&str, &[&str]); 18] = [
    ("SELECT id FROM patients", &["read"]),
    ("INSERT INTO patients VALUES (1, 'x')", &["create"]),
    ("UPDATE patients SET ssn = 'x'", &["update"]),
    ("DELETE FROM patients", &["delete"]),
    ("DELETE FROM patients RETURNING ssn", &["read", "delete"]),
    ("TRUNCATE patients", &["delete"]),
    (
        "MERGE INTO patients p USING (VALUES (1)) v(id) ON p.id = v.id WHEN MATCHED THEN DELETE",
        &["delete"],
    ),
    ("SELECT id FROM patients FOR UPDATE", &["read", "other"]),
    ("DROP TABLE patients", &["define"]),
    ("ALTER TABLE patients ADD COLUMN x int", &["define"]),
    (
        "COMMENT ON COLUMN patients.ssn IS '@label(clear)'",
        &["define"],
    ),
    ("ALTER ROLE billing SUPERUSER", &["define"]),
    ("GRANT SELECT ON patients TO billing", &["grant"]),
    ("REVOKE SELECT ON patients FROM billing", &["grant"]),
    ("SELECT age_of(1)", &["execute"]),
    ("LOCK TABLE patients", &["control"]),
    ("VACUUM patients", &["control"]),
    ("CHECKPOINT", &["control"]),
];

#[test]
fn each_statement_takes_its_actions_and_no_others() {
    for (sql, wanted) in STATEMENTS {
        answer(&holding(wanted), sql).assert_allowed();
        for left_out in wanted {
            let others: Vec<_> = ALL.into_iter().filter(|it| it != left_out).collect();
            let reason = refused(&holding(&others), sql);
            assert!(
                reason
                    .message
                    .starts_with("This is outside your scope: you may not "),
                "{sql}: {reason:?}"
            );
        }
    }
}

#[test]
fn what_a_definition_looks_at_is_used() {
    let sql = "CREATE TABLE public.copied (LIKE patients)";
    let maker: ClinicalAccess = testkit::configured(&json!({"grants": [
        {"groups": ["a"], "objects": ["public.*"], "actions": ["define"]},
        {"groups": ["b"], "objects": ["public.*"], "actions": ["other"]},
    ]}));
    let operation = Catalog::from_ddl(DDL).operation(sql);
    let both = Session::named("n").group("a").group("b");
    testkit::evaluate(&maker, &both, &operation).assert_allowed();
    let one = Session::named("n").group("a");
    let answer = testkit::evaluate(&maker, &one, &operation);
    let reason = answer.assert_denied("outside-scope");
    assert_eq!(
        reason.message,
        "This is outside your scope: you may not use the table public.patients (CREATE TABLE)."
    );
}

#[test]
fn what_nobody_granted_is_denied_to_everybody() {
    let everything = holding(&ALL);
    for sql in [
        "SELECT id FROM payroll",
        "SELECT id FROM patients WHERE id IN (SELECT id FROM payroll)",
        "WITH d AS (DELETE FROM payroll RETURNING id) SELECT id FROM d",
        "INSERT INTO patients SELECT id, '' FROM payroll",
        "COPY payroll TO STDOUT",
        "CREATE TABLE elsewhere (id int)",
        "CREATE VIEW public.v AS SELECT id FROM patients",
        "CREATE FUNCTION age_of(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE other",
        "DROP OWNED BY billing",
        "ALTER TABLE patients OWNER TO other",
        "GRANT other TO billing",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO billing",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO billing",
        "ALTER SYSTEM SET log_statement = 'all'",
        "CREATE EXTENSION dblink",
        "SELECT nextval('counter')",
        "SET log_statement = 'all'",
        "VACUUM",
        "DO 'BEGIN END'",
        "COPY patients FROM PROGRAM 'true'",
        "SELECT id FROM \"pat.x\"",
        "SELECT rolpassword FROM pg_authid",
        "SELECT rolpassword FROM pg_catalog.pg_authid",
        "SELECT most_common_vals FROM pg_catalog.pg_stats",
    ] {
        let reason = refused(&everything, sql);
        assert!(
            !reason.message.contains("  ") && reason.hint.is_some(),
            "{sql}: {reason:?}"
        );
    }
}

#[test]
fn a_purpose_is_asked_for() {
    let nurse = Session::named("n").group("nurses");
    let sql = "SELECT id FROM patients";
    answer(&nurse.clone().purpose("follow-up"), sql).assert_allowed();
    let answered = answer(&nurse.clone().purpose("billing"), sql);
    let reason = answered.assert_denied("purpose-required");
    assert_eq!(
        reason.message,
        "You may read the table public.patients (SELECT) for certain purposes only, and this \
         session's is billing."
    );
    assert_eq!(
        reason.hint.as_deref(),
        Some("Sign in with the purpose treatment or follow-up.")
    );
    answer(&nurse, sql).assert_denied("purpose-required");
    // A purpose does not help with what is not granted for any.
    answer(&nurse, "DELETE FROM patients").assert_denied("outside-scope");
}

#[test]
fn reasons_can_be_read() {
    let nurse = Session::named("n").group("nurses").purpose("treatment");
    for (sql, message) in [
        (
            "DELETE FROM patients",
            "you may not delete from the table public.patients (DELETE).",
        ),
        ("CHECKPOINT", "you may not run CHECKPOINT."),
        (
            "ALTER SYSTEM SET log_statement = 'all'",
            "you may not create, alter or drop, lock or maintain a server (ALTER SYSTEM).",
        ),
        (
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO billing",
            "you may not change who has rights on a table (GRANT).",
        ),
        (
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO billing",
            "you may not change who has rights on default privileges (ALTER DEFAULT PRIVILEGES).",
        ),
    ] {
        let message = format!("This is outside your scope: {message}");
        assert_eq!(refused(&nurse, sql).message, message);
    }
    let hint = refused(&nurse, "SELECT id FROM payroll").hint;
    assert_eq!(hint.as_deref(), Some("Yours to read: public.pat*."));
    let hint = refused(&nurse, "SELECT id FROM nothing")
        .hint
        .unwrap_or_default();
    assert!(hint.starts_with("Is the name right"), "{hint}");
    let hint = refused(&Session::named("stranger"), "SELECT id FROM payroll").hint;
    assert_eq!(
        hint.as_deref(),
        Some("None of your groups has access to anything here.")
    );
}

#[test]
fn anybody_may_ask_whether_somebody_is_there() {
    let stranger = Session::named("stranger");
    answer(&stranger, "SELECT 1").assert_allowed();
    answer(&stranger, "SELECT relname FROM pg_class").assert_allowed();
    refused(&stranger, "CREATE TABLE pg_catalog.x (id int)");
    let closed: ClinicalAccess = testkit::configured(&json!({"system_catalogs": false}));
    let catalog = Catalog::from_ddl(DDL).operation("SELECT relname FROM pg_class");
    testkit::evaluate(&closed, &stranger, &catalog).assert_denied("outside-scope");
}

#[test]
fn settings_that_grant_nothing_by_mistake_are_refused() {
    let wrong = json!({"grants": [{"groups": ["a"], "objects": ["x"], "actions": ["raed"]}]});
    let error = testkit::try_configured::<ClinicalAccess>(&wrong).err();
    assert_eq!(
        error.as_deref(),
        Some("grants[0]: there is no action `raed`")
    );
}
