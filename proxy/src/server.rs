//! The running proxy: everything put together from one configuration.
//!
//! Only here do the parts meet: the listener gets its identities, the sessions their policies, the
//! approvals their place in the log.

mod admission;
mod events;
mod reports;

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use chaperone_audit_log::{About, Code, Digest, LogOptions, Name, PublicKey};
use chaperone_policy_host::{Host, HostOptions, SetOptions};
use chaperone_sql::{Labelling, Limits, Options as SqlOptions, Trust};
use tokio::sync::{mpsc, watch};

use crate::{
    admin,
    approval::{self, Approvals},
    audit::Audit,
    config::{Config, FunctionSpec, LabelSpec, TlsMode},
    metrics::Metrics,
    policy::{self, Policies, PolicyEvent},
    postgres::{Budgets, Cancels, Listener, SessionRules, Shared, TargetOptions},
    tls,
};

/// Why the proxy does not start. Each says what is wrong and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An auditor's public key.
    #[error(transparent)]
    Recipient(#[from] chaperone_audit_log::KeyError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] chaperone_audit_log::StartError),
    /// The policy engine.
    #[error(transparent)]
    Engine(#[from] chaperone_policy_host::HostError),
    /// The policies.
    #[error(transparent)]
    Policies(#[from] policy::OpenError),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// An identity provider.
    #[error(transparent)]
    Identity(#[from] admission::IdentityError),
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] admin::ServeError),
    /// The listening address.
    #[error("cannot listen on {address}: {error}; free it or set another listen.address")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The log does not take its first records.
    #[error("the audit log does not take records; see the messages before this one")]
    Record,
}

/// A proxy that listens.
pub struct Server {
    listener: Listener,
    admin: Option<admin::Server>,
    policies: Arc<Policies>,
    audit: Audit,
    drain: watch::Sender<bool>,
    patience: Duration,
}

impl Server {
    /// Starts everything that the configuration names.
    ///
    /// # Errors
    /// Whatever is missing or broken; nothing is served then.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let audit = open_audit(config)?;
        let (events, received) = mpsc::unbounded_channel();
        let policies = Arc::new(open_policies(config, move |event| {
            // The receiver is gone only when the process is going down.
            let _ = events.send(event.clone());
        })?);
        let metrics = Arc::new(Metrics::new());
        let active =
            events::record_set(&audit, &policies, "start", &[]).map_err(|_| StartError::Record)?;
        let active = Arc::new(ArcSwap::from_pointee(active));
        tokio::spawn(events::follow(
            received,
            audit.clone(),
            Arc::downgrade(&policies),
            Arc::clone(&active),
            Arc::clone(&metrics),
        ));
        let sink = Arc::new(events::ApprovalRecords::new(
            audit.clone(),
            Arc::clone(&metrics),
        ));
        let approvals = Approvals::new(
            approval::Options {
                groups: config.approvals.groups.clone(),
                ttl: config.approvals.ttl,
                ..approval::Options::default()
            },
            sink,
        );
        let (drain, draining) = watch::channel(false);
        let shared = Arc::new(Shared {
            audit: audit.clone(),
            policies: active,
            approvals: approvals.clone(),
            metrics: Arc::clone(&metrics),
            rules: rules(config),
            hash_key: config
                .masking
                .key
                .as_ref()
                .map(|key| ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.expose())),
            drain: draining,
            cancels: Cancels::default(),
            budgets: Budgets::default(),
        });
        let doorkeeper = Arc::new(admission::Doorkeeper::new(config)?);
        let warming = Arc::clone(&doorkeeper);
        tokio::spawn(async move { warming.warm_up().await });
        let server_tls = match &config.listen.tls {
            Some(files) => Some(tls::server_config(&files.certificate, &files.key)?),
            None => None,
        };
        let mut targets = Vec::new();
        for target in &config.targets {
            targets.push(target_options(config, target)?);
        }
        let address = config.listen.address;
        let listener = Listener::bind(
            address,
            shared,
            Arc::clone(&doorkeeper) as _,
            server_tls,
            config.listen.danger_plaintext_on_loopback,
            config.listen.workers,
            targets,
        )
        .await
        .map_err(|error| StartError::Listen { address, error })?;
        let admin = match &config.admin {
            None => None,
            Some(options) => {
                let tls = match &options.tls {
                    Some(files) => Some(tls::server_config(&files.certificate, &files.key)?),
                    None => None,
                };
                let reports = Arc::new(reports::Process::new(audit.clone(), Arc::clone(&policies)));
                let api = admin::Admin {
                    approvals,
                    auth: doorkeeper,
                    probes: reports::probes(config, &reports),
                    reports,
                    metrics,
                };
                Some(admin::Server::start(options.address, tls, api).await?)
            }
        };
        Ok(Self {
            listener,
            admin,
            policies,
            audit,
            drain,
            patience: Duration::from_secs(30),
        })
    }

    /// Serves until `stop` resolves, then lets running statements end, refuses new ones, and closes
    /// the log.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) {
        if let Ok(address) = self.listener.address() {
            tracing::info!(%address, "serving PostgreSQL clients");
        }
        let drain = self.drain;
        let drained = drain.subscribe();
        tokio::spawn(async move {
            stop.await;
            tracing::info!("draining");
            drain.send_replace(true);
            // Kept, so that sessions see the value and not a closed channel.
            std::future::pending::<()>().await;
        });
        self.listener.serve(drained, self.patience).await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        drop(self.policies);
        if let Err(error) = self.audit.close(&Code::from_words("drain")).await {
            tracing::error!(%error, "the audit log was not closed clean");
        }
        tracing::info!("stopped");
    }
}

fn open_audit(config: &Config) -> Result<Audit, StartError> {
    let mut recipients = Vec::new();
    for path in &config.audit.recipients {
        recipients.push(PublicKey::read(path)?);
    }
    let mut options = LogOptions::new(recipients);
    options.segment_bytes = config.audit.segment_bytes;
    options.about = About {
        host: Name::new(&host_name()),
        build: Name::new(env!("CARGO_PKG_VERSION")),
        engine: Name::new("wasmtime 48"),
        engine_flags: Name::new("nan-canonical, deterministic relaxed simd"),
        configuration: Digest(config.digest),
    };
    Ok(Audit::open(&config.audit.directory, options)?)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// Where loaded modules are kept for later re-execution, and what they were compiled to: beside the
/// log's directory, which holds nothing else.
fn beside_the_log(config: &Config, end: &str) -> PathBuf {
    let mut folder = config.audit.directory.clone().into_os_string();
    folder.push(end);
    PathBuf::from(folder)
}

/// The policy host and directory of a configuration.
pub(crate) fn open_policies(
    config: &Config,
    on_event: impl Fn(&PolicyEvent) + Send + Sync + 'static,
) -> Result<Policies, StartError> {
    policies(config, Some(beside_the_log(config, "-policies")), on_event)
}

/// The same for a look only: nothing is written.
pub(crate) fn preview_policies(config: &Config) -> Result<Policies, StartError> {
    policies(config, None, |_| {})
}

fn policies(
    config: &Config,
    archive: Option<PathBuf>,
    on_event: impl Fn(&PolicyEvent) + Send + Sync + 'static,
) -> Result<Policies, StartError> {
    let limits = &config.policies.limits;
    let host = Host::new(HostOptions {
        memory: limits.memory,
        deadline: limits.deadline,
        module_bytes: limits.module_bytes,
        compiled: archive
            .is_some()
            .then(|| beside_the_log(config, "-compiled")),
        ..HostOptions::default()
    })?;
    let mut options = policy::Options::new(&config.policies.directory);
    options.set = SetOptions {
        required: config.policies.required.clone(),
        incomplete_facts: config.policies.incomplete_facts.clone(),
    };
    options.settings = config.policies.settings.clone();
    options.archive = archive;
    let policies = Policies::open(host.clone(), options, on_event)?;
    if let Some((found, compiled)) = host.kept() {
        tracing::debug!(found, compiled, "compiled policies are kept");
    }
    Ok(policies)
}

fn rules(config: &Config) -> SessionRules {
    SessionRules {
        idle_timeout: config.session.idle_timeout,
        absolute_timeout: config.session.absolute_timeout,
        peer_timeout: config.session.peer_timeout,
        settings: config.session.settings.clone(),
        max_statement: config.statement.max_bytes,
        result_buffer: config.statement.buffer,
        approval_wait: config.approvals.wait,
        approval_ttl: config.approvals.ttl,
        catalog_age: config.session.catalog_age,
    }
}

/// A target as sessions use it.
pub(crate) fn target_options(
    config: &Config,
    target: &crate::config::Target,
) -> Result<TargetOptions, StartError> {
    let tls = match (target.tls.mode, &target.tls.ca) {
        (Some(TlsMode::VerifyFull), Some(ca)) => Some(tls::client_config(ca)?),
        _ => None,
    };
    let mut labelling = Labelling::new();
    for (relation, spec) in &target.labels {
        let Some((schema, name)) = relation.split_once('.') else {
            continue;
        };
        match spec {
            LabelSpec::Clear => labelling.set_relation(schema, name, Vec::new()),
            LabelSpec::Columns(columns) => {
                for (column, labels) in columns {
                    labelling.set_column(schema, name, column, labels.clone());
                }
            }
        }
    }
    let trusted_functions = target
        .functions
        .iter()
        .map(|(name, spec)| {
            let trust = match spec {
                FunctionSpec::Clear => Trust::Clear,
                FunctionSpec::Derived => Trust::Derived,
            };
            (name.clone(), trust)
        })
        .collect();
    Ok(TargetOptions {
        name: target.name.clone(),
        host: target.host.to_string(),
        port: target.port,
        database: target.database.clone(),
        tls,
        labelling,
        options: SqlOptions {
            limits: Limits {
                max_bytes: config.statement.max_bytes,
                ..Limits::default()
            },
            trusted_functions,
        },
    })
}

/// Checks everything that a start would, short of opening the log and listening; says what is
/// there.
///
/// # Errors
/// The first thing that is missing or broken.
pub fn check(config: &Config) -> Result<String, StartError> {
    use std::fmt::Write as _;
    for path in &config.audit.recipients {
        PublicKey::read(path)?;
    }
    admission::Doorkeeper::new(config)?;
    let listeners = config
        .listen
        .tls
        .iter()
        .chain(config.admin.iter().filter_map(|admin| admin.tls.as_ref()));
    for files in listeners {
        tls::server_config(&files.certificate, &files.key)?;
    }
    let mut summary = String::new();
    for target in &config.targets {
        target_options(config, target)?;
        // Writing to a String cannot fail.
        let _ = writeln!(
            summary,
            "target {}: {} roles, {} labelled relations",
            target.name,
            target.roles.len(),
            target.labels.len()
        );
    }
    let policies = preview_policies(config)?;
    for module in policies.current().modules() {
        let _ = writeln!(
            summary,
            "policy {} {} ({})",
            module.name(),
            module.version(),
            module.file()
        );
    }
    summary.push_str("the configuration can be served\n");
    Ok(summary)
}
