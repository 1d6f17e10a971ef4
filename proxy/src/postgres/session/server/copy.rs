//! COPY as the backend answers it.

use std::sync::Arc;

use crate::postgres::{
    protocol::{self, backend},
    queue::Expected,
    refusal::{Refusal, sqlstate},
    session::{End, Session},
};

impl Session {
    pub(super) fn on_copy_in(&mut self, message: &[u8]) -> Result<(), End> {
        self.current(backend::COPY_IN_RESPONSE)?.copy_in = true;
        self.relay(message);
        Ok(())
    }

    pub(super) fn on_copy_out(&mut self, message: &[u8]) -> Result<(), End> {
        let run = self.current(backend::COPY_OUT_RESPONSE)?;
        run.begun = true;
        run.copy_out = true;
        self.relay(message);
        Ok(())
    }

    /// COPY data on its way out, which is only let through where nothing in it needs a mask.
    pub(super) fn on_copy_data(&mut self, length: usize) -> Result<bool, End> {
        let suppress = self.suppress;
        let run = self.current(backend::COPY_DATA)?;
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
