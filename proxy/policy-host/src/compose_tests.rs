use chaperone_contract::{FieldUse, Mask, Usages};

use super::*;
use crate::failure::FailureCode;

fn reason(code: &str) -> Reason {
    Reason {
        code: code.into(),
        message: String::new(),
        hint: None,
    }
}

fn decided(verdict: Verdict) -> Answer {
    Answer::Decided(Decision {
        verdict,
        limits: Limits::default(),
        masks: vec![],
    })
}

fn approval(approvers: u8, groups: &[&str], ttl_seconds: u32) -> Verdict {
    Verdict::RequireApproval(Approval {
        reason: reason("risky"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        approvers,
        ttl_seconds,
    })
}

fn failed() -> Answer {
    Answer::Failed(Failure::new(FailureCode::Trap, "it trapped"))
}

fn voices(answers: &[Answer]) -> Vec<Voice<'_>> {
    answers
        .iter()
        .map(|answer| Voice {
            name: "m",
            answer,
            may_guess: false,
        })
        .collect()
}

fn verdict_of(answers: &[Answer]) -> Verdict {
    verdict(&Operation::default(), &voices(answers))
}

fn code(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Deny(reason) => &reason.code,
        other => panic!("not a denial: {other:?}"),
    }
}

#[test]
fn deny_beats_approval_beats_allow_beats_abstain() {
    let deny = decided(Verdict::Deny(reason("no")));
    let ask = decided(approval(1, &[], 0));
    let allow = decided(Verdict::Allow);
    let abstain = decided(Verdict::Abstain);
    assert_eq!(
        code(&verdict_of(&[allow.clone(), ask.clone(), deny.clone()])),
        "no"
    );
    assert!(matches!(
        verdict_of(&[allow.clone(), ask, abstain.clone()]),
        Verdict::RequireApproval(_)
    ));
    assert_eq!(
        verdict_of(&[abstain.clone(), allow.clone()]),
        Verdict::Allow
    );
    assert_eq!(
        code(&verdict_of(&[abstain.clone(), abstain])),
        "not-allowed"
    );
    assert_eq!(code(&verdict_of(&[])), "no-policy-for-protocol");
    assert_eq!(
        code(&verdict_of(&[Answer::Skipped])),
        "no-policy-for-protocol"
    );
    assert_eq!(code(&verdict_of(&[allow, failed()])), "policy-trap");
    assert_eq!(code(&verdict_of(&[failed(), deny])), "no");
}

#[test]
fn incomplete_facts_need_a_module_that_may_guess() {
    let operation = Operation {
        gaps: vec!["it calls a function of unknown effect".into()],
        ..Operation::default()
    };
    let answers = [decided(Verdict::Allow), decided(Verdict::Allow)];
    let mut all = voices(&answers);
    assert_eq!(code(&verdict(&operation, &all)), "facts-incomplete");
    all[1].may_guess = true;
    assert_eq!(verdict(&operation, &all), Verdict::Allow);
    let answers = [decided(Verdict::Allow), decided(Verdict::Abstain)];
    let mut all = voices(&answers);
    all[1].may_guess = true;
    assert_eq!(code(&verdict(&operation, &all)), "facts-incomplete");
    let answers = [
        decided(Verdict::Allow),
        decided(Verdict::Deny(reason("no"))),
    ];
    let mut all = voices(&answers);
    all[0].may_guess = true;
    assert_eq!(code(&verdict(&operation, &all)), "no");
}

#[test]
fn approvals_combine_to_the_strictest() {
    let all = verdict_of(&[
        decided(approval(1, &["a", "b"], 600)),
        decided(approval(3, &[], 0)),
        decided(approval(2, &["b", "c"], 60)),
    ]);
    let Verdict::RequireApproval(all) = all else {
        panic!("{all:?}")
    };
    assert_eq!(
        (all.approvers, all.groups, all.ttl_seconds),
        (3, vec!["b".to_owned()], 60)
    );
    let none = verdict_of(&[
        decided(approval(1, &["a"], 0)),
        decided(approval(1, &["b"], 0)),
    ]);
    assert_eq!(code(&none), "approval-conflict");
}

#[test]
fn limits_combine_to_the_strictest() {
    let with = |limits| {
        Answer::Decided(Decision {
            verdict: Verdict::Abstain,
            limits,
            masks: vec![],
        })
    };
    let budget = |name: &str, max, window_seconds| Budget {
        name: name.into(),
        max,
        window_seconds,
    };
    let answers = [
        with(Limits {
            max_rows: Some(10),
            max_bytes: None,
            timeout_ms: Some(5),
            budgets: vec![budget("a", 5, 60), budget("b", 1, 1)],
        }),
        with(Limits {
            max_rows: Some(20),
            max_bytes: Some(7),
            timeout_ms: Some(4),
            budgets: vec![budget("a", 3, 60), budget("a", 100, 3600)],
        }),
    ];
    let all = limits(&voices(&answers));
    assert_eq!(
        (all.max_rows, all.max_bytes, all.timeout_ms),
        (Some(10), Some(7), Some(4))
    );
    assert_eq!(
        all.budgets,
        [
            budget("a", 3, 60),
            budget("b", 1, 1),
            budget("a", 100, 3600)
        ]
    );
}

fn operation() -> Operation {
    let used = |labels| FieldUse {
        object: 0,
        field: "f".into(),
        labels,
        usages: Usages::OUTPUT,
    };
    let output = |lineage| OutputField {
        name: "c".into(),
        type_name: String::new(),
        lineage,
    };
    Operation {
        uses: vec![
            used(Labels::Known(vec!["ssn".into()])),
            used(Labels::CLEAR),
            used(Labels::Unknown),
        ],
        outputs: vec![
            output(Lineage::Exact(0)),
            output(Lineage::Exact(1)),
            output(Lineage::Exact(2)),
            output(Lineage::Derived(vec![0, 1])),
            output(Lineage::Unknown),
            output(Lineage::Constant),
        ],
        ..Operation::default()
    }
}

fn masks(masks: &[(u32, Transform)]) -> Answer {
    Answer::Decided(Decision {
        verdict: Verdict::Abstain,
        limits: Limits::default(),
        masks: masks
            .iter()
            .cloned()
            .map(|(output, transform)| Mask { output, transform })
            .collect(),
    })
}

fn transforms(answers: &[Answer]) -> Vec<Transform> {
    let (rules, _) = outputs(&operation(), &voices(answers));
    rules.into_iter().map(|rule| rule.transform).collect()
}

#[test]
fn what_nobody_mentions_is_shown_only_when_clear() {
    use Transform::{Null, Reveal};
    assert_eq!(
        transforms(&[masks(&[])]),
        [Null, Reveal, Null, Null, Null, Reveal]
    );
    let (_, notes) = outputs(&operation(), &voices(&[masks(&[])]));
    assert_eq!(notes, [tightened::UNMENTIONED]);
}

#[test]
fn a_reveal_is_explicit_and_a_partial_mask_needs_a_plain_column() {
    use Transform::{Fixed, KeepLast, Null, Reveal};
    let reveal: Vec<_> = (0..5).map(|index| (index, Reveal)).collect();
    assert_eq!(transforms(&[masks(&reveal)]), vec![Reveal; 6]);
    let partial: Vec<_> = (0..5).map(|index| (index, KeepLast(4))).collect();
    let [a, b, c, d, e, f] = transforms(&[masks(&partial)]).try_into().unwrap();
    assert_eq!([a, b, c], [KeepLast(4), KeepLast(4), KeepLast(4)]);
    assert_eq!([d, e, f], [Null, Null, Reveal]);
    let fixed = [masks(&[(3, Fixed("-".into())), (4, Fixed("-".into()))])];
    assert_eq!(transforms(&fixed)[3..5], [Fixed("-".into()), Null]);
}

#[test]
fn the_strictest_mask_wins_and_a_tie_is_null() {
    use Transform::{Custom, KeepLast, Null, Reveal, Year};
    let tag = || Custom("t".into());
    let both = |a, b| transforms(&[masks(&[(0, a)]), masks(&[(0, b)])])[0].clone();
    assert_eq!(both(Reveal, Year), Year);
    assert_eq!(both(Year, KeepLast(2)), Year);
    assert_eq!(both(Year, Year), Year);
    assert_eq!(both(KeepLast(2), KeepLast(4)), Null);
    assert_eq!(both(tag(), tag()), Null);
    let (rules, _) = outputs(
        &operation(),
        &voices(&[masks(&[(0, Reveal)]), masks(&[(0, tag())])]),
    );
    assert_eq!(rules[0].module, Some(1));
}
