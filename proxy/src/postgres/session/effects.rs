//! What statements that run change of how later ones are understood.

use chaperone_sql::Kind;

use super::Session;
use crate::postgres::{
    changes::Touched,
    refusal::{Refusal, sqlstate},
    run::{AsOf, Run},
};

impl Session {
    /// What the run may change of how later statements are understood. `batched`: by an Execute.
    pub(super) fn note_effects(&mut self, run: &Run, batched: bool) {
        let statement = &run.permit.statement;
        let effects = statement.effects;
        // Functions that the database calls by itself may do anything.
        let calls = effects.volatile && statement.ground.catalog.has_own_functions();
        if effects.catalog || effects.settings || effects.temp || calls {
            self.stale = true;
            self.transaction_effects = true;
            self.batch_meaning = true;
        }
        // Nobody else sees what a block does before its end.
        let commits = matches!(statement.kind, Kind::Commit { .. });
        let alone = !run.in_transaction && !statement.kind.is_transaction_control();
        if effects.catalog {
            let defined = Touched::by_change(&statement.operation);
            self.defined.absorb(defined);
        }
        // Nor what a batch does: a client that never ends it must not make all others look at the
        // catalog before each statement.
        let waits = Touched::waits_for_sync(&statement.operation);
        // A procedure commits what came before it in its batch too, and so may whatever cannot run in
        // a block.
        let commits_alone = alone
            && !waits
            && !effects.read_only
            && !matches!(statement.kind, Kind::Query | Kind::Modify { .. });
        if effects.catalog && alone && batched && waits {
            self.batch_defines = true;
        } else if effects.catalog && alone
            || commits && self.transaction_effects
            || self.batch_defines && commits_alone
        {
            self.begin_change();
        }
        self.put_off.note(&run.permit, &self.grounds.caller);
        match &run.permit.statement.kind {
            Kind::Begin => {
                self.block_opened = true;
                self.stale |= names_isolation(&statement.operation.text);
            }
            Kind::Rollback { .. } | Kind::RollbackTo { .. } => {
                self.stale |= self.transaction_effects || self.sees_frozen();
            }
            Kind::Commit { .. } => self.stale |= self.sees_frozen(),
            _ => {}
        }
    }
}

impl Session {
    /// What was defined may take effect from now on, until nothing is under way.
    pub(super) fn begin_change(&mut self) {
        let defined = self.defined.clone();
        match &self.changing {
            Some(change) => change.extend(defined),
            None => {
                let changes = &self.grounds.backend.changes;
                self.changing = Some(changes.begin(self.owner, defined));
            }
        }
    }

    /// By what catalog statements are decided now.
    pub(super) fn ground_as_of(&self) -> AsOf {
        AsOf {
            settled: self.ground_settled,
            looked: self.ground_checked,
        }
    }

    /// Why nothing of the run's answer may leave: what it depends on was changed since it was decided,
    /// and the backend may have turned to it only behind that.
    pub(super) fn changed_meanwhile(&self, run: &Run) -> Option<Refusal> {
        let seen = run.changed.as_deref().cloned();
        seen.or_else(|| self.changed_by_ours(run))
    }

    /// The same for changes by sessions of ours.
    fn changed_by_ours(&self, run: &Run) -> Option<Refusal> {
        let changes = &self.grounds.backend.changes;
        let operation = &run.permit.statement.operation;
        let changed = changes.touch(run.as_of.settled, self.owner, operation)
            && !run.permit.shows_anything(&self.grounds.caller);
        changed.then(|| {
            Refusal::new(
                sqlstate::NOT_UNDERSTOOD,
                "changed-meanwhile",
                "what the statement depends on was changed by another session while it was under \
                 way; its rows were withheld",
            )
            .hint("send it again")
        })
    }
}

/// Whether a BEGIN may set how much of the catalog its transaction sees.
fn names_isolation(begin: &str) -> bool {
    let begin = begin.to_ascii_lowercase();
    begin.contains("isolation")
}
