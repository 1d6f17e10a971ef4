//! The end of a statement and of a batch.

use chaperone_sql::Kind;

use super::unexpected;
use crate::postgres::{
    changes::Touched,
    protocol::{self, Fields, backend},
    queue::{Expected, Own},
    refusal::Refusal,
    run::Run,
    session::{End, Session, evidence::Ending, question::Guard},
};

impl Session {
    pub(super) fn on_complete(&mut self, message: &[u8]) -> Result<(), End> {
        // Rows of a cursor come by statements that are decided later, by what it was opened on.
        if let Some(run) = self.queue.front().and_then(Expected::run)
            && matches!(run.permit.statement.kind, Kind::Declare { .. })
            && run.failed.is_none()
            && let Some(refusal) = self.changed_meanwhile(run)
        {
            self.run_fails(refusal);
        }
        let mut front = self.queue.pop_front();
        match &mut front {
            Some(Expected::Own(Own::Execute(_))) => self.own_answered(),
            Some(Expected::Execute { run, .. }) => {
                self.finish_run(run, message)?;
                if run.copy_in {
                    self.end_copy_in(0);
                }
                // What follows may be held on its own.
                self.settle_output();
                Ok(())
            }
            Some(Expected::Query { runs, at })
                if runs.get(*at).is_some_and(|run| run.permit.statement.opaque) =>
            {
                // Others of the same text may follow: the run goes on up to ReadyForQuery.
                if let Some(run) = runs.get_mut(*at) {
                    run.plan = None;
                    run.copy_out = false;
                    if std::mem::take(&mut run.copy_in) {
                        self.end_copy_in(0);
                    }
                }
                if let Some(front) = front {
                    self.queue.push_front(front);
                }
                self.relay(message);
                Ok(())
            }
            Some(Expected::Query { runs, at }) => {
                // An empty query has one statement of its own kind, and so a run.
                let copy_in = match runs.get_mut(*at) {
                    Some(run) => {
                        self.finish_run(run, message)?;
                        run.copy_in
                    }
                    None => return Err(unexpected(backend::COMMAND_COMPLETE, None)),
                };
                *at += 1;
                if copy_in {
                    self.end_copy_in(0);
                }
                if let Some(front) = front {
                    self.queue.push_front(front);
                }
                self.settle_output();
                Ok(())
            }
            _ => Err(unexpected(backend::COMMAND_COMPLETE, front)),
        }
    }

    fn finish_run(&mut self, run: &mut Run, message: &[u8]) -> Result<(), End> {
        let ending = match &run.failed {
            Some(refusal) => Ending::late(refusal),
            None if self.suppress => Ending::skipped(),
            None if rolled_back(&run.permit.statement.kind, message) => self.undone_by_commit()?,
            None => Ending::ok(),
        };
        let kind = &run.permit.statement.kind;
        self.block_ended |= matches!(
            kind,
            Kind::Commit { .. } | Kind::Rollback { .. } | Kind::PrepareTransaction { .. }
        );
        let well = run.failed.is_none();
        self.close_run(run, ending)?;
        if well {
            self.apply_naming(&run.permit);
            self.relay(message);
        }
        Ok(())
    }

    /// All that a text of which nothing is known had to say has been said.
    fn finish_opaque(&mut self, run: &mut Run) -> Result<(), End> {
        let ending = match &run.failed {
            Some(refusal) => Ending::late(refusal),
            None => Ending::ok(),
        };
        self.close_run(run, ending)
    }

    /// The run at the head fails on our side: what is left of its answer is dropped.
    pub(super) fn run_fails(&mut self, refusal: Refusal) {
        self.stale = true;
        let mut refusal = refusal;
        let mut foreseen = true;
        if let Ok(run) = self.current(backend::DATA_ROW) {
            refusal = refusal.request(run.permit.request);
            run.failed = Some(refusal.clone());
            foreseen = run.permit.may_fail_late();
        }
        if !foreseen && (self.more_is_sent() || self.has_lasting_changes()) {
            // What is around it has not waited, and may have effects that an error would deny.
            self.broken = Some(End::Told(refusal));
            return;
        }
        // Rows that were allowed stay; nothing else of this answer has been appended since.
        self.fail_late(&refusal);
    }

    /// Whether statements are at the backend behind the run at the head, or the next batch is.
    fn more_is_sent(&self) -> bool {
        self.queue.iter().skip(1).any(|expected| {
            matches!(
                expected,
                Expected::Query { .. }
                    | Expected::Execute { .. }
                    | Expected::Bind { .. }
                    | Expected::Parse
            )
        })
    }

    /// Whether the backend has changed something, or is about to, that it commits although the run at
    /// the head fails on our side: by that run, in the same simple Query, or in the batch that has been
    /// ended.
    fn has_lasting_changes(&self) -> bool {
        let behind = match self.queue.front() {
            Some(Expected::Query { runs, at }) => runs.get(at + 1..).unwrap_or_default(),
            _ => &[],
        };
        let changes = |run: &Run| {
            let statement = &run.permit.statement;
            !statement.effects.read_only || statement.kind.is_transaction_control()
        };
        let itself = self.queue.front().and_then(Expected::run);
        behind.iter().any(changes)
            || !self.unsynced
                && self
                    .lasting
                    .is_committed_with_the_batch(itself.is_some_and(changes))
    }

    pub(super) fn on_suspended(&mut self, message: &[u8]) -> Result<(), End> {
        match self.queue.pop_front() {
            Some(Expected::Execute { mut run, .. }) => {
                let ending = match &run.failed {
                    Some(refusal) => Ending::late(refusal),
                    None => Ending::ok(),
                };
                self.close_run(&mut run, ending)?;
                self.relay(message);
                Ok(())
            }
            Some(Expected::Own(Own::Execute(_))) => self.own_answered(),
            other => Err(unexpected(backend::PORTAL_SUSPENDED, other)),
        }
    }

    pub(super) fn on_ready(&mut self, body: &[u8]) -> Result<(), End> {
        let status = Fields::new("ReadyForQuery", body).u8()?;
        let own = match self.queue.pop_front() {
            Some(Expected::Sync) => false,
            Some(Expected::Query { mut runs, at }) => {
                if let Some(run) = runs.get_mut(at)
                    && run.permit.statement.opaque
                {
                    self.finish_opaque(run)?;
                }
                self.drop_unnamed_portal();
                false
            }
            Some(Expected::Own(Own::Sync)) => {
                self.own_answered()?;
                match self.own.guard {
                    // Where it has failed, the transaction is the client's again behind the guard.
                    Guard::Set => return Ok(()),
                    Guard::Lifting if status == b'T' => return Ok(()),
                    Guard::Lifting | Guard::None => true,
                }
            }
            Some(Expected::Fails {
                simple: true,
                silent_ready,
                ..
            }) => {
                self.drop_unnamed_portal();
                silent_ready
            }
            other => return Err(unexpected(backend::READY_FOR_QUERY, other)),
        };
        self.status = status;
        self.lasting.ready(status);
        self.block_ended = false;
        while matches!(self.queue.front(), Some(Expected::CopyEnd)) {
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.block_opened = false;
            if status == b'I' {
                self.put_off.clear();
                self.wrote = false;
                self.changing = None;
                self.defined = Touched::default();
            }
        }
        if status == b'I' {
            // In an aborted block those from before its savepoint are there when it is rolled back.
            self.portals.retain(|portal| portal.held);
        }
        if status == b'I' && self.transaction_effects {
            self.stale = true;
            // What is under way behind it may be another transaction with effects of its own.
            self.transaction_effects = !self.queue.is_empty();
        }
        if status == b'E' {
            self.stale |= self.transaction_effects;
        }
        if self.fail_transaction && !own {
            self.fail_transaction = false;
            if status == b'T' {
                // The client has been told of an error; its transaction has to know of it too.
                self.fail_open_transaction();
                return Ok(());
            }
        }
        if !own {
            self.suppress = false;
            protocol::ready_for_query(self.sockets.to_client.buffer(), status);
        }
        Ok(())
    }
}

/// Whether this CommandComplete says that a COMMIT was none.
fn rolled_back(kind: &Kind, message: &[u8]) -> bool {
    let tag = message.get(protocol::HEADER..).unwrap_or_default();
    matches!(kind, Kind::Commit { .. } | Kind::PrepareTransaction { .. })
        && tag.starts_with(b"ROLLBACK")
}
