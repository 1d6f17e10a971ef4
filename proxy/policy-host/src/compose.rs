//! Many answers, one ruling. Pure: no wasm here.
//!
//! Deny beats approval beats allow; all abstain = deny; a failure denies. Limits combine to the
//! strictest. Masks combine by rank, two different ones of one rank to null. What nobody mentions
//! is shown only when it is known to be clear. The host only ever tightens.

use chaperone_contract::{
    Approval, Budget, Decision, Labels, Limits, Lineage, Operation, OutputField, Reason, Transform,
    Verdict,
};

use crate::failure::Failure;

/// What one module answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does not speak the operation's protocol, and was not asked.
    Skipped,
    /// Its decision, checked.
    Decided(Decision),
    /// It gave no usable answer.
    Failed(Failure),
}

impl Answer {
    fn decision(&self) -> Option<&Decision> {
        match self {
            Answer::Decided(decision) => Some(decision),
            Answer::Skipped | Answer::Failed(_) => None,
        }
    }
}

/// What happens to one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRule {
    /// What happens to its values.
    pub transform: Transform,
    /// Index of the module that asked for it; `None` when the host decided.
    pub module: Option<usize>,
    /// Where the host was stricter than the modules, why: one of [`tightened`].
    pub tightened: Option<&'static str>,
}

/// Why the host was stricter than the modules.
pub mod tightened {
    /// A labelled output that no module mentions is withheld.
    pub const UNMENTIONED: &str = "unmentioned-output-withheld";
    /// An output of unknown origin is withheld: a mask made for one kind of value may show another.
    pub const UNKNOWN_LINEAGE: &str = "unknown-lineage-withheld";
    /// Two modules ask for different masks of one rank.
    pub const MASK_CONFLICT: &str = "mask-conflict-withheld";
    /// A mask that leaves a part of the value in sight, on an expression: reversing a number turns
    /// "the last four" into the first four.
    pub const PARTIAL_ON_EXPRESSION: &str = "partial-mask-on-expression-withheld";
}

/// Reason codes of the host's own denials.
pub mod denial {
    /// No module said anything.
    pub const ALL_ABSTAIN: &str = "not-allowed";
    /// No module understands the protocol.
    pub const NO_MODULE: &str = "no-policy-for-protocol";
    /// The set lacks a module that the configuration requires.
    pub const REQUIRED_MISSING: &str = "required-policy-missing";
    /// The facts are incomplete, and no module that may decide on such facts let it pass.
    pub const FACTS_INCOMPLETE: &str = "facts-incomplete";
    /// Several modules demand approvals that no one person can give.
    pub const APPROVAL_CONFLICT: &str = "approval-conflict";
}

/// A module, as far as composition needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice<'a> {
    pub(crate) name: &'a str,
    pub(crate) answer: &'a Answer,
    /// Whether its "allow" counts for incomplete facts.
    pub(crate) may_guess: bool,
}

pub(crate) fn verdict(operation: &Operation, voices: &[Voice<'_>]) -> Verdict {
    let mut approvals = Vec::new();
    let (mut asked, mut allowed, mut guessed) = (false, false, false);
    let mut failure = None;
    for voice in voices {
        let decision = match voice.answer {
            Answer::Skipped => continue,
            Answer::Failed(reason) => {
                failure.get_or_insert((voice.name, reason));
                continue;
            }
            Answer::Decided(decision) => decision,
        };
        asked = true;
        match &decision.verdict {
            // A module's own reason says more than any of the host's.
            Verdict::Deny(reason) => return Verdict::Deny(reason.clone()),
            Verdict::RequireApproval(approval) => {
                guessed |= voice.may_guess;
                approvals.push(approval);
            }
            Verdict::Allow => {
                guessed |= voice.may_guess;
                allowed = true;
            }
            Verdict::Abstain => {}
        }
    }
    if let Some((name, failure)) = failure {
        return deny(
            failure.code.as_str(),
            format!("policy `{name}` failed: {}", failure.message),
            "the operator sees the failure in the log; nothing runs past a policy that fails",
        );
    }
    if !asked {
        return deny(
            denial::NO_MODULE,
            format!("no policy understands `{}`", operation.protocol),
            "the operator can install one that lists the protocol in its manifest",
        );
    }
    if !operation.gaps.is_empty() && !guessed {
        return deny(
            denial::FACTS_INCOMPLETE,
            format!(
                "what this does cannot be told for sure: {}",
                operation.gaps.join("; ")
            ),
            "write it in a simpler way, or in separate statements",
        );
    }
    if let Some(all) = combine_approvals(&approvals) {
        return match all {
            Ok(approval) => Verdict::RequireApproval(approval),
            Err(()) => deny(
                denial::APPROVAL_CONFLICT,
                "policies demand approval by different groups that have none in common".to_owned(),
                "the operator can name a common group in their settings",
            ),
        };
    }
    if allowed {
        Verdict::Allow
    } else {
        deny(
            denial::ALL_ABSTAIN,
            "no policy allows this".to_owned(),
            "what is not allowed by a policy is refused; ask the operator what your role may do",
        )
    }
}

pub(crate) fn deny(code: &str, message: String, hint: &str) -> Verdict {
    Verdict::Deny(Reason {
        code: code.to_owned(),
        message,
        hint: Some(hint.to_owned()),
    })
}

/// One approval that satisfies all: the largest number of people, the shortest time, and only
/// groups that each of them accepts. `Err` when no group is accepted by all.
fn combine_approvals(approvals: &[&Approval]) -> Option<Result<Approval, ()>> {
    let (first, rest) = approvals.split_first()?;
    let mut all = (*first).clone();
    for approval in rest {
        all.approvers = all.approvers.max(approval.approvers);
        all.ttl_seconds = match (all.ttl_seconds, approval.ttl_seconds) {
            (0, other) | (other, 0) => other,
            (a, b) => a.min(b),
        };
        if all.groups.is_empty() {
            all.groups.clone_from(&approval.groups);
        } else if !approval.groups.is_empty() {
            all.groups.retain(|group| approval.groups.contains(group));
            if all.groups.is_empty() {
                return Some(Err(()));
            }
        }
    }
    Some(Ok(all))
}

pub(crate) fn limits(voices: &[Voice<'_>]) -> Limits {
    let mut all = Limits::default();
    for limits in voices
        .iter()
        .filter_map(|voice| Some(&voice.answer.decision()?.limits))
    {
        all.max_rows = strictest(all.max_rows, limits.max_rows);
        all.max_bytes = strictest(all.max_bytes, limits.max_bytes);
        all.timeout_ms = strictest(all.timeout_ms, limits.timeout_ms);
        for budget in &limits.budgets {
            charge(&mut all.budgets, budget);
        }
    }
    all
}

fn strictest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Budgets of one name and window become the smaller; of one name and different windows, both hold.
fn charge(budgets: &mut Vec<Budget>, budget: &Budget) {
    match budgets
        .iter_mut()
        .find(|known| known.name == budget.name && known.window_seconds == budget.window_seconds)
    {
        Some(known) => known.max = known.max.min(budget.max),
        None => budgets.push(budget.clone()),
    }
}

pub(crate) fn outputs(
    operation: &Operation,
    voices: &[Voice<'_>],
) -> (Vec<OutputRule>, Vec<&'static str>) {
    let mut notes = Vec::new();
    let rules = (0_u32..)
        .zip(&operation.outputs)
        .map(|(index, output)| {
            let asked = strictest_mask(index, voices);
            let rule = tighten(&operation.output_labels(output), output, asked);
            if let Some(tightening) = rule.tightened {
                note(&mut notes, tightening);
            }
            rule
        })
        .collect();
    (rules, notes)
}

fn note(notes: &mut Vec<&'static str>, what: &'static str) {
    if !notes.contains(&what) {
        notes.push(what);
    }
}

fn withheld(why: &'static str) -> OutputRule {
    OutputRule {
        transform: Transform::Null,
        module: None,
        tightened: Some(why),
    }
}

/// The strictest mask that modules ask for; where two of them contradict each other, it is
/// withheld. A `custom` of two modules is two different ones even where the tags are equal.
fn strictest_mask(index: u32, voices: &[Voice<'_>]) -> Option<OutputRule> {
    let mut all: Option<OutputRule> = None;
    for (module, voice) in voices.iter().enumerate() {
        let Some(decision) = voice.answer.decision() else {
            continue;
        };
        for mask in decision.masks.iter().filter(|mask| mask.output == index) {
            let rule = OutputRule {
                transform: mask.transform.clone(),
                module: Some(module),
                tightened: None,
            };
            let Some(known) = &all else {
                all = Some(rule);
                continue;
            };
            let (old, new) = (known.transform.rank(), rule.transform.rank());
            let same = known.transform == rule.transform
                && !matches!(rule.transform, Transform::Custom(_));
            if new > old {
                all = Some(rule);
            } else if new == old && !same {
                all = Some(withheld(tightened::MASK_CONFLICT));
            }
        }
    }
    all
}

/// The host's invariants.
fn tighten(labels: &Labels, output: &OutputField, asked: Option<OutputRule>) -> OutputRule {
    let Some(rule) = asked else {
        return if labels.is_clear() {
            OutputRule {
                transform: Transform::Reveal,
                module: None,
                tightened: None,
            }
        } else {
            withheld(tightened::UNMENTIONED)
        };
    };
    if matches!(rule.transform, Transform::Reveal | Transform::Null) || labels.is_clear() {
        return rule;
    }
    match output.lineage {
        Lineage::Unknown => withheld(tightened::UNKNOWN_LINEAGE),
        Lineage::Derived(_) if !matches!(rule.transform, Transform::Fixed(_)) => {
            withheld(tightened::PARTIAL_ON_EXPRESSION)
        }
        _ => rule,
    }
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
