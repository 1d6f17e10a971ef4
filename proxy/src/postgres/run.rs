//! One execution of one statement, from its forwarding to its outcome.

use std::sync::Arc;

use chaperone_audit_log::Seq;
use chaperone_contract::Session as Caller;
use tokio::time::Instant;

use super::{decide::Permit, mask::RowPlan, protocol::ColumnDescription, refusal::Refusal};

/// How far the evidence for a run has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A read whose record comes with its outcome; nothing of its answer may leave before.
    Deferred,
    /// Its intent is recorded.
    Intended(Seq),
    /// All is recorded.
    Closed,
}

/// How current the catalog was that something was decided by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsOf {
    /// All changes by other sessions of ours up to this one were in it.
    pub(crate) settled: u64,
    /// When the backend was asked for it last.
    pub(crate) looked: Instant,
}

/// An execution in flight. It exists only by a [`Permit`].
pub(crate) struct Run {
    pub(crate) permit: Arc<Permit>,
    /// What leaves of each row; without it no row does.
    pub(crate) plan: Option<Arc<RowPlan>>,
    pub(crate) evidence: Evidence,
    /// Which execution of the session this is.
    pub(crate) ordinal: u64,
    /// When it was asked for.
    pub(crate) received: Instant,
    /// When it was let go to the backend.
    pub(crate) dispatched: Option<Instant>,
    pub(crate) in_transaction: bool,
    /// By what catalog it was decided.
    pub(crate) as_of: AsOf,
    /// The catalog was looked at again since it began to answer.
    pub(crate) looked: bool,
    /// Why nothing of its answer may leave, where what was seen then says so.
    pub(crate) changed: Option<Box<Refusal>>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Rows and bytes that earlier executions of the same portal have sent.
    pub(crate) earlier_rows: u64,
    pub(crate) earlier_bytes: u64,
    /// It had its time, and was cancelled.
    pub(crate) timed_out: bool,
    /// The backend has begun to answer.
    pub(crate) begun: bool,
    /// It is in COPY-in mode.
    pub(crate) copy_in: bool,
    /// Its answer is COPY data.
    pub(crate) copy_out: bool,
    /// It failed on our side; what the backend still sends is dropped.
    pub(crate) failed: Option<Refusal>,
}

impl Run {
    pub(crate) fn new(
        permit: Arc<Permit>,
        ordinal: u64,
        in_transaction: bool,
        received: Instant,
        as_of: AsOf,
    ) -> Self {
        Self {
            permit,
            plan: None,
            evidence: Evidence::Deferred,
            ordinal,
            received,
            dispatched: None,
            in_transaction,
            as_of,
            looked: false,
            changed: None,
            rows: 0,
            bytes: 0,
            earlier_rows: 0,
            earlier_bytes: 0,
            timed_out: false,
            begun: false,
            copy_in: false,
            copy_out: false,
            failed: None,
        }
    }

    /// How many more rows may leave.
    pub(crate) fn rows_left(&self) -> u64 {
        self.permit.limits().max_rows.map_or(u64::MAX, |max| {
            max.saturating_sub(self.earlier_rows + self.rows)
        })
    }

    /// How many more bytes may leave.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.permit.limits().max_bytes.map_or(u64::MAX, |max| {
            max.saturating_sub(self.earlier_bytes + self.bytes)
        })
    }

    /// Fixes what leaves of each row, now that the columns are known.
    pub(crate) fn describe(
        &mut self,
        columns: &[ColumnDescription],
        formats: &[i16],
        has_hash_key: bool,
        caller: &Arc<Caller>,
    ) -> Result<(), Refusal> {
        let plan = self
            .permit
            .row_plan(columns, formats, has_hash_key, caller)?;
        self.plan = Some(Arc::new(plan));
        Ok(())
    }
}
