//! What the documents show works: commands parse, targets of make exist, links lead somewhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "common/pages.rs"]
mod pages;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use chaperone::command::Arguments;
use chaperone_test_support::chaperone::run;
use chaperone_test_support::policies::workspace;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use pages::{COMMANDS, Page, Way, words};

#[test]
fn every_chaperone_command_parses() {
    let mut shown = BTreeSet::new();
    let mut wrong = Vec::new();
    for page in Page::all() {
        for code in page.commands() {
            let (text, is_whole) = (code.text, code.is_line);
            let words = words(&text);
            if words.first().is_none_or(|word| word != "chaperone") {
                continue;
            }
            shown.insert(words.get(1).cloned().unwrap());
            let Err(error) = Arguments::try_parse_from(&words) else {
                continue;
            };
            // A command that is only mentioned may be short of its arguments.
            let short = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            // What a shell would put there is not known.
            let variable = error.kind() == ErrorKind::ValueValidation && text.contains('$');
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            if !asked && !variable && (is_whole || !short) {
                wrong.push(format!("{}: `{text}`: {error}", page.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Every subcommand is shown somewhere.
    let command = Arguments::command();
    let known = command.get_subcommands().map(|it| it.get_name().to_owned());
    assert_eq!(known.collect::<BTreeSet<_>>(), shown);
}

#[test]
fn every_make_target_exists() {
    let makefile = fs::read_to_string(workspace().join("Makefile")).unwrap();
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.']))
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with('='))
        .map(|(target, _)| target)
        .collect();
    let mut seen = 0;
    for page in Page::all() {
        for text in page.commands().into_iter().map(|code| code.text) {
            let words = words(&text);
            if words.first().is_none_or(|word| word != "make") {
                continue;
            }
            for target in words.iter().skip(1).filter(|word| !word.contains('=')) {
                assert!(targets.contains(target.as_str()), "{}: {text}", page.name);
                seen += 1;
            }
        }
    }
    assert!(seen > 4, "the commands were not found: {seen}");
}

#[test]
fn links_lead_somewhere() {
    let root = workspace();
    for page in Page::all() {
        let file = root.join(&page.name);
        for link in page.text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            let to = link.split('#').next().unwrap();
            if link.contains("://") || to.is_empty() {
                continue;
            }
            let exists = file.with_file_name(to).exists();
            assert!(exists, "{}: {link}", page.name);
        }
    }
}

/// Every function that is marked as a test, as `file::test`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![workspace().join("tests"), workspace().join("proxy")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let file = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let mut marked = false;
            for line in text.lines().map(str::trim_start) {
                let function = line.strip_prefix("async ").unwrap_or(line);
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if let (true, Some(rest)) = (marked, function.strip_prefix("fn ")) {
                    let name = rest.split('(').next().unwrap();
                    found.insert(format!("{file}::{name}"));
                    marked = false;
                }
            }
        }
    }
    found
}

#[test]
fn every_command_is_run_by_a_test() {
    let tests = tests();
    let mut listed = BTreeSet::new();
    for (page, way, texts) in COMMANDS {
        match way {
            Way::By(test) => assert!(tests.contains(*test), "there is no test {test}"),
            Way::Not(reason) => assert!(reason.contains(' '), "{page}: {reason}"),
        }
        for text in *texts {
            assert!(listed.insert((*page, *text)), "twice: {page}: {text}");
        }
    }
    let mut shown = BTreeSet::new();
    let mut unknown = Vec::new();
    for page in Page::all() {
        for code in page.commands() {
            let is_it = |(of, text): &&(&str, &str)| *of == page.name && *text == code.text;
            let key = listed.iter().find(is_it);
            // In running text, the beginning of a command that is run where it stands whole.
            let start = format!("{} ", code.text);
            let is_mention = !code.is_line
                && listed
                    .iter()
                    .any(|(_, text)| *text == code.text || text.starts_with(&start));
            match key {
                Some(key) => _ = shown.insert(*key),
                None if is_mention => {}
                None => unknown.push(format!("{}: {}", page.name, code.text)),
            }
        }
    }
    assert_eq!(unknown, [""; 0], "neither run nor excepted");
    let gone: Vec<_> = listed.difference(&shown).collect();
    assert!(gone.is_empty(), "listed and shown nowhere: {gone:?}");
}

/// `make` in the workspace, whoever started this test.
fn make(arguments: &str) -> String {
    let mut make = Command::new("sh");
    make.args(["-c", arguments]).current_dir(workspace());
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CHECK", "STAY", "ONLY"] {
        make.env_remove(variable);
    }
    run(&mut make).unwrap()
}

#[test]
fn make_lists_its_targets() {
    let said = make("make help");
    for target in ["demo", "test", "check", "clean"] {
        let start = format!("make {target} ");
        assert!(
            said.lines().any(|line| line.trim().starts_with(&start)),
            "{said}"
        );
    }
}

#[test]
fn what_only_make_runs_can_at_least_be_expanded() {
    let mut seen = 0;
    for (_, way, texts) in COMMANDS {
        // `make --dry-run test` would start parts of it.
        let of_make = |text: &&&str| text.starts_with("make ") && **text != "make test";
        for text in texts.iter().filter(of_make) {
            if matches!(way, Way::Not(_)) {
                let said = make(&text.replacen("make", "make --dry-run", 1));
                assert!(said.contains("cargo "), "{text}: {said}");
                seen += 1;
            }
        }
    }
    assert!(seen > 8, "the commands were not found: {seen}");
}

#[test]
fn every_row_of_the_failure_table_is_shown_by_tests() {
    let known = tests();
    let table = Page::read("docs/failures.md");
    let rows = table.text.lines().filter(|line| line.starts_with("| "));
    let mut count = 0;
    for row in rows.skip(2) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        assert_eq!(cells.len(), 6, "{row}");
        let named: Vec<&str> = cells[5].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for name in named {
            assert!(known.contains(name), "there is no test {name}: {row}");
        }
        count += 1;
    }
    assert!(count > 20, "the table was not found: {count}");
}

#[test]
fn every_getter_of_the_contract_is_documented() {
    let wit = fs::read_to_string(workspace().join("wit/v0.1.0/policy.wit")).unwrap();
    let lines: Vec<&str> = wit.lines().map(str::trim).collect();
    let is_getter = |line: &str| line.contains(": func(");
    let getters = lines.windows(2).filter(|pair| is_getter(pair[1]));
    let (documented, bare): (Vec<_>, Vec<_>) = getters.partition(|pair| pair[0].starts_with("///"));
    let bare: Vec<&str> = bare.iter().map(|pair| pair[1]).collect();
    assert_eq!(bare, [""; 0]);
    assert!(documented.len() > 30, "{}", documented.len());
}

#[test]
fn the_help_is_worth_reading() {
    // Every subcommand and every option says what it is for.
    fn look(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path}");
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{path} {}",
                argument.get_id()
            );
        }
        command
            .get_subcommands()
            .for_each(|inner| look(inner, &path));
    }
    Arguments::command().debug_assert();
    look(&Arguments::command(), "");
}

#[test]
fn shell_words() {
    assert_eq!(
        words("A=b chaperone x \"two words\" '' --y=z # comment"),
        ["chaperone", "x", "two words", "", "--y=z"]
    );
    assert_eq!(words("chaperone a | grep b"), ["chaperone", "a"]);
    assert!(words("").is_empty());
}
