//! The admin API: health, metrics, and the approvers' answers.
//!
//! Everything but health, readiness and metrics needs a bearer token of the same identity
//! providers that the data path trusts. There is no CORS header, so no web page can use it.

mod api;
mod seats;
mod serve;

use std::sync::Arc;

use serde::Serialize;

use crate::{
    approval::{Approvals, Approver, BoxFuture},
    metrics::{LogFigures, Metrics},
};

pub use serve::{ServeError, Server};

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailed {
    /// It is not valid, or no longer.
    #[error("the token is not accepted")]
    Refused,
    /// The identity provider cannot be asked.
    #[error("the identity provider cannot be reached")]
    Unavailable,
}

/// Tells who a bearer token belongs to.
pub trait ApproverAuth: Send + Sync {
    /// Checks the token.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Approver, AuthFailed>>;
}

/// One thing that must be well for statements to run.
pub trait Probe: Send + Sync {
    /// `policies`, `log`, `backend`.
    fn name(&self) -> &'static str;
    /// The error says what is wrong; it is shown without authentication, so it names no secrets.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// A loaded policy module.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleReport {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA3-256 of its bytes, hexadecimal.
    pub digest: String,
}

/// A file that could not be loaded.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub error: String,
    /// Unix seconds.
    pub at: u64,
}

/// The set of policies that decides.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PolicyReport {
    /// The set's digest, hexadecimal; none before the first set.
    pub digest: Option<String>,
    /// Its modules.
    pub modules: Vec<ModuleReport>,
    /// The last failures.
    pub failures: Vec<FailureReport>,
}

/// What the rest of the process tells.
pub trait Reports: Send + Sync {
    /// For `/v1/policies`.
    fn policies(&self) -> PolicyReport;
    /// For `/metrics` and `/v1/status`.
    fn log(&self) -> LogFigures;
}

/// What the API needs.
#[derive(Clone)]
pub struct Admin {
    /// The held statements.
    pub approvals: Approvals,
    /// Who calls.
    pub auth: Arc<dyn ApproverAuth>,
    /// What readiness depends on.
    pub probes: Vec<Arc<dyn Probe>>,
    /// Policies and log.
    pub reports: Arc<dyn Reports>,
    /// The figures.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin(..)")
    }
}

#[cfg(test)]
mod tests;
