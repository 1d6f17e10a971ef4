//! How the proxy puts several modules' answers together, for tests of an interplay.

use chaperone_contract::{Decision, Mask, Operation, Transform, Verdict};

use super::Answer;

/// Deny beats approval beats allow; all abstain = deny; limits combine to the strictest, masks by
/// rank, two different ones of one rank become NULL.
#[must_use]
pub fn compose(answers: &[Answer], operation: &Operation) -> Answer {
    let mut all = Decision::abstain();
    for decision in answers.iter().map(Answer::decision) {
        all.verdict = stronger(all.verdict, decision.verdict.clone());
        let limits = &decision.limits;
        all.limits.max_rows = least(all.limits.max_rows, limits.max_rows);
        all.limits.max_bytes = least(all.limits.max_bytes, limits.max_bytes);
        all.limits.timeout_ms = least(all.limits.timeout_ms, limits.timeout_ms);
        all.limits.budgets.extend(limits.budgets.iter().cloned());
        for mask in &decision.masks {
            match all.masks.iter_mut().find(|old| old.output == mask.output) {
                Some(old) => {
                    old.transform = stricter(old.transform.clone(), mask.transform.clone());
                }
                None => all.masks.push(Mask {
                    output: mask.output,
                    transform: mask.transform.clone(),
                }),
            }
        }
    }
    if all.verdict == Verdict::Abstain {
        all.verdict = Verdict::Deny(crate::deny("no-policy", "No policy allows this."));
    }
    Answer::new(all, operation)
}

fn stronger(a: Verdict, b: Verdict) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Abstain => 0,
        Verdict::Allow => 1,
        Verdict::RequireApproval(_) => 2,
        Verdict::Deny(_) => 3,
    };
    if rank(&b) > rank(&a) { b } else { a }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

pub(super) fn stricter(a: Transform, b: Transform) -> Transform {
    match a.rank().cmp(&b.rank()) {
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal if a == b => a,
        std::cmp::Ordering::Equal => Transform::Null,
    }
}
