//! How much of which tables may be read, by group.
//!
//! No fact tells how many rows a statement will find. What is *expected* is its constant LIMIT, and
//! without one anything is; what *actually* leaves is counted by the host, against the limits.

use policy_sdk::prelude::*;
use serde::Deserialize;

/// For the groups, or everybody; the first rule that fits a table and the caller counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadRule {
    #[serde(default)]
    groups: Vec<String>,
    tables: Vec<String>,
    approval_above: Option<u64>,
    rows: Option<u64>,
    bytes: Option<u64>,
    timeout_ms: Option<u32>,
    budget: Option<Budget>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    name: String,
    rows: u64,
    seconds: u32,
}

/// The rules for what an operation reads.
pub(crate) struct Reads<'a> {
    /// (index of the object, its rule).
    rules: Vec<(u32, &'a ReadRule)>,
}

impl<'a> Reads<'a> {
    pub(crate) fn of(rules: &'a [ReadRule], session: &Session<'_>, objects: &[Object]) -> Self {
        let mine = |rule: &&ReadRule| {
            rule.groups.is_empty() || rule.groups.iter().any(|group| session.has_group(group))
        };
        let rules: Vec<&ReadRule> = rules.iter().filter(mine).collect();
        let read = (0_u32..)
            .zip(objects)
            .filter(|(_, it)| it.actions.contains(Actions::READ));
        let found = read.filter_map(|(index, object)| {
            let name = object.name();
            let names_it = |rule: &&ReadRule| rule.tables.iter().any(|it| glob(it, &name));
            Some((index, *rules.iter().find(|rule| names_it(rule))?))
        });
        Self {
            rules: found.collect(),
        }
    }

    /// Whether more may be expected than passes without approval.
    pub(crate) fn is_large(&self, operation: &Operation<'_>) -> bool {
        let thresholds = self
            .rules
            .iter()
            .filter_map(|(_, rule)| rule.approval_above);
        let Some(threshold) = thresholds.min() else {
            return false;
        };
        expected_rows(operation).is_none_or(|rows| rows > threshold)
    }

    /// Whether what is read of a table with a rule is written into another one.
    pub(crate) fn are_written_elsewhere(
        &self,
        operation: &Operation<'_>,
        objects: &[Object],
    ) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let written = Actions::CREATE | Actions::UPDATE;
        let uses = operation.uses();
        let sources = uses
            .iter()
            .filter(|it| it.usages.contains(Usages::WRITE_SOURCE));
        sources.map(|it| it.object).any(|source| {
            let is_ruled = self.rules.iter().any(|(index, _)| *index == source);
            let goes_elsewhere = (0_u32..)
                .zip(objects)
                .any(|(index, it)| index != source && it.actions.intersects(written));
            is_ruled && goes_elsewhere
        })
    }

    /// The strictest limits of all rules.
    pub(crate) fn limit(&self, mut decision: Decision) -> Decision {
        for (_, rule) in &self.rules {
            if let Some(rows) = rule.rows {
                decision = decision.limit_rows(rows);
            }
            if let Some(bytes) = rule.bytes {
                decision = decision.limit_bytes(bytes);
            }
            if let Some(timeout) = rule.timeout_ms {
                decision = decision.timeout_ms(timeout);
            }
            if let Some(budget) = &rule.budget {
                let charged = |it: &policy_sdk::Budget| it.name == budget.name;
                if !decision.limits.budgets.iter().any(charged) {
                    decision = decision.budget(&budget.name, budget.rows, budget.seconds);
                }
            }
        }
        decision
    }
}

/// How many base rows the answer can tell of: none where no output derives from a field, the
/// constant LIMIT where each is one field's own value. What is computed from many rows (`jsonb_agg`,
/// `ARRAY(..)`) holds a table in one row, and what is not shown is not counted.
fn expected_rows(operation: &Operation<'_>) -> Option<u64> {
    let outputs = operation.outputs();
    if outputs.is_empty() {
        return None;
    }
    let constant = |output: &OutputField| output.lineage == Lineage::Constant;
    if outputs.iter().all(constant) {
        return Some(0);
    }
    let plain = |it: &OutputField| constant(it) || matches!(it.lineage, Lineage::Exact(_));
    let limit = operation.sql()?.row_limit()?;
    outputs.iter().all(plain).then_some(limit)
}
