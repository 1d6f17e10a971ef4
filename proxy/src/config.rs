//! The one TOML file: everything an operator decides, parsed into the types that the rest uses.
//!
//! Every key is described in `docs/operators.md`. Unknown keys are errors, relative paths are
//! relative to the file, and every error names file, line, column and key and says how to mend it.

mod check;
mod error;
mod files;
mod identity;
mod locate;
mod secret;
mod target;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha3::{Digest as _, Sha3_256};

pub use error::ConfigError;
pub use identity::{Algorithm, Identity, Provider, StaticIdentity};
pub use secret::Secret;
pub use target::{FunctionSpec, Host, LabelSpec, Role, Target, TlsMode, UpstreamTls};

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it was read from.
    #[serde(skip)]
    pub file: PathBuf,
    /// SHA3-256 of the file's bytes, for the audit log.
    #[serde(skip)]
    pub digest: [u8; 32],
    /// Where PostgreSQL clients connect.
    pub listen: Listen,
    /// The admin API; there is none without this section.
    pub admin: Option<Admin>,
    /// The audit log.
    pub audit: Audit,
    /// The policy modules.
    pub policies: Policies,
    /// Bounds of a client session.
    #[serde(default)]
    pub session: Session,
    /// Bounds of a statement.
    #[serde(default)]
    pub statement: Statement,
    /// Statements that wait for a person.
    #[serde(default)]
    pub approvals: Approvals,
    /// Keys for masks.
    #[serde(default)]
    pub masking: Masking,
    /// Who may connect.
    #[serde(default)]
    pub identity: Identity,
    /// The databases behind the proxy.
    pub targets: Vec<Target>,
    /// What the process writes to standard error.
    #[serde(default)]
    pub log: Log,
}

/// `[listen]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// IP address and port.
    pub address: SocketAddr,
    /// The certificate; `None` only together with `danger_plaintext_on_loopback`.
    pub tls: Option<TlsFiles>,
    /// Tokens in clear, from loopback clients only.
    #[serde(default)]
    pub danger_plaintext_on_loopback: bool,
    /// Threads that sessions run on; half as many as there are cores without.
    pub workers: Option<NonZeroUsize>,
}

/// A server's certificate chain and private key, PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[admin]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// IP address and port; without TLS a loopback address.
    pub address: SocketAddr,
    /// The certificate.
    pub tls: Option<TlsFiles>,
}

/// `[audit]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Where the segments are.
    pub directory: PathBuf,
    /// Files with the auditors' public keys; at least one.
    pub recipients: Vec<PathBuf>,
    /// Size from which on a new segment is begun, bytes.
    #[serde(default = "value::segment_bytes", deserialize_with = "value::size_u64")]
    pub segment_bytes: u64,
}

/// `[policies]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// The watched directory.
    pub directory: PathBuf,
    /// Names of modules without which no statement runs.
    #[serde(default)]
    pub required: Vec<String>,
    /// Names of modules that may decide although not everything about a statement is known.
    #[serde(default)]
    pub incomplete_facts: Vec<String>,
    /// Settings by module name, checked by the module's own schema.
    #[serde(default, deserialize_with = "value::settings")]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// What one module may use.
    #[serde(default)]
    pub limits: PolicyLimits,
}

/// `[policies.limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyLimits {
    /// Linear memory of one instance, bytes.
    #[serde(deserialize_with = "value::size")]
    pub memory: usize,
    /// Time for one call.
    #[serde(deserialize_with = "value::duration")]
    pub deadline: Duration,
    /// Size of a module file, bytes.
    #[serde(deserialize_with = "value::size")]
    pub module_bytes: usize,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        PolicyLimits {
            memory: 4 << 20,
            deadline: Duration::from_millis(50),
            module_bytes: 4 << 20,
        }
    }
}

/// `[session]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Ends a session in which nothing happens.
    #[serde(deserialize_with = "value::duration")]
    pub idle_timeout: Duration,
    /// Ends any session.
    #[serde(deserialize_with = "value::duration")]
    pub absolute_timeout: Duration,
    /// A client or backend that has not answered for so long, not even its system, is gone.
    #[serde(deserialize_with = "value::duration")]
    pub peer_timeout: Duration,
    /// How long ago the database's catalog may have been looked at when a statement is sent, and when
    /// it begins to answer.
    #[serde(deserialize_with = "value::duration")]
    pub catalog_age: Duration,
    /// Names of harmless settings that a caller may SET and RESET.
    pub settings: Vec<String>,
}

impl Session {
    /// Whether a caller may SET and RESET this setting; PostgreSQL compares names without case.
    #[must_use]
    pub fn may_set(&self, name: &str) -> bool {
        self.settings
            .iter()
            .any(|setting| setting.eq_ignore_ascii_case(name))
    }
}

impl Default for Session {
    fn default() -> Self {
        let settings = [
            "application_name",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "extra_float_digits",
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "bytea_output",
            "search_path",
            "work_mem",
            "client_encoding",
            "standard_conforming_strings",
        ];
        Session {
            idle_timeout: Duration::from_secs(15 * 60),
            absolute_timeout: Duration::from_secs(8 * 60 * 60),
            peer_timeout: Duration::from_secs(60),
            catalog_age: Duration::from_secs(1),
            settings: settings.map(str::to_owned).to_vec(),
        }
    }
}

/// `[statement]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Statement {
    /// Longest statement text, bytes.
    #[serde(deserialize_with = "value::size")]
    pub max_bytes: usize,
    /// A result up to this size travels with one audit record, bytes.
    #[serde(deserialize_with = "value::size")]
    pub buffer: usize,
}

impl Default for Statement {
    fn default() -> Self {
        Statement {
            max_bytes: 1 << 20,
            buffer: 64 << 10,
        }
    }
}

/// `[approvals]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// How long a held statement keeps its client waiting.
    #[serde(deserialize_with = "value::duration")]
    pub wait: Duration,
    /// How long a ticket is good for.
    #[serde(deserialize_with = "value::duration")]
    pub ttl: Duration,
    /// Whose members may approve and deny.
    pub groups: Vec<String>,
}

impl Default for Approvals {
    fn default() -> Self {
        Approvals {
            wait: Duration::from_secs(30),
            ttl: Duration::from_secs(15 * 60),
            groups: Vec::new(),
        }
    }
}

/// `[masking]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Masking {
    /// The file that `key` comes from.
    pub keyed_hash_key: Option<PathBuf>,
    /// For keyed hashes, which are NULL without.
    #[serde(skip)]
    pub key: Option<Secret>,
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// A level or a filter such as `info,chaperone::postgres=debug`; `RUST_LOG` goes first.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads the file and the keys, passwords and certificates that it names.
    ///
    /// # Errors
    /// The first thing wrong, with its place and how to mend it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|error| ConfigError::file(file, &error))?;
        let mut config = Self::parse(file, &text)?;
        files::read(&mut config).map_err(|fault| fault.locate(file, &text))?;
        Ok(config)
    }

    /// Parses text that is, or will be, at `file`; reads no other file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Config =
            toml::from_str(text).map_err(|error| ConfigError::toml(file, text, &error))?;
        config.file = file.to_owned();
        config.digest = Sha3_256::digest(text.as_bytes()).into();
        config.complete();
        check::all(&config).map_err(|fault| fault.locate(file, text))?;
        Ok(config)
    }

    /// The target that clients call `name`.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }

    /// Fills in what defaults to other keys and makes paths relative to the file.
    fn complete(&mut self) {
        let base = self.file.parent().unwrap_or(Path::new("")).to_owned();
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        let tls = |files: &mut Option<TlsFiles>| {
            if let Some(files) = files {
                resolve(&mut files.certificate);
                resolve(&mut files.key);
            }
        };
        tls(&mut self.listen.tls);
        if let Some(admin) = &mut self.admin {
            tls(&mut admin.tls);
        }
        resolve(&mut self.audit.directory);
        self.audit.recipients.iter_mut().for_each(resolve);
        resolve(&mut self.policies.directory);
        self.masking.keyed_hash_key.iter_mut().for_each(resolve);
        for provider in &mut self.identity.providers {
            provider.ca.iter_mut().for_each(resolve);
        }
        for target in &mut self.targets {
            target.complete();
            target.tls.ca.iter_mut().for_each(resolve);
            for role in &mut target.roles {
                role.password_file.iter_mut().for_each(resolve);
            }
        }
    }
}

#[cfg(test)]
mod tests;
