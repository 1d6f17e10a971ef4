//! The way that `docs/policy-authors.md` shows, walked: the files as they stand there, its commands,
//! a proxy that takes the module while it runs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chaperone_test_support::chaperone::run;
use chaperone_test_support::{Chaperone, Postgres, clinic, policies};

const GUIDE: &str = include_str!("../docs/policy-authors.md");

/// The block of code behind the paragraph that names `src/lib.rs`.
fn shown_source() -> String {
    let (_, rest) = GUIDE.split_once("and write `src/lib.rs`:").unwrap();
    block(rest)
}

/// The commands of a section, as they stand there.
fn commands(section: &str) -> Vec<&'static str> {
    let (_, rest) = GUIDE.split_once(section).unwrap();
    let text = rest.split("\n## ").next().unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect()
}

fn block(text: &str) -> String {
    let (_, rest) = text.split_once("\n```").unwrap();
    let (_, code) = rest.split_once('\n').unwrap();
    format!("{}\n", code.split_once("\n```").unwrap().0)
}

fn scaffold(folder: &Path) -> PathBuf {
    let shown = commands("## 1. Scaffold");
    assert_eq!(
        shown,
        [
            "chaperone policy new ward-rules",
            "cd ward-rules",
            "cargo test"
        ]
    );
    let mut new = Command::new(env!("CARGO_BIN_EXE_chaperone"));
    new.args(shown[0].split(' ').skip(1)).current_dir(folder);
    let said = run(&mut new).unwrap();
    assert!(
        said.starts_with("ward-rules: ward-rules/src/lib.rs"),
        "{said}"
    );
    let home = folder.join("ward-rules");
    // The versions that are there already.
    let lock = policies::workspace().join("Cargo.lock");
    fs::copy(lock, home.join("Cargo.lock")).unwrap();
    home
}

fn cargo_test(home: &Path) {
    let mut test = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    test.args(["test", "--quiet", "--lib"]).current_dir(home);
    for setting in PROFILE {
        test.args(["--config", setting]);
    }
    let said = run(test.env("CARGO_TARGET_DIR", policies::build_folder())).unwrap();
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
    let home = scaffold(folder.path());

    cargo_test(&home);
    fs::write(home.join("src/lib.rs"), shown_source()).unwrap();
    cargo_test(&home);

    let postgres = Postgres::start().unwrap();
    clinic::seed(&postgres).unwrap();
    let (_, settings) = GUIDE.split_once("checked against the schema").unwrap();
    let proxy = Chaperone::options(env!("CARGO_BIN_EXE_chaperone"))
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
    assert_eq!(
        commands("## 3. Build and drop in"),
        ["chaperone policy build . -o policies"]
    );
    let mut build = proxy.command(&["policy", "build", ".", "-o"]);
    build.arg(&policy_folder).current_dir(&home);
    let said = run(build.env("CARGO_TARGET_DIR", policies::target_folder())).unwrap();
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

    let explain = |sql: &str| {
        let mut command = proxy.command(&["explain", sql, "--as", "agent-7", "--config"]);
        run(command.arg(proxy.config())).unwrap()
    };
    let text = explain("SELECT name, phone FROM patients");
    let line = text
        .lines()
        .find(|line| line.starts_with("phone "))
        .unwrap();
    assert!(
        line.contains("\"[phone]\"") && line.ends_with("ward-rules"),
        "{text}"
    );
    let text = explain("SELECT body FROM notes");
    assert!(
        text.contains("deny with 42501 [other-ward] This table"),
        "{text}"
    );
}
