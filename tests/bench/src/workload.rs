//! What is timed: pgbench's own read-only script and a wide result.

use std::path::Path;
use std::process::Command;

use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::{Postgres, Result};

use crate::peer::Peer;

/// Rows of the wide result.
pub const WIDE_ROWS: u32 = 10_000;

/// How statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// `pgbench -S` with this `-M`.
    Select(&'static str),
    /// All columns of the wide table, two of which are PHI.
    WideMasked,
    /// As many columns of a table in which nothing is PHI.
    WideClear,
}

/// One row of the result's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub name: &'static str,
    pub script: Script,
    pub clients: u32,
}

/// Everything that a full run times.
pub const WORKLOADS: [Workload; 8] = [
    select("simple-8", "simple", 8),
    select("extended-8", "extended", 8),
    select("prepared-8", "prepared", 8),
    select("prepared-1", "prepared", 1),
    select("extended-1", "extended", 1),
    select("prepared-64", "prepared", 64),
    wide("wide-masked-8", Script::WideMasked),
    wide("wide-clear-8", Script::WideClear),
];

const fn select(name: &'static str, mode: &'static str, clients: u32) -> Workload {
    Workload {
        name,
        script: Script::Select(mode),
        clients,
    }
}

const fn wide(name: &'static str, script: Script) -> Workload {
    Workload {
        name,
        script,
        clients: 8,
    }
}

/// Creates pgbench's tables (scale 10) and the wide ones.
///
/// # Errors
/// A program or a statement fails.
pub fn seed(postgres: &Postgres) -> Result<()> {
    let run = Command::new("pgbench")
        .args(["-i", "-q", "-s", "10", "-h", "127.0.0.1", "-U", "bench"])
        .args(["-p", &postgres.port().to_string(), "bench"])
        .output()
        .context("start pgbench")?;
    if !run.status.success() {
        return Err(failed("pgbench -i", &run));
    }
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id int, ssn text, name text, ward text);\n\
             INSERT INTO {name} SELECT i, lpad((i % 1000)::text, 3, '9') || '-00-' || lpad((i % 10000)::text, 4, '0'), \
             'Synthetic Person ' || i, 'ward ' || i % 20 FROM generate_series(1, {WIDE_ROWS}) AS i;\n"
        )
    };
    let sql = format!(
        "{}{}ANALYZE;\nGRANT ALL ON ALL TABLES IN SCHEMA public TO bench;",
        table("wide"),
        table("wide_clear")
    );
    postgres.script("bench", &sql)
}

/// What one run of pgbench measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Transactions per second, connecting not counted.
    pub per_second: f64,
    /// Mean latency in microseconds.
    pub latency: f64,
    /// CPU time of the proxy per transaction, in microseconds; none without a proxy.
    pub cpu: Option<f64>,
}

/// Runs a workload against a peer for `seconds`.
///
/// # Errors
/// pgbench fails, or a client of it was refused.
pub fn run(workload: Workload, peer: &Peer, seconds: u32, scratch: &Path) -> Result<Measured> {
    let mut command = Command::new("pgbench");
    command
        .args(["-n", "-T", &seconds.to_string()])
        .args(["-c", &workload.clients.to_string()])
        .args(["-j", &workload.clients.min(2).to_string()]);
    match workload.script {
        Script::Select(mode) => {
            command.args(["-S", "-M", mode]);
        }
        Script::WideMasked | Script::WideClear => {
            let (file, table) = match workload.script {
                Script::WideClear => ("wide_clear.sql", "wide_clear"),
                _ => ("wide.sql", "wide"),
            };
            let file = scratch.join(file);
            let sql = format!("SELECT id, ssn, name, ward FROM {table};\n");
            std::fs::write(&file, sql).context("write a script")?;
            command.args(["-M", "simple", "-f"]).arg(file);
        }
    }
    command.arg(peer.conninfo());
    let before = peer.cpu();
    let output = command.output().context("start pgbench")?;
    let after = peer.cpu();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str, end: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let value = line.get(name.len()..)?;
        value.split(end).next()?.trim().parse::<f64>().ok()
    };
    let done = number("number of transactions actually processed:", "(")
        .or_else(|| number("number of transactions actually processed:", "/"));
    let failures = number("number of failed transactions:", "(").unwrap_or(0.0);
    match (
        done,
        number("tps =", "("),
        number("latency average =", "ms"),
    ) {
        (Some(done), Some(per_second), Some(latency))
            if output.status.success() && failures == 0.0 && done > 0.0 =>
        {
            Ok(Measured {
                per_second,
                latency: latency * 1000.0,
                cpu: before
                    .zip(after)
                    .map(|(before, after)| (after - before) * 1e6 / done),
            })
        }
        _ => Err(failed("pgbench", &output)),
    }
}

fn failed(program: &str, output: &std::process::Output) -> Error {
    Error::Program {
        program: program.to_owned(),
        status: output.status.to_string(),
        output: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
