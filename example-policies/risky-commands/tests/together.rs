//! The three example policies composed as the proxy composes them.

use clinical_access::ClinicalAccess;
use phi_masking::PhiMasking;
use policy_sdk::Transform;
use policy_sdk::testkit::{self, Answer, Catalog, Session};
use risky_commands::RiskyCommands;
use serde_json::json;

fn answer(sql: &str) -> Answer {
    let clinic = Catalog::from_ddl(
        "CREATE TABLE p (id int, ssn text); COMMENT ON COLUMN p.id IS '@label(clear)';
         COMMENT ON COLUMN p.ssn IS '@label(ssn)'; CREATE TABLE payroll (id int);",
    );
    let agent = Session::named("a").group("agents");
    let access: ClinicalAccess = testkit::configured(&json!({"grants": [
        {"groups": ["agents"], "objects": ["public.p"]},
        {"groups": ["agents"], "objects": ["public.draft_*"], "actions": ["define"]},
    ]}));
    let masking: PhiMasking =
        testkit::configured(&json!({"labels": {"ssn": {"default": "keep-last:4"}}}));
    let risky: RiskyCommands = testkit::configured(
        &json!({"answers": {"definitions": "approval"}, "reads": [{"tables": ["public.p"], "rows": 10}]}),
    );
    let operation = clinic.operation(sql);
    let answers = [
        testkit::evaluate(&access, &agent, &operation),
        testkit::evaluate(&masking, &agent, &operation),
        testkit::evaluate(&risky, &agent, &operation),
    ];
    testkit::compose(&answers, &operation)
}

#[test]
fn deny_beats_approval_beats_allow() {
    answer("SELECT id, ssn FROM p WHERE id = 1")
        .assert_allowed()
        .assert_shown("id")
        .assert_masked("ssn", Transform::KeepLast(4))
        .assert_row_limit(10);
    answer("SELECT id FROM p")
        .assert_allowed()
        .assert_row_limit(10);
    answer("SELECT id FROM payroll WHERE id = 1").assert_denied("outside-scope");
    answer("SELECT id FROM p WHERE ssn = 'x'").assert_denied("inference");
    // What is held for others is denied to who may not touch it at all.
    answer("DROP TABLE p").assert_denied("outside-scope");
    answer("CREATE TABLE public.draft_1 (id int)").assert_held("definition");
    answer("CREATE ROLE x").assert_denied("outside-scope");
}
