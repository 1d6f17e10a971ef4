//! The commands that operators, auditors, approvers and users of the SDK are shown, run as they stand in their
//! pages.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "docs_run/operators.rs"]
mod operators;
#[path = "common/pages.rs"]
mod pages;
#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use chaperone_test_support::policies::{target_folder, workspace};
use chaperone_test_support::{Chaperone, Postgres};
use pages::Shown;
use ward::{APPROVER, CHAPERONE, DATABASE, DBA, PATIENCE};

/// What stands for an id in the approvers' page.
const ID: &str = "0198c3";

/// Runs a command in a shell that finds `chaperone`, and gives what it says.
fn run(folder: &Path, command: &str, variables: &[(&str, &str)]) -> String {
    let output = pages::shell(folder, CHAPERONE, command, variables);
    let said = ward::words(&output);
    assert!(output.status.success(), "{command}: {said}");
    assert!(!said.trim().is_empty(), "{command} says nothing");
    said
}

/// The value behind a word.
fn behind<'t>(text: &'t str, word: &str) -> &'t str {
    let rest = text
        .rsplit_once(word)
        .unwrap_or_else(|| panic!("no {word} in: {text}"));
    let end = rest
        .1
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    &rest.1[..end.unwrap_or(rest.1.len())]
}

/// A clinic whose DBA's changes wait for two minutes, with a table to change.
fn ward() -> (Postgres, Chaperone) {
    let postgres = ward::clinic();
    let table = "SET ROLE clinic_owner; CREATE TABLE import_shown (id integer);
                 COMMENT ON TABLE import_shown IS '@label(clear)';
                 INSERT INTO import_shown VALUES (0);";
    postgres.script(DATABASE, table).unwrap();
    let wait = "[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]";
    let options = ward::clinical(Chaperone::options(CHAPERONE)).toml(wait);
    let proxy = ward::people(options, &postgres).start().unwrap();
    (postgres, proxy)
}

#[test]
fn what_approvers_are_shown_works() {
    let (postgres, proxy) = ward();
    let mut session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    let place = tempfile::tempdir().unwrap();
    fs::copy(proxy.ca_file(), place.path().join("ca.pem")).unwrap();
    let mut shown = Shown::to(
        "docs/approvers.md",
        "docs_run::what_approvers_are_shown_works",
    );
    // The page's proxy is elsewhere, and has TLS; its tokens are nobody's.
    let url = shown.take("export ").replace(
        "https://chaperone.example:6433",
        &format!("http://{}", proxy.admin()),
    );
    let token = shown.take("export ").replace("...", APPROVER);
    let run = |command: &str| run(place.path(), &format!("{url}\n{token}\n{command}"), &[]);
    let commands = shown.all();
    assert!(commands.len() >= 4, "{commands:?}");
    let mut held = None;
    for command in &commands {
        let id = held.get_or_insert_with(|| {
            session
                .send("UPDATE import_shown SET id = id + 1;")
                .unwrap();
            let list = || ward::ids(&run("chaperone approvals list"));
            ward::wait_for("a held statement", || !list().is_empty());
            list().remove(0)
        });
        let said = run(&command.replace(ID, id));
        assert!(said.contains(&id[..8]), "{command}: {said}");
        let answer = ["approvals approve", "approvals deny"];
        if answer.iter().any(|word| command.contains(word)) {
            session.wait(PATIENCE).unwrap();
            held = None;
        }
    }
    let ran = postgres
        .value(DATABASE, "SELECT id FROM import_shown")
        .unwrap();
    assert_eq!(ran, "1", "one was approved, one denied");
}

#[test]
fn what_auditors_are_shown_works() {
    let (_postgres, proxy) = ward();
    let mut session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
    session
        .send("UPDATE import_shown SET id = id + 1;")
        .unwrap();
    let list = || ward::ids(&ward::words(&ward::approvals(&proxy, APPROVER, &["list"])));
    ward::wait_for("a held statement", || !list().is_empty());
    let approved = ward::approvals(&proxy, APPROVER, &["approve", &list()[0]]);
    assert!(approved.status.success(), "{}", ward::words(&approved));
    session.wait(PATIENCE).unwrap();

    let place = tempfile::tempdir().unwrap();
    let mut shown = Shown::to(
        "docs/auditors.md",
        "docs_run::what_auditors_are_shown_works",
    );
    let commands = shown.all();
    assert!(commands.len() >= 8, "{commands:?}");
    let value = "UPDATE import_shown SET id = id + 1";
    fs::write(place.path().join("value.txt"), value).unwrap();
    let (mut head, mut request) = (String::new(), String::new());
    for command in &commands {
        let variables = [("HEAD", head.as_str()), ("REQUEST", request.as_str())];
        let said = run(place.path(), command, &variables);
        if command.contains(" keygen ") {
            assert!(place.path().join("auditor.pub").exists());
            // From here on with the key that this log was sealed to.
            fs::copy(proxy.auditor_key(), place.path().join("auditor.key")).unwrap();
            symlink(proxy.audit_folder(), place.path().join("audit")).unwrap();
            let records = "chaperone audit show audit --json --kind intent";
            let records = run(place.path(), records, &[]);
            request = behind(&records, "\"request\":\"").to_owned();
        } else if command.contains(" verify ") {
            head = behind(&said, "head ").to_owned();
        } else if command.contains(" digest ") {
            assert!(said.contains(" operation\n"), "{command}: {said}");
        } else if command.contains("--key") {
            assert!(said.contains("import_shown"), "{command}: {said}");
        } else if command.starts_with("grep ") {
            let starts = said.matches("\"kind\":\"session-start\"").count();
            assert_eq!(starts, 1, "{command}: {said}");
        }
    }
}

#[test]
fn what_the_sdk_shows_works() {
    let example = workspace().join("example-policies/allow-all");
    let place = tempfile::tempdir().unwrap();
    let modules = place.path().join("policies");
    fs::create_dir(&modules).unwrap();
    let target = target_folder();
    let variables = [
        ("CARGO_TARGET_DIR", target.to_str().unwrap()),
        ("CARGO_NET_OFFLINE", "true"),
    ];
    let mut shown = Shown::to("policy-sdk/README.md", "docs_run::what_the_sdk_shows_works");

    let build = shown
        .take("chaperone policy build")
        .replace("POLICY-DIRECTORY", modules.to_str().unwrap())
        .replace("DIR ", &format!("{} ", example.display()));
    run(place.path(), &build, &variables);
    let built = fs::read(modules.join("allow_all.wasm")).unwrap();

    let by_hand = shown
        .take("cargo build")
        .replace("PATH-TO", workspace().to_str().unwrap());
    let command = format!("cd {} && {by_hand}", example.display());
    run(place.path(), &command, &variables);
    let module = target.join("wasm32-unknown-unknown/policy/allow_all.wasm");
    assert!(built.len() > 10_000 && fs::read(module).unwrap() == built);
    shown.all_ran();
}
