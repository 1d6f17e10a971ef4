//! Real files, a real watcher, real modules.

#[path = "../../policy-host/tests/support/guest.rs"]
mod guest;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use chaperone_policy_host::{Host, HostOptions, SetOptions};
use guest::Guest;
use tempfile::TempDir;

use super::*;

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(HostOptions::default()).unwrap());

/// A module of this name that does nothing else; `variant` makes another file of it.
fn module(name: &'static str, variant: &'static str) -> Vec<u8> {
    Guest {
        name,
        extra: variant,
        ..Guest::default()
    }
    .module()
}

const OTHER: &str = "(func $other)";

struct Watched {
    policies: Policies,
    events: Arc<Mutex<Vec<String>>>,
}

fn options(directory: &Path) -> Options {
    Options {
        settle: Duration::from_millis(60),
        scan: Duration::from_millis(200),
        ..Options::new(directory)
    }
}

fn open(options: Options) -> Result<Watched, OpenError> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let policies = Policies::open(HOST.clone(), options, move |event| {
        log.lock().unwrap().push(match event {
            PolicyEvent::Loaded { file, module, .. } => format!("loaded {file} {}", module.name()),
            PolicyEvent::Failed(failed) => format!("failed {}", failed.file),
            PolicyEvent::Removed { file, kept, .. } => format!("removed {file} kept={kept}"),
        });
    })?;
    Ok(Watched { policies, events })
}

impl Watched {
    fn wait(&self, event: &str) {
        let start = Instant::now();
        while !self.events.lock().unwrap().iter().any(|e| e == event) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no `{event}` in {:?}",
                self.events.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn names(&self) -> Vec<String> {
        let set = self.policies.current();
        set.modules().iter().map(|m| m.name().to_owned()).collect()
    }

    fn clear(&self) {
        self.events.lock().unwrap().clear();
    }
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.wasm"), module("a", "")).unwrap();
    folder
}

#[test]
fn start_up_refuses_what_is_not_whole() {
    let empty = TempDir::new().unwrap();
    assert!(matches!(
        open(options(empty.path())),
        Err(OpenError::Empty(_))
    ));
    let folder = folder();
    let required = Options {
        set: SetOptions {
            required: vec!["b".into()],
            ..SetOptions::default()
        },
        ..options(folder.path())
    };
    assert!(matches!(open(required), Err(OpenError::Missing { missing, .. }) if missing == ["b"]));
    fs::write(folder.path().join("b.wasm"), b"hello").unwrap();
    let error = open(options(folder.path())).err().unwrap().to_string();
    assert!(error.starts_with("b.wasm: "), "{error}");
    assert!(matches!(
        open(options(&folder.path().join("none"))),
        Err(OpenError::Broken(_))
    ));
}

#[test]
fn a_slow_copy_loads_once_and_a_broken_one_replaces_nothing() {
    let folder = folder();
    let archive = TempDir::new().unwrap();
    let watched = open(Options {
        archive: Some(archive.path().join("kept")),
        ..options(folder.path())
    })
    .unwrap();
    let before = watched.policies.current().digest();

    let path = folder.path().join("a.wasm");
    fs::write(&path, &module("a", OTHER)[..500]).unwrap();
    watched.wait("failed a.wasm");
    assert_eq!(watched.policies.current().digest(), before);
    assert_eq!(watched.policies.status().failed.len(), 1);

    watched.clear();
    let whole = module("a", OTHER);
    for end in (0..whole.len()).step_by(whole.len() / 8) {
        fs::write(&path, &whole[..end]).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    fs::write(&path, &whole).unwrap();
    watched.wait("loaded a.wasm a");
    assert_ne!(watched.policies.current().digest(), before);
    assert!(watched.policies.status().failed.is_empty());
    let digest = watched.policies.current().modules()[0].digest();
    let kept = fs::read(archive.path().join("kept").join(format!("{digest}.wasm"))).unwrap();
    assert_eq!(kept, whole);
}

#[test]
fn removal_does_not_widen() {
    let folder = folder();
    fs::write(folder.path().join("b.wasm"), module("b", "")).unwrap();
    let watched = open(Options {
        set: SetOptions {
            required: vec!["a".into()],
            ..SetOptions::default()
        },
        ..options(folder.path())
    })
    .unwrap();
    fs::remove_file(folder.path().join("b.wasm")).unwrap();
    watched.wait("removed b.wasm kept=true");
    assert_eq!(watched.names(), ["a", "b"]);
    assert_eq!(watched.policies.status().kept, ["b"]);

    fs::remove_file(folder.path().join("a.wasm")).unwrap();
    watched.wait("removed a.wasm kept=false");
    assert_eq!(watched.policies.current().missing(), ["a"]);
    watched.clear();
    fs::write(folder.path().join("a.wasm"), module("a", "")).unwrap();
    watched.wait("loaded a.wasm a");
    assert!(watched.policies.current().missing().is_empty());
}

#[test]
fn a_rename_changes_no_set() {
    let folder = folder();
    let watched = open(Options {
        set: SetOptions {
            required: vec!["a".into()],
            ..SetOptions::default()
        },
        ..options(folder.path())
    })
    .unwrap();
    let before = watched.policies.current().digest();
    fs::rename(folder.path().join("a.wasm"), folder.path().join("z.wasm")).unwrap();
    watched.wait("loaded z.wasm a");
    watched.wait("removed a.wasm kept=true");
    assert_eq!(watched.policies.current().digest(), before);
    assert!(watched.policies.status().kept.is_empty());
    // A second file of the same name is refused, the first goes on.
    fs::write(folder.path().join("b.wasm"), module("a", OTHER)).unwrap();
    watched.wait("failed b.wasm");
    assert_eq!(watched.policies.current().digest(), before);
}

#[test]
fn swapped_symlinks_are_followed() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, variant) in [("..1", ""), ("..2", OTHER)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.wasm"), module("a", variant)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.wasm", at("a.wasm")).unwrap();
    let watched = open(options(folder.path())).unwrap();
    let before = watched.policies.current().digest();
    watched.clear();
    symlink("..2", at("..new")).unwrap();
    fs::rename(at("..new"), at("..data")).unwrap();
    watched.wait("loaded a.wasm a");
    assert_ne!(watched.policies.current().digest(), before);
}
