//! The catalog as a session of the role would see it, read on a connection of our own.

use std::error::Error as _;
use std::time::Duration;

use chaperone_sql::{Catalog, SessionView, Snapshot, SnapshotError};
use tokio_postgres::{NoTls, SimpleQueryMessage, config::ChannelBinding, config::SslMode};

use crate::config::Role;
use crate::postgres::{Endpoint, TargetOptions, dial};

/// The whole look takes at most this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the catalog is not known.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No connection.
    #[error(
        "target {target}: {reason}. Mend host, port and tls of the target, or start its database"
    )]
    Dial {
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
    };
    let stream = dial(&endpoint).await.map_err(|error| CatalogError::Dial {
        target: target.name.clone(),
        reason: error.to_string(),
    })?;
    let failed = |error: tokio_postgres::Error| CatalogError::Database {
        target: target.name.clone(),
        login: role.login.clone(),
        reason: match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    let mut options = tokio_postgres::Config::new();
    options
        .user(&role.login)
        .dbname(&target.database)
        .application_name("chaperone explain")
        // TLS has been taken care of.
        .ssl_mode(SslMode::Disable)
        .channel_binding(ChannelBinding::Disable);
    if let Some(password) = &role.password {
        options.password(password.expose());
    }
    let (client, connection) = options.connect_raw(stream, NoTls).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let answer = |error| CatalogError::Answer {
        target: target.name.clone(),
        error,
    };
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    client.simple_query(begin).await.map_err(failed)?;
    let mut snapshot = Snapshot::new();
    for (index, query) in Snapshot::QUERIES.iter().enumerate() {
        for message in client.simple_query(query).await.map_err(failed)? {
            if let SimpleQueryMessage::Row(row) = message {
                let row: Vec<Option<&str>> = (0..row.len()).map(|at| row.get(at)).collect();
                snapshot.push_row(index, &row).map_err(answer)?;
            }
        }
    }
    drop(client);
    let _ = driver.await;
    snapshot.finish().map_err(answer)
}
