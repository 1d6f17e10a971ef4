//! What all sessions share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use chaperone_audit_log::Seq;
use chaperone_policy_host::PolicySet;
use chaperone_sql::{Catalog, Labelling, Options};
use tokio::sync::watch;

use super::{
    budget::Budgets, cancel::Cancels, changes::Changes, lookout::Lookout, upstream::Endpoint,
};
use crate::{approval::Approvals, audit::Audit, metrics::Metrics};

/// The policies in force, with the record that says so.
#[derive(Debug)]
pub struct ActiveSet {
    /// The modules.
    pub set: Arc<PolicySet>,
    /// Their record in the audit log.
    pub record: Seq,
}

/// Bounds and rules that hold for every session.
#[derive(Debug, Clone)]
pub struct SessionRules {
    /// Longest time without a message from the client.
    pub idle_timeout: Duration,
    /// Longest life of a session.
    pub absolute_timeout: Duration,
    /// When a peer that answers no probe of TCP's is taken for gone.
    pub peer_timeout: Duration,
    /// Settings that a caller may change.
    pub settings: Vec<String>,
    /// Longest text of a statement in bytes.
    pub max_statement: usize,
    /// Results up to this many bytes travel with one record.
    pub result_buffer: usize,
    /// How long a held statement waits for a person before the client gets a ticket.
    pub approval_wait: Duration,
    /// How long a ticket is good.
    pub approval_ttl: Duration,
    /// How old the session's view of the catalog may get before it is compared with the backend's,
    /// both until a statement is sent and until it begins to answer.
    pub catalog_age: Duration,
}

/// What all sessions share.
pub struct Shared {
    /// Where evidence goes.
    pub audit: Audit,
    /// The policies in force.
    pub policies: Arc<ArcSwap<ActiveSet>>,
    /// What waits for people.
    pub approvals: Approvals,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Bounds.
    pub rules: SessionRules,
    /// The key of keyed hashes, where there is one.
    pub hash_key: Option<ring::hmac::Key>,
    /// Turns true when the process is to end.
    pub drain: watch::Receiver<bool>,
    /// Cancel keys; a new registry for each process.
    pub cancels: Cancels,
    /// What callers have received.
    pub budgets: Budgets,
}

/// A configured backend.
pub struct TargetOptions {
    /// What clients give as database.
    pub name: String,
    /// A host name or address, or the directory of a Unix socket when it starts with `/`.
    pub host: String,
    /// The port, or the socket's number.
    pub port: u16,
    /// The database's name at the backend.
    pub database: String,
    /// TLS with certificate checks; `None` only for Unix sockets and loopback.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// What columns hold.
    pub labelling: Labelling,
    /// Bounds, and functions that are trusted.
    pub options: Options,
}

/// A configured backend, ready for use.
pub(crate) struct Backend {
    pub(crate) name: Arc<str>,
    pub(crate) endpoint: Endpoint,
    pub(crate) database: String,
    pub(crate) labelling: Arc<Labelling>,
    pub(crate) options: Options,
    pub(crate) catalogs: Catalogs,
    pub(crate) changes: Arc<Changes>,
    pub(crate) lookout: Lookout,
}

impl Backend {
    pub(crate) fn new(target: TargetOptions, peer_timeout: Duration) -> Self {
        Self {
            name: target.name.into(),
            endpoint: Endpoint {
                host: target.host,
                port: target.port,
                tls: target.tls,
                peer_timeout,
            },
            database: target.database,
            labelling: Arc::new(target.labelling),
            options: target.options,
            catalogs: Catalogs::default(),
            changes: Arc::default(),
            lookout: Lookout::default(),
        }
    }
}

/// Catalogs that sessions have seen, by the backend's fingerprint of them, so that a session need
/// not ask for what another one has asked for, and equal ones are held once.
#[derive(Default)]
pub(crate) struct Catalogs {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    by_fingerprint: HashMap<String, Weak<Catalog>>,
    /// Outlives the sessions that have it, for the next one.
    latest: Option<Arc<Catalog>>,
}

impl Catalogs {
    /// The catalog with this fingerprint.
    pub(crate) fn find(&self, fingerprint: &str) -> Option<Arc<Catalog>> {
        self.seen().by_fingerprint.get(fingerprint)?.upgrade()
    }

    /// Offers a catalog to other sessions: the answers to all questions, asked while the
    /// fingerprint was this.
    pub(crate) fn offer(&self, fingerprint: String, catalog: &Arc<Catalog>) {
        let mut seen = self.seen();
        seen.latest = Some(Arc::clone(catalog));
        seen.by_fingerprint
            .retain(|_, held| held.strong_count() > 0);
        seen.by_fingerprint
            .insert(fingerprint, Arc::downgrade(catalog));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
