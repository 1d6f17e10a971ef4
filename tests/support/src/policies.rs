//! Policy modules, built from source once for all test processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context as _, Error, Result};

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
pub fn example(binary: &Path, name: &str) -> Result<PathBuf> {
    let folder = workspace().join("example-policies").join(name);
    let output = target_folder().join("built").join(format!("{name}.wasm"));
    build(binary, &folder, &output)?;
    Ok(output)
}

/// Builds the policy crate in `folder` to `output` with `chaperone policy build`. One build at a
/// time, whoever asks.
///
/// # Errors
/// It does not build; the error holds the compiler's words.
pub fn build(binary: &Path, folder: &Path, output: &Path) -> Result<()> {
    let target = target_folder();
    let parent = output.parent().unwrap_or(output);
    for needed in [target.as_path(), parent] {
        fs::create_dir_all(needed).context(format!("make {}", needed.display()))?;
    }
    let lock = File::create(target.join("lock")).context("open the build lock")?;
    lock.lock().context("wait for the build lock")?;
    let run = Command::new(binary)
        .args(["policy", "build"])
        .arg(folder)
        .arg("--output")
        .arg(output)
        .env("CARGO_TARGET_DIR", &target)
        .stdin(Stdio::null())
        .output()
        .context(format!("start {}", binary.display()))?;
    if run.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        program: format!("chaperone policy build {}", folder.display()),
        status: run.status.to_string(),
        output: String::from_utf8_lossy(&run.stderr).into_owned(),
    })
}
