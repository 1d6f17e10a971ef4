//! The catalog as this session's own connection sees it: when it is asked for, and how.

use std::{sync::Arc, time::Duration};

use chaperone_sql::{Catalog, SessionView, Snapshot, SnapshotError};
use tokio::time::Instant;

use super::{
    End, Session, Skip,
    question::{CATALOG_FAILED, Haste, Row, catalog_failed},
    understand::Unreadable,
};
use crate::postgres::{
    decide::Ground,
    refusal::{Refusal, sqlstate},
};

/// A question is asked so often at most. What one row of the catalog names may be gone before a
/// function looks at it, when others change the schema at that moment.
const TRIES: usize = 5;

impl Session {
    /// Makes sure that the session's view of itself and of the catalog is current: it was looked at
    /// since anything of ours may have changed it, and compared with the backend's at `most` so long
    /// ago. An administrator can change a setting for sessions that run.
    pub(super) async fn refresh(&mut self, most: Duration) -> Result<Result<(), Unreadable>, End> {
        let fresh = self.ground.is_some() && !self.stale;
        let changes = self.grounds.backend.changes.seen();
        let unchanged = changes.is_some() && changes == self.ground_changes;
        if fresh && unchanged && self.ground_checked.elapsed() < most {
            return Ok(Ok(()));
        }
        if self.skip == Skip::Server {
            return Ok(Err(Unreadable::Skipped));
        }
        if self.status == b'E' && self.queue.is_empty() {
            // Nothing can be asked in an aborted transaction, and nothing of data runs in it.
            return Ok(Err(Unreadable::Aborted));
        }
        self.look().await
    }

    /// Looks at the session and, unless another session has seen it in the same state, at the
    /// catalog.
    async fn look(&mut self) -> Result<Result<(), Unreadable>, End> {
        let changes = self.grounds.backend.changes.seen();
        let settled = self.grounds.backend.changes.settled(self.owner);
        let (of_session, of_catalog) = Snapshot::QUERIES.split_at(Snapshot::OF_SESSION);
        let queries = [&[Snapshot::FINGERPRINT_QUERY], of_session].concat();
        let rows = match self.ask_again_if_lost(&queries).await? {
            Ok(rows) => rows,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let mut fingerprint = first_value(&rows, 0);
        let mut snapshot = Snapshot::new();
        let view = push(&mut snapshot, &rows, 1).and_then(|()| snapshot.view());
        let view = match view {
            Ok(view) => view,
            Err(error) => return Ok(Err(illegible(&error))),
        };
        if view.role != self.grounds.login.user && !self.may_change_role() {
            return Err(End::Told(Refusal::new(
                sqlstate::DENIED,
                "role-changed",
                "the session's role at the backend is no longer the one that it was granted",
            )));
        }
        let mine = self
            .ground
            .as_ref()
            .filter(|_| fingerprint == self.ground_fingerprint);
        let known = fingerprint.as_deref().and_then(|text| match mine {
            Some(ground) => Some(Arc::clone(&ground.catalog)),
            None => self.grounds.backend.catalogs.find(text),
        });
        let catalog = match known {
            Some(catalog) => catalog,
            None => {
                self.shared.metrics.catalog_refreshed();
                // The first prints views, and locks what they read for as long as its question takes.
                let (first, others) = of_catalog.split_at(1);
                let mut rows = match self.ask_again_if_lost(first).await? {
                    Ok(rows) => rows,
                    Err(unreadable) => return Ok(Err(unreadable)),
                };
                let queries = [others, &[Snapshot::FINGERPRINT_QUERY]].concat();
                match self.ask_again_if_lost(&queries).await? {
                    Ok(others) => rows.extend(others.into_iter().map(|(at, row)| (at + 1, row))),
                    Err(unreadable) => return Ok(Err(unreadable)),
                }
                let after = first_value(&rows, of_catalog.len());
                rows.retain(|(query, _)| *query < of_catalog.len());
                let read = push(&mut snapshot, &rows, 0).and_then(|()| snapshot.finish());
                let catalog = match read {
                    Ok((catalog, _)) => Arc::new(catalog),
                    Err(error) => return Ok(Err(illegible(&error))),
                };
                // What changed meanwhile, or is about to, is looked at again before long.
                if fingerprint != after || catalog.relations().any(|relation| relation.pending) {
                    fingerprint = None;
                }
                if let Some(text) = &fingerprint {
                    let catalogs = &self.grounds.backend.catalogs;
                    catalogs.offer(text.clone(), &catalog);
                }
                catalog
            }
        };
        // In a batch that goes on, all is seen as it was at its start.
        let as_it_was = view.is_frozen && self.unsynced && !self.in_transaction();
        self.stand_on(catalog, view);
        self.ground_fingerprint = fingerprint;
        if !as_it_was {
            self.ground_checked = Instant::now();
            self.ground_changes = changes;
            self.ground_settled = settled;
        }
        self.stale = false;
        Ok(Ok(()))
    }

    /// From here on texts mean what they mean by this catalog.
    fn stand_on(&mut self, catalog: Arc<Catalog>, view: SessionView) {
        let same = self.ground.as_ref().is_some_and(|ground| {
            ground.catalog.fingerprint() == catalog.fingerprint() && *ground.view == view
        });
        if same {
            return;
        }
        let generation = self.ground.as_ref().map_or(1, |known| known.generation + 1);
        self.ground = Some(Ground {
            catalog,
            view: Arc::new(view),
            labelling: Arc::clone(&self.grounds.backend.labelling),
            generation,
        });
        self.scripts.clear();
        self.rulings.clear();
    }

    /// Waits until nobody is changing these relations any more, as the statement would have to.
    pub(super) async fn wait_for(
        &mut self,
        relations: &[u32],
    ) -> Result<Result<(), Unreadable>, End> {
        let query = Snapshot::wait_for(relations);
        // The client may cancel, and its own timeouts hold.
        if let Err(unreadable) = self.ask(&[&query], Haste::Patient).await? {
            // What was waited for may be gone; that fails the question, and nothing else here.
            if !is_lost(&unreadable) || !self.is_apart() {
                return Ok(Err(unreadable));
            }
        }
        self.stale = true;
        self.refresh(self.shared.rules.catalog_age).await
    }

    /// Asks again where the answer was lost and nothing of the client's is lost with it.
    async fn ask_again_if_lost(
        &mut self,
        queries: &[&str],
    ) -> Result<Result<Vec<Row>, Unreadable>, End> {
        for _ in 1..TRIES {
            let answer = self.ask(queries, Haste::Brisk).await?;
            match &answer {
                Err(unreadable) if is_lost(unreadable) && self.is_apart() => {}
                _ => return Ok(answer),
            }
        }
        self.ask(queries, Haste::Brisk).await
    }
}

/// Whether the backend failed to answer a question.
fn is_lost(unreadable: &Unreadable) -> bool {
    matches!(unreadable, Unreadable::Refused(refusal) if refusal.code == CATALOG_FAILED)
}

/// The value of the only row of a question.
fn first_value(rows: &[Row], query: usize) -> Option<String> {
    let (_, row) = rows.iter().find(|(at, _)| *at == query)?;
    row.first().cloned().flatten()
}

/// Takes in the rows of the questions from `first` on.
fn push(snapshot: &mut Snapshot, rows: &[Row], first: usize) -> Result<(), SnapshotError> {
    let offset = if first == 0 { Snapshot::OF_SESSION } else { 0 };
    for (query, row) in rows.iter().filter(|(query, _)| *query >= first) {
        let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
        snapshot.push_row(query - first + offset, &row)?;
    }
    Ok(())
}

fn illegible(error: &SnapshotError) -> Unreadable {
    tracing::error!(%error, "the backend's catalog cannot be read");
    Unreadable::Refused(catalog_failed())
}
