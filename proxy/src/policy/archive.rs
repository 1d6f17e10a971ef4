//! Modules and settings by their digest, for whoever executes a decision again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chaperone_policy_host::Module;

/// A directory of `<SHA3-256>.wasm` and `<SHA3-256>.json` files; nothing in it is ever changed.
#[derive(Clone, Debug)]
pub struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// An archive in this directory, which is made when the first module is stored.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Archive {
            directory: directory.into(),
        }
    }

    /// Stores a module's bytes and its settings, durably.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn store(&self, module: &Module) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        self.put(&format!("{}.wasm", module.digest()), module.bytes())?;
        self.put(
            &format!("{}.json", module.settings_digest()),
            module.settings().as_bytes(),
        )
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.directory.join(name);
        if path.exists() {
            return Ok(());
        }
        write_atomically(&path, bytes)
    }
}

/// Writes beside the target and renames, so that nobody ever sees half a file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        // It may not exist; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}
