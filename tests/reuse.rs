//! A verdict holds for a text that differs in its constants alone, where no policy could have read it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/guest.rs"]
mod guest;
#[path = "common/ward.rs"]
mod ward;

use chaperone_test_support::Chaperone;
use chaperone_test_support::chaperone::ChaperoneOptions;
use serde_json::Value;
use ward::{AGENT, CHAPERONE, DATABASE};

/// Runs the texts in one session, and gives what was said and the decisions about them in order, each
/// with the sequence number of the decision that it repeats.
fn decisions(options: ChaperoneOptions, role: &str, texts: &[&str]) -> (String, Vec<Option<u64>>) {
    let postgres = ward::clinic();
    let proxy = ward::people(options, &postgres).start().unwrap();
    let mut session = proxy.psql(DATABASE, role, AGENT).session().unwrap();
    let said: String = texts
        .iter()
        .map(|text| session.run(&format!("{text};"), ward::PATIENCE).unwrap())
        .collect();
    drop(session);
    let key = proxy.auditor_key();
    let shown = ward::audit(&proxy, "show", &["--json", "--key", &key.to_string_lossy()]);
    let records: Vec<Value> = shown
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let texts_of: Vec<&Value> = records
        .iter()
        .filter(|one| one["kind"] == "operation")
        .collect();
    let number =
        |reference: &Value| -> Option<u64> { reference.as_str()?.rsplit('/').next()?.parse().ok() };
    let mut found = Vec::new();
    for text in texts {
        let operation = texts_of.iter().find(|one| one["sealed"]["text"] == *text);
        let operation = operation.unwrap_or_else(|| panic!("{text} is not on record"));
        let decision = records
            .iter()
            .find(|one| {
                one["kind"] == "decision"
                    && number(&one["refs"]["operation"]) == operation["seq"].as_u64()
            })
            .unwrap();
        assert_eq!(decision["req"], operation["req"]);
        let first = number(&decision["refs"]["memo-of"]);
        // What policies saw stands in one record alone.
        let shared = number(&operation["refs"]["memo-of"]);
        assert_eq!(shared.is_some(), first.is_some(), "{operation}");
        let has = |one: &Value| one["sealed"]["facts"]["objects"].is_array();
        assert_eq!(has(operation), shared.is_none(), "{operation}");
        if let Some(seq) = shared {
            let of = records.iter().find(|one| one["seq"] == seq).unwrap();
            assert!(has(of) && of["body"]["facts"] == operation["body"]["facts"]);
        }
        // What it repeats says what each module answered.
        let answers = decision["body"]["modules"].as_array().map_or(0, Vec::len);
        assert_eq!(answers == 0, first.is_some(), "{decision}");
        if let Some(seq) = first {
            let of = records.iter().find(|one| one["seq"] == seq).unwrap();
            assert_eq!(of["body"]["masks"], decision["body"]["masks"]);
        }
        found.push(first);
    }
    (said, found)
}

#[test]
fn a_verdict_is_repeated_for_other_constants_only() {
    let options = ward::clinical(Chaperone::options(CHAPERONE));
    let texts = [
        "SELECT mrn, name FROM patients WHERE id = 1",
        "SELECT mrn, name FROM patients WHERE id = 2",
        "SELECT name, mrn FROM patients WHERE id = 2",
        "SELECT mrn, name FROM patients WHERE id = 3 LIMIT 1",
        "SELECT mrn, name FROM patients WHERE id = 4 LIMIT 1",
        "SELECT mrn, name FROM patients WHERE mrn = '5'",
    ];
    let (said, found) = decisions(options, "agent_ro", &texts);
    let repeats: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(repeats, [false, true, false, false, true, false], "{said}");
}

#[test]
fn what_reads_the_text_is_asked_about_each() {
    let whims = guest::build("whims", "whims", include_str!("common/whims.rs"));
    let options = Chaperone::options(CHAPERONE)
        .policy("whims", whims, "")
        .incomplete_facts(&["whims"]);
    let texts = [
        "SELECT 'whim_a', name FROM rooms WHERE id = 1",
        "SELECT 'whim_b', name FROM rooms WHERE id = 2",
    ];
    let (_, found) = decisions(options, "agent_ro", &texts);
    assert_eq!(found, [None, None]);
}
