//! COPY as the backend answers it.

use std::sync::Arc;

use chaperone_sql::Kind;

use super::unexpected;
use crate::postgres::{
    protocol::{self, backend},
    queue::Expected,
    refusal::{Refusal, sqlstate},
    run::Run,
    session::{End, Session},
};

/// Whether a run may turn out to be a COPY in this direction.
fn copies(run: &Run, inwards: bool) -> bool {
    let statement = &run.permit.statement;
    statement.opaque || matches!(statement.kind, Kind::Copy { from, .. } if from == inwards)
}

impl Session {
    pub(super) fn on_copy_in(&mut self, message: &[u8]) -> Result<(), End> {
        let run = self.current(backend::COPY_IN_RESPONSE)?;
        if !copies(run, true) {
            let front = self.queue.pop_front();
            return Err(unexpected(backend::COPY_IN_RESPONSE, front));
        }
        run.copy_in = true;
        self.relay(message);
        Ok(())
    }

    pub(super) fn on_copy_out(&mut self, message: &[u8]) -> Result<(), End> {
        let run = self.current(backend::COPY_OUT_RESPONSE)?;
        if !copies(run, false) {
            let front = self.queue.pop_front();
            return Err(unexpected(backend::COPY_OUT_RESPONSE, front));
        }
        run.begun = true;
        run.copy_out = true;
        let run = self.queue.front().and_then(Expected::run);
        match run.and_then(|run| self.changed_meanwhile(run)) {
            Some(refusal) => self.run_fails(refusal),
            None => self.relay(message),
        }
        Ok(())
    }

    /// COPY data on its way out, which is only let through where nothing in it needs a mask.
    pub(super) fn on_copy_data(&mut self, length: usize) -> Result<bool, End> {
        let suppress = self.suppress;
        let run = self.current(backend::COPY_DATA)?;
        if !run.copy_out {
            // What is no COPY was not decided upon as one: rows may be masked, this cannot be.
            return Err(unexpected(backend::COPY_DATA, self.queue.pop_front()));
        }
        let size = (length - protocol::HEADER) as u64;
        if suppress || run.failed.is_some() {
            return self.drop_message(length);
        }
        let mut over = run.rows_left() == 0 || run.bytes_left() < size;
        let permit = Arc::clone(&run.permit);
        let budgets = &permit.limits().budgets;
        if !over && !budgets.is_empty() {
            let now = std::time::Instant::now();
            let caller = &self.grounds.caller;
            over = self.shared.budgets.take(caller, budgets, Some(1), now) == 0;
        }
        if over {
            self.run_fails(
                Refusal::new(
                    sqlstate::LIMIT_EXCEEDED,
                    "limit-exceeded",
                    "the COPY is larger than allowed",
                )
                .hint("narrow it with COPY (SELECT … WHERE …)"),
            );
            self.cancel_upstream();
            return self.drop_message(length);
        }
        let run = self.current(backend::COPY_DATA)?;
        run.rows += 1;
        run.bytes += size;
        self.upstream_pass = length;
        Ok(true)
    }

    /// While a COPY takes data the backend ignores Sync; those that were sent meanwhile are
    /// answered by nothing.
    pub(super) fn end_copy_in(&mut self, from: usize) {
        let end = self
            .queue
            .iter()
            .skip(from)
            .position(|entry| matches!(entry, Expected::CopyEnd));
        if let Some(end) = end {
            self.queue.drain(from..=from + end);
        }
    }
}
