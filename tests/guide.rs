//! The way that `docs/policy-authors.md` shows, walked: the files as they stand there, its commands,
//! a proxy that takes the module while it runs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "common/pages.rs"]
mod pages;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chaperone_test_support::{Chaperone, Postgres, clinic, policies};
use pages::Shown;

const CHAPERONE: &str = env!("CARGO_BIN_EXE_chaperone");
const GUIDE: &str = include_str!("../docs/policy-authors.md");

/// The block of code behind the paragraph that names `src/lib.rs`.
fn shown_source() -> String {
    let (_, rest) = GUIDE.split_once("and write `src/lib.rs`:").unwrap();
    block(rest)
}

fn block(text: &str) -> String {
    let (_, rest) = text.split_once("\n```").unwrap();
    let (_, code) = rest.split_once('\n').unwrap();
    format!("{}\n", code.split_once("\n```").unwrap().0)
}

/// Runs a command of the page in a shell that finds `chaperone`.
fn shell(folder: &Path, command: &str, variables: &[(&str, &str)]) -> String {
    let output = pages::shell(folder, CHAPERONE, command, variables);
    let said = [&*output.stdout, &*output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command}: {said}");
    said
}

fn scaffold(folder: &Path, shown: &mut Shown) -> PathBuf {
    let new = shown.take("chaperone policy new");
    let enter = shown.take("cd ");
    let said = shell(folder, &format!("{new}\n{enter}\npwd"), &[]);
    assert!(
        said.starts_with("ward-rules: ward-rules/src/lib.rs"),
        "{said}"
    );
    let home = folder.join("ward-rules");
    assert!(said.trim().ends_with("/ward-rules"), "{said}");
    // The versions that are there already.
    let lock = policies::workspace().join("Cargo.lock");
    fs::copy(lock, home.join("Cargo.lock")).unwrap();
    home
}

fn cargo_test(home: &Path, shown: &mut Shown) {
    let settings: String = PROFILE.map(|it| format!(" --config '{it}'")).concat();
    let command = format!("{} --quiet --lib{settings}", shown.take("cargo test"));
    let target = policies::build_folder();
    let said = shell(
        home,
        &command,
        &[("CARGO_TARGET_DIR", target.to_str().unwrap())],
    );
    assert!(said.contains("1 passed"), "{said}");
}

/// The workspace's profile, so that what it has compiled of C is used here.
const PROFILE: [&str; 4] = [
    "profile.dev.package.\"*\".opt-level=2",
    "profile.dev.package.\"*\".debug=false",
    "profile.dev.package.\"*\".codegen-units=16",
    "profile.dev.build-override.opt-level=0",
];

#[test]
fn ten_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let mut shown = Shown::to("docs/policy-authors.md", "guide::ten_minutes");
    let home = scaffold(folder.path(), &mut shown);

    cargo_test(&home, &mut shown);
    fs::write(home.join("src/lib.rs"), shown_source()).unwrap();
    cargo_test(&home, &mut shown);

    let postgres = Postgres::start().unwrap();
    clinic::seed(&postgres).unwrap();
    let (_, settings) = GUIDE.split_once("checked against the schema").unwrap();
    let proxy = Chaperone::options(CHAPERONE)
        .target(
            &postgres,
            clinic::DATABASE,
            &[("agent_ro", &["agents"])],
            "",
        )
        .identity("agent-7", "a token", &["agents"], "quality-review")
        .policy("allow-all", policies::example("allow-all").unwrap(), "")
        .toml(&block(settings))
        .start()
        .unwrap();
    let agent = proxy.psql(clinic::DATABASE, "agent_ro", "a token");
    let phone = "SELECT phone FROM patients WHERE id = 7";
    assert_ne!(agent.value(phone).unwrap(), "[phone]");

    let policy_folder = proxy.policy_folder();
    symlink(&policy_folder, home.join("policies")).unwrap();
    let target = policies::target_folder();
    let target = [("CARGO_TARGET_DIR", target.to_str().unwrap())];
    let said = shell(&home, &shown.take("chaperone policy build"), &target);
    assert!(said.starts_with("ward-rules 0.1.0: "), "{said}");
    assert!(policy_folder.join("ward_rules.wasm").is_file());

    let deadline = Instant::now() + Duration::from_secs(20);
    while agent.value(phone).unwrap() != "[phone]" {
        assert!(Instant::now() < deadline, "{}", proxy.output());
        std::thread::sleep(Duration::from_millis(100));
    }
    let refused = agent.run("SELECT body FROM notes WHERE id = 1").unwrap();
    assert!(
        !refused.ok && refused.text().contains("own ward's"),
        "{}",
        refused.text()
    );

    let here = proxy.folder();
    shell(here, &shown.take("chaperone check"), &[]);
    let said = shell(here, &shown.take("chaperone policy inspect"), &[]);
    assert!(said.contains("ward-rules"), "{said}");
    let command = shown.take("chaperone explain");
    let text = shell(here, &command, &[]);
    let line = text
        .lines()
        .find(|line| line.starts_with("phone "))
        .unwrap();
    assert!(
        line.contains("\"[phone]\"") && line.ends_with("ward-rules"),
        "{text}"
    );
    let other = command.replace("name, phone FROM patients", "body FROM notes");
    let text = shell(here, &other, &[]);
    assert!(
        text.contains("deny with 42501 [other-ward] This table"),
        "{text}"
    );
    shown.all_ran();
}
