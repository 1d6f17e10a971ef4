//! What statements that run change of how later ones are understood.

use chaperone_sql::Kind;

use super::Session;
use crate::postgres::run::Run;

impl Session {
    /// What the run may change of how later statements are understood.
    pub(super) fn note_effects(&mut self, run: &Run) {
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
        if effects.catalog && alone || commits && self.transaction_effects {
            let changes = &self.grounds.backend.changes;
            self.changing.get_or_insert_with(|| changes.begin());
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

/// Whether a BEGIN may set how much of the catalog its transaction sees.
fn names_isolation(begin: &str) -> bool {
    let begin = begin.to_ascii_lowercase();
    begin.contains("isolation")
}
