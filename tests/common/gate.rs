//! A small policy, built from source in several variants under one name, to swap while running.
#![allow(
    dead_code,
    reason = "each test program uses another part of what they share"
)]

use std::fs;
use std::path::{Path, PathBuf};

use chaperone_test_support::{Chaperone, http, policies};

const MANIFEST: &str = r#"[package]
name = "gate"
version = "0.1.0"
edition = "2024"
description = "Decides everything in one way"
publish = false

[lib]
name = "@LIB@"
crate-type = ["cdylib"]

[dependencies]
policy-sdk = { path = "@SDK@" }

[profile.release]
opt-level = 3
panic = "abort"

[workspace]
"#;

const SOURCE: &str = r#"
use policy_sdk::prelude::*;

struct Gate;

impl Policy for Gate {
    type Settings = NoSettings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!().abilities(Abilities::DECIDES | Abilities::MASKS)
    }

    fn configure(_: NoSettings) -> Result<Self, String> {
        Ok(Gate)
    }

    fn evaluate(&self, _: &Session, operation: &Operation) -> Result<Decision, Reason> {
        match "@MODE@" {
            "SHUT" => Err(deny("shut", "The gate is shut.")),
            mode => {
                let outputs = (0u32..).zip(operation.outputs());
                Ok(outputs.fold(Decision::allow(), |decision, (output, _)| {
                    decision.mask(output, Transform::Fixed(mode.to_owned()))
                }))
            }
        }
    }
}

policy_sdk::export_policy!(Gate);
"#;

/// The variant that denies everything (`SHUT`), or allows everything and shows its own name in
/// each text column.
pub fn build(mode: &str) -> PathBuf {
    let lower = mode.to_lowercase();
    let folder = policies::build_folder()
        .join("gates")
        .join(format!("gate-{lower}"));
    fs::create_dir_all(folder.join("src")).unwrap();
    let sdk = policies::workspace().join("policy-sdk");
    let manifest = MANIFEST
        .replace("@SDK@", &sdk.to_string_lossy())
        .replace("@LIB@", &format!("gate_{lower}"));
    write_once(&folder.join("Cargo.toml"), &manifest);
    write_once(&folder.join("src/lib.rs"), &SOURCE.replace("@MODE@", mode));
    // The same versions as everything else, so that nothing new has to be fetched.
    let lock = fs::read_to_string(policies::workspace().join("Cargo.lock")).unwrap();
    if !folder.join("Cargo.lock").exists() {
        write_once(&folder.join("Cargo.lock"), &lock);
    }
    policies::build(&folder).unwrap()
}

/// Test programs that run side by side must not see half a file, nor a newer one than was built.
fn write_once(file: &Path, text: &str) {
    if fs::read_to_string(file).is_ok_and(|known| known == text) {
        return;
    }
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, file).unwrap();
}

/// Puts a module into the policy directory under `name`.wasm, by an atomic rename.
pub fn drop_in(proxy: &Chaperone, name: &str, module: &Path) {
    let folder = proxy.policy_folder();
    let temporary = proxy.folder().join(format!("{name}.incoming"));
    fs::copy(module, &temporary).unwrap();
    fs::rename(temporary, folder.join(format!("{name}.wasm"))).unwrap();
}

/// How many reloads have had this result: `Loaded`, `Failed`, `Removed`.
pub fn reloads(proxy: &Chaperone, result: &str) -> u64 {
    let metrics = http::get(proxy.admin(), "/metrics").unwrap().body;
    let name = format!("chaperone_policy_reloads_total{{result=\"{result}\"}} ");
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(&name))
        .map_or(0, |count| count.parse().unwrap())
}
