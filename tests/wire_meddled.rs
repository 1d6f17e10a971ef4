//! A backend that sends garbage, or the right things at the wrong time: the session goes on or ends with
//! a clean error, nothing leaves that was not asked for, other sessions live on.
//!
//! `CHAPERONE_RANDOM=1000` plays more sessions, `CHAPERONE_SEED=7` begins at another one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/meddler.rs"]
mod meddler;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, LABELS, MASKS, ROLE, Rig, TOKEN};
use chaperone_test_support::wire::{Step, Transcript};
use chaperone_test_support::{Chaperone, Relay, policies};

use meddler::{CANARY, Dice, Meddler};

const CHAPERONE: &str = env!("CARGO_BIN_EXE_chaperone");
const END: &str = "the end of the session";
/// Nobody who is asked and goes on being silent is waited for longer.
const SILENCE: Duration = Duration::from_millis(700);
/// A session that nobody meddles with.
const SPARED: u64 = u64::MAX;

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(CHAPERONE)
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// What a client asks for: of `patient` all but the id is masked, and no other answer has four columns.
fn asked(seed: u64) -> Vec<u8> {
    let mut dice = Dice(!seed);
    let protected = "SELECT id, name, born, ssn FROM patient ORDER BY id";
    let all = [
        query(protected),
        [run(protected, &[]), sync()].concat(),
        [
            parse("s", protected, &[]),
            describe_statement("s"),
            sync(),
            bind("", "s", &[], 0),
            describe_portal(""),
            execute("", 1),
            execute("", 0),
            close_statement("s"),
            sync(),
        ]
        .concat(),
        query("SELECT 1"),
        query("BEGIN"),
        query("COMMIT"),
        query("SELECT 1/0"),
        query("INSERT INTO item VALUES (60, 'x')"),
        query("SELECT 1; SELECT 2; SELECT 3"),
        [run("INSERT INTO item VALUES ($1)", &[Some("61")]), sync()].concat(),
        [
            query("COPY item FROM STDIN"),
            copy_data("62\tx\n"),
            copy_done(),
        ]
        .concat(),
        query("SELECT nothing"),
        query("LISTEN channel"),
    ];
    let mut bytes = query(protected);
    for _ in 0..8 {
        bytes.extend(&all[dice.roll(all.len())]);
    }
    bytes.extend(query(&format!("SELECT '{END}'")));
    bytes
}

fn proxy(port: u16, masks: bool) -> ChaperoneOptions {
    let labels = LABELS;
    let target = format!(
        "[[targets]]\nname = {DATABASE:?}\nhost = \"127.0.0.1\"\nport = {port}\n\
         [targets.tls]\nmode = \"disable\"\n[targets.labels]\n{labels}\
         [[targets.roles]]\nrole = {ROLE:?}\ngroups = [\"testers\"]\n"
    );
    let options = Chaperone::options(CHAPERONE)
        .toml(&target)
        .identity("tester", TOKEN, &["testers"], "testing")
        .policy("allow-all", policies::example("allow-all").unwrap(), "");
    if masks {
        let module = policies::example("phi-masking").unwrap();
        options.policy("phi-masking", module, MASKS)
    } else {
        options.incomplete_facts(&["allow-all"])
    }
}

/// A session that goes on, or ends with one FATAL error that says why.
fn is_clean(said: &Transcript) -> Result<(), String> {
    let last = said.0.last().map(String::as_str);
    let fatal = said.all("ErrorResponse S=FATAL");
    let at = said
        .0
        .iter()
        .position(|line| line.starts_with("ErrorResponse S=FATAL"));
    let states = [
        "C=08P01", "C=08006", "C=54000", "C=0A000", "C=XX000", "C=42501",
    ];
    match (last, fatal.as_slice()) {
        (Some("END"), [told]) => {
            let known = states.iter().any(|state| told.contains(state));
            if !known || at != Some(said.0.len() - 2) {
                return Err("an end that is not explained, or not the last word".to_owned());
            }
            Ok(())
        }
        (Some("END"), _) => Err("an end without a word".to_owned()),
        (_, []) => Ok(()),
        _ => Err("no end behind a FATAL error".to_owned()),
    }
}

fn meddled(masks: bool, usual: u64) {
    let rig = rig();
    let seed = Arc::new(AtomicU64::new(SPARED));
    let shared = Arc::clone(&seed);
    let relay = Relay::altering(rig.postgres.port(), move || {
        let seed = shared.load(Ordering::SeqCst);
        let mut meddler = if seed == SPARED {
            Meddler::none()
        } else {
            Meddler::new(seed)
        };
        move |whole: &[u8]| meddler.alter(whole)
    })
    .unwrap();
    let mut proxy = proxy(relay.port(), masks).start().unwrap();
    let mut bystander = Rig::through(&proxy);
    let (mut ended, mut silent) = (0, 0);
    let first = number("CHAPERONE_SEED", 0);
    for round in first..first + number("CHAPERONE_RANDOM", usual) {
        seed.store(round, Ordering::SeqCst);
        let mut wire = Rig::through(&proxy);
        seed.store(SPARED, Ordering::SeqCst);
        let end = format!("DataRow '{END}'");
        let said = wire.play(&[Step::Send(asked(round)), Step::Within(SILENCE, end.clone())]);
        let context = |what: &str| format!("CHAPERONE_SEED={round}: {what}\n{said}");
        if let Err(what) = is_clean(&said) {
            panic!("{}", context(&what));
        }
        let all = said.to_string();
        if masks {
            for secret in [CANARY, "900-11", "Testperson", "1931-04"] {
                assert!(!all.contains(secret), "{}", context(secret));
            }
        }
        ended += u32::from(all.contains("END"));
        silent += u32::from(all.contains("TIMEOUT"));
        drop(wire);
        let said = bystander.ask(&query("SELECT 'here'"));
        assert_eq!(said.all("DataRow"), ["DataRow 'here'"], "{round} {said}");
    }
    println!("{ended} sessions ended, {silent} got no answer");
    assert!(proxy.process().ended().is_none());
    let output = proxy.output();
    for word in ["panicked", "task failed"] {
        assert!(!output.contains(word), "{output}");
    }
    let said = Rig::through(&proxy).ask(&query("SELECT 'here'"));
    assert_eq!(said.all("DataRow"), ["DataRow 'here'"], "{said}");
}

#[test]
fn a_backend_that_meddles_ends_its_session_and_no_other() {
    meddled(false, 60);
}

#[test]
fn a_backend_that_meddles_shows_nothing_that_is_masked() {
    meddled(true, 60);
}
