//! What a text means, asked of the grammar and of the catalog as this session's own connection
//! sees it at this instant.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chaperone_sql::{Facts, Kind, ParseError, analyze, classify};

use super::{End, Session, Skip, question::catalog_failed};
use crate::postgres::{
    decide::{Ground, Statement},
    portal::{Names, Prepared},
    refusal::{Refusal, sqlstate},
};

/// A text as understood.
pub(crate) struct Script {
    pub(crate) text: Bytes,
    pub(crate) statements: Vec<Arc<Statement>>,
    /// It means the same whatever the catalog says.
    free: bool,
}

impl Script {
    pub(super) fn new(text: Bytes, statements: Vec<Arc<Statement>>) -> Self {
        Self {
            text,
            statements,
            free: false,
        }
    }

    /// The same, with one more thing that is not known about its statements.
    fn with_gap(&self, gap: &'static str) -> Arc<Self> {
        let statements = self.statements.iter();
        let statements = statements.map(|one| Arc::new(one.with_gap(gap))).collect();
        Arc::new(Self::new(self.text.clone(), statements))
    }
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

/// What is not known about a statement in a role that the session has taken on.
const FOREIGN_ROLE: &str = "the role at the backend is not the one that the session was granted";

/// What is not known about a statement in a transaction that sees the catalog of its start.
const FROZEN: &str = "a REPEATABLE READ or SERIALIZABLE transaction does not show what others have \
                      made of the catalog since its start; use READ COMMITTED";

/// So often a text is looked at again because somebody is changing what it names.
const MOST_WAITS: usize = 3;

impl Session {
    /// Understands a text.
    pub(super) async fn understand(
        &mut self,
        text: &[u8],
    ) -> Result<Result<Arc<Script>, Unreadable>, End> {
        match self.understand_by_catalog(text).await? {
            Ok(script) if !script.free && self.sees_the_past() => Ok(Ok(script.with_gap(FROZEN))),
            other => Ok(other),
        }
    }

    /// Whether the catalog was seen as it was at a transaction's start. Others may have changed it
    /// since, and the backend goes by what they made of it.
    pub(super) fn sees_frozen(&self) -> bool {
        self.ground
            .as_ref()
            .is_some_and(|ground| ground.view.is_frozen)
    }

    /// Whether others may have changed the catalog longer ago than a session may lag behind, without
    /// this transaction seeing it: a block's, or one that a batch without a block has begun.
    fn sees_the_past(&self) -> bool {
        let lags = || self.ground_checked.elapsed() >= self.shared.rules.catalog_age;
        self.sees_frozen() && (self.in_transaction() || self.unsynced && lags())
    }

    /// Understands a text by the catalog as the session sees it. Remembers it as long as nothing
    /// that its meaning depends on changes.
    async fn understand_by_catalog(
        &mut self,
        text: &[u8],
    ) -> Result<Result<Arc<Script>, Unreadable>, End> {
        if let Err(unreadable) = self.reads_as_written(text).await? {
            return Ok(Err(unreadable));
        }
        if let Some(known) = self.scripts.get(text) {
            let free = known.free;
            if let Err(unreadable) = self.prepare_ground(free).await? {
                return Ok(Err(unreadable));
            }
            // Forgotten if the catalog turned out to be another.
            if let Some(known) = self.scripts.get(text) {
                return Ok(Ok(Arc::clone(known)));
            }
        }
        let Ok(utf8) = std::str::from_utf8(text) else {
            return self.not_utf8(text).await;
        };
        let free = match classify(utf8, &self.grounds.backend.options.limits) {
            Ok(kinds) => kinds.iter().all(|statement| is_free(&statement.kind)),
            Err(error) => return Ok(Err(unreadable(&error))),
        };
        if let Err(unreadable) = self.prepare_ground(free).await? {
            return Ok(Err(unreadable));
        }
        let (ground, facts) = match self.facts(utf8).await? {
            Ok(found) => found,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let foreign_role = self.ground.is_some() && ground.view.role != self.grounds.login.user;
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
            free,
        });
        if self.ground.is_some() {
            self.scripts.insert(text, Arc::clone(&script));
        }
        Ok(Ok(script))
    }

    /// Makes sure that there is something to understand a text by, unless it needs nothing.
    async fn prepare_ground(&mut self, free: bool) -> Result<Result<(), Unreadable>, End> {
        if !free {
            return self.refresh(self.shared.rules.catalog_age).await;
        }
        let skipped = self.status == b'I' && self.skip == Skip::Server;
        Ok(if skipped {
            Err(Unreadable::Skipped)
        } else {
            Ok(())
        })
    }

    /// The facts of a text, and the ground that they stand on. Waits for whoever is changing what
    /// it names.
    async fn facts(&mut self, text: &str) -> Result<Result<(Ground, Vec<Facts>), Unreadable>, End> {
        let mut waits = 0;
        loop {
            let ground = self.last_ground();
            let facts = match analyze(
                text,
                &ground.catalog,
                &ground.view,
                &ground.labelling,
                &self.grounds.backend.options,
            ) {
                Ok(facts) => facts,
                Err(error) => return Ok(Err(unreadable(&error))),
            };
            let pending: Vec<u32> = facts.iter().flat_map(|one| one.pending.clone()).collect();
            if pending.is_empty() || waits == MOST_WAITS {
                return Ok(Ok((ground, facts)));
            }
            waits += 1;
            if let Err(unreadable) = self.wait_for(&pending).await? {
                return Ok(Err(unreadable));
            }
        }
    }

    /// What the names in a text that is to be prepared stand for; nothing where that cannot be told.
    ///
    /// Whether it may run is asked at Bind, but where the database has types whose values are checked
    /// by functions, the backend runs those as soon as it parses a constant of such a type: a text of
    /// which something is not known does not get there.
    pub(super) async fn understand_for_parse(
        &mut self,
        text: &[u8],
    ) -> Result<Result<Option<Names>, Unreadable>, End> {
        let understood = self.understand(text).await?;
        if !self.parsing_runs_functions() {
            let first = |script: Arc<Script>| script.statements.first().map(|one| Names::of(one));
            return Ok(Ok(understood.ok().and_then(first)));
        }
        let script = match understood {
            Ok(script) => script,
            Err(unreadable) if self.opaque(text, &unreadable).is_some() => return Ok(Ok(None)),
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        for statement in &script.statements {
            let operation = &statement.operation;
            // Of these the backend reads no more than the name.
            let named = matches!(statement.kind, Kind::Execute { .. } | Kind::Fetch { .. });
            if let Some(gap) = operation.gaps.first()
                && !named
                && !self.shows_anything(operation)
            {
                return Ok(Err(Unreadable::Refused(parsed_as_what(gap))));
            }
        }
        Ok(Ok(script.statements.first().map(|one| Names::of(one))))
    }

    /// Whether the backend may run functions when it does no more than parse a text.
    pub(super) fn parsing_runs_functions(&self) -> bool {
        let options = &self.grounds.backend.options;
        let ground = self.ground.as_ref();
        ground.is_some_and(|ground| ground.catalog.parsing_runs_functions(options))
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
        Ok(Ok(script.with_gap(gap)))
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

fn parsed_as_what(gap: &str) -> Refusal {
    let message = format!("refused: {gap}");
    Refusal::new(sqlstate::NOT_UNDERSTOOD, "parsing-runs-functions", message).hint(
        "the database has types whose values are checked by functions, so a statement that is not \
         understood is not even prepared",
    )
}

fn unreadable(error: &ParseError) -> Unreadable {
    let refusal = Refusal::new(error.sqlstate(), "unparsable", error.to_string());
    match error {
        ParseError::Syntax { .. } => Unreadable::Syntax(refusal),
        _ => Unreadable::Refused(refusal),
    }
}
