//! Components that drag WASI in: they load, and get nothing from it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking, and is documented by its name"
)]

#[path = "support/guest.rs"]
mod guest;

use std::sync::{Arc, LazyLock};

use chaperone_contract::{Context, Operation, Value, Verdict};
use chaperone_policy_host::{
    FailureCode, Host, HostOptions, LoadError, Module, PolicySet, Problem, Ruling, SetOptions,
    Settings,
};
use guest::Guest;

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(HostOptions::default()).unwrap());

const WIT: &str = "
package test:extra;

world extra {
    import wasi:random/insecure@0.2.0;
    import wasi:clocks/monotonic-clock@0.2.0;
    import wasi:filesystem/preopens@0.2.0;
}

package wasi:random@0.2.0 {
    interface insecure { get-insecure-random-u64: func() -> u64; }
}

package wasi:clocks@0.2.0 {
    interface monotonic-clock { now: func() -> u64; }
}

package wasi:filesystem@0.2.0 {
    interface types { resource descriptor { sync: func(); } }
    interface preopens {
        use types.{descriptor};
        get-directories: func() -> list<tuple<descriptor, string>>;
    }
}
";
const IMPORTS: &str = r#"
  (import "wasi:random/insecure@0.2.0" "get-insecure-random-u64" (func $random (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
  (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $files (param i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.sync" (func $sync (param i32)))
  (import "wasi:filesystem/types@0.2.0" "[resource-drop]descriptor" (func $drop-file (param i32)))
"#;

fn guest(evaluate: &'static str) -> Guest {
    Guest {
        imports: IMPORTS,
        imports_wit: WIT,
        evaluate,
        ..Guest::default()
    }
}

fn load(guest: &Guest) -> Result<Arc<Module>, LoadError> {
    let component = wit_component::ComponentEncoder::default()
        .module(&guest.module())
        .unwrap()
        .encode()
        .unwrap();
    HOST.load("guest.wasm", component, &Settings::new())
}

fn decide(module: Arc<Module>) -> Ruling {
    let operation = Operation {
        protocol: "postgresql".into(),
        ..Operation::default()
    };
    let context = Context {
        parameters: vec![Value::Null],
        ..Context::default()
    };
    PolicySet::new(vec![module], SetOptions::default())
        .unwrap()
        .decide(&Arc::default(), &Arc::new(operation), &context)
}

#[test]
fn a_component_that_does_not_use_its_wasi_works() {
    let ruling = decide(load(&guest("")).unwrap());
    assert_eq!(ruling.verdict, Verdict::Allow);
}

#[test]
fn whoever_uses_wasi_is_stopped_and_told_what_it_called() {
    for (evaluate, called) in [
        ("(drop (call $random))", "get-insecure-random-u64"),
        ("(drop (call $now))", "monotonic-clock"),
        ("(call $files (i32.const 4096))", "get-directories"),
    ] {
        let ruling = decide(load(&guest(evaluate)).unwrap());
        let Verdict::Deny(reason) = &ruling.verdict else {
            panic!("{ruling:?}")
        };
        assert_eq!(reason.code, FailureCode::Trap.as_str());
        let failure = ruling.failures().next().unwrap();
        assert!(format!("{failure:?}").contains(called), "{failure:?}");
    }
    // A handle that nobody gave it.
    for evaluate in [
        "(call $sync (i32.const 1))",
        "(call $drop-file (i32.const 1))",
    ] {
        let ruling = decide(load(&guest(evaluate)).unwrap());
        assert!(matches!(ruling.verdict, Verdict::Deny(_)), "{ruling:?}");
    }
}

#[test]
fn wasi_at_load_time_is_a_refusal() {
    let error = load(&Guest {
        configure: "(drop (call $now)) (i32.const 448)",
        ..guest("")
    })
    .unwrap_err();
    assert!(
        matches!(error.problem, Problem::Configure { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("monotonic-clock"), "{error}");
}

#[test]
fn the_network_is_refused_when_it_is_loaded() {
    let error = load(&Guest {
        imports: r#"(import "wasi:sockets/network@0.2.0" "reach" (func $reach))"#,
        imports_wit: "package test:extra;
            world extra { import wasi:sockets/network@0.2.0; }
            package wasi:sockets@0.2.0 { interface network { reach: func(); } }",
        ..Guest::default()
    })
    .unwrap_err();
    assert!(
        matches!(&error.problem, Problem::ForbiddenImport(name) if name.contains("sockets")),
        "{error}"
    );
}
