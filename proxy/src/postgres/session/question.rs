//! Chaperone's own questions, on the session's own connection.
//!
//! A question must leave nothing behind. In a transaction block it stands in a subtransaction that
//! is always taken back: a question that fails does not abort the client's transaction, and what it
//! has locked is free again before the client's next statement.

use std::time::Duration;

use tokio::time::Instant;

use super::{End, Session, Skip, understand::Unreadable};
use crate::postgres::{
    protocol::{self, Named, frontend},
    queue::{Expected, Own},
    refusal::{Refusal, sqlstate},
};

/// A row of an answer, with the index of its question.
pub(super) type Row = (usize, Vec<Option<String>>);

/// Answers to Chaperone's own questions.
#[derive(Default)]
pub(super) struct OwnAnswer {
    pub(super) rows: Vec<Row>,
    /// How many messages of the question are still unanswered.
    pub(super) open: usize,
    /// SQLSTATE of the error that it met, or that it was skipped behind another error.
    pub(super) failed: Option<String>,
    /// The backend's words about a statement that it was asked to cancel.
    pub(super) cancelled: Option<String>,
    pub(super) guard: Guard,
    /// The statement of a question that failed may still be there.
    lingers: bool,
}

/// What protects the client's transaction block from a question of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Guard {
    #[default]
    None,
    /// A savepoint. Until it is lifted, what becomes of the transaction is not the client's matter.
    Set,
    /// It is being lifted behind a question that has failed.
    Lifting,
}

/// Whether a question waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// As long as the client's own statement would: it may cancel, and its own timeouts hold.
    Patient,
    /// For nobody.
    Brisk,
}

/// The statement, portal and savepoint name that our questions use: never the unnamed ones, which
/// are the client's.
const OWN: &[u8] = b"_chaperone";

const SET_GUARD: &str = "SAVEPOINT _chaperone";
const LIFT_GUARD: [&str; 2] = [
    "ROLLBACK TO SAVEPOINT _chaperone",
    "RELEASE SAVEPOINT _chaperone",
];

/// Settings of the client's that are not for our questions, until the end of the question's
/// transaction: compiling would take longer than answering.
const SETTINGS: &str = "SELECT pg_catalog.set_config('jit', 'off', true)";

/// The same, and no wait for a lock. It ends before the backend looks for a deadlock (after a second,
/// `deadlock_timeout`), which could end somebody else's transaction.
const BRISK_SETTINGS: &str = "SELECT pg_catalog.set_config('jit', 'off', true), \
                              pg_catalog.set_config('lock_timeout', '500ms', true)";

/// The index of what stands around the questions, in place of a question's.
const AROUND: usize = usize::MAX;

/// How long the backend may take over a question that waits for nobody.
const PATIENCE: Duration = Duration::from_secs(30);

/// The code of the refusal where no question was answered.
pub(super) const CATALOG_FAILED: &str = "catalog-failed";

impl Session {
    /// Whether a question stands by itself: nothing of the client's is under way that could fail
    /// with it, and no transaction is aborted.
    pub(super) fn is_apart(&self) -> bool {
        !self.unsynced && self.queue.is_empty() && self.status != b'E'
    }

    /// Asks the backend on the session's own connection, in order with what the client sent: behind
    /// a Sync with a Sync, else inside the client's batch with a Flush, since a Sync would commit.
    pub(super) async fn ask(
        &mut self,
        queries: &[&str],
        haste: Haste,
    ) -> Result<Result<Vec<Row>, Unreadable>, End> {
        // Behind what may begin or end a transaction it is not known whether there is one. Data of
        // a COPY would come behind what is being handled.
        while !self.unsynced && !self.queue.is_empty() && self.copying().is_none() {
            self.turn().await?;
        }
        let apart = self.is_apart();
        if !apart && self.status == b'E' && self.queue.is_empty() {
            return Ok(Err(Unreadable::Aborted));
        }
        let guarded = apart && self.status == b'T';
        self.close_lingering();
        if guarded {
            self.own.guard = Guard::Set;
            self.put(SET_GUARD, AROUND);
        }
        if apart {
            let settings = match haste {
                Haste::Patient => SETTINGS,
                Haste::Brisk => BRISK_SETTINGS,
            };
            self.put(settings, AROUND);
        }
        for (index, query) in queries.iter().enumerate() {
            self.put(query, index);
        }
        if guarded {
            self.lift();
        }
        self.hear(haste).await?;
        let mut rows = std::mem::take(&mut self.own.rows);
        rows.retain(|(index, _)| *index != AROUND);
        let failed = self.own.failed.take();
        if guarded && failed.is_some() {
            self.own.guard = Guard::Lifting;
            self.close_lingering();
            self.lift();
            self.hear(Haste::Brisk).await?;
            self.own.failed = None;
        }
        self.own.guard = Guard::None;
        match failed {
            None => Ok(Ok(rows)),
            Some(_) if self.skip == Skip::Server => Ok(Err(Unreadable::Skipped)),
            // What was under way when we asked has failed meanwhile.
            Some(state) if state == "25P02" => Ok(Err(Unreadable::Aborted)),
            // The client's cancel request, or its statement_timeout.
            Some(state) if state == sqlstate::CANCELLED => {
                let said = self.own.cancelled.take();
                Ok(Err(Unreadable::Refused(cancelled(said))))
            }
            Some(state) => {
                tracing::warn!(sqlstate = state, "the backend's catalog could not be asked");
                Ok(Err(Unreadable::Refused(catalog_failed())))
            }
        }
    }

    /// One statement of ours.
    fn put(&mut self, text: &str, index: usize) {
        let out = self.sockets.to_upstream.buffer();
        protocol::parse(out, OWN, text.as_bytes());
        protocol::bind(out, OWN, OWN);
        protocol::execute(out, OWN);
        protocol::named(out, frontend::CLOSE, Named::Portal(OWN));
        protocol::named(out, frontend::CLOSE, Named::Statement(OWN));
        for own in [
            Own::Parse,
            Own::Bind,
            Own::Execute(index),
            Own::Close,
            Own::Close,
        ] {
            self.expect_own(own);
        }
    }

    /// Takes back everything behind the guard, and the guard.
    fn lift(&mut self) {
        for statement in LIFT_GUARD {
            self.put(statement, AROUND);
        }
    }

    /// What a question that failed has left.
    fn close_lingering(&mut self) {
        if std::mem::take(&mut self.own.lingers) {
            let out = self.sockets.to_upstream.buffer();
            protocol::named(out, frontend::CLOSE, Named::Statement(OWN));
            self.expect_own(Own::Close);
        }
    }

    fn expect_own(&mut self, own: Own) {
        self.queue.push_back(Expected::Own(own));
        // An answer to something of ours may still be under way.
        self.own.open += 1;
    }

    /// Sends what was put and waits until all of it is answered.
    async fn hear(&mut self, haste: Haste) -> Result<(), End> {
        let out = self.sockets.to_upstream.buffer();
        if self.unsynced {
            protocol::bare(out, frontend::FLUSH);
        } else {
            protocol::bare(out, frontend::SYNC);
            self.expect_own(Own::Sync);
        }
        self.own.rows.clear();
        self.own.failed = None;
        let mut since = Instant::now();
        while self.own.open > 0 {
            if haste == Haste::Patient {
                self.turn().await?;
                continue;
            }
            if let Ok(turned) = tokio::time::timeout_at(since + PATIENCE, self.turn()).await {
                turned?;
            }
            // What stands before the question may take as long as it likes.
            if !matches!(self.queue.front(), Some(Expected::Own(_))) {
                since = Instant::now();
            } else if since.elapsed() >= PATIENCE {
                return Err(End::Told(catalog_failed()));
            }
        }
        self.own.lingers = self.own.failed.is_some();
        Ok(())
    }
}

/// In the backend's own words, which tell a timeout from a request.
fn cancelled(said: Option<String>) -> Refusal {
    let said = said.unwrap_or_else(|| "canceling statement due to user request".to_owned());
    Refusal::new(sqlstate::CANCELLED, "cancelled", said)
}

pub(super) fn catalog_failed() -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        CATALOG_FAILED,
        "the backend's catalog could not be read, so the statement cannot be understood",
    )
    .hint("send it again; if it goes on, tell the operator of Chaperone")
}
