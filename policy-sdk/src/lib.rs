//! Write Chaperone policies in Rust.
//!
//! A policy is a type that implements [`Policy`], handed to [`export_policy!`]. The same code runs
//! as WebAssembly inside the proxy and natively in tests (feature `testkit`).
//!
//! ```
//! use policy_sdk::prelude::*;
//!
//! struct ReadersOnly;
//!
//! impl Policy for ReadersOnly {
//!     type Settings = NoSettings;
//!
//!     fn manifest() -> Manifest {
//!         policy_sdk::manifest!()
//!     }
//!
//!     fn configure(_: NoSettings) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn evaluate(&self, session: &Session, operation: &Operation) -> Result<Decision, Reason> {
//!         if operation.actions() == Actions::READ && session.has_group("readers") {
//!             return Ok(Decision::allow());
//!         }
//!         Err(deny("readers-only", "Only members of readers may read, and nobody may write.")
//!             .hint("Ask for membership of the group readers."))
//!     }
//! }
//!
//! policy_sdk::export_policy!(ReadersOnly);
//! # fn main() {}
//! ```
//!
//! **What a module imports is what it can read.** Every getter of [`Session`], [`Operation`] and
//! [`Sql`] is a function of its own that asks the host only when called, and one that is never
//! called is not even linked. The host re-uses a verdict for as long as everything that the module
//! *can* read is the same; so [`Operation::parameter`] and [`Operation::received_at`] cost an
//! evaluation per execution, and are best left alone where they are not needed.

#![cfg_attr(
    target_arch = "wasm32",
    allow(
        missing_docs,
        reason = "documented on the native side, which is what rustdoc builds"
    )
)]

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
mod column;
mod export;
mod glob;
mod operation;
mod policy;
mod session;
#[cfg(any(target_arch = "wasm32", feature = "testkit", test))]
mod settings;
#[cfg(all(feature = "testkit", not(target_arch = "wasm32")))]
pub mod testkit;

pub use chaperone_contract as contract;
pub use chaperone_contract::{
    Abilities, Actions, Actor, Approval, Budget, Decision, FieldUse, Labels, Limits, Lineage,
    Manifest, Mask, Object, OutputField, Reason, Transform, Usages, Value, Verdict,
};
pub use column::{Cell, Column};
pub use glob::glob;
pub use operation::{Operation, Sql};
pub use policy::{NoSettings, Policy, deny, require_approval};
pub use session::Session;

/// Parts that [`export_policy!`] needs in the crate that calls it.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod export_support {
    pub use crate::export::*;
}

/// Everything that a policy usually names.
pub mod prelude {
    pub use crate::{
        Abilities, Actions, Approval, Cell, Column, Decision, FieldUse, Labels, Lineage, Manifest,
        NoSettings, Object, Operation, OutputField, Policy, Reason, Session, Sql, Transform,
        Usages, Value, Verdict, deny, glob, require_approval,
    };
}

/// A [`Manifest`] with the name, version and description of the calling crate's Cargo.toml.
#[macro_export]
macro_rules! manifest {
    () => {
        $crate::Manifest::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_DESCRIPTION"),
        )
    };
}
