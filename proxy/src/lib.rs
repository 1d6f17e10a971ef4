//! Chaperone: a WebAssembly-policy programmable proxy for protected health information.

pub mod admin;
pub mod approval;
pub mod audit;
pub mod command;
pub mod config;
pub mod identity;
pub mod metrics;
pub mod policy;
pub mod tls;
