//! What a text means, asked of the grammar and of the catalog as this session's own connection
//! sees it at this instant.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chaperone_sql::{Kind, ParseError, Snapshot, analyze, classify};
use tokio::time::Instant;

use super::{End, Session, Skip};
use crate::postgres::{
    decide::{Ground, Statement},
    portal::Prepared,
    protocol::{self, Named, frontend},
    queue::{Expected, Own},
    refusal::{Refusal, sqlstate},
};

/// A text as understood.
pub(crate) struct Script {
    pub(crate) text: Bytes,
    pub(crate) statements: Vec<Arc<Statement>>,
}

/// Why a text has no meaning here.
pub(super) enum Unreadable {
    /// The backend skips everything up to Sync anyway.
    Skipped,
    /// The transaction is aborted: nothing can be asked, and nothing would run.
    Aborted,
    Refused(Refusal),
    /// It is not in the grammar: the backend says it better.
    Syntax(Refusal),
}

/// Rows of an answer, each with the index of its query.
type Rows = Vec<(usize, Vec<Option<String>>)>;

/// Answers to Chaperone's own questions.
#[derive(Default)]
pub(super) struct OwnAnswer {
    pub(super) rows: Rows,
    /// How many messages of the question are still unanswered.
    pub(super) open: usize,
    /// SQLSTATE of the error that it met, or that it was skipped behind another error.
    pub(super) failed: Option<String>,
    /// The statement of a question that failed may still be there.
    lingers: bool,
}

/// The statement name that our questions use: never the unnamed one, which is the client's.
const OWN: &[u8] = b"_chaperone";

/// A question is asked so often at most. What one row of the catalog names may be gone before a
/// function looks at it, when others change the schema at that moment.
const TRIES: usize = 5;

/// What is not known about a statement in a role that the session has taken on.
const FOREIGN_ROLE: &str = "the role at the backend is not the one that the session was granted";

/// The code of the refusal where they all failed.
const CATALOG_FAILED: &str = "catalog-failed";

impl Session {
    /// Understands a text. Remembers it as long as nothing that its meaning depends on changes.
    pub(super) async fn understand(
        &mut self,
        text: &[u8],
    ) -> Result<Result<Arc<Script>, Unreadable>, End> {
        if let Err(unreadable) = self.reads_as_written(text).await? {
            return Ok(Err(unreadable));
        }
        let Ok(utf8) = std::str::from_utf8(text) else {
            return self.not_utf8(text).await;
        };
        // What a text is does not change; what it means may.
        let known = self.scripts.get(text).map(|script| {
            let mut kinds = script.statements.iter().map(|statement| &statement.kind);
            kinds.all(is_free)
        });
        let free = match known {
            Some(free) => free,
            None => match classify(utf8, &self.grounds.backend.options.limits) {
                Ok(kinds) => kinds.iter().all(|statement| is_free(&statement.kind)),
                Err(error) => return Ok(Err(unreadable(&error))),
            },
        };
        if !free {
            if let Err(unreadable) = self.refresh(self.shared.rules.catalog_age).await? {
                return Ok(Err(unreadable));
            }
        } else if self.status == b'I' && self.skip == Skip::Server {
            return Ok(Err(Unreadable::Skipped));
        }
        if let Some(script) = self.scripts.get(text) {
            return Ok(Ok(Arc::clone(script)));
        }
        let ground = self.last_ground();
        let foreign_role = self.ground.is_some() && ground.view.role != self.grounds.login;
        let backend = &self.grounds.backend;
        let facts = match analyze(
            utf8,
            &ground.catalog,
            &ground.view,
            &ground.labelling,
            &backend.options,
        ) {
            Ok(facts) => facts,
            Err(error) => return Ok(Err(unreadable(&error))),
        };
        let text = Bytes::copy_from_slice(text);
        let statements = (0..)
            .zip(facts)
            .map(|(index, mut facts)| {
                let ground = ground.clone();
                if foreign_role {
                    facts.operation.gaps.push(FOREIGN_ROLE.to_owned());
                }
                Arc::new(Statement::of_text(text.clone(), index, facts, ground))
            })
            .collect();
        let script = Arc::new(Script {
            text: text.clone(),
            statements,
        });
        if self.ground.is_some() {
            self.scripts.insert(text, Arc::clone(&script));
        }
        Ok(Ok(script))
    }

    /// Understands a prepared statement as its Parse typed it.
    pub(super) async fn understand_prepared(
        &mut self,
        prepared: &Prepared,
    ) -> Result<Result<Arc<Script>, Unreadable>, End> {
        if let Some(gap) = &prepared.misread {
            return Ok(Ok(self.opaque_script(&prepared.text, gap)));
        }
        let script = match self.understand(&prepared.text).await? {
            Ok(script) if prepared.foreign_types => script,
            other => return Ok(other),
        };
        let gap = "a parameter is of a type that is not PostgreSQL's own; leave its type open";
        let statements = script.statements.iter();
        Ok(Ok(Arc::new(Script {
            text: script.text.clone(),
            statements: statements.map(|one| Arc::new(one.with_gap(gap))).collect(),
        })))
    }

    /// Understands a statement once more, against the catalog and the session as they are at this
    /// instant and not up to [`SessionRules::catalog_age`] ago.
    ///
    /// [`SessionRules::catalog_age`]: crate::postgres::SessionRules::catalog_age
    pub(super) async fn understand_again(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Arc<Statement>, Unreadable>, End> {
        if let Err(unreadable) = self.refresh(Duration::ZERO).await? {
            return Ok(Err(unreadable));
        }
        let source = &statement.source;
        let script = match self.understand(&source.text).await? {
            Ok(script) => script,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let Some(again) = script.statements.get(source.index) else {
            return Ok(Err(Unreadable::Refused(catalog_failed())));
        };
        Ok(Ok(match source.gap {
            Some(gap) => Arc::new(again.with_gap(gap)),
            None => Arc::clone(again),
        }))
    }

    /// Makes sure that the backend reads the text as it is read here. Settings decide that for
    /// backslashes and for what is not ASCII; all other text is the same under all of them.
    pub(super) async fn reads_as_written(
        &mut self,
        text: &[u8],
    ) -> Result<Result<(), Unreadable>, End> {
        if !text.iter().any(|&byte| byte == b'\\' || !byte.is_ascii()) {
            return Ok(Ok(()));
        }
        if let Err(unreadable) = self.refresh(self.shared.rules.catalog_age).await? {
            return Ok(Err(unreadable));
        }
        let misread = self
            .ground
            .as_ref()
            .and_then(|ground| ground.view.misread());
        Ok(match misread {
            Some(setting) => Err(Unreadable::Refused(misread_by(setting))),
            None => Ok(()),
        })
    }

    /// A text that is not UTF-8 has incomplete facts: one statement about which nothing is known.
    async fn not_utf8(&mut self, text: &[u8]) -> Result<Result<Arc<Script>, Unreadable>, End> {
        if let Err(unreadable) = self.refresh(self.shared.rules.catalog_age).await? {
            return Ok(Err(unreadable));
        }
        let gap = "the statement is not UTF-8 text; set client_encoding to UTF8";
        Ok(Ok(self.opaque_script(text, gap)))
    }

    /// Makes sure that the session's view of the catalog is current: it was looked at since
    /// anything of ours may have changed it, and compared with the backend's at `most` so long ago.
    async fn refresh(&mut self, most: Duration) -> Result<Result<(), Unreadable>, End> {
        let age = self.ground_checked.elapsed();
        let fresh = self.ground.is_some() && !self.stale;
        if fresh && age < most {
            return Ok(Ok(()));
        }
        if self.skip == Skip::Server {
            return Ok(Err(Unreadable::Skipped));
        }
        if self.status == b'E' && self.queue.is_empty() {
            // Nothing can be asked in an aborted transaction, and nothing of data runs in it.
            return Ok(Err(Unreadable::Aborted));
        }
        let mut queries = vec![Snapshot::FINGERPRINT_QUERY];
        if !fresh {
            queries.extend_from_slice(Snapshot::QUERIES);
        }
        let rows = match self.ask_again_if_lost(&queries).await? {
            Ok(rows) => rows,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let fingerprint = rows
            .iter()
            .find(|(query, _)| *query == 0)
            .and_then(|(_, row)| row.first().cloned().flatten());
        if fresh && fingerprint.is_some() && fingerprint == self.ground_fingerprint {
            self.ground_checked = Instant::now();
            return Ok(Ok(()));
        }
        if fresh {
            self.stale = true;
            return Box::pin(self.refresh(most)).await;
        }
        self.shared.metrics.catalog_refreshed();
        let mut snapshot = Snapshot::new();
        for (query, row) in &rows {
            let Some(index) = query.checked_sub(1) else {
                continue;
            };
            let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            if let Err(error) = snapshot.push_row(index, &row) {
                tracing::error!(%error, "the backend's catalog cannot be read");
                return Ok(Err(Unreadable::Refused(catalog_failed())));
            }
        }
        let (catalog, view) = match snapshot.finish() {
            Ok(parts) => parts,
            Err(error) => {
                tracing::error!(%error, "the backend's catalog cannot be read");
                return Ok(Err(Unreadable::Refused(catalog_failed())));
            }
        };
        if view.role != self.grounds.login && !self.may_change_role() {
            return Err(End::Told(Refusal::new(
                sqlstate::DENIED,
                "role-changed",
                "the session's role at the backend is no longer the one that it was granted",
            )));
        }
        let same = self.ground.as_ref().is_some_and(|ground| {
            ground.catalog.fingerprint() == catalog.fingerprint() && *ground.view == view
        });
        if !same {
            let generation = self
                .ground
                .as_ref()
                .map_or(1, |ground| ground.generation + 1);
            self.ground = Some(Ground {
                catalog: self.grounds.backend.share(catalog),
                view: Arc::new(view),
                labelling: Arc::clone(&self.grounds.backend.labelling),
                generation,
            });
            self.scripts.clear();
        }
        self.ground_fingerprint = fingerprint;
        self.ground_checked = Instant::now();
        self.stale = false;
        Ok(Ok(()))
    }

    /// Asks again where the answer was lost and nothing of the client's is lost with it.
    async fn ask_again_if_lost(
        &mut self,
        queries: &[&str],
    ) -> Result<Result<Rows, Unreadable>, End> {
        for _ in 1..TRIES {
            let answer = self.ask(queries).await?;
            let lost = matches!(&answer, Err(Unreadable::Refused(refusal)) if refusal.code == CATALOG_FAILED);
            if !lost || !self.is_quiet() {
                return Ok(answer);
            }
        }
        self.ask(queries).await
    }

    /// Asks the backend on the session's own connection, in order with what the client sent: behind
    /// a Sync with a Sync, else inside the client's batch with a Flush, since a Sync would commit.
    async fn ask(&mut self, queries: &[&str]) -> Result<Result<Rows, Unreadable>, End> {
        let out = self.sockets.to_upstream.buffer();
        let mut open = 0;
        let mut expect = |queue: &mut std::collections::VecDeque<Expected>, own| {
            queue.push_back(Expected::Own(own));
            open += 1;
        };
        if std::mem::take(&mut self.own.lingers) {
            protocol::named(out, frontend::CLOSE, Named::Statement(OWN));
            expect(&mut self.queue, Own::Close);
        }
        for (index, query) in queries.iter().enumerate() {
            protocol::parse(out, OWN, query.as_bytes());
            expect(&mut self.queue, Own::Parse);
            protocol::bind(out, OWN, OWN);
            expect(&mut self.queue, Own::Bind);
            protocol::execute(out, OWN);
            expect(&mut self.queue, Own::Execute(index));
            protocol::named(out, frontend::CLOSE, Named::Portal(OWN));
            expect(&mut self.queue, Own::Close);
            protocol::named(out, frontend::CLOSE, Named::Statement(OWN));
            expect(&mut self.queue, Own::Close);
        }
        if self.unsynced {
            protocol::bare(out, frontend::FLUSH);
        } else {
            protocol::bare(out, frontend::SYNC);
            expect(&mut self.queue, Own::Sync);
        }
        self.own.rows.clear();
        self.own.failed = None;
        // An answer to something of ours may still be under way.
        self.own.open += open;
        let patience = Duration::from_secs(30);
        let mut end = Instant::now() + patience;
        while self.own.open > 0 {
            let turned = tokio::time::timeout_at(end, self.turn()).await;
            if let Ok(turned) = turned {
                turned?;
            }
            // What stands before the question may take as long as it likes.
            if !matches!(self.queue.front(), Some(Expected::Own(_))) {
                end = Instant::now() + patience;
            } else if Instant::now() >= end {
                return Err(End::Told(catalog_failed()));
            }
        }
        let rows = std::mem::take(&mut self.own.rows);
        self.own.lingers = self.own.failed.is_some();
        match self.own.failed.take() {
            None => Ok(Ok(rows)),
            Some(_) if self.skip == Skip::Server => Ok(Err(Unreadable::Skipped)),
            // What was under way when we asked has failed meanwhile.
            Some(state) if state == "25P02" => Ok(Err(Unreadable::Aborted)),
            // The client's cancel request, or its statement_timeout.
            Some(state) if state == sqlstate::CANCELLED => {
                Ok(Err(Unreadable::Refused(cancelled())))
            }
            Some(state) => {
                tracing::warn!(sqlstate = state, "the backend's catalog could not be asked");
                Ok(Err(Unreadable::Refused(catalog_failed())))
            }
        }
    }
}

/// Whether it means the same whatever the catalog says.
fn is_free(kind: &Kind) -> bool {
    kind.is_transaction_control()
        || matches!(kind, Kind::Set { .. } | Kind::Show { .. } | Kind::Empty)
}

fn misread_by(setting: &str) -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        "misread",
        format!(
            "the setting {setting} changes how the backend reads a text with backslashes or with \
             characters beyond ASCII"
        ),
    )
    .hint(format!(
        "RESET {setting}, or write the statement without such characters"
    ))
}

fn cancelled() -> Refusal {
    Refusal::new(
        sqlstate::CANCELLED,
        "cancelled",
        "canceling statement due to user request",
    )
}

fn catalog_failed() -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        CATALOG_FAILED,
        "the backend's catalog could not be read, so the statement cannot be understood",
    )
    .hint("send it again; if it goes on, tell the operator of Chaperone")
}

fn unreadable(error: &ParseError) -> Unreadable {
    let refusal = Refusal::new(error.sqlstate(), "unparsable", error.to_string());
    match error {
        ParseError::Syntax { .. } => Unreadable::Syntax(refusal),
        _ => Unreadable::Refused(refusal),
    }
}
