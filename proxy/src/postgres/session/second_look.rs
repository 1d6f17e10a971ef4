//! A second look at the catalog before anything of a late answer leaves.
//!
//! A statement is decided by the catalog as it was when the session looked at it last, and may begin
//! to answer long after that: it waited for a lock, or behind another statement of its session. From
//! its first answer on, notices apart, it holds locks on what it reads, so what is looked at then is
//! what it ran by.

use std::sync::{Arc, atomic::Ordering};

use chaperone_sql::{Catalog, Kind, Options, analyze};
use tokio::time::Instant;

use super::{Session, question::catalog_failed};
use crate::postgres::{
    decide::{Ground, Statement},
    lookout::LookError,
    meaning,
    protocol::{self, backend},
    queue::Expected,
    refusal::{Refusal, sqlstate},
    run::Run,
};

/// What was seen, once it is.
pub(super) type Seen = Result<Arc<Catalog>, LookError>;

impl Session {
    /// Whether a message of this type waits for a second look at what it is an answer to.
    pub(super) fn waits_for_second_look(&mut self, kind: u8) -> bool {
        let tells = matches!(
            kind,
            backend::ROW_DESCRIPTION
                | backend::DATA_ROW
                | backend::COPY_OUT_RESPONSE
                | backend::ERROR_RESPONSE
                | backend::NOTICE_RESPONSE
        );
        let run = self.queue.front().and_then(Expected::run);
        // What a cursor stands on is settled where it is opened, which is all that tells of it.
        let opens = kind == backend::COMMAND_COMPLETE
            && run.is_some_and(|run| matches!(run.permit.statement.kind, Kind::Declare { .. }));
        if !tells && !opens || self.suppress {
            return false;
        }
        if self.second_look.is_some() {
            return true;
        }
        let Some(run) = run.filter(|run| self.is_late(run)) else {
            return false;
        };
        let backend = Arc::clone(&self.grounds.backend);
        let login = self.grounds.login.clone();
        let view = Arc::clone(&run.permit.statement.ground.view);
        if let Some(run) = self.queue.front_mut().and_then(Expected::run_mut) {
            run.as_of.looked = Instant::now();
        }
        self.second_look = Some(tokio::spawn(backend.look(login, view)));
        true
    }

    /// A notice of the run at the head has been dealt with. The server may give one before it has
    /// locked anything, so what was seen for it is as old as any other look, and no more.
    pub(super) fn look_was_for_a_notice(&mut self) {
        if let Some(run) = self.queue.front_mut().and_then(Expected::run_mut) {
            run.looked &= run.begun || run.changed.is_some();
        }
    }

    /// Whether it begins to answer later than its decision may be old, and nobody has looked since.
    fn is_late(&self, run: &Run) -> bool {
        !run.begun
            && !run.looked
            && run.failed.is_none()
            && run.as_of.looked.elapsed() >= self.shared.rules.catalog_age
            && run.permit.set().is_some()
            && !run.permit.shows_anything(&self.grounds.caller)
    }

    /// What the statement at the head stands on was looked at again.
    pub(super) fn looked_again(&mut self, seen: Option<Seen>) {
        self.second_look = None;
        let backend = Arc::clone(&self.grounds.backend);
        let by_notice = matches!(
            protocol::header(&self.sockets.from_upstream),
            Ok(Some((backend::NOTICE_RESPONSE, _)))
        );
        let Some(front) = self.queue.front_mut() else {
            return;
        };
        let portal = match front {
            Expected::Execute { portal, .. } if !by_notice => Some(Arc::clone(portal)),
            _ => None,
        };
        let Some(run) = front.run_mut() else { return };
        run.looked = true;
        run.changed = match seen {
            Some(Ok(catalog)) if still_means(&run.permit.statement, &catalog, &backend.options) => {
                if let Some(portal) = portal {
                    portal.looked.store(true, Ordering::Relaxed);
                }
                None
            }
            Some(Ok(_)) => Some(Box::new(changed())),
            Some(Err(error)) => {
                tracing::warn!(%error, "the backend's catalog could not be looked at again");
                Some(Box::new(catalog_failed()))
            }
            None => Some(Box::new(catalog_failed())),
        };
    }
}

fn changed() -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        "changed-meanwhile",
        "what the statement depends on was changed while it was under way, or by its own \
         transaction; its rows were withheld",
    )
    .hint("send it again; commit first what the transaction has defined")
}

/// Whether the statement is the same by the catalog that was seen.
fn still_means(statement: &Statement, seen: &Arc<Catalog>, options: &Options) -> bool {
    let ground = &statement.ground;
    if seen.fingerprint() == ground.catalog.fingerprint() {
        return true;
    }
    // Its own temporary relations are nobody else's to change.
    let seen = match &ground.view.temp_schema {
        Some(_) => Arc::new(seen.with_temporary_of(&ground.catalog)),
        None => Arc::clone(seen),
    };
    let Ok(text) = std::str::from_utf8(&statement.source.text) else {
        return false;
    };
    let facts = analyze(text, &seen, &ground.view, &ground.labelling, options);
    let Some(facts) = facts
        .ok()
        .and_then(|facts| facts.into_iter().nth(statement.source.index))
    else {
        return false;
    };
    let ground = Ground {
        catalog: seen,
        ..ground.clone()
    };
    let text = statement.source.text.clone();
    let mut now = Statement::of_text(text, statement.source.index, facts, ground);
    if let Some(gap) = statement.source.gap {
        now = now.with_gap(gap);
    }
    meaning::same(statement, &now)
}
