//! Chaperone: a WebAssembly-policy programmable proxy for protected health information.

pub mod approval;
pub mod audit;
