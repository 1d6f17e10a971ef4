//! Policy modules, built from source once for all test processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chaperone::run;
use crate::error::{Context as _, Error, Result};

const WASM: &str = "wasm32-unknown-unknown";
/// Of the SDK's `module.toml`.
const PROFILE: &str = "policy";

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// Where cargo builds to.
#[must_use]
pub fn build_folder() -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), PathBuf::from);
    if base.is_absolute() {
        base
    } else {
        workspace().join(base)
    }
}

/// A folder that all builds of policies share, beside the other build output.
#[must_use]
pub fn target_folder() -> PathBuf {
    build_folder().join("policy-modules")
}

/// The module of an example policy (`clinical-access`, ...), built when its source has changed.
///
/// # Errors
/// It does not build; the error holds the compiler's words.
pub fn example(name: &str) -> Result<PathBuf> {
    build(&workspace().join("example-policies").join(name))
}

/// Builds the policy crate in `folder` with cargo, as a plain core module that carries the
/// contract's type, and returns where it is. One build at a time, whoever asks. What people use is
/// `chaperone policy build`; tests of the wire do not want to depend on it.
///
/// # Errors
/// It does not build; the error holds the compiler's words.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let target = target_folder();
    fs::create_dir_all(&target).context(format!("make {}", target.display()))?;
    let lock = File::create(target.join("lock")).context("open the build lock")?;
    lock.lock().context("wait for the build lock")?;
    run(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "build",
                "--quiet",
                "--profile",
                PROFILE,
                "--lib",
                "--target",
                WASM,
            ])
            // As `chaperone policy build` has it too, so that both share what is compiled.
            .arg("--config")
            .arg(workspace().join("policy-sdk/module.toml"))
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .replace('-', "_");
    let module = target.join(WASM).join(PROFILE).join(format!("{name}.wasm"));
    if module.is_file() {
        return Ok(module);
    }
    Err(Error::Missing {
        what: module.display().to_string(),
        mend: "name the crate as its folder, with crate-type cdylib".to_owned(),
    })
}
