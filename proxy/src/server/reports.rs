//! What the admin API tells about the process.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::net::{TcpStream, UnixStream};

use crate::{
    admin::{FailureReport, ModuleReport, PolicyReport, Probe, Reports},
    approval::BoxFuture,
    audit::Audit,
    config::{Config, Host},
    metrics::LogFigures,
    policy::Policies,
};

/// Policies and log of this process.
pub(super) struct Process {
    audit: Audit,
    policies: Arc<Policies>,
}

impl Process {
    pub(super) fn new(audit: Audit, policies: Arc<Policies>) -> Self {
        Self { audit, policies }
    }
}

impl Reports for Process {
    fn policies(&self) -> PolicyReport {
        let set = self.policies.current();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        PolicyReport {
            digest: Some(set.digest().to_string()),
            modules: set
                .modules()
                .iter()
                .map(|module| ModuleReport {
                    name: module.name().to_owned(),
                    version: module.version().to_owned(),
                    digest: module.digest().to_string(),
                })
                .collect(),
            failures: self
                .policies
                .status()
                .failed
                .into_iter()
                .map(|failed| FailureReport {
                    file: failed.file,
                    error: failed.reason,
                    at: now,
                })
                .collect(),
        }
    }

    fn log(&self) -> LogFigures {
        let health = self.audit.health();
        LogFigures {
            queued: health.appended.saturating_sub(health.durable),
            records: health.durable,
            syncs: health.syncs,
            failed: self.audit.check().is_err(),
        }
    }
}

/// What readiness depends on.
pub(super) fn probes(config: &Config, process: &Arc<Process>) -> Vec<Arc<dyn Probe>> {
    let mut probes: Vec<Arc<dyn Probe>> = vec![
        Arc::new(PoliciesLoaded(Arc::clone(process))),
        Arc::new(LogTakesRecords(Arc::clone(process))),
    ];
    for target in &config.targets {
        probes.push(Arc::new(BackendListens {
            host: target.host.clone(),
            port: target.port,
        }));
    }
    probes
}

struct PoliciesLoaded(Arc<Process>);

impl Probe for PoliciesLoaded {
    fn name(&self) -> &'static str {
        "policies"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        let missing = self.0.policies.current().missing().join(", ");
        Box::pin(async move {
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("required modules are missing: {missing}"))
            }
        })
    }
}

struct LogTakesRecords(Arc<Process>);

impl Probe for LogTakesRecords {
    fn name(&self) -> &'static str {
        "log"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        let result = self.0.audit.check().map_err(|error| error.to_string());
        Box::pin(async move { result })
    }
}

struct BackendListens {
    host: Host,
    port: u16,
}

impl Probe for BackendListens {
    fn name(&self) -> &'static str {
        "backend"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let reached = async {
                match &self.host {
                    Host::Socket(folder) => {
                        let path = folder.join(format!(".s.PGSQL.{}", self.port));
                        UnixStream::connect(path).await.map(drop)
                    }
                    Host::Tcp(host) => TcpStream::connect((host.as_str(), self.port))
                        .await
                        .map(drop),
                }
            };
            match tokio::time::timeout(Duration::from_secs(2), reached).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("{}:{}: {error}", self.host, self.port)),
                Err(_) => Err(format!("{}:{}: no answer", self.host, self.port)),
            }
        })
    }
}
