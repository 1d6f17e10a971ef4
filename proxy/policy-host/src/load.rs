//! From bytes to a configured module.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use chaperone_contract::{Context, Manifest, Operation, Session, SqlFacts};
use sha3::{Digest as _, Sha3_256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Instance, InstancePre, Lift, WasmList};
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::Digest;
use crate::bindings::{PolicyModule, PolicyModulePre};
use crate::error::Problem;
use crate::failure::{Failure, FailureCode};
use crate::host::{Inner, Settings};
use crate::input::Input;
use crate::linker::State;
use crate::module::{Module, Parts, Reads};
use crate::shape::{Format, Shape, TYPES};
use crate::wasi;

/// Longest `describe` or `configure`.
const SETUP_DEADLINE: Duration = Duration::from_secs(2);
/// Most bytes in a manifest, or in a refusal by `configure`.
const SETUP_BYTES: usize = 1 << 20;
/// How long a load waits for a slot of the pool, and how long between two looks.
const POOL_PATIENCE: Duration = Duration::from_secs(5);
const POOL_PAUSE: Duration = Duration::from_millis(2);

/// What a module says about itself, and what it is.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// How it was built.
    pub format: Format,
    /// Its size in bytes.
    pub size: usize,
    /// SHA3-256 of the file.
    pub digest: Digest,
    /// The contract version that it was built for.
    pub contract: String,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The getters that it can call, `operation.parameter`.
    pub getters: Vec<String>,
    /// Which changing inputs it can read.
    pub reads: Reads,
    /// Its manifest.
    pub manifest: Manifest,
}

pub(crate) fn inspect(inner: &Arc<Inner>, bytes: &Arc<[u8]>) -> Result<Inspection, Problem> {
    let shape = shape(inner, bytes)?;
    let component = compile(inner, &shape.component)?;
    let getters = getters(inner, &component);
    let manifest = describe(inner, &link(inner, &component)?)?;
    Ok(Inspection {
        format: shape.format,
        size: bytes.len(),
        digest: digest(bytes),
        contract: shape.contract,
        imports: shape.imports,
        reads: Reads::from_getters(&getters),
        getters,
        manifest,
    })
}

pub(crate) fn load(
    inner: &Arc<Inner>,
    file: &str,
    bytes: &Arc<[u8]>,
    settings: &Settings,
) -> Result<Module, Problem> {
    let shape = shape(inner, bytes)?;
    let wizer = Wizer::new();
    let (context, instrumented) = wizer
        .instrument_component(&shape.component)
        .map_err(|error| Problem::Snapshot(format!("{error:#}")))?;
    let component = compile(inner, &instrumented)?;
    let getters = getters(inner, &component);
    let pre = link(inner, &component)?;
    let manifest = describe(inner, &pre)?;

    let empty = serde_json::Value::Object(serde_json::Map::new());
    let settings = settings.get(&manifest.name).unwrap_or(&empty);
    check_settings(&manifest, settings)?;
    let settings: Arc<str> = settings.to_string().into();

    let (mut store, instance) = configure(inner, &pre, &manifest, &settings)?;
    let mut state = Snapshotter {
        store: &mut store,
        instance,
        memories: BTreeMap::new(),
        failed: false,
    };
    let image = ready(wizer.snapshot_component(&context, &mut state))
        .ok_or_else(|| Problem::Internal("the snapshot waits for something".to_owned()))?
        .map_err(|error| Problem::Snapshot(format!("{error:#}")))?;
    if state.failed {
        return Err(Problem::Snapshot(
            "its memory cannot be read; one page below the limit must stay free".to_owned(),
        ));
    }
    drop(store);

    let image = compile(inner, &image)?;
    let pre = PolicyModulePre::new(link(inner, &image)?).map_err(linking)?;
    let module = Module::new(
        Arc::clone(inner),
        pre,
        Parts {
            file: file.to_owned(),
            digest: digest(bytes),
            settings_digest: digest(settings.as_bytes()),
            bytes: Arc::clone(bytes),
            settings,
            contract: shape.contract,
            reads: Reads::from_getters(&getters),
            getters,
            manifest,
        },
    );
    self_test(&module)?;
    Ok(module)
}

fn shape<'a>(inner: &Inner, bytes: &'a [u8]) -> Result<Shape<'a>, Problem> {
    let limit = inner.options.module_bytes;
    if bytes.len() > limit {
        return Err(Problem::TooLarge {
            size: bytes.len(),
            limit,
        });
    }
    Shape::of(bytes)
}

fn compile(inner: &Inner, component: &[u8]) -> Result<Component, Problem> {
    Component::from_binary(&inner.engine, component)
        .map_err(|error| Problem::Compile(format!("{error:#}")))
}

fn link(inner: &Inner, component: &Component) -> Result<InstancePre<State>, Problem> {
    wasi::with_stand_ins(&inner.engine, &inner.linker, component)
        .and_then(|linker| linker.instantiate_pre(component))
        .map_err(linking)
}

fn linking(error: wasmtime::Error) -> Problem {
    Problem::Link {
        reason: format!("{error:#}"),
    }
}

/// The functions that the module can call, without the decoration of their names.
fn getters(inner: &Inner, component: &Component) -> Vec<String> {
    let mut names = Vec::new();
    for (interface, item) in component.component_type().imports(&inner.engine) {
        if !interface.starts_with(TYPES) {
            continue;
        }
        if let ComponentItem::ComponentInstance(instance) = item.ty {
            for (name, item) in instance.exports(&inner.engine) {
                if let ComponentItem::ComponentFunc(_) = item.ty {
                    names.push(name.strip_prefix("[method]").unwrap_or(name).to_owned());
                }
            }
        }
    }
    names.sort_unstable();
    names
}

/// An instance in a store of its own. Statements that take all slots of the pool must not make a
/// good file look broken, so a load waits for its turn; with a new store each time, since the old
/// one keeps what it got.
fn instantiate(
    inner: &Inner,
    pre: &InstancePre<State>,
    copied: usize,
) -> Result<(Store<State>, Instance), Problem> {
    patiently(
        || {
            let mut store = inner.store(None, SETUP_DEADLINE, copied);
            let instance = pre.instantiate(&mut store)?;
            Ok((store, instance))
        },
        |error: &wasmtime::Error| error.is::<PoolConcurrencyLimitError>(),
    )
    .map_err(linking)
}

/// Tries until it works, fails for good, or the pool stays exhausted for [`POOL_PATIENCE`].
fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    exhausted: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if exhausted(&error) && start.elapsed() < POOL_PATIENCE => {
                thread::sleep(POOL_PAUSE);
            }
            result => return result,
        }
    }
}

fn describe(inner: &Inner, pre: &InstancePre<State>) -> Result<Manifest, Problem> {
    let (mut store, instance) = instantiate(inner, pre, SETUP_BYTES)?;
    let policy = PolicyModule::new(&mut store, &instance).map_err(linking)?;
    let manifest: Manifest = policy
        .chaperone_policy_policy()
        .call_describe(&mut store)
        .map_err(|error| Problem::Describe(failed(&error, &store)))?
        .into();
    check_manifest(&manifest)?;
    Ok(manifest)
}

fn check_manifest(manifest: &Manifest) -> Result<(), Problem> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    if !plain(&manifest.name) {
        return Err(Problem::Manifest(
            "its name must be 1 to 64 letters, digits, `-`, `_`, `.` or `+`".to_owned(),
        ));
    }
    if !plain(&manifest.version) {
        return Err(Problem::Manifest(
            "its version must be 1 to 64 letters, digits, `-`, `_`, `.` or `+`".to_owned(),
        ));
    }
    Ok(())
}

fn check_settings(manifest: &Manifest, settings: &serde_json::Value) -> Result<(), Problem> {
    let bad_schema = |reason: String| Problem::Schema {
        module: manifest.name.clone(),
        reason,
    };
    let text = if manifest.settings_schema.trim().is_empty() {
        "true"
    } else {
        &manifest.settings_schema
    };
    let schema: serde_json::Value =
        serde_json::from_str(text).map_err(|error| bad_schema(error.to_string()))?;
    let validator =
        jsonschema::validator_for(&schema).map_err(|error| bad_schema(error.to_string()))?;
    validator
        .validate(settings)
        .map_err(|error| Problem::Settings {
            module: manifest.name.clone(),
            pointer: error.instance_path().to_string(),
            reason: error.to_string(),
        })
}

fn configure(
    inner: &Inner,
    pre: &InstancePre<State>,
    manifest: &Manifest,
    settings: &str,
) -> Result<(Store<State>, Instance), Problem> {
    let refused = |reason: String| Problem::Configure {
        module: manifest.name.clone(),
        reason,
    };
    // The snapshot reads the whole memory through this store.
    let copied = inner.options.memory.max(SETUP_BYTES) * 2;
    let (mut store, instance) = instantiate(inner, pre, copied)?;
    let policy = PolicyModule::new(&mut store, &instance).map_err(linking)?;
    match policy
        .chaperone_policy_policy()
        .call_configure(&mut store, settings)
    {
        Ok(Ok(())) => Ok((store, instance)),
        Ok(Err(reason)) => Err(refused(shorten(reason))),
        Err(error) => Err(refused(failed(&error, &store))),
    }
}

/// An empty operation, and an empty one of SQL when the module understands that. No statement waits
/// for it, and on a busy machine a first call may take longer than a statement's deadline.
fn self_test(module: &Module) -> Result<(), Problem> {
    let protocol = match module.manifest().protocols.first() {
        Some(protocol) => protocol.clone(),
        None => "postgresql".to_owned(),
    };
    let sql = (protocol == "postgresql").then(SqlFacts::default);
    let operation = Operation {
        protocol,
        sql,
        ..Operation::default()
    };
    let input = Input::new(
        &Arc::new(Session::default()),
        &Arc::new(operation),
        &Context::default(),
        true,
    );
    let input = Arc::new(input);
    let answer = patiently(
        || module.evaluate_within(SETUP_DEADLINE, &input),
        |failure| failure.code == FailureCode::Overloaded,
    );
    match answer {
        Ok(_) => Ok(()),
        Err(failure) if failure.reason.is_some() => Ok(()),
        Err(failure) => Err(Problem::SelfTest(failure.message)),
    }
}

fn failed(error: &wasmtime::Error, store: &Store<State>) -> String {
    Failure::from_error(error, &store.data().limiter).message
}

fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(2000));
    text
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::new(Sha3_256::digest(bytes).into())
}

/// Everything that the snapshot waits for is a synchronous call, so one poll is enough.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Reads globals and memories of a configured instance for the snapshot.
struct Snapshotter<'a> {
    store: &'a mut Store<State>,
    instance: Instance,
    /// Contents by accessor. An accessor grows the memory by a page each time that it is called,
    /// and the library reads twice: a nearly full memory would be there once and not again.
    memories: BTreeMap<String, Vec<u8>>,
    failed: bool,
}

impl Snapshotter<'_> {
    fn call<R, T: Default>(
        &mut self,
        instance: &str,
        func: &str,
        using: impl FnOnce(&mut Store<State>, R) -> T,
    ) -> T
    where
        R: Lift + 'static,
    {
        let result = self
            .instance
            .get_export_index(&mut *self.store, None, instance)
            .and_then(|parent| {
                self.instance
                    .get_export_index(&mut *self.store, Some(&parent), func)
            })
            .and_then(|index| {
                self.instance
                    .get_typed_func::<(), (R,)>(&mut *self.store, index)
                    .ok()
            })
            .and_then(|func| func.call(&mut *self.store, ()).ok());
        match result {
            Some((value,)) => using(self.store, value),
            None => {
                self.failed = true;
                T::default()
            }
        }
    }
}

impl ComponentInstanceState for Snapshotter<'_> {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        let memory = match self.memories.remove(func) {
            Some(memory) => memory,
            None => self.call(instance, func, |store, list: WasmList<u8>| {
                list.as_le_slice(&*store).to_vec()
            }),
        };
        contents(&memory);
        self.memories.insert(func.to_owned(), memory);
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.call(instance, func, |_, value: i32| value)
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.call(instance, func, |_, value: i64| value)
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.call(instance, func, |_, value: f32| value.to_bits())
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.call(instance, func, |_, value: f64| value.to_bits())
    }
}
