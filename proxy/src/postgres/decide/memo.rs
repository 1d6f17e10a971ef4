//! Rulings that hold for more than the execution that they were made for, as far as the modules'
//! imports prove it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use chaperone_audit_log::Seq;
use chaperone_contract::{Context, Operation};
use chaperone_policy_host::{Digest, PolicySet, Reads, Ruling};

use super::Statement;

/// A ruling with the record of its decision.
pub(crate) struct Memo {
    set: Digest,
    in_transaction: bool,
    ruling: Arc<Ruling>,
    decision: Seq,
}

impl Memo {
    pub(crate) fn new(context: &Context, ruling: &Arc<Ruling>, decision: Seq) -> Self {
        Self {
            set: ruling.set,
            in_transaction: context.in_transaction,
            ruling: Arc::clone(ruling),
            decision,
        }
    }

    /// The ruling, where it holds for another execution of the same statement.
    pub(crate) fn recall(&self, set: &PolicySet, context: &Context) -> Option<(Arc<Ruling>, Seq)> {
        let reads = self.ruling.reads;
        let same = self.set == set.digest()
            && !reads.intersects(Reads::PARAMETERS | Reads::CLOCK)
            && (!reads.contains(Reads::TRANSACTION)
                || self.in_transaction == context.in_transaction);
        same.then(|| (Arc::clone(&self.ruling), self.decision))
    }
}

/// So many are remembered per session; when there are more it begins anew.
const MOST: usize = 256;

/// Rulings of one session about statements of which others differ in their texts alone, as those do
/// that have their values written into them.
#[derive(Default)]
pub(crate) struct Rulings {
    by_facts: HashMap<u64, (Arc<Statement>, Memo)>,
}

/// A ruling about a statement with the same facts.
pub(crate) struct Found {
    /// That statement.
    pub(crate) statement: Arc<Statement>,
    pub(crate) ruling: Arc<Ruling>,
    pub(crate) decision: Seq,
}

impl Rulings {
    /// The ruling about a statement with the same facts, where no module could have read its text.
    pub(crate) fn find(
        &self,
        set: &PolicySet,
        operation: &Operation,
        context: &Context,
    ) -> Option<Found> {
        if set.reads().contains(Reads::TEXT) {
            return None;
        }
        let (statement, memo) = self.by_facts.get(&digest(operation))?;
        let (ruling, decision) = memo.recall(set, context)?;
        let same = statement.operation.facts() == operation.facts();
        (same && !ruling.reads.contains(Reads::TEXT)).then(|| Found {
            statement: Arc::clone(statement),
            ruling,
            decision,
        })
    }

    pub(crate) fn insert(
        &mut self,
        statement: &Arc<Statement>,
        context: &Context,
        ruling: &Arc<Ruling>,
        decision: Seq,
    ) {
        if self.by_facts.len() >= MOST {
            self.by_facts.clear();
        }
        let memo = Memo::new(context, ruling, decision);
        self.by_facts
            .insert(digest(&statement.operation), (Arc::clone(statement), memo));
    }

    /// Statements keep the catalog that they were understood by.
    pub(crate) fn clear(&mut self) {
        self.by_facts.clear();
    }
}

/// Of what tells most statements apart; the others are told apart by comparing them.
fn digest(operation: &Operation) -> u64 {
    let mut hasher = DefaultHasher::new();
    operation.command.hash(&mut hasher);
    for object in &operation.objects {
        object.path.hash(&mut hasher);
    }
    for output in &operation.outputs {
        output.name.hash(&mut hasher);
    }
    for used in &operation.uses {
        used.field.hash(&mut hasher);
    }
    let limit = operation.sql.as_ref().and_then(|sql| sql.row_limit);
    limit.hash(&mut hasher);
    hasher.finish()
}
