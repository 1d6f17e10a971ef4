//! Which changes last: the server answers each one well and may take all of them back when their
//! transaction ends.

use chaperone_audit_log::{Seq, payload::Status};
use chaperone_sql::Kind;

use super::{End, Session, evidence::Ending};
use crate::postgres::{queue::Expected, refusal::sqlstate, run::Run};

/// Changes of the transaction that the backend is answering in.
#[derive(Default)]
pub(super) struct Lasting {
    intents: Vec<Seq>,
    /// A BEGIN was answered: an error leaves it to COMMIT or ROLLBACK what becomes of them.
    in_block: bool,
}

impl Lasting {
    /// A run was answered well.
    pub(super) fn note(&mut self, run: &Run, intent: Option<Seq>) {
        let statement = &run.permit.statement;
        match &statement.kind {
            Kind::Begin => self.in_block = true,
            // The client takes back what it has done; its ROLLBACK is on record.
            Kind::Commit { chain } | Kind::Rollback { chain } => {
                self.intents.clear();
                self.in_block &= *chain;
            }
            Kind::PrepareTransaction { .. } => {
                self.intents.clear();
                self.in_block = false;
            }
            _ if statement.effects.read_only => {}
            _ => self.intents.extend(intent),
        }
    }

    /// Something was changed, or is changed by the run at the head, and the end of the batch or Query
    /// commits it.
    pub(super) fn is_committed_with_the_batch(&self, by_the_head: bool) -> bool {
        !self.in_block && (by_the_head || !self.intents.is_empty())
    }

    /// ReadyForQuery came: whatever belongs to no block is committed.
    pub(super) fn ready(&mut self, status: u8) {
        self.in_block = status != b'I';
        if !self.in_block {
            self.intents.clear();
        }
    }
}

impl Session {
    /// Something failed in the transaction that the backend is answering in. Where no BEGIN has
    /// opened it, nothing of it lasts.
    pub(super) fn undone_by_error(&mut self, state: &str, text: Option<String>) -> Result<(), End> {
        if self.lasting.in_block {
            return Ok(());
        }
        self.undone(&Ending::failed(state, text.unwrap_or_default()))
    }

    /// A COMMIT has failed: what was put off to it did, or the transaction was not to be committed.
    pub(super) fn undone_by_failing_commit(&mut self, state: &str) -> Result<(), End> {
        self.lasting.in_block = false;
        self.undone(&Ending::failed(state, String::new()))
    }

    /// The session ends in the middle of a transaction. The backend takes back what a block has done;
    /// of what the end of a batch or a COMMIT under way commits nobody knows.
    pub(super) fn undone_by_end(&mut self) -> Result<(), End> {
        let commits = |run: &Run| {
            let statement = &run.permit.statement;
            statement.opaque || matches!(statement.kind, Kind::Commit { .. })
        };
        let under_way = self.queue.iter().any(|entry| match entry {
            Expected::Execute { run, .. } => commits(run),
            Expected::Query { runs, .. } => runs.iter().any(commits),
            _ => false,
        });
        let status = if self.lasting.in_block && !under_way {
            Status::Failed
        } else {
            Status::Unknown
        };
        self.undone(&Ending::plain(status, "session-ended"))
    }

    /// A COMMIT has ended an aborted transaction by rolling it back.
    pub(super) fn undone_by_commit(&mut self) -> Result<Ending, End> {
        let why = Ending::failed(sqlstate::ABORTED, String::new());
        self.undone(&why)?;
        Ok(why)
    }

    fn undone(&mut self, why: &Ending) -> Result<(), End> {
        for intent in std::mem::take(&mut self.lasting.intents) {
            self.record_undone(intent, why)?;
        }
        Ok(())
    }
}
