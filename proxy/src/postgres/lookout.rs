//! Looks at a backend's catalog beside the sessions, while their own connections are busy.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use chaperone_sql::{Catalog, SessionView, Snapshot, SnapshotError};
use tokio::{
    io::AsyncWriteExt as _,
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    protocol::{self, frontend},
    shared::Backend,
    startup::Parameters,
    upstream::{self, Login, Upstream, UpstreamError},
};

/// A connection that nobody has used for so long is closed.
const KEPT: Duration = Duration::from_secs(30);

/// Longest time from the wish to the answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a catalog is read anew that changes while it is read.
const TRIES: usize = 3;

/// Why nothing was seen. For the operator's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Backend(#[from] UpstreamError),
    #[error(transparent)]
    Illegible(#[from] SnapshotError),
    #[error("the backend does not say which state its catalog is in")]
    Stateless,
    #[error("the catalog changes faster than it can be read")]
    Restless,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// Connections to a backend, opened when they are needed: one for each log-in, since what a role may
/// use decides how definitions are printed for it. The users of one take turns.
#[derive(Default)]
pub(crate) struct Lookout {
    by_user: std::sync::Mutex<HashMap<String, Place>>,
}

type Place = Arc<Mutex<Open>>;

#[derive(Default)]
struct Open {
    upstream: Option<Upstream>,
    /// What was seen last, by its fingerprint.
    seen: Option<(String, Arc<Catalog>)>,
    uses: u64,
    /// Somebody will close it when it is not used any more.
    watched: bool,
}

impl Backend {
    /// The catalog as all can see it at this instant, printed as in a session that sees `view`. The
    /// session's temporary relations and what its transaction has not committed are not in it.
    ///
    /// # Errors
    /// The backend gives no answer, or one that cannot be read.
    pub(crate) async fn look(
        self: Arc<Self>,
        login: Login,
        view: Arc<SessionView>,
    ) -> Result<Arc<Catalog>, LookError> {
        let place = self.lookout.of(&login.user);
        let looked = timeout(PATIENCE, async {
            let mut open = place.lock().await;
            open.uses += 1;
            let seen = self.look_by(&mut open, &login, &view).await;
            (seen, std::mem::replace(&mut open.watched, true))
        });
        let (seen, watched) = looked.await.map_err(|_| LookError::Late)?;
        if !watched {
            tokio::spawn(close_when_unused(place));
        }
        seen
    }

    async fn look_by(
        &self,
        open: &mut Open,
        login: &Login,
        view: &SessionView,
    ) -> Result<Arc<Catalog>, LookError> {
        // The backend may have closed one that was kept.
        if let Some(mut upstream) = open.upstream.take()
            && let Ok(catalog) = self.read(&mut upstream, &mut open.seen, view).await
        {
            open.upstream = Some(upstream);
            return Ok(catalog);
        }
        let text = |text: &str| text.as_bytes().to_vec();
        let parameters = Parameters {
            list: vec![
                (text("application_name"), text("chaperone")),
                (text("client_encoding"), text("UTF8")),
                // The text that sets the search path is read by it already.
                (text("standard_conforming_strings"), text("on")),
            ],
            ..Parameters::default()
        };
        let mut upstream = upstream::connect(&self.endpoint, login, &parameters).await?;
        let catalog = self.read(&mut upstream, &mut open.seen, view).await?;
        open.upstream = Some(upstream);
        Ok(catalog)
    }

    async fn read(
        &self,
        upstream: &mut Upstream,
        seen: &mut Option<(String, Arc<Catalog>)>,
        view: &SessionView,
    ) -> Result<Arc<Catalog>, LookError> {
        upstream.ask(&see_as(view)).await?;
        for _ in 0..TRIES {
            let before = fingerprint(upstream).await?;
            if let Some((text, catalog)) = seen.as_ref()
                && *text == before
            {
                return Ok(Arc::clone(catalog));
            }
            if let Some(catalog) = self.catalogs.find(&before) {
                return Ok(catalog);
            }
            let mut snapshot = Snapshot::new();
            for (index, query) in Snapshot::QUERIES.iter().enumerate() {
                for row in upstream.ask(query).await? {
                    let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
                    snapshot.push_row(index, &row)?;
                }
            }
            let catalog = Arc::new(snapshot.finish()?.0);
            if fingerprint(upstream).await? == before {
                // What somebody is about to change is not known in full.
                if !catalog.relations().any(|relation| relation.pending) {
                    *seen = Some((before, Arc::clone(&catalog)));
                }
                return Ok(catalog);
            }
        }
        Err(LookError::Restless)
    }
}

impl Lookout {
    fn of(&self, user: &str) -> Place {
        let mut places = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(user.to_owned()).or_default())
    }
}

async fn close_when_unused(place: Place) {
    let mut uses = None;
    loop {
        sleep(KEPT).await;
        let mut open = place.lock().await;
        if uses.replace(open.uses) == Some(open.uses) {
            open.watched = false;
            open.seen = None;
            if let Some(mut upstream) = open.upstream.take() {
                let mut goodbye = bytes::BytesMut::new();
                protocol::bare(&mut goodbye, frontend::TERMINATE);
                let _ = timeout(PATIENCE, upstream.stream.write_all(&goodbye)).await;
            }
            return;
        }
    }
}

async fn fingerprint(upstream: &mut Upstream) -> Result<String, LookError> {
    let rows = upstream.ask(Snapshot::FINGERPRINT_QUERY).await?;
    let first = rows.into_iter().flatten().next();
    first.flatten().ok_or(LookError::Stateless)
}

/// Definitions are printed by the search path. Nothing of it waits for others, or takes long.
fn see_as(view: &SessionView) -> String {
    let temporary = |schema: &str| schema.starts_with("pg_temp");
    let path = view.search_path.iter().filter(|schema| !temporary(schema));
    let path: Vec<String> = path
        .map(|schema| format!("\"{}\"", schema.replace('"', "\"\"")))
        .collect();
    let path = path.join(", ").replace('\'', "''");
    let set =
        |name: &str, value: &str| format!("pg_catalog.set_config('{name}', '{value}', false)");
    let settings = [
        set("search_path", &path),
        set("lock_timeout", "500ms"),
        set("statement_timeout", "15s"),
        set("jit", "off"),
    ];
    format!("SELECT {}", settings.join(", "))
}
