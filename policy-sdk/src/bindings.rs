//! Generated from `wit/`: what crosses between the module and the host.
#![allow(missing_docs, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit/v0.1.0",
    world: "policy-module",
    pub_export_macro: true,
    export_macro_name: "export_module",
    default_bindings_module: "policy_sdk::bindings",
});
