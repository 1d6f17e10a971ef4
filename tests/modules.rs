//! The example policies as modules: small, importing only what they use, built alike by everybody.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is not as it should be"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use chaperone_contract::{Lineage, Operation, OutputField, Transform, Verdict};
use chaperone_policy_host::{
    FailureCode, Host, HostOptions, Inspection, PolicySet, Ruling, SetOptions, Settings,
};
use chaperone_test_support::chaperone::run;
use chaperone_test_support::policies;

/// Bytes of a module.
const MOST: usize = 150_000;

/// Each example policy, and the getters that its source calls.
const MODULES: [(&str, &[&str]); 4] = [
    ("allow-all", &["operation.outputs"]),
    (
        "clinical-access",
        &[
            "operation.actions",
            "operation.command",
            "operation.objects",
            "operation.sql",
            "session.has-group",
            "session.purpose",
            "sql-facts.is-read-only",
        ],
    ),
    (
        "phi-masking",
        &["operation.outputs", "operation.uses", "session.has-group"],
    ),
    (
        "risky-commands",
        &[
            "operation.actions",
            "operation.command",
            "operation.objects",
            "operation.outputs",
            "operation.sql",
            "operation.uses",
            "session.has-group",
            "sql-facts.functions",
            "sql-facts.is-filtered",
            "sql-facts.row-limit",
        ],
    ),
];

fn home(name: &str) -> PathBuf {
    policies::workspace().join("example-policies").join(name)
}

fn inspect(module: &Path) -> Inspection {
    let host = Host::new(HostOptions::default()).unwrap();
    let name = module.display().to_string();
    host.inspect(&name, fs::read(module).unwrap()).unwrap()
}

#[test]
fn every_example_is_listed() {
    let folder = policies::workspace().join("example-policies");
    let there = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let there: BTreeSet<String> = there
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, listed);
}

#[test]
fn modules_are_small_and_import_only_what_they_use() {
    for (name, getters) in MODULES {
        let module = policies::example(name).unwrap();
        let seen = inspect(&module);
        println!("{name}: {} bytes", seen.size);
        assert!(
            seen.size <= MOST,
            "{name} has {} bytes, more than {MOST}",
            seen.size
        );
        assert_eq!(seen.getters, getters, "{name}");
        assert_eq!(seen.imports, ["chaperone:policy/types@0.1.0"], "{name}");
        assert!(
            seen.reads.is_empty(),
            "{name}: its verdicts cannot be re-used"
        );
    }
}

/// `chaperone policy build`, the command of the SDK's README and the tests make the same module.
#[test]
fn everybody_builds_the_same() {
    let name = "allow-all";
    let built = fs::read(policies::example(name).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaperone"));
    command
        .args(["policy", "build"])
        .arg(home(name))
        .arg("-o")
        .arg(folder.path());
    run(command.env("CARGO_TARGET_DIR", policies::target_folder())).unwrap();
    assert!(fs::read(folder.path().join("allow_all.wasm")).unwrap() == built);

    let readme = fs::read_to_string(policies::workspace().join("policy-sdk/README.md")).unwrap();
    let shown = readme
        .lines()
        .find(|line| line.starts_with("    cargo build "))
        .unwrap();
    let root = policies::workspace();
    let arguments = shown.replace("PATH-TO", &root.to_string_lossy());
    let arguments = arguments.split_whitespace().skip(1);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).arg("--quiet").current_dir(home(name));
    run(cargo.env("CARGO_TARGET_DIR", policies::target_folder())).unwrap();
    assert!(fs::read(policies::example(name).unwrap()).unwrap() == built);
}

/// A crate as a component of wasm32-wasip2, with the build settings of all modules.
fn wasip2(home: &Path) -> Vec<u8> {
    let settings = policies::workspace().join("policy-sdk/module.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--lib", "--target", "wasm32-wasip2"])
        .args(["--profile", "policy", "--config"])
        .arg(settings)
        .current_dir(home);
    run(cargo.env("CARGO_TARGET_DIR", policies::target_folder())).unwrap();
    let name = home
        .file_name()
        .unwrap()
        .to_string_lossy()
        .replace('-', "_");
    let built = policies::target_folder().join("wasm32-wasip2/policy");
    fs::read(built.join(format!("{name}.wasm"))).unwrap()
}

fn decide(component: Vec<u8>) -> Ruling {
    let host = Host::new(HostOptions::default()).unwrap();
    let seen = host.inspect("guest.wasm", component.clone()).unwrap();
    assert!(
        seen.imports.iter().any(|it| it.starts_with("wasi:")),
        "{:?}",
        seen.imports
    );
    let module = host
        .load("guest.wasm", component, &Settings::new())
        .unwrap();
    let operation = Operation {
        protocol: "postgresql".into(),
        command: "SELECT".into(),
        outputs: vec![OutputField {
            name: "ssn".into(),
            type_name: "text".into(),
            lineage: Lineage::Unknown,
        }],
        ..Operation::default()
    };
    PolicySet::new(vec![module], SetOptions::default())
        .unwrap()
        .decide(
            &Arc::default(),
            &Arc::new(operation),
            &chaperone_contract::Context::default(),
        )
}

#[test]
fn a_component_that_brings_wasi_along_decides_all_the_same() {
    let ruling = decide(wasip2(&home("allow-all")));
    assert_eq!(ruling.verdict, Verdict::Allow);
    assert_eq!(ruling.outputs[0].transform, Transform::Reveal);
}

#[test]
fn a_component_that_asks_wasi_for_the_time_is_a_denial() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("clock-watcher");
    fs::create_dir_all(home.join("src")).unwrap();
    let root = policies::workspace();
    let manifest = format!(
        "[package]\nname = \"clock-watcher\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n\
         [dependencies]\npolicy-sdk = {{ path = {:?} }}\n",
        root.join("policy-sdk")
    );
    fs::write(home.join("Cargo.toml"), manifest).unwrap();
    fs::copy(root.join("Cargo.lock"), home.join("Cargo.lock")).unwrap();
    let source = r#"
        use policy_sdk::prelude::*;
        struct ClockWatcher;
        impl Policy for ClockWatcher {
            type Settings = NoSettings;
            fn manifest() -> Manifest {
                policy_sdk::manifest!()
            }
            fn configure(_: NoSettings) -> Result<Self, String> {
                Ok(Self)
            }
            fn evaluate(&self, _: &Session, operation: &Operation) -> Result<Decision, Reason> {
                // The self-test's operation has no command.
                if !operation.command().is_empty() {
                    let now = std::time::SystemTime::now().elapsed();
                    now.map_err(|_| deny("clock", "The clock goes backwards."))?;
                }
                Ok(Decision::allow())
            }
        }
        policy_sdk::export_policy!(ClockWatcher);
    "#;
    fs::write(home.join("src/lib.rs"), source).unwrap();
    let ruling = decide(wasip2(&home));
    let Verdict::Deny(reason) = &ruling.verdict else {
        panic!("{ruling:?}");
    };
    assert_eq!(reason.code, FailureCode::Trap.as_str());
    let failure = format!("{:?}", ruling.failures().next());
    assert!(failure.contains("wall-clock"), "{failure}");
}
