//! The set in force, and the thread that keeps it up to date.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use chaperone_policy_host::{Host, PolicySet, SetError};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};

use super::directory::{Directory, Failed, Look, Options, PolicyEvent, Status};

/// Why policies are not in force at start-up; the proxy refuses to serve.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file, or the directory itself, is not usable.
    #[error("{}: {}", .0.file, .0.reason)]
    Broken(Failed),
    /// No `*.wasm` at all.
    #[error(
        "{0}: there is no .wasm file in the policy directory. Without a policy nothing would be \
         allowed; build one with `chaperone policy build`"
    )]
    Empty(String),
    /// The configuration requires modules that are not there.
    #[error(
        "{directory}: [policies] required names modules that are not there: {}. Put them there, \
         or take the names out",
        missing.join(", ")
    )]
    Missing {
        /// The policy directory.
        directory: String,
        /// Their names.
        missing: Vec<String>,
    },
    /// Two modules of one name.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The watching thread could not be started.
    #[error("the thread that watches the policy directory does not start: {0}")]
    Thread(std::io::Error),
}

type OnEvent = Box<dyn Fn(&PolicyEvent) + Send + Sync>;

/// The policies in force. Dropping it ends the watching.
pub struct Policies {
    shared: Arc<Shared>,
    wake: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    set: ArcSwap<PolicySet>,
    status: Mutex<Status>,
    on_event: OnEvent,
}

enum Wake {
    Look,
    Stop,
}

impl Policies {
    /// Loads everything in the directory and starts watching it. Blocks while modules compile.
    /// `on_event` is called from the watching thread (and from here, for what is there already);
    /// the set that an event names is in force when it is called.
    ///
    /// # Errors
    /// When a module is broken, a required one missing, or none there.
    pub fn open(
        host: Host,
        options: Options,
        on_event: impl Fn(&PolicyEvent) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let mut directory = Directory::new(host, options);
        let set = first_set(&mut directory)?;
        let shared = Arc::new(Shared {
            set: ArcSwap::from_pointee(set.0),
            status: Mutex::new(directory.status()),
            on_event: Box::new(on_event),
        });
        shared.tell(set.1);

        // One pending wake-up says all that many would.
        let (wake, woken) = sync_channel(1);
        let (for_thread, hints) = (Arc::clone(&shared), wake.clone());
        let thread = thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn(move || watch(&mut directory, &for_thread, hints, &woken))
            .map_err(OpenError::Thread)?;
        Ok(Policies {
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// The set in force. Take it once per statement and keep it to the statement's last row.
    #[must_use]
    pub fn current(&self) -> Arc<PolicySet> {
        self.shared.set.load_full()
    }

    /// What is in force and what is not, and why.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks at the directory now (SIGHUP).
    pub fn look(&self) {
        // A full channel means that it is about to look anyway.
        let _ = self.wake.try_send(Wake::Look);
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies")
            .field("set", &self.current().digest())
            .finish_non_exhaustive()
    }
}

fn first_set(directory: &mut Directory) -> Result<(PolicySet, Look), OpenError> {
    let mut look = directory.look(Duration::ZERO);
    if !look.failed.is_empty() {
        return Err(OpenError::Broken(look.failed.swap_remove(0)));
    }
    let name = directory.options().directory.display().to_string();
    if look.loaded.is_empty() {
        return Err(OpenError::Empty(name));
    }
    let set = directory.set()?;
    if !set.missing().is_empty() {
        return Err(OpenError::Missing {
            directory: name,
            missing: set.missing().to_vec(),
        });
    }
    Ok((set, look))
}

fn watch(
    directory: &mut Directory,
    shared: &Shared,
    wake: SyncSender<Wake>,
    woken: &Receiver<Wake>,
) {
    let (settle, scan) = (directory.options().settle, directory.options().scan);
    let hints = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Looking opens files, which is an event too.
        if !event.is_ok_and(|event| is_read(event.kind)) {
            let _ = wake.try_send(Wake::Look);
        }
    })
    .and_then(|mut watcher| {
        watcher.watch(&directory.options().directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    // The watcher lives as long as this thread; without one, changes are seen by the scan.
    if let Err(error) = &hints {
        tracing::warn!("no file system events for the policy directory: {error}");
    }
    let mut pause = scan;
    loop {
        match woken.recv_timeout(pause) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => {}
        }
        let look = directory.look(settle);
        pause = if look.unsettled { settle } else { scan };
        shared.apply(directory, look);
    }
}

fn is_read(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access != AccessKind::Close(AccessMode::Write),
        _ => false,
    }
}

impl Shared {
    fn apply(&self, directory: &Directory, look: Look) {
        if !look.loaded.is_empty() || !look.removed.is_empty() {
            match directory.set() {
                Ok(set) => self.set.store(Arc::new(set)),
                Err(error) => tracing::error!("the policy set stays as it was: {error}"),
            }
        }
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = directory.status();
        self.tell(look);
    }

    fn tell(&self, look: Look) {
        let set = self.set.load().digest();
        for (file, module) in look.loaded {
            tracing::info!(
                file,
                module = module.name(),
                version = module.version(),
                %set,
                "a policy is in force"
            );
            (self.on_event)(&PolicyEvent::Loaded { file, module, set });
        }
        for failed in look.failed {
            tracing::error!(
                file = failed.file,
                "a policy is NOT in force: {}",
                failed.reason
            );
            (self.on_event)(&PolicyEvent::Failed(failed));
        }
        for (file, module, kept) in look.removed {
            tracing::error!(
                file,
                module,
                "a policy's file is gone: {}",
                if kept {
                    "it stays in force until a restart"
                } else {
                    "it is required, so everything is refused until it is back"
                }
            );
            (self.on_event)(&PolicyEvent::Removed {
                file,
                module,
                kept,
                set,
            });
        }
    }
}
