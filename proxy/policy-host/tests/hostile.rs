//! Hostile and broken modules: each ends in a denial or a refusal to load, and the host goes on.

// Helpers outside of test functions fail as loudly as the tests do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking, and is documented by its name"
)]

#[path = "support/guest.rs"]
mod guest;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chaperone_contract::{
    Context, Labels, Lineage, Operation, OutputField, Transform, Value, Verdict,
};
use chaperone_policy_host::{
    Column, FailureCode, Format, Host, HostOptions, Module, PolicySet, Problem, Reads, Ruling,
    SetOptions, Settings,
};
use guest::Guest;

static HOST: LazyLock<Host> = LazyLock::new(|| {
    Host::new(HostOptions {
        load_timeout: Duration::from_secs(60),
        ..HostOptions::default()
    })
    .unwrap()
});

fn load(guest: &Guest) -> Arc<Module> {
    HOST.load("guest.wasm", guest.module(), &Settings::new())
        .unwrap()
}

fn as_component(module: &[u8]) -> Vec<u8> {
    wit_component::ComponentEncoder::default()
        .module(module)
        .unwrap()
        .encode()
        .unwrap()
}

fn refused(guest: &Guest) -> Problem {
    let error = HOST
        .load("guest.wasm", guest.module(), &Settings::new())
        .unwrap_err();
    assert_eq!(error.file, "guest.wasm");
    error.problem
}

fn set(modules: Vec<Arc<Module>>) -> PolicySet {
    PolicySet::new(modules, SetOptions::default()).unwrap()
}

fn operation() -> Arc<Operation> {
    Arc::new(Operation {
        protocol: "postgresql".into(),
        command: "SELECT".into(),
        outputs: vec![OutputField {
            name: "ssn".into(),
            type_name: "text".into(),
            lineage: Lineage::Exact(0),
        }],
        uses: vec![chaperone_contract::FieldUse {
            object: 0,
            field: "ssn".into(),
            labels: Labels::Known(vec!["ssn".into()]),
            usages: chaperone_contract::Usages::OUTPUT,
        }],
        ..Operation::default()
    })
}

fn decide(set: &PolicySet) -> Ruling {
    let context = Context {
        parameters: vec![Value::Null],
        ..Context::default()
    };
    set.decide(&Arc::default(), &operation(), &context)
}

/// The module denies with this failure, next to one that allows; then the host is still fine.
fn fails_with(guest: Guest, code: FailureCode) {
    let good = load(&Guest {
        name: "good",
        ..Guest::default()
    });
    let bad = load(&guest);
    let start = Instant::now();
    let ruling = decide(&set(vec![Arc::clone(&good), bad]));
    assert!(start.elapsed() < Duration::from_secs(2));
    let Verdict::Deny(reason) = &ruling.verdict else {
        panic!("{ruling:?}")
    };
    assert_eq!(reason.code, code.as_str(), "{reason:?}");
    assert_eq!(ruling.failures().count(), 1);
    assert_eq!(ruling.outputs[0].transform, Transform::Null);
    assert_eq!(decide(&set(vec![good])).verdict, Verdict::Allow);
}

fn evaluating(evaluate: &'static str) -> Guest {
    Guest {
        evaluate,
        ..Guest::default()
    }
}

#[test]
fn a_plain_module_allows() {
    let module = load(&Guest::default());
    assert_eq!(module.reads(), Reads::PARAMETERS);
    assert_eq!(module.getters(), ["operation.parameter-count"]);
    let ruling = decide(&set(vec![module]));
    assert_eq!(ruling.verdict, Verdict::Allow);
    assert_eq!(ruling.outputs[0].transform, Transform::Null);
    let seen = HOST
        .inspect("guest.wasm", Guest::default().module())
        .unwrap();
    assert_eq!((seen.format, &*seen.contract), (Format::Core, "0.1.0"));
}

#[test]
fn a_component_is_taken_as_well() {
    let component = as_component(&Guest::default().module());
    let module = HOST
        .load("guest.wasm", component, &Settings::new())
        .unwrap();
    assert_eq!(decide(&set(vec![module])).verdict, Verdict::Allow);
}

#[test]
fn loops_end_at_the_deadline() {
    fails_with(evaluating("(loop $l (br $l))"), FailureCode::Timeout);
}

#[test]
fn memory_is_limited() {
    fails_with(
        evaluating(
            "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable",
        ),
        FailureCode::Memory,
    );
}

#[test]
fn recursion_is_limited() {
    fails_with(
        Guest {
            extra: "(func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (i32.add (local.get 0) (i32.const 1)))))",
            ..evaluating("(drop (call $deep (i32.const 0)))")
        },
        FailureCode::Stack,
    );
}

#[test]
fn traps_and_errors_deny() {
    fails_with(evaluating("unreachable"), FailureCode::Trap);
    // err(reason) with an empty reason.
    fails_with(
        evaluating(
            "(i32.store8 (i32.const 512) (i32.const 1)) (i32.store8 (i32.const 520) (i32.const 0))",
        ),
        FailureCode::Error,
    );
    // No such variant of the verdict.
    fails_with(
        evaluating("(i32.store8 (i32.const 520) (i32.const 9))"),
        FailureCode::Trap,
    );
    // A borrowed handle that is not given back.
    fails_with(evaluating("(return (i32.const 512))"), FailureCode::Trap);
    // A handle of its own making.
    fails_with(
        evaluating("(drop (call $count (i32.const 77)))"),
        FailureCode::Trap,
    );
}

#[test]
fn absurd_answers_are_not_copied() {
    // A list of masks that reaches past the memory.
    fails_with(
        evaluating(
            "(i32.store (i32.const 616) (i32.const 4096)) (i32.store (i32.const 620) (i32.const 0x0fffffff))",
        ),
        FailureCode::Trap,
    );
    // 2,600 budgets, each named by the same 24 KB: 64 MB if it were believed.
    fails_with(
        evaluating(
            "(i32.store (i32.const 608) (i32.const 4096)) (i32.store (i32.const 612) (i32.const 2600))
             (loop $l
               (i32.store offset=4100 (i32.mul (local.get $i) (i32.const 24)) (i32.const 24672))
               (i32.store offset=4096 (i32.mul (local.get $i) (i32.const 24)) (i32.const 70000))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const 2600))))",
        ),
        FailureCode::TooLarge,
    );
}

#[test]
fn masks_must_fit_the_operation_and_the_manifest() {
    let one =
        "(i32.store (i32.const 616) (i32.const 4096)) (i32.store (i32.const 620) (i32.const 1))";
    let third =
        "(i32.store (i32.const 616) (i32.const 4096)) (i32.store (i32.const 620) (i32.const 1))
        (i32.store (i32.const 4096) (i32.const 3))";
    let twice =
        "(i32.store (i32.const 616) (i32.const 4096)) (i32.store (i32.const 620) (i32.const 2))";
    fails_with(evaluating(third), FailureCode::BadAnswer);
    fails_with(evaluating(twice), FailureCode::BadAnswer);
    let only_decides = Guest {
        abilities: 1,
        ..evaluating(one)
    };
    fails_with(only_decides, FailureCode::Undeclared);
    let ruling = decide(&set(vec![load(&evaluating(one))]));
    assert_eq!(ruling.outputs[0].transform, Transform::Reveal);
}

#[test]
fn a_module_that_does_not_decide_cannot_allow() {
    let error = refused(&Guest {
        abilities: 2,
        ..Guest::default()
    });
    assert!(matches!(error, Problem::SelfTest(_)), "{error}");
}

#[test]
fn rewrites_are_checked() {
    let rewritten = |rewrite| {
        let module = load(&Guest {
            rewrite,
            ..Guest::default()
        });
        let mut column = Column::new("t");
        column.push(Some(b"abc"));
        column.push(None);
        set(vec![module]).rewrite(0, 2, vec![column])
    };
    let code = |rewrite| rewritten(rewrite).unwrap_err().code;
    // ok(the columns as they came); the result's disc and list are at 3000.
    let echo = rewritten(
        "(i32.store (i32.const 3004) (local.get $columns)) (i32.store (i32.const 3008) (local.get $length)) (i32.const 3000)",
    )
    .unwrap();
    assert_eq!((echo[0].get(0), echo[0].get(1)), (Some(&b"abc"[..]), None));
    assert_eq!(code("unreachable"), FailureCode::Trap);
    assert_eq!(code("(loop $l (br $l)) unreachable"), FailureCode::Timeout);
    // No column at all.
    assert_eq!(code("(i32.const 3000)"), FailureCode::BadAnswer);
    // One offset too few: the column's list of offsets is at +16, its length at +20.
    assert_eq!(
        code(
            "(i32.store offset=20 (local.get $columns) (i32.const 2))
             (i32.store (i32.const 3004) (local.get $columns)) (i32.store (i32.const 3008) (local.get $length)) (i32.const 3000)"
        ),
        FailureCode::BadAnswer
    );
    assert_eq!(
        code("(i32.store8 (i32.const 3000) (i32.const 1)) (i32.const 3000)"),
        FailureCode::Error
    );
}

#[test]
fn nothing_is_carried_from_call_to_call() {
    // Traps when it finds what an earlier call left in memory.
    let module = load(&evaluating(
        "(if (i32.load (i32.const 60000)) (then unreachable)) (i32.store (i32.const 60000) (i32.const 1))",
    ));
    let set = set(vec![module]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(decide(&set).verdict, Verdict::Allow);
                }
            });
        }
    });
}

#[test]
fn configured_state_is_there_in_every_call() {
    let module = load(&Guest {
        configure: "(i32.store (i32.const 60000) (i32.const 7)) (i32.const 448)",
        always: "(if (i32.ne (i32.load (i32.const 60000)) (i32.const 7)) (then unreachable))",
        ..Guest::default()
    });
    let set = set(vec![module]);
    assert_eq!(decide(&set).verdict, Verdict::Allow);
    assert_eq!(decide(&set).verdict, Verdict::Allow);
}

/// The limit is 64 pages, and a guest starts with two.
#[test]
fn a_memory_that_is_nearly_full_is_kept_and_a_full_one_refused() {
    let grown = |configure| Guest {
        configure,
        ..Guest::default()
    };
    for fits in [
        "(drop (memory.grow (i32.const 60))) (i32.const 448)",
        "(drop (memory.grow (i32.const 61))) (i32.const 448)",
    ] {
        let module = load(&grown(fits));
        assert_eq!(decide(&set(vec![module])).verdict, Verdict::Allow);
    }
    let problem = refused(&grown(
        "(drop (memory.grow (i32.const 62))) (i32.const 448)",
    ));
    assert!(matches!(problem, Problem::Snapshot(_)), "{problem}");
}

#[test]
fn setup_failures_are_told_apart() {
    let problem = refused(&Guest {
        describe: "unreachable",
        ..Guest::default()
    });
    assert!(matches!(problem, Problem::Describe(_)), "{problem}");
    let problem = refused(&Guest {
        configure: "unreachable",
        ..Guest::default()
    });
    assert!(matches!(problem, Problem::Configure { .. }), "{problem}");
    let problem = refused(&Guest {
        configure: "(i32.store8 (i32.const 448) (i32.const 1)) (i32.store (i32.const 452) (i32.const 1100)) (i32.store (i32.const 456) (i32.const 5)) (i32.const 448)",
        ..Guest::default()
    });
    assert!(problem.to_string().contains("1.0.0"), "{problem}");
    let problem = refused(&Guest {
        always: "unreachable",
        ..Guest::default()
    });
    assert!(matches!(problem, Problem::SelfTest(_)), "{problem}");
    let problem = refused(&Guest {
        always: "(loop $l (br $l))",
        ..Guest::default()
    });
    assert!(matches!(problem, Problem::SelfTest(_)), "{problem}");
    let problem = refused(&Guest {
        name: "bad name",
        ..Guest::default()
    });
    assert!(matches!(problem, Problem::Manifest(_)), "{problem}");
}

#[test]
fn settings_are_checked_and_the_place_is_named() {
    let guest = Guest {
        schema: r#"{"type":"object","properties":{"rows":{"type":"integer"}}}"#,
        ..Guest::default()
    };
    let settings = BTreeMap::from([("guest".to_owned(), serde_json::json!({"rows": "many"}))]);
    let error = HOST
        .load("guest.wasm", guest.module(), &settings)
        .unwrap_err();
    assert!(
        matches!(&error.problem, Problem::Settings { pointer, .. } if pointer == "/rows"),
        "{error}"
    );
    let problem = refused(&Guest {
        schema: "{nonsense",
        ..Guest::default()
    });
    assert!(matches!(problem, Problem::Schema { .. }), "{problem}");
}

#[test]
fn files_that_are_no_policies_are_refused_by_name() {
    let refuse = |bytes: Vec<u8>| {
        HOST.load("x.wasm", bytes, &Settings::new())
            .unwrap_err()
            .problem
    };
    let good = Guest::default().module();
    assert!(matches!(refuse(b"hello".to_vec()), Problem::NotWasm));
    assert!(matches!(
        refuse(wat::parse_str("(module)").unwrap()),
        Problem::NotAPolicy
    ));
    assert!(matches!(
        refuse(b"\0asm\x0d\0\x01\0".to_vec()),
        Problem::NotAPolicy
    ));
    let wasi = r#"(module (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32))))"#;
    let problem = refuse(wat::parse_str(wasi).unwrap());
    assert!(problem.to_string().contains("clock_time_get"), "{problem}");
    let problem = refused(&Guest {
        wit: ("@0.1.0", "@0.2.0"),
        ..Guest::default()
    });
    assert!(
        matches!(problem, Problem::ContractVersion { .. }),
        "{problem}"
    );
    assert!(matches!(
        refuse(vec![0; (4 << 20) + 1]),
        Problem::TooLarge { .. }
    ));
    // Cut anywhere, it is refused and nothing worse.
    for length in (0..good.len()).step_by(97) {
        refuse(good[..length].to_vec());
    }
}

#[test]
fn what_a_module_says_of_its_own_types_counts_for_nothing() {
    let mut module = Guest::default().module();
    // A custom section: its id, its length, the length of its name, the name, and rubbish.
    let name = b"component-type:evil";
    module.extend([0, 1 + name.len() as u8 + 2, name.len() as u8]);
    module.extend(name);
    module.extend([0xff, 0xff]);
    let module = HOST.load("x.wasm", module, &Settings::new()).unwrap();
    assert_eq!(module.contract(), "0.1.0");
}

#[test]
fn schemas_that_name_themselves_do_no_harm() {
    for schema in [
        r##"{"$ref": "#"}"##,
        r##"{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}"##,
        r##"{"not": {"$ref": "#"}}"##,
        r##"{"$dynamicRef": "#x", "$dynamicAnchor": "x"}"##,
    ] {
        let guest = Guest {
            schema,
            ..Guest::default()
        };
        let result = HOST.load("x.wasm", guest.module(), &Settings::new());
        if let Err(error) = result {
            assert!(!matches!(error.problem, Problem::Internal(_)), "{error}");
        }
    }
}

#[test]
fn required_modules_and_protocols_count() {
    let module = load(&Guest {
        protocols: true,
        ..Guest::default()
    });
    let code = |set: &PolicySet| match decide(set).verdict {
        Verdict::Deny(reason) => reason.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        code(&set(vec![Arc::clone(&module)])),
        "no-policy-for-protocol"
    );
    let options = SetOptions {
        required: vec!["other".into()],
        ..SetOptions::default()
    };
    let lacking = PolicySet::new(vec![Arc::clone(&module)], options).unwrap();
    assert_eq!(code(&lacking), "required-policy-missing");
    assert!(PolicySet::new(vec![Arc::clone(&module), module], SetOptions::default()).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    /// Flipped bytes end in a module or a refusal, and the host can load the next one.
    #[test]
    fn damaged_modules_do_no_harm(
        damage in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 1..4),
        component in proptest::prelude::any::<bool>()
    ) {
        let mut bytes = Guest::default().module();
        if component {
            bytes = as_component(&bytes);
        }
        for (place, value) in damage {
            let length = bytes.len();
            bytes[place.index(length)] = value;
        }
        match HOST.load("x.wasm", bytes, &Settings::new()) {
            Ok(module) => drop(decide(&set(vec![module]))),
            Err(error) => proptest::prop_assert!(!matches!(error.problem, Problem::Internal(_)), "{error}"),
        }
    }

    /// Nor do bytes that were never a module.
    #[test]
    fn arbitrary_bytes_are_refused(
        mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        kind in 0_usize..3
    ) {
        let magic: [&[u8]; 3] = [b"", b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"];
        bytes.splice(0..0, magic[kind].iter().copied());
        proptest::prop_assert!(HOST.load("x.wasm", bytes, &Settings::new()).is_err());
    }
}
