//! Settings that a session starts with: verbatim to the backend, and decided as their SET would be.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::MutexGuard;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, LABELS, ROLE, Rig, TOKEN};
use chaperone_test_support::wire::{Transcript, VERSION_3_0, Wire};
use chaperone_test_support::{Chaperone, policies};

const BINARY: &str = env!("CARGO_BIN_EXE_chaperone");

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(BINARY)
}

fn through(proxy: &Chaperone) -> Wire {
    let wire = Wire::connect(proxy.port()).unwrap();
    wire.tls(&proxy.ca_file()).unwrap()
}

fn login(wire: &mut Wire, settings: &[(&str, &str)]) -> Transcript {
    let who = [("user", ROLE), ("database", DATABASE)];
    let said = wire.login(VERSION_3_0, &[&who[..], settings].concat(), TOKEN);
    said.unwrap()
}

/// Logs in with these settings at the server and through the open proxy, and asks for them.
fn same(settings: &[(&str, &str)], asked: &[&str]) -> Transcript {
    let rig = rig();
    let play = |mut wire: Wire| {
        let mut said = login(&mut wire, settings);
        said.0.retain(|line| !line.starts_with("Authentication"));
        for question in asked {
            said.0.extend(wire.ask(&query(question)).0);
        }
        said
    };
    let direct = play(Wire::connect(rig.postgres.port()).unwrap());
    let proxied = play(through(&rig.open));
    assert!(
        direct == proxied,
        "the server says\n{direct}\nthe proxy says\n{proxied}"
    );
    proxied
}

#[test]
fn settings_arrive_verbatim() {
    let said = same(
        &[
            ("DateStyle", "German"),
            ("geqo", "off"),
            ("application_name", "it's \\ \"quoted\""),
            ("app.tenant", "se'ven"),
            ("standard_conforming_strings", "off"),
            (
                "options",
                r"-c search_path=a,\ public --enable-seqscan=off -cjit=on -S 4096 -e",
            ),
        ],
        &[
            "SHOW DateStyle",
            "SHOW geqo; SHOW application_name; SHOW app.tenant; SHOW search_path",
            "SHOW enable_seqscan; SHOW jit; SHOW work_mem",
            r"SELECT 'a\'b'",
            // RESET goes back to what the session started with.
            "SET geqo = on; RESET geqo; SHOW geqo",
            "DISCARD ALL",
            "SHOW DateStyle; SHOW app.tenant; SHOW geqo",
        ],
    );
    assert!(said.0.contains(&"DataRow 'se\\'ven'".to_owned()), "{said}");
}

#[test]
fn what_the_server_does_not_take() {
    for setting in [
        ("DateStyle", "of no kind"),
        ("no_such_setting", "1"),
        ("shared_buffers", "1MB"),
        ("options", "-c work_mem=much"),
    ] {
        let rig = rig();
        let direct = login(&mut Wire::connect(rig.postgres.port()).unwrap(), &[setting]);
        let proxied = login(&mut through(&rig.open), &[setting]);
        let words = |said: &Transcript| {
            let error = said.all("ErrorResponse").concat();
            let told = |field: &&str| field.starts_with("M=") || field.starts_with("C=");
            let fields: Vec<_> = error
                .split('\u{1f}')
                .filter(told)
                .map(str::to_owned)
                .collect();
            fields
        };
        assert_eq!(words(&direct), words(&proxied), "{setting:?}");
    }
}

#[test]
fn nobody_starts_in_another_role() {
    let rig = rig();
    for setting in [
        ("role", "postgres"),
        ("Role", "postgres"),
        ("session_authorization", "postgres"),
        ("options", "-c role=postgres"),
        ("options", "--ROLE=postgres"),
        ("options", "--session-authorization=postgres"),
    ] {
        let said = login(&mut through(&rig.open), &[setting]);
        assert_eq!(said.sqlstates(), ["42501"], "{setting:?}: {said}");
    }
}

#[test]
fn policies_decide_what_is_not_harmless() {
    let rig = rig();
    let strict = Chaperone::options(BINARY)
        .target(&rig.postgres, DATABASE, &[(ROLE, &["testers"])], LABELS)
        .identity("tester", TOKEN, &["testers"], "testing")
        .policy(
            "clinical-access",
            policies::example("clinical-access").unwrap(),
            "grants = [{ groups = [\"testers\"], objects = [\"public.*\"], actions = [\"read\"] }]",
        )
        .start()
        .unwrap();
    let said = login(&mut through(&strict), &[("DateStyle", "German")]);
    assert!(said.sqlstates().is_empty(), "{said}");
    for setting in [
        ("session_replication_role", "replica"),
        ("app.tenant", "7"),
        ("options", "-c session_preload_libraries=x"),
        ("options", "-S 4096"),
        ("options", "-c"),
    ] {
        let said = login(&mut through(&strict), &[setting]);
        assert_eq!(said.sqlstates(), ["42501"], "{setting:?}: {said}");
    }
}
