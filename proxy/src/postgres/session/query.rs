//! A simple Query: all its statements are decided before any of them goes on.

use std::sync::Arc;

use chaperone_sql::Kind;

use super::{
    End, Session, Skip,
    names::naming,
    refuse,
    understand::{Script, Unreadable},
};
use crate::postgres::{
    decide::Permit,
    parameters::Parameters,
    protocol::Fields,
    queue::Expected,
    refusal::{Refusal, sqlstate},
    run::Run,
};

impl Session {
    pub(super) async fn on_query(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let mut fields = Fields::new("Query", body);
        let text = fields.cstr()?;
        fields.end()?;
        self.wait_for_drained_fallible().await?;
        if self.skip != Skip::No {
            return Ok(());
        }
        let script = match self.understand(text).await? {
            Ok(script) => script,
            Err(unreadable) => match self.opaque(text, &unreadable) {
                Some(script) => script,
                None => return self.unreadable(unreadable, text, true),
            },
        };
        self.send_query(message, &script, Parameters::default())
            .await
    }

    /// Decides about what a simple Query (or FunctionCall, which has arguments) asks for, and forwards
    /// it.
    pub(super) async fn send_query(
        &mut self,
        message: &[u8],
        script: &Script,
        arguments: Parameters,
    ) -> Result<(), End> {
        let permits = match self.permit_all(script, &arguments).await? {
            Ok(permits) => permits,
            Err(refusal) => {
                self.decline(refusal, true);
                return Ok(());
            }
        };
        if self.skip != Skip::No {
            // Something before it failed meanwhile.
            return Ok(());
        }
        let open = self.in_transaction() || self.batch_effects || !self.queue.is_empty();
        if let Some(refusal) = late_failure_with_effects(&permits, open, self.batch_effects) {
            self.refuse(refusal, true);
            return Ok(());
        }
        let mut runs: Vec<Run> = Vec::with_capacity(permits.len());
        let mut in_block = self.in_transaction();
        for permit in permits {
            in_block |= permit.statement.kind == Kind::Begin;
            let ends = matches!(
                permit.statement.kind,
                Kind::Commit { .. } | Kind::Rollback { .. }
            );
            runs.push(self.begin_run(permit, in_block));
            in_block &= !ends;
        }
        let intent = self.intend(&mut runs, None)?;
        for run in &runs {
            self.naming += usize::from(naming(&run.permit.statement.kind));
            self.fallible += usize::from(run.permit.may_be_cancelled());
        }
        self.send_after(intent, message);
        self.mark_dispatched(&mut runs);
        self.queue.push_back(Expected::Query { runs, at: 0 });
        self.end_batch();
        Ok(())
    }

    /// Decides about every statement of a text. While one of them waits for a person the world goes
    /// on, so those that were decided before are understood and decided anew.
    async fn permit_all(
        &mut self,
        script: &Script,
        arguments: &Parameters,
    ) -> Result<Result<Vec<Arc<Permit>>, Refusal>, End> {
        let mut permits: Vec<(Arc<Permit>, u64)> = Vec::with_capacity(script.statements.len());
        for statement in &script.statements {
            match self.permit(statement, arguments.clone()).await? {
                Ok(permit) => permits.push((permit, self.waits)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        // Each round takes care of one: what a person approves is not asked about again.
        while let Some(((permit, waits), asked)) = permits
            .iter_mut()
            .zip(&script.statements)
            .find(|((permit, waits), _)| *waits != self.waits && permit.approval.is_none())
        {
            let statement = match self.understand_again(asked).await? {
                Ok(statement) => statement,
                Err(Unreadable::Refused(refusal) | Unreadable::Syntax(refusal)) => {
                    return Ok(Err(refusal));
                }
                Err(Unreadable::Aborted | Unreadable::Skipped) => {
                    return Ok(Err(refuse::aborted()));
                }
            };
            *permit = match self.permit(&statement, arguments.clone()).await? {
                Ok(permit) => permit,
                Err(refusal) => return Ok(Err(refusal)),
            };
            *waits = self.waits;
        }
        Ok(Ok(permits.into_iter().map(|(permit, _)| permit).collect()))
    }
}

/// A statement with effects that is sent in one message with, or is itself, one that can fail on
/// our side cannot be undone when that happens: the backend commits before we see the end.
///
/// `open`: there may be effects already that a COMMIT in it commits. `unsynced`: there are some that
/// its end commits.
fn late_failure_with_effects(
    permits: &[Arc<Permit>],
    open: bool,
    unsynced: bool,
) -> Option<Refusal> {
    let effects = |permit: &Arc<Permit>| {
        let statement = &permit.statement;
        match &statement.kind {
            Kind::Commit { .. } => open,
            kind => !statement.effects.read_only && !kind.is_transaction_control(),
        }
    };
    let limited = |permit: &Arc<Permit>| {
        let statement = &permit.statement;
        let answers = matches!(
            statement.kind,
            Kind::Query | Kind::Modify { returning: true } | Kind::Copy { from: false, .. }
        );
        permit.may_fail_late() && (answers || statement.opaque)
    };
    ((unsynced || permits.iter().any(effects)) && permits.iter().any(limited)).then(|| {
        Refusal::new(
            sqlstate::NOT_UNDERSTOOD,
            "limit-with-effects",
            "a statement whose answer is bounded cannot change data, or be sent together with one \
             that does, in a simple query",
        )
        .hint("send the statements one by one; use the extended protocol for RETURNING")
    })
}
