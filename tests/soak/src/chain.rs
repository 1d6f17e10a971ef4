//! What the audit log holds in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use chaperone_test_support::Result;
use chaperone_test_support::error::{Context as _, Error};
use serde_json::Value;

use crate::stage::Stage;
use crate::tally::Tally;

/// Counts of records.
#[derive(Debug, Default)]
pub struct Chain {
    /// What `chaperone audit verify` says.
    verdict: String,
    verified: bool,
    kinds: BTreeMap<String, u64>,
    /// Executions by the totals of the sessions' ends.
    totals: u64,
}

/// Verifies the log and counts its records.
///
/// # Errors
/// The program cannot be run, or prints no JSON.
pub fn read(stage: &Stage) -> Result<Chain> {
    let folder = stage.audit_folder();
    let mut verify = stage.command(&["audit", "verify"]);
    let output = verify.arg(&folder).output().context("run audit verify")?;
    let mut chain = Chain {
        verdict: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        verified: output.status.success(),
        ..Chain::default()
    };
    let mut show = stage.command(&["audit", "show", "--json"]);
    let mut show = show
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .context("run audit show")?;
    let lines = show.stdout.take().into_iter();
    for line in lines.flat_map(|lines| BufReader::new(lines).lines()) {
        let line = line.context("read the log")?;
        let record: Value = serde_json::from_str(&line).map_err(|error| Error::Program {
            program: "chaperone audit show".to_owned(),
            status: "no JSON".to_owned(),
            output: error.to_string(),
        })?;
        let kind = record.get("kind").and_then(Value::as_str).unwrap_or("?");
        *chain.kinds.entry(kind.to_owned()).or_default() += 1;
        if kind == "session-end" {
            chain.totals += total(&record);
        }
    }
    show.wait().context("wait for audit show")?;
    Ok(chain)
}

/// The number of executions in a session's last record, wherever the record keeps it.
fn total(record: &Value) -> u64 {
    match record {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value.as_u64() {
                Some(count) if name == "executions" => count,
                _ => total(value),
            })
            .sum(),
        _ => 0,
    }
}

impl Chain {
    fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// Executions that are on record: small reads with one record, everything else with two.
    fn executions(&self) -> u64 {
        self.count("execution") + self.count("intent")
    }

    pub fn table(&self) -> String {
        let mut text = format!("the log: {}\nrecords:", self.verdict);
        for (kind, count) in &self.kinds {
            let _ = write!(text, " {kind} {count}");
        }
        let _ = write!(
            text,
            "\nexecutions on record: {}, by the ends of sessions: {}",
            self.executions(),
            self.totals
        );
        text
    }

    pub fn broken(&self, tally: &Tally) -> Vec<String> {
        let mut broken = Vec::new();
        if !self.verified {
            broken.push("the log does not verify".to_owned());
        }
        let sent = tally.executed();
        for (where_, count) in [
            ("as executions", self.executions()),
            ("in the ends of sessions", self.totals),
        ] {
            if count != sent {
                broken.push(format!(
                    "{sent} statements were run, {count} are on record {where_}"
                ));
            }
        }
        if self.count("intent") != self.count("outcome") {
            broken.push("there are intents without outcomes".to_owned());
        }
        for kind in ["gap", "recover"] {
            if self.count(kind) > 0 {
                broken.push(format!("there is a record of the kind {kind}"));
            }
        }
        broken
    }
}
