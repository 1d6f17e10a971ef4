//! A small policy, built from source in several variants under one name, to swap while running.
#![allow(
    dead_code,
    reason = "each test program uses another part of what they share"
)]

use std::fs;
use std::path::{Path, PathBuf};

use chaperone_test_support::{Chaperone, http};

use crate::guest;

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
    let source = SOURCE.replace("@MODE@", mode);
    guest::build("gate", &format!("gate-{lower}"), &source)
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
