//! Real counterparts for the integration tests and the demo: PostgreSQL servers, `psql`,
//! certificates, a clinic full of invented people.
//!
//! Everything here belongs to the process that started it: servers end and their folders go when
//! the value is dropped, when the test panics, and also when the test process is killed.

pub mod chaperone;
pub mod client;
pub mod clinic;
pub mod error;
pub mod guard;
pub mod http;
pub mod issuer;
pub mod net;
pub mod policies;
pub mod postgres;
pub mod psql;
pub mod relay;
pub mod tls;
pub mod wire;

pub use chaperone::Chaperone;
pub use error::{Error, Result};
pub use issuer::Issuer;
pub use postgres::{Account, Auth, Postgres};
pub use psql::{Psql, PsqlSession};
pub use relay::Relay;
pub use tls::Ca;
