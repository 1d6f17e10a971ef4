//! Policies that a test brings along as source.
#![allow(
    dead_code,
    reason = "each test program uses another part of what they share"
)]

use std::fs;
use std::path::{Path, PathBuf};

use chaperone_test_support::policies;

const MANIFEST: &str = r#"[package]
name = "@NAME@"
version = "0.1.0"
edition = "2024"
description = "A policy of a test"
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

/// Builds a policy called `name` in a folder of its own.
pub fn build(name: &str, folder: &str, source: &str) -> PathBuf {
    let lib = folder.replace('-', "_");
    let folder = policies::build_folder().join("gates").join(folder);
    fs::create_dir_all(folder.join("src")).unwrap();
    let sdk = policies::workspace().join("policy-sdk");
    let manifest = MANIFEST
        .replace("@NAME@", name)
        .replace("@SDK@", &sdk.to_string_lossy())
        .replace("@LIB@", &lib);
    write_once(&folder.join("Cargo.toml"), &manifest);
    write_once(&folder.join("src/lib.rs"), source);
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
