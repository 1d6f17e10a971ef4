//! Loads, sandboxes, runs and composes WebAssembly policy modules.
//!
//! [`Host::load`] turns bytes into a [`Module`]: it checks size, format, contract version and
//! imports, compiles, asks `describe`, validates the settings, calls `configure`, keeps the
//! configured instance as an image, and tests it. [`PolicySet::decide`] asks every module, each in
//! a fresh instance of its image, and composes the answers into a [`Ruling`].
//!
//! What a module cannot do: keep state between calls, see a clock or randomness, reach anything
//! that is not handed to it, run past its deadline, take more than its memory, or turn a failure
//! into "allow". What the host knows about it: a getter that it does not import cannot be called,
//! so [`Ruling::reads`] says for which executions a ruling holds.
//!
//! A call costs a fresh instance from a pooling allocator. Its figures were measured: 256 KiB of a
//! slot's memory stay resident and are reset by copying, which is cheaper than page faults; the
//! page map says which pages were touched, where the kernel can tell.

mod bindings;
mod column;
mod compiled;
mod compose;
mod digest;
mod engine;
mod error;
mod failure;
mod host;
mod input;
mod limiter;
mod linker;
mod load;
mod module;
mod set;
mod shape;
mod wasi;

pub use column::Column;
pub use compose::{Answer, OutputRule, denial, tightened};
pub use digest::Digest;
pub use error::{HostError, LoadError, Problem, SetError};
pub use failure::{Failure, FailureCode};
pub use host::{Host, HostOptions, Settings};
pub use load::Inspection;
pub use module::{Module, Reads};
pub use set::{PolicySet, Ruling, SetOptions};
pub use shape::Format;
