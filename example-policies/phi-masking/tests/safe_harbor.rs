//! The README's table of the 18 identifiers, held against what the policy does.

use phi_masking::PhiMasking;
use policy_sdk::Transform;
use policy_sdk::testkit::{self, Session, Table, operation};
use serde_json::json;

const README: &str = include_str!("../README.md");

/// A sentence, and what must be gone from it.
type Example = (&'static str, &'static [&'static str]);

/// The paragraph's letter, the labels that `scrub-notes` leaves, and examples. All of it invented.
const IDENTIFIERS: [(&str, &[&str], &[Example]); 18] = [
    (
        "A",
        &["[name]"],
        &[
            (
                "Seen by Zebulon Quillfeather today.",
                &["Zebulon", "Quillfeather"],
            ),
            (
                "seen by zebulon quillfeather today",
                &["zebulon", "quillfeather"],
            ),
            (
                "PT ZEBULON QUILLFEATHER SEEN IN CLINIC",
                &["ZEBULON", "QUILLFEATHER"],
            ),
            (
                "Quillfeather, Z. returned for follow-up",
                &["Quillfeather", "Z."],
            ),
            ("mr. brown and dr young agreed", &["brown", "young"]),
            (
                "Her daughter Rose helps; her son mark drives.",
                &["Rose", "mark"],
            ),
            (
                "her daughter rose quillfeather helps",
                &["rose", "quillfeather"],
            ),
            ("Patient's name: Hope Young", &["Hope", "Young"]),
            ("we called Grace about results", &["Grace"]),
            (
                "the consult by Waters, then Burns, is pending",
                &["Waters", "Burns"],
            ),
            (
                "José Nuñez-O'Brien and 王小明 attended",
                &["José", "Nuñez", "Brien", "王"],
            ),
            ("signed by will baker, rn", &["will", "baker"]),
        ],
    ),
    (
        "B",
        &["[place]", "[number]"],
        &[
            (
                "lives at 1420 Elm Street, Apt 4B, Springfield 62704",
                &["1420", "Elm", "Street", "4B", "Springfield", "62704"],
            ),
            ("lives at 9 church road", &["church", "road"]),
            ("home is 12 long lane", &["long lane"]),
            (
                "mail to P.O. Box 771, Zip 62704-1234",
                &["771", "62704", "1234"],
            ),
            ("moved from Reading to Bath last year", &["Reading"]),
            ("resident of Orange County", &["Orange", "County"]),
            ("found on Church Street", &["Church"]),
        ],
    ),
    (
        "C",
        &["[date]", "[90+]"],
        &[
            ("admitted 2024-01-02, discharged 1/9/24", &["2024", "1/9"]),
            ("born 4/5/1932 or 05.04.1932", &["4/5", "05.04"]),
            (
                "seen on January 2nd, 2024 and 3 march",
                &["January", "2nd", "2024", "march"],
            ),
            ("returns on the 12th, or on Monday", &["12th", "Monday"]),
            ("born in 1975", &["1975"]),
            (
                "a 93-year-old, mother was 101 yo, aged 90",
                &["93", "101", "90,"],
            ),
            (
                "she is 94F; ninety-three years old",
                &["94", "ninety", "three"],
            ),
            ("at 2024-01-02T10:15 on 12/2023", &["2024", "12/"]),
        ],
    ),
    (
        "D",
        &["[contact]"],
        &[
            ("call (555) 010-0199 or 555.010.0199", &["555", "0199"]),
            (
                "call 555 010 0199, 555-0117, +1-555-010-0199",
                &["555", "0199", "0117"],
            ),
            ("phone five five five zero one nine nine", &["five", "nine"]),
        ],
    ),
    (
        "E",
        &["[contact]"],
        &[("fax: 555-010-0198", &["555", "0198"])],
    ),
    (
        "F",
        &["[contact]"],
        &[(
            "write to z.quill@clinic.example or to zq@x",
            &["quill", "clinic.example", "zq"],
        )],
    ),
    (
        "G",
        &["[number]"],
        &[
            ("SSN 900-12-3456, 900 12 3456, 900123456", &["900", "3456"]),
            ("social security ending in 3456", &["3456"]),
        ],
    ),
    (
        "H",
        &["[number]"],
        &[(
            "MRN 17, MRN-000017, medical record number: 4411",
            &["17", "4411"],
        )],
    ),
    (
        "I",
        &["[number]"],
        &[(
            "member id AB-123, policy no. 77, Medicare 1EG4-TE5-MK73",
            &["AB-123", "77", "1EG4", "MK73"],
        )],
    ),
    (
        "J",
        &["[number]"],
        &[("acct # 42, account number is 9001", &["42", "9001"])],
    ),
    (
        "K",
        &["[number]"],
        &[(
            "license D123, DEA AB1234563, NPI 1234567893",
            &["D123", "AB1234563", "1234567893"],
        )],
    ),
    (
        "L",
        &["[number]"],
        &[(
            "plate 7ABC123, VIN 1HGCM82633A004352",
            &["7ABC123", "1HGCM"],
        )],
    ),
    (
        "M",
        &["[number]"],
        &[(
            "pacemaker serial no. PM4411, UDI (01)00643169007222",
            &["PM4411", "00643169007222"],
        )],
    ),
    (
        "N",
        &["[contact]"],
        &[(
            "see https://portal.example/p?id=17 and www.portal.example or portal.example.com",
            &["portal", "17"],
        )],
    ),
    (
        "O",
        &["[contact]"],
        &[(
            "from 10.1.2.3 and fe80:0:0:0:1ff:fe23:4567:890a",
            &["10.1", "fe80", "890a"],
        )],
    ),
    (
        "P",
        &["[number]"],
        &[("fingerprint template a94f3bc2d0e1", &["a94f"])],
    ),
    (
        "Q",
        &["[number]"],
        &[("photo at IMG_2031.jpg", &["IMG_2031"])],
    ),
    (
        "R",
        &["[number]"],
        &[(
            "specimen 24-S-1187, code K7Q2Z9, study subject 48213",
            &["1187", "K7Q2Z9", "48213"],
        )],
    ),
];

/// The cells of a row of the table.
fn row(letter: &str) -> Vec<String> {
    let start = format!("| {letter} |");
    let line = README.lines().find(|line| line.starts_with(&start));
    assert!(line.is_some(), "no row for {letter}");
    let line = line.unwrap_or_default();
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// What is written as code in a cell.
fn code(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn transform(name: &str) -> Transform {
    match name {
        "null" => Transform::Null,
        "year" => Transform::Year,
        "zip3" => Transform::Zip3,
        "keyed-hash" => Transform::KeyedHash,
        name => Transform::Fixed(name.strip_prefix("fixed:").unwrap_or(name).to_owned()),
    }
}

#[test]
fn each_label_has_its_mask() {
    for (letter, ..) in IDENTIFIERS {
        let cells = row(letter);
        let (labels, masks) = (code(&cells[2]), code(&cells[3]));
        assert!(
            !labels.is_empty() && labels.len() == masks.len(),
            "{letter}: {cells:?}"
        );
        for (label, mask) in labels.iter().zip(&masks) {
            let settings = json!({"labels": {label: {"default": mask, "cleared": ["care"]}}});
            let policy: PhiMasking = testkit::configured(&settings);
            let table = Table::named("public.p").column("c", &[label]);
            let query = operation("SELECT")
                .on(&table, policy_sdk::Actions::READ)
                .output(&table, "c")
                .derived("d", &table, &["c"]);
            testkit::evaluate(&policy, &Session::named("a"), &query)
                .assert_masked("c", transform(mask))
                .assert_withheld("d");
            testkit::evaluate(&policy, &Session::named("b").group("care"), &query)
                .assert_shown("c")
                .assert_shown("d");
            // Where no setting names it, nothing is shown.
            let silent: PhiMasking = testkit::configured(&json!({}));
            testkit::evaluate(&silent, &Session::named("a"), &query).assert_withheld("c");
        }
    }
}

#[test]
fn free_text_is_scrubbed_of_each() {
    let policy: PhiMasking = testkit::configured(&json!({}));
    let mut wrong = Vec::new();
    for (letter, labels, examples) in IDENTIFIERS {
        let said = row(letter)
            .last()
            .map(|cell| code(cell))
            .unwrap_or_default();
        for label in labels {
            assert!(
                said.iter().any(|it| it == label),
                "{letter}: the table does not say {label}"
            );
        }
        for (text, secrets) in examples {
            let clean = testkit::rewrite(&policy, "scrub-notes", text).unwrap_or_default();
            let left = secrets.iter().filter(|secret| clean.contains(**secret));
            let left: Vec<_> = left.collect();
            let labelled = labels.iter().any(|label| clean.contains(label));
            if !left.is_empty() || !labelled {
                wrong.push(format!("{letter}: {text}\n   {clean}\n   left: {left:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
