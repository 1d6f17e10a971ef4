//! One look at the policy directory after the other. No threads, no events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use chaperone_policy_host::{Digest, Host, Module, PolicySet, SetOptions, Settings};
use sha3::{Digest as _, Sha3_256};

use super::Archive;

/// What the configuration says about the policy directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the `*.wasm` files are.
    pub directory: PathBuf,
    /// Required modules, and those that may decide on incomplete facts.
    pub set: SetOptions,
    /// Settings by module name.
    pub settings: Settings,
    /// Where modules and settings are kept for ever; `None` keeps nothing.
    pub archive: Option<PathBuf>,
    /// How long a file must not change before it is read as a module.
    pub settle: Duration,
    /// How often the directory is looked at without any event.
    pub scan: Duration,
}

impl Options {
    /// The defaults for a directory: nothing required, no settings, no archive.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Options {
            directory: directory.into(),
            set: SetOptions::default(),
            settings: Settings::new(),
            archive: None,
            settle: Duration::from_millis(150),
            scan: Duration::from_secs(1),
        }
    }
}

/// What happened to a module; for the audit log.
#[derive(Clone, Debug)]
pub enum PolicyEvent {
    /// A module came into force. `set` is the digest of the set with it.
    Loaded {
        /// Its file.
        file: String,
        /// The module.
        module: Arc<Module>,
        /// The set that is in force now.
        set: Digest,
    },
    /// A file is not a working module; what was in force before goes on.
    Failed(Failed),
    /// A module's file disappeared.
    Removed {
        /// Its file.
        file: String,
        /// The module's name.
        module: String,
        /// Whether it goes on (until the process restarts). A required module does not: every
        /// statement is refused until it is back.
        kept: bool,
        /// The set that is in force now.
        set: Digest,
    },
}

/// A file that is not a working module.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its name.
    pub file: String,
    /// Why, and how to mend it.
    pub reason: String,
}

/// What is in force, for people and metrics.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Files whose present content is not in force.
    pub failed: Vec<Failed>,
    /// Modules in force whose files are gone.
    pub kept: Vec<String>,
    /// How many modules came into force, start-up included.
    pub loads: u64,
    /// How many files failed to.
    pub failures: u64,
}

/// The directory as it was seen last.
pub(crate) struct Directory {
    options: Options,
    host: Host,
    files: BTreeMap<String, Known>,
    kept: Vec<Arc<Module>>,
    unreadable: Option<String>,
    loads: u64,
    failures: u64,
}

struct Known {
    content: Option<Digest256>,
    since: Instant,
    tried: bool,
    active: Option<Arc<Module>>,
    failure: Option<String>,
}

type Digest256 = [u8; 32];

/// What one look brought about.
#[derive(Default)]
pub(crate) struct Look {
    pub(crate) loaded: Vec<(String, Arc<Module>)>,
    pub(crate) failed: Vec<Failed>,
    pub(crate) removed: Vec<(String, String, bool)>,
    /// Something is still settling; look again soon.
    pub(crate) unsettled: bool,
}

impl Directory {
    pub(crate) fn new(host: Host, options: Options) -> Self {
        Directory {
            options,
            host,
            files: BTreeMap::new(),
            kept: Vec::new(),
            unreadable: None,
            loads: 0,
            failures: 0,
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn status(&self) -> Status {
        let mut failed: Vec<Failed> = self
            .files
            .iter()
            .filter_map(|(file, known)| {
                Some(Failed {
                    file: file.clone(),
                    reason: known.failure.clone()?,
                })
            })
            .collect();
        failed.extend(self.unreadable.iter().map(|reason| Failed {
            file: self.options.directory.display().to_string(),
            reason: reason.clone(),
        }));
        Status {
            failed,
            kept: self.kept.iter().map(|m| m.name().to_owned()).collect(),
            loads: self.loads,
            failures: self.failures,
        }
    }

    /// The set of what is in force.
    pub(crate) fn set(&self) -> Result<PolicySet, chaperone_policy_host::SetError> {
        let modules = self
            .files
            .values()
            .filter_map(|known| known.active.clone())
            .chain(self.kept.iter().cloned())
            .collect();
        PolicySet::new(modules, self.options.set.clone())
    }

    /// Looks at the directory. `settle` is how long a change must have stood still to count.
    pub(crate) fn look(&mut self, settle: Duration) -> Look {
        let mut look = Look::default();
        let now = Instant::now();
        let present = match self.list() {
            Ok(present) => present,
            Err(error) => {
                let reason = format!(
                    "the policy directory cannot be read: {error}. What is in force goes on"
                );
                if self.unreadable.replace(reason.clone()).is_none() {
                    look.failed.push(Failed {
                        file: self.options.directory.display().to_string(),
                        reason,
                    });
                }
                return look;
            }
        };
        self.unreadable = None;

        for known in self
            .files
            .iter_mut()
            .filter(|(f, _)| !present.contains_key(*f))
        {
            if known.1.content.take().is_some() {
                known.1.since = now;
            }
        }
        for (file, bytes) in present {
            self.see(file, bytes, now, settle, &mut look);
        }
        // After the loads: a renamed file has its module back before the old name is given up.
        self.forget(now, settle, &mut look);
        look
    }

    fn list(&self) -> io::Result<BTreeMap<String, Vec<u8>>> {
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.options.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || !name.ends_with(".wasm") {
                continue;
            }
            // Reading follows symlinks; one that dangles during a swap is a file that is absent.
            match fs::read(entry.path()) {
                Ok(bytes) => drop(present.insert(name, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(present)
    }

    fn see(
        &mut self,
        file: String,
        bytes: Vec<u8>,
        now: Instant,
        settle: Duration,
        look: &mut Look,
    ) {
        let content: Digest256 = Sha3_256::digest(&bytes).into();
        let known = self.files.entry(file.clone()).or_insert(Known {
            content: None,
            since: now,
            tried: false,
            active: None,
            failure: None,
        });
        if known.content != Some(content) {
            known.content = Some(content);
            known.since = now;
            known.tried = false;
        }
        if known.tried {
            return;
        }
        if now.duration_since(known.since) < settle {
            look.unsettled = true;
            return;
        }
        known.tried = true;
        if let Some(active) = &known.active
            && active.digest().as_bytes() == &content
        {
            known.failure = None;
            return;
        }
        let result = self.bring_up(&file, bytes);
        let Some(known) = self.files.get_mut(&file) else {
            return;
        };
        match result {
            Ok(module) => {
                let old = known.active.replace(Arc::clone(&module));
                known.failure = None;
                self.loads += 1;
                self.keep(old);
                look.loaded.push((file, module));
            }
            Err(reason) => {
                known.failure = Some(reason.clone());
                self.failures += 1;
                look.failed.push(Failed { file, reason });
            }
        }
    }

    fn bring_up(&self, file: &str, bytes: Vec<u8>) -> Result<Arc<Module>, String> {
        let module = self
            .host
            .load(file, bytes, &self.options.settings)
            .map_err(|error| error.problem.to_string())?;
        let twin = self.files.iter().find(|(other, known)| {
            other.as_str() != file
                && known.content.is_some()
                && known
                    .active
                    .as_ref()
                    .is_some_and(|active| active.name() == module.name())
        });
        if let Some((other, _)) = twin {
            return Err(format!(
                "`{}` is already the name of the module in {other}. Remove one of them",
                module.name()
            ));
        }
        if let Some(directory) = &self.options.archive {
            Archive::new(directory)
                .store(&module)
                .map_err(|error| format!("it cannot be archived: {error}"))?;
        }
        Ok(module)
    }

    /// Keeps a module that has no file any more, unless it is required or has a successor.
    /// Returns whether it goes on in some form.
    fn keep(&mut self, gone: Option<Arc<Module>>) -> bool {
        let has_file = |files: &BTreeMap<String, Known>, name: &str| {
            files
                .values()
                .filter_map(|known| known.active.as_ref())
                .any(|active| active.name() == name)
        };
        let files = &self.files;
        self.kept.retain(|module| !has_file(files, module.name()));
        let Some(gone) = gone else {
            return true;
        };
        if has_file(files, gone.name()) {
            return true;
        }
        if self.options.set.required.iter().any(|r| r == gone.name()) {
            return false;
        }
        self.kept.push(gone);
        true
    }

    fn forget(&mut self, now: Instant, settle: Duration, look: &mut Look) {
        let absent: Vec<String> = self
            .files
            .iter()
            .filter(|(_, known)| known.content.is_none())
            .map(|(file, _)| file.clone())
            .collect();
        for file in absent {
            let settled = self
                .files
                .get(&file)
                .is_some_and(|known| now.duration_since(known.since) >= settle);
            if !settled {
                look.unsettled = true;
                continue;
            }
            let Some(active) = self.files.remove(&file).and_then(|known| known.active) else {
                continue;
            };
            let name = active.name().to_owned();
            let kept = self.keep(Some(active));
            look.removed.push((file, name, kept));
        }
    }
}
