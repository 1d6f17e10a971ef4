//! The host: one engine, its clock and its linker, shared by all modules.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Cache, Engine, Store};

use crate::compiled;
use crate::engine::{TABLE_ELEMENTS, Ticker, engine};
use crate::error::{HostError, LoadError, Problem};
use crate::input::Input;
use crate::limiter::Limiter;
use crate::linker::{State, linker};
use crate::load::{self, Inspection};
use crate::module::Module;

/// Settings by module name, as the configuration has them. A module that is not in it gets `{}`.
pub type Settings = BTreeMap<String, serde_json::Value>;

/// Bounds on modules.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Most linear memory of one instance, in bytes.
    pub memory: usize,
    /// Longest `evaluate` or `rewrite`.
    pub deadline: Duration,
    /// Largest module file, in bytes.
    pub module_bytes: usize,
    /// Longest load, from bytes to self-test.
    pub load_timeout: Duration,
    /// Most instances at one time: one per thread that decides, and one per load.
    pub instances: u32,
    /// Where compiled modules are kept, so that the next start need not compile them. Nobody but the
    /// process's own user may be able to write there; where somebody is, nothing is kept.
    pub compiled: Option<PathBuf>,
}

impl Default for HostOptions {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(4, usize::from);
        HostOptions {
            memory: 4 << 20,
            deadline: Duration::from_millis(50),
            module_bytes: 4 << 20,
            load_timeout: Duration::from_secs(30),
            instances: u32::try_from(threads.saturating_mul(4))
                .unwrap_or(u32::MAX)
                .clamp(32, 1000),
            compiled: None,
        }
    }
}

/// The engine that modules are loaded into. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

/// What every module keeps a hold of.
pub(crate) struct Inner {
    pub(crate) options: HostOptions,
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    compiled: Option<Cache>,
    ticker: Ticker,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Starts the engine and its clock.
    ///
    /// # Errors
    /// When the engine cannot reserve its address space or start its thread.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let compiled = options.compiled.as_ref().and_then(|folder| {
            compiled::cache(folder)
                .inspect_err(|reason| {
                    tracing::warn!(%reason, "compiled policies are not kept: each start compiles them");
                })
                .ok()
        });
        let engine = engine(&options, compiled.clone())?;
        let period =
            (options.deadline / 10).clamp(Duration::from_millis(1), Duration::from_millis(10));
        let ticker = Ticker::start(&engine, period)?;
        let linker = linker(&engine).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        Ok(Host {
            inner: Arc::new(Inner {
                options,
                engine,
                linker,
                compiled,
                ticker,
            }),
        })
    }

    /// Checks, compiles, configures, snapshots and tests a module. Blocks for as long as that
    /// takes (a tenth of a second, or [`HostOptions::load_timeout`] at most), so it is called off
    /// the threads that serve clients; the compiler itself runs on a thread of its own.
    ///
    /// # Errors
    /// [`LoadError`] names the file, what is wrong with it, and how to mend it.
    pub fn load(
        &self,
        file: &str,
        bytes: impl Into<Arc<[u8]>>,
        settings: &Settings,
    ) -> Result<Arc<Module>, LoadError> {
        let (inner, bytes, settings) = (Arc::clone(&self.inner), bytes.into(), settings.clone());
        let name = file.to_owned();
        self.apart(file, move || load::load(&inner, &name, &bytes, &settings))
            .map(Arc::new)
    }

    /// Reads what a module says about itself, without configuring it.
    ///
    /// # Errors
    /// As [`Host::load`], up to `describe`.
    pub fn inspect(
        &self,
        file: &str,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<Inspection, LoadError> {
        let (inner, bytes) = (Arc::clone(&self.inner), bytes.into());
        self.apart(file, move || load::inspect(&inner, &bytes))
    }

    /// How many modules were found as compiled before, and how many had to be compiled; `None` where
    /// compiled modules are not kept. What a module's configuring has made of it counts by itself.
    #[must_use]
    pub fn kept(&self) -> Option<(usize, usize)> {
        let cache = self.inner.compiled.as_ref()?;
        Some((cache.cache_hits(), cache.cache_misses()))
    }

    /// Runs `job` on a thread of its own: it cannot be stopped, but it need not be waited for, and
    /// a panic in a library ends with it.
    fn apart<T: Send + 'static>(
        &self,
        file: &str,
        job: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, LoadError> {
        let timeout = self.inner.options.load_timeout;
        let (sender, receiver) = mpsc::sync_channel(1);
        let started = thread::Builder::new()
            .name("policy-load".to_owned())
            .stack_size(8 << 20)
            .spawn(move || {
                // Nobody listens any more after a time-out.
                let _ = sender.send(job());
            });
        let result = match started {
            Err(error) => Err(Problem::Internal(error.to_string())),
            Ok(_) => match receiver.recv_timeout(timeout) {
                Ok(result) => result,
                Err(mpsc::RecvTimeoutError::Timeout) => Err(Problem::TooSlow(timeout)),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    Err(Problem::Internal("a library panicked".to_owned()))
                }
            },
        };
        result.map_err(|problem| LoadError {
            file: file.to_owned(),
            problem,
        })
    }
}

impl Inner {
    /// A store for one call. `copied`: most bytes that the module may hand over in one go; without
    /// a bound, a list of a million strings that all name the same memory is a bomb.
    pub(crate) fn store(
        &self,
        input: Option<Arc<Input>>,
        deadline: Duration,
        copied: usize,
    ) -> Store<State> {
        let mut store = Store::new(
            &self.engine,
            State {
                limiter: Limiter::new(self.options.memory, TABLE_ELEMENTS),
                input,
            },
        );
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(self.ticker.ticks(deadline));
        store.set_hostcall_fuel(copied);
        store
    }
}
