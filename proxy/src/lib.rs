//! Chaperone: a WebAssembly-policy programmable proxy for protected health information.
//!
//! Arrows only point down: `server` puts everything together; `postgres` composes `policy`,
//! `approval`, `audit` and the crates below it; these know neither each other's insides nor the
//! wire.

pub mod admin;
pub mod approval;
pub mod audit;
pub mod command;
pub mod config;
pub mod identity;
pub mod metrics;
pub mod policy;
pub mod postgres;
pub mod server;
pub mod tls;
