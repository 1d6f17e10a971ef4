//! The clinic behind a proxy with the example policies, set as in the demo, and who calls it.
#![allow(
    dead_code,
    reason = "each test program uses another part of what they share"
)]

use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chaperone_test_support::chaperone::{Chaperone, ChaperoneOptions};
use chaperone_test_support::{Postgres, clinic, policies};

pub const CHAPERONE: &str = env!("CARGO_BIN_EXE_chaperone");
pub const DATABASE: &str = clinic::DATABASE;
/// Loading a module takes seconds where the host is unoptimised and the machine busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub const AGENT: &str = "token-of-the-agent-0123456789abcdef";
pub const DOCTOR: &str = "token-of-the-doctor-0123456789abcdef";
pub const DBA: &str = "token-of-the-dba-0123456789abcdef";
pub const APPROVER: &str = "token-of-the-approver-0123456789abcdef";

const ACCESS: &str = include_str!("../demo/settings/clinical-access.toml");
const MASKING: &str = include_str!("../demo/settings/phi-masking.toml");
pub const RISKY: &str = include_str!("../demo/settings/risky-commands.toml");

/// A server with the clinic in it, for all tests of a program. Ends with the program: its guardian
/// sees to it.
pub static POSTGRES: LazyLock<Postgres> = LazyLock::new(clinic);

/// A server with the clinic in it.
pub fn clinic() -> Postgres {
    let postgres = Postgres::start().unwrap();
    clinic::seed(&postgres).unwrap();
    postgres
}

/// The three policies, as the demo sets them.
pub fn clinical(options: ChaperoneOptions) -> ChaperoneOptions {
    with_risky(options, RISKY)
}

/// As [`clinical`], with other settings for `risky-commands`.
pub fn with_risky(options: ChaperoneOptions, risky: &str) -> ChaperoneOptions {
    // The masks' settings begin with a table header of their own.
    options
        .policy(
            "clinical-access",
            policies::example("clinical-access").unwrap(),
            ACCESS,
        )
        .policy(
            "risky-commands",
            policies::example("risky-commands").unwrap(),
            risky,
        )
        .policy("phi-masking", policies::example("phi-masking").unwrap(), "")
        .toml(MASKING)
}

/// The clinic as a target, and everybody who may call. The dba may approve too.
pub fn people(options: ChaperoneOptions, postgres: &Postgres) -> ChaperoneOptions {
    options
        .target(
            postgres,
            DATABASE,
            &[
                ("agent_ro", &["agents"]),
                ("clinician", &["clinicians"]),
                ("dba", &["dbas"]),
            ],
            "",
        )
        .identity("agent", AGENT, &["agents"], "quality-review")
        .identity("doctor", DOCTOR, &["clinicians"], "treatment")
        .identity("dba", DBA, &["dbas", "approvers"], "maintenance")
        .identity("approver", APPROVER, &["approvers"], "on-call")
}

/// The text says this.
#[track_caller]
pub fn has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part} in: {text}");
}

/// Waits until `done` says so.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `chaperone audit ...` over the proxy's log: what it prints, having ended with success.
pub fn audit(proxy: &Chaperone, verb: &str, further: &[&str]) -> String {
    let folder = proxy.audit_folder();
    let mut command = proxy.command(&["audit", verb]);
    let output = command.arg(folder).args(further).output().unwrap();
    assert!(output.status.success(), "audit {verb}: {}", words(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program said on both ways.
pub fn words(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// `chaperone approvals ...` as the owner of `token`.
pub fn approvals(proxy: &Chaperone, token: &str, arguments: &[&str]) -> Output {
    let mut command: Command = proxy.command(&["approvals"]);
    command
        .args(arguments)
        .args(["--admin", &format!("http://{}", proxy.admin())])
        .env("CHAPERONE_ADMIN_TOKEN", token)
        .output()
        .unwrap()
}

/// The ids that a text names: `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
pub fn ids(text: &str) -> Vec<String> {
    let is_id = |word: &&str| {
        word.len() == 36
            && word.bytes().filter(|&b| b == b'-').count() == 4
            && word.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
    };
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .filter(is_id)
        .map(str::to_owned)
        .collect()
}
