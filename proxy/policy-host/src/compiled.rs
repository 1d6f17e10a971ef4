//! Compiled modules that are kept from one start to the next.
//!
//! Machine code that is loaded is run with the process's rights, outside of any sandbox, so whoever
//! can write to the folder can do whatever the process can. It is used only while nobody else can:
//! see [`check`]. What is in it is found by a digest of the module as it is compiled (wasm that
//! comes from the policy directory is read, digested and validated as ever), of the compiler, its
//! version and all its settings; wasmtime writes and reads the files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use wasmtime::{Cache, CacheConfig};

/// Bytes that compiled modules may take. What was not used for longest goes first.
const MOST_BYTES: u64 = 256 << 20;
/// Others than the owner that may write.
const OTHERS_WRITE: u32 = 0o022;
/// Only a file's owner may rename it, in a folder that all may write to.
const STICKY: u32 = 0o1000;

/// Why compiled modules cannot be kept. The host does without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
    #[error("{} belongs to another user (uid {uid})", path.display())]
    Owner { path: PathBuf, uid: u32 },
    #[error("others may write to {} (chmod go-w)", .0.display())]
    Writable(PathBuf),
    #[error("{0}")]
    Library(String),
}

/// A cache in this folder, which is made if need be.
pub(crate) fn cache(folder: &Path) -> Result<Cache, Unfit> {
    let failed = |error| Unfit::Io {
        path: folder.to_owned(),
        error,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    // Links are resolved once, here; from then on it is the folder that was looked at.
    let folder = folder.canonicalize().map_err(failed)?;
    check(&folder)?;
    let mut config = CacheConfig::new();
    config
        .with_directory(&folder)
        .with_files_total_size_soft_limit(MOST_BYTES);
    Cache::new(config).map_err(|error| Unfit::Library(format!("{error:#}")))
}

/// That nobody but this process's user, and root, can write to the folder, put another in its
/// place, or has left anything in it.
fn check(folder: &Path) -> Result<(), Unfit> {
    let own = rustix::process::geteuid().as_raw();
    for ancestor in folder.ancestors().skip(1) {
        let metadata = metadata(ancestor)?;
        belongs(ancestor, &metadata, own)?;
        if metadata.mode() & OTHERS_WRITE != 0 && metadata.mode() & STICKY == 0 {
            return Err(Unfit::Writable(ancestor.to_owned()));
        }
    }
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = metadata(&path)?;
        belongs(&path, &metadata, own)?;
        if metadata.mode() & OTHERS_WRITE != 0 {
            return Err(Unfit::Writable(path));
        }
        if metadata.is_dir() {
            let failed = |error| Unfit::Io {
                path: path.clone(),
                error,
            };
            for entry in fs::read_dir(&path).map_err(failed)? {
                open.push(entry.map_err(failed)?.path());
            }
        } else if path == folder || !metadata.is_file() {
            return Err(Unfit::NoFolder(path));
        }
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<fs::Metadata, Unfit> {
    // Of a link itself, not of what it leads to.
    fs::symlink_metadata(path).map_err(|error| Unfit::Io {
        path: path.to_owned(),
        error,
    })
}

fn belongs(path: &Path, metadata: &fs::Metadata, own: u32) -> Result<(), Unfit> {
    match metadata.uid() {
        0 => Ok(()),
        uid if uid == own => Ok(()),
        uid => Err(Unfit::Owner {
            path: path.to_owned(),
            uid,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_could_write_to_is_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("compiled");
        let cache = || super::cache(&folder);
        assert!(cache().is_ok());
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));

        set(&folder, 0o770).unwrap();
        assert!(matches!(cache(), Err(Unfit::Writable(path)) if path.ends_with("compiled")));
        set(&folder, 0o700).unwrap();

        set(scratch.path(), 0o777).unwrap();
        assert!(matches!(cache(), Err(Unfit::Writable(_))));
        // As /tmp is.
        set(scratch.path(), 0o1777).unwrap();
        assert!(cache().is_ok());
        set(scratch.path(), 0o700).unwrap();

        let left = folder.join("modules");
        fs::write(&left, b"machine code").unwrap();
        assert!(cache().is_ok());
        set(&left, 0o666).unwrap();
        assert!(matches!(cache(), Err(Unfit::Writable(path)) if path == left));
        fs::remove_file(&left).unwrap();
        symlink(scratch.path(), &left).unwrap();
        assert!(cache().is_err());
        fs::remove_file(&left).unwrap();

        fs::remove_dir(&folder).unwrap();
        fs::write(&folder, b"").unwrap();
        assert!(cache().is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let metadata = metadata(scratch.path()).unwrap();
        let belongs = |own| belongs(scratch.path(), &metadata, own);
        assert!(belongs(metadata.uid()).is_ok());
        let other = belongs(metadata.uid() + 1);
        assert!(matches!(other, Err(Unfit::Owner { .. })) || metadata.uid() == 0);
    }
}
