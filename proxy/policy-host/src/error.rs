//! Why a module, a set or the host itself could not be brought up.

use std::io;
use std::time::Duration;

/// The engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refused the configuration, or the address space does not suffice.
    #[error(
        "the wasm engine does not start: {0}. It reserves address space for every instance slot: \
         raise the limit on virtual memory (ulimit -v), or lower the number of instances"
    )]
    Engine(String),
    /// The clock's thread could not be started.
    #[error("the thread that stops policies which run too long does not start: {0}")]
    Thread(io::Error),
}

/// A file that is not a usable policy module: which, why, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct LoadError {
    /// The file's name, as given to the loader.
    pub file: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a module.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No wasm magic number, or nothing at all.
    #[error(
        "this is not a WebAssembly binary. Build it with `chaperone policy build` and copy the \
         .wasm file whole"
    )]
    NotWasm,
    /// It starts as wasm and does not go on as such; a copy under way looks the same.
    #[error("this is a broken WebAssembly binary ({0}). Copy it again, whole, or rebuild it")]
    Malformed(String),
    /// Beyond the cap on a module's size.
    #[error(
        "the module has {size} bytes, more than the {limit} that [policies.limits] module_bytes \
         allows. Build it in release mode with debug information stripped, or raise the limit"
    )]
    TooLarge {
        /// The file's size in bytes.
        size: usize,
        /// The cap in bytes.
        limit: usize,
    },
    /// A component or module that exports something else.
    #[error(
        "this module exports no `chaperone:policy/policy`. It may be made for something else; a \
         policy is a `cdylib` built with policy-sdk's export macro"
    )]
    NotAPolicy,
    /// The module speaks another version of the contract.
    #[error(
        "the module was built for {found}, this host serves version {served}. Rebuild it with the \
         policy-sdk that came with this host"
    )]
    ContractVersion {
        /// The interface that the module names.
        found: String,
        /// What this host serves.
        served: &'static str,
    },
    /// An import outside the contract.
    #[error(
        "the module imports `{0}`. A policy can import the contract's getters and nothing else: \
         build it for wasm32-unknown-unknown, and find the dependency that wants a clock, \
         randomness, files or the network"
    )]
    ForbiddenImport(String),
    /// It could not be made into a component.
    #[error("the core module does not fit the contract that it names: {0}")]
    Componentize(String),
    /// Cranelift refused it.
    #[error("the module does not compile: {0}")]
    Compile(String),
    /// Its imports or exports differ from the contract.
    #[error(
        "the module does not link with contract version {served}: {reason}. Rebuild it with the \
         policy-sdk that came with this host",
        served = chaperone_contract::CONTRACT_VERSION
    )]
    Link {
        /// wasmtime's words.
        reason: String,
    },
    /// `describe` failed.
    #[error("`describe` failed: {0}")]
    Describe(String),
    /// The manifest has something that it must not have.
    #[error("the manifest is not usable: {0}")]
    Manifest(String),
    /// The manifest's schema is no JSON Schema.
    #[error("the settings schema in the manifest of `{module}` is not usable: {reason}")]
    Schema {
        /// The module's name.
        module: String,
        /// Why.
        reason: String,
    },
    /// The settings do not fit the schema.
    #[error(
        "[policies.settings.{module}] does not fit the module's schema: at `{pointer}`: {reason}. \
         `chaperone policy inspect` shows the schema"
    )]
    Settings {
        /// The module's name.
        module: String,
        /// JSON pointer into the settings; empty for the whole.
        pointer: String,
        /// Why.
        reason: String,
    },
    /// `configure` said no, or failed.
    #[error("`configure` refused [policies.settings.{module}]: {reason}")]
    Configure {
        /// The module's name.
        module: String,
        /// The module's own words, or the host's.
        reason: String,
    },
    /// The configured state cannot be kept.
    #[error(
        "the configured module cannot be kept as an image: {0}. Modules that change tables or \
         reference-typed globals while they run are not supported"
    )]
    Snapshot(String),
    /// `evaluate` failed on an empty operation.
    #[error(
        "self-test: `evaluate` of an empty operation failed: {0}. A policy must answer for any \
         operation, one with no objects, fields and outputs too"
    )]
    SelfTest(String),
    /// Loading took too long.
    #[error(
        "loading took longer than {} s. Make the module smaller, or give the machine more time",
        .0.as_secs()
    )]
    TooSlow(Duration),
    /// A fault of the host or a library.
    #[error("the loader failed: {0}. The host goes on without this module")]
    Internal(String),
}

/// Modules that cannot stand in one set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Two files with one name in their manifests.
    #[error(
        "{first} and {second} are both called `{name}` in their manifests. Remove one, or rename it"
    )]
    Duplicate {
        /// The name.
        name: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
}
