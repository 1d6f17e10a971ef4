//! The demo's settings decide as its story tells, over the clinic's own tables and labels.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop anywhere"
)]

use chaperone_test_support::clinic;
use clinical_access::ClinicalAccess;
use phi_masking::PhiMasking;
use policy_sdk::testkit::{self, Answer, Catalog, Session};
use policy_sdk::{Policy, Transform};
use risky_commands::RiskyCommands;

fn configured<P: Policy>(name: &str, settings: &str) -> P {
    let text = format!("[policies.settings.{name}]\n{settings}");
    let value: serde_json::Value = toml::from_str(&text).unwrap();
    testkit::configured(&value["policies"]["settings"][name])
}

fn answer(session: &Session, sql: &str) -> Answer {
    let access: ClinicalAccess = configured(
        "clinical-access",
        include_str!("../settings/clinical-access.toml"),
    );
    let masking: PhiMasking =
        configured("phi-masking", include_str!("../settings/phi-masking.toml"));
    let risky: RiskyCommands = configured(
        "risky-commands",
        include_str!("../settings/risky-commands.toml"),
    );
    let operation = Catalog::from_ddl(clinic::ddl()).operation(sql);
    let answers = [
        testkit::evaluate(&access, session, &operation),
        testkit::evaluate(&masking, session, &operation),
        testkit::evaluate(&risky, session, &operation),
    ];
    testkit::compose(&answers, &operation)
}

fn agent() -> Session {
    Session::named("agent-7")
        .group("agents")
        .purpose("quality-review")
}

fn clinician() -> Session {
    Session::named("dr-cleo")
        .group("clinicians")
        .purpose("treatment")
}

const PATIENTS: &str =
    "SELECT id, name, ssn, birth_date, zip, care_unit FROM patients ORDER BY id LIMIT 3";

#[test]
fn an_agent_sees_masks() {
    answer(&agent(), PATIENTS)
        .assert_allowed()
        .assert_shown("id")
        .assert_shown("care_unit")
        .assert_masked("name", Transform::Fixed("[name]".into()))
        .assert_masked("ssn", Transform::Null)
        .assert_masked("birth_date", Transform::Year)
        .assert_masked("zip", Transform::Zip3);
    let notes = "SELECT id, body FROM notes WHERE id IN (1, 2, 3) ORDER BY id";
    answer(&agent(), notes)
        .assert_allowed()
        .assert_masked("body", Transform::Custom("scrub-notes".into()));
}

#[test]
fn a_clinician_sees_more() {
    answer(&clinician(), PATIENTS)
        .assert_allowed()
        .assert_shown("name")
        .assert_shown("birth_date")
        .assert_masked("ssn", Transform::KeepLast(4));
}

#[test]
fn an_agent_stays_in_scope() {
    let claims = "SELECT patient_id, member_no, amount FROM claims LIMIT 2";
    answer(&agent(), claims).assert_denied("outside-scope");
    answer(
        &agent(),
        "SELECT name, ward, beds FROM rooms ORDER BY id LIMIT 2",
    )
    .assert_allowed();
    answer(&agent(), "SELECT id FROM patients WHERE ssn LIKE '9%'").assert_denied("inference");
}

#[test]
fn risky_commands_are_held() {
    let dba = Session::named("dba-gus")
        .group("dbas")
        .group("approvers")
        .purpose("operations");
    for sql in ["DROP TABLE import_2019", "ALTER USER billing CREATEDB"] {
        let answer = answer(&dba, sql);
        let decision = format!("{:?}", answer.decision());
        assert!(decision.contains("RequireApproval"), "{sql}: {decision}");
    }
}

#[test]
fn a_bulk_read_is_limited() {
    answer(&agent(), "SELECT patient_id, icd10 FROM diagnoses")
        .assert_allowed()
        .assert_row_limit(500);
}

#[test]
fn the_leak_check_runs_with_settings_that_fit() {
    let _: ClinicalAccess = configured(
        "clinical-access",
        include_str!("../../leakcheck/settings/clinical-access.toml"),
    );
    let _: PhiMasking = configured(
        "phi-masking",
        include_str!("../../leakcheck/settings/phi-masking.toml"),
    );
    let _: RiskyCommands = configured(
        "risky-commands",
        include_str!("../../leakcheck/settings/risky-commands.toml"),
    );
}
