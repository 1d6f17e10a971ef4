//! The clinic, the proxy before it, and those who change policies and approve.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chaperone_test_support::error::Context as _;
use chaperone_test_support::{Chaperone, Postgres, Result, clinic, http, policies};
use serde_json::Value;

use crate::tally::Tally;

pub const AGENT: &str = "token-of-the-agent-0123456789abcdef";
pub const DOCTOR: &str = "token-of-the-doctor-0123456789abcdef";
pub const DBA: &str = "token-of-the-dba-0123456789abcdef";
const APPROVER: &str = "token-of-the-approver-0123456789abcdef";

const POLICIES: [&str; 3] = ["clinical-access", "phi-masking", "risky-commands"];
const ACCESS: &str = include_str!("../../demo/settings/clinical-access.toml");
const MASKING: &str = include_str!("../../demo/settings/phi-masking.toml");
const RISKY: &str = include_str!("../../demo/settings/risky-commands.toml");

/// How often a module is replaced.
const RELOAD: Duration = Duration::from_secs(2);
/// One in so many approvals is a denial.
const DENIED: u64 = 4;

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    chaperone: Chaperone,
    _postgres: Postgres,
    _temporary: Option<tempfile::TempDir>,
}

impl Stage {
    /// Starts everything; the log is in `folder` and stays there.
    ///
    /// # Errors
    /// The first part that does not start.
    pub fn set(folder: Option<&Path>) -> Result<Self> {
        let postgres = Postgres::start()?;
        clinic::seed(&postgres)?;
        postgres.script(clinic::DATABASE, TABLES)?;
        let binary = std::env::current_exe()
            .context("find this program")?
            .with_file_name("chaperone");
        let temporary = match folder {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix(".soak-")
                    .tempdir_in(std::env::current_dir().context("find the current folder")?)
                    .context("make a folder")?,
            ),
        };
        let place = folder.or(temporary.as_ref().map(tempfile::TempDir::path));
        let mut options = Chaperone::options(binary).log("warn");
        options = options.folder(place.unwrap_or(Path::new(".")));
        for (name, settings) in POLICIES.into_iter().zip([ACCESS, "", RISKY]) {
            options = options.policy(name, policies::example(name)?, settings);
        }
        let roles: [(&str, &[&str]); 3] = [
            ("agent_ro", &["agents"]),
            ("clinician", &["clinicians"]),
            ("dba", &["dbas"]),
        ];
        let chaperone = options
            .toml(MASKING)
            .toml("[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]")
            // A policy's time is the clock's, also while other work has the processors. What that does
            // to statements is in docs/failures.md, and not what is looked for here.
            .toml("[policies.limits]\ndeadline = \"5s\"")
            .required(&POLICIES)
            .target(&postgres, clinic::DATABASE, &roles, "")
            .identity("agent", AGENT, &["agents"], "quality-review")
            .identity("doctor", DOCTOR, &["clinicians"], "treatment")
            .identity("dba", DBA, &["dbas"], "maintenance")
            .identity("approver", APPROVER, &["approvers"], "on-call")
            .start()?;
        Ok(Self {
            chaperone,
            _postgres: postgres,
            _temporary: temporary,
        })
    }

    pub fn chaperone(&self) -> &Chaperone {
        &self.chaperone
    }

    pub fn process_id(&self) -> u32 {
        self.chaperone.process_id()
    }

    pub fn audit_folder(&self) -> PathBuf {
        self.chaperone.audit_folder()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.chaperone.command(arguments)
    }

    /// Drains the proxy. Whether it ended well and in time.
    pub fn end(&mut self) -> bool {
        self.chaperone.stop().is_some_and(|status| status.success())
    }

    /// What the proxy wrote about failures of its own.
    pub fn complaints(&self) -> Option<String> {
        let output = self.chaperone.output();
        let wrong = |line: &&str| line.contains(" ERROR ") || line.contains("panicked");
        let line = output.lines().find(wrong)?;
        Some(format!("the proxy complained: {line}"))
    }

    /// Replaces one module after another by itself with other bytes, until it is told to stop.
    pub fn reload(&self, tally: &Tally, stop: &AtomicBool) {
        for round in 0u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let place = usize::try_from(round).unwrap_or(0) % POLICIES.len();
            let name = POLICIES.get(place).copied().unwrap_or_default();
            match self.replace(name, round) {
                Ok(()) => tally.reloads.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    tally.wrong("reload", &error.to_string());
                    return;
                }
            };
            thread::sleep(RELOAD);
        }
    }

    fn replace(&self, name: &str, round: u64) -> Result<()> {
        let mut module = fs::read(policies::example(name)?).context("read a module")?;
        // A section of a name that nobody knows (WebAssembly specification, "Custom Section").
        let payload = [&b"\x04soak"[..], &round.to_be_bytes()].concat();
        module.push(0);
        module.extend(u8::try_from(payload.len()));
        module.extend(payload);
        let folder = self.chaperone.policy_folder();
        let next = folder.join(format!("{name}.next"));
        fs::write(&next, module).context("write a module")?;
        fs::rename(&next, folder.join(format!("{name}.wasm"))).context("replace a module")
    }

    /// Answers whatever waits for a person, until it is told to stop and nothing waits.
    pub fn approve(&self, tally: &Tally, stop: &AtomicBool) {
        let admin = self.chaperone.admin();
        for round in 0u64.. {
            let list = http::request(admin, "GET", "/v1/approvals", Some(APPROVER), None);
            let body = match list {
                Ok(answer) if answer.status == 200 => answer.body,
                Ok(answer) => {
                    tally.wrong("approvals", &answer.body);
                    return;
                }
                Err(error) => {
                    tally.wrong("approvals", &error.to_string());
                    return;
                }
            };
            let open = waiting(&body);
            if open.is_empty() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            for (place, id) in (round..).zip(open) {
                let deny = place.is_multiple_of(DENIED);
                let answer = if deny { "deny" } else { "approve" };
                let path = format!("/v1/approvals/{id}/{answer}");
                match http::request(admin, "POST", &path, Some(APPROVER), None) {
                    Ok(answer) if answer.status == 200 => {
                        let counter = if deny { &tally.denied } else { &tally.granted };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer) => tally.wrong("approvals", &answer.body),
                    Err(error) => tally.wrong("approvals", &error.to_string()),
                }
            }
        }
    }
}

/// The ids of requests that nobody has answered.
fn waiting(list: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    let all = list.get("approvals").and_then(Value::as_array);
    let text = |one: &Value, name: &str| one.get(name)?.as_str().map(str::to_owned);
    all.into_iter()
        .flatten()
        .filter(|one| one.get("missing").and_then(Value::as_u64) != Some(0))
        .filter_map(|one| text(one, "id"))
        .collect()
}

/// What the dbas change, a table each.
const TABLES: &str = "SET ROLE clinic_owner;
    DO $$ BEGIN FOR i IN 0..19 LOOP
        EXECUTE format('CREATE TABLE import_soak_%s (id integer, line text)', i);
        EXECUTE format('COMMENT ON TABLE import_soak_%s IS ''@label(clear)''', i);
        EXECUTE format('INSERT INTO import_soak_%s VALUES (0, ''x'')', i);
        EXECUTE format('GRANT ALL ON import_soak_%s TO dba', i);
    END LOOP; END $$;";
