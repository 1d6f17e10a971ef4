//! The files that the configuration names.

use std::fs;
use std::path::Path;

use super::error::Fault;
use super::locate::{Step, key};
use super::{Config, Secret, TlsFiles};
use crate::tls;

/// A shorter key for hashes can be guessed.
const SHORTEST_KEY: usize = 16;

pub(super) fn read(config: &mut Config) -> Result<(), Fault> {
    if let Some(files) = &config.listen.tls {
        certificate(files, "listen")?;
    }
    if let Some(files) = config.admin.as_ref().and_then(|admin| admin.tls.as_ref()) {
        certificate(files, "admin")?;
    }
    for (index, recipient) in config.audit.recipients.iter().enumerate() {
        let mend = "make a key pair with `chaperone audit keygen` and name the public half";
        contents(recipient, key!["audit", "recipients", index], mend)?;
    }
    directory(&config.policies.directory)?;
    if let Some(file) = &config.masking.keyed_hash_key {
        let at = key!["masking", "keyed_hash_key"];
        let mend = "make one: head -c 32 /dev/urandom > mask.key";
        let bytes = contents(file, at.clone(), mend)?;
        if bytes.len() < SHORTEST_KEY {
            let message = format!("{} holds {} bytes, too few", file.display(), bytes.len());
            return Err(Fault::new(at, message, mend));
        }
        config.masking.key = Some(Secret::new(bytes));
    }
    for (index, provider) in config.identity.providers.iter().enumerate() {
        if let Some(ca) = &provider.ca {
            authority(ca, key!["identity", "providers", index, "ca"])?;
        }
    }
    for (index, target) in config.targets.iter_mut().enumerate() {
        if let Some(ca) = &target.tls.ca {
            authority(ca, key!["targets", index, "tls", "ca"])?;
        }
        for (number, role) in target.roles.iter_mut().enumerate() {
            if let Some(file) = &role.password_file {
                let at = key!["targets", index, "roles", number, "password_file"];
                role.password = Some(password(file, at)?);
            }
        }
    }
    Ok(())
}

fn contents(file: &Path, at: Vec<Step>, mend: &str) -> Result<Vec<u8>, Fault> {
    fs::read(file)
        .map_err(|error| Fault::new(at, format!("cannot read {}: {error}", file.display()), mend))
}

fn password(file: &Path, at: Vec<Step>) -> Result<Secret, Fault> {
    let mend = "put the login's password into the file, on one line";
    let bytes = contents(file, at.clone(), mend)?;
    let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\n', '\r']));
    match text {
        Ok(text) if !text.is_empty() && !text.contains(['\n', '\0']) => Ok(Secret::new(text)),
        _ => {
            let message = format!("{} does not hold one line of text", file.display());
            Err(Fault::new(at, message, mend))
        }
    }
}

fn directory(folder: &Path) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(Fault::new(
        key!["policies", "directory"],
        format!("{} is not a directory", folder.display()),
        "make it and put policy modules (.wasm) into it",
    ))
}

fn certificate(files: &TlsFiles, section: &str) -> Result<(), Fault> {
    tls::server_config(&files.certificate, &files.key).map_err(|error| {
        let name = if error.file() == files.key {
            "key"
        } else {
            "certificate"
        };
        Fault::new(key![section, "tls", name], error.to_string(), error.mend())
    })?;
    Ok(())
}

fn authority(file: &Path, at: Vec<Step>) -> Result<(), Fault> {
    tls::client_config(file).map_err(|error| Fault::new(at, error.to_string(), error.mend()))?;
    Ok(())
}
