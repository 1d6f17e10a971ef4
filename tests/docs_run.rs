//! The commands that auditors and approvers are shown first, run as they stand in their pages.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use chaperone_test_support::Chaperone;
use chaperone_test_support::policies::workspace;
use ward::{APPROVER, CHAPERONE, DATABASE, DBA, PATIENCE};

/// What stands for an id in the approvers' page.
const ID: &str = "0198c3";

/// The commands of a page's first section, "In a hurry".
fn shown(page: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join("docs").join(page)).unwrap();
    let section = text
        .split("\n## ")
        .find(|part| part.starts_with("In a hurry"));
    let lines = section.unwrap().lines();
    let commands = lines.filter_map(|line| line.strip_prefix("    chaperone "));
    commands.map(|rest| format!("chaperone {rest}")).collect()
}

/// Runs a command in a shell that finds `chaperone`, and gives what it says.
fn run(folder: &Path, command: &str, variables: &[(&str, &str)]) -> String {
    let programs = folder.join("bin");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        symlink(CHAPERONE, programs.join("chaperone")).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
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

#[test]
fn what_the_first_pages_show_works() {
    let postgres = ward::clinic();
    let table = "SET ROLE clinic_owner; CREATE TABLE import_shown (id integer);
                 COMMENT ON TABLE import_shown IS '@label(clear)';
                 INSERT INTO import_shown VALUES (0);";
    postgres.script(DATABASE, table).unwrap();
    let wait = "[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]";
    let options = ward::clinical(Chaperone::options(CHAPERONE)).toml(wait);
    let proxy = ward::people(options, &postgres).start().unwrap();
    let mut session = proxy.psql(DATABASE, "dba", DBA).session().unwrap();

    let place = tempfile::tempdir().unwrap();
    fs::copy(proxy.ca_file(), place.path().join("ca.pem")).unwrap();
    let url = format!("http://{}", proxy.admin());
    let variables = [
        ("CHAPERONE_ADMIN_URL", url.as_str()),
        ("CHAPERONE_TOKEN", APPROVER),
    ];
    let commands = shown("approvers.md");
    assert!(commands.len() >= 4, "{commands:?}");
    let mut held = None;
    for command in &commands {
        let id = held.get_or_insert_with(|| {
            session
                .send("UPDATE import_shown SET id = id + 1;")
                .unwrap();
            let list = || ward::ids(&run(place.path(), "chaperone approvals list", &variables));
            ward::wait_for("a held statement", || !list().is_empty());
            list().remove(0)
        });
        let said = run(place.path(), &command.replace(ID, id), &variables);
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

    let place = tempfile::tempdir().unwrap();
    let commands = shown("auditors.md");
    assert!(commands.len() >= 6, "{commands:?}");
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
        } else if command.contains("--key") {
            assert!(said.contains("import_shown"), "{command}: {said}");
        }
    }
}
