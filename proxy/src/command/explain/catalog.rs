//! The catalog as a session of the role would see it, read on a connection of our own.

use std::time::Duration;

use chaperone_sql::{Catalog, SessionView, Snapshot, SnapshotError};

use crate::config::Role;
use crate::postgres::{Endpoint, Login, Parameters, TargetOptions, UpstreamError, connect};

/// The whole look takes at most this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the catalog is not known.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No connection.
    #[error(
        "target {target}: {reason}. Mend host, port and tls of the target, or start its database"
    )]
    Connection {
        /// Which.
        target: String,
        /// Why.
        reason: String,
    },
    /// The database said no, or something that is not understood.
    #[error(
        "target {target}, log-in {login}: {reason}. Mend login and password_file of the role, or \
         the database's rights"
    )]
    Database {
        /// Which.
        target: String,
        /// As whom.
        login: String,
        /// Why.
        reason: String,
    },
    /// Its answer is not what it should be.
    #[error("target {target}: {error}")]
    Answer {
        /// Which.
        target: String,
        /// What.
        error: SnapshotError,
    },
    /// It takes too long.
    #[error("target {0}: no answer within 30 s; look after its database")]
    Late(String),
}

/// Reads the catalog in one read-only transaction.
pub(super) async fn read(
    target: &TargetOptions,
    role: &Role,
) -> Result<(Catalog, SessionView), CatalogError> {
    tokio::time::timeout(PATIENCE, ask(target, role))
        .await
        .map_err(|_| CatalogError::Late(target.name.clone()))?
}

async fn ask(target: &TargetOptions, role: &Role) -> Result<(Catalog, SessionView), CatalogError> {
    let endpoint = Endpoint {
        host: target.host.clone(),
        port: target.port,
        tls: target.tls.clone(),
        peer_timeout: PATIENCE,
    };
    let login = Login {
        user: role.login.clone(),
        password: role
            .password
            .as_ref()
            .and_then(|secret| secret.expose_str())
            .map(str::to_owned),
        database: target.database.clone(),
    };
    let name = (b"application_name".to_vec(), b"chaperone explain".to_vec());
    let parameters = Parameters {
        list: vec![name],
        ..Parameters::default()
    };
    let failed = |error: UpstreamError| match error {
        UpstreamError::Refused(_) | UpstreamError::NoPassword => CatalogError::Database {
            target: target.name.clone(),
            login: role.login.clone(),
            reason: error.to_string(),
        },
        other => CatalogError::Connection {
            target: target.name.clone(),
            reason: other.to_string(),
        },
    };
    let answer = |error| CatalogError::Answer {
        target: target.name.clone(),
        error,
    };
    let mut upstream = connect(&endpoint, &login, &parameters)
        .await
        .map_err(failed)?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    upstream.ask(begin).await.map_err(failed)?;
    let mut snapshot = Snapshot::new();
    for (index, query) in Snapshot::QUERIES.iter().enumerate() {
        for row in upstream.ask(query).await.map_err(failed)? {
            let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            snapshot.push_row(index, &row).map_err(answer)?;
        }
    }
    snapshot.finish().map_err(answer)
}
