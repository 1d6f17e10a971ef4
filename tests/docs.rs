//! What the documents show works: commands parse, targets of make exist, links lead somewhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use chaperone::command::Arguments;
use chaperone_test_support::policies::workspace;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

/// Texts in the auditors' description of the format that only look like commands.
const NO_COMMANDS: [&str; 3] = [
    "chaperone audit data key 1",
    "chaperone audit blind 1",
    "chaperone audit sent 1",
];

/// A document and what it shows as code.
struct Document {
    name: String,
    text: String,
}

impl Document {
    fn all() -> Vec<Document> {
        let root = workspace();
        let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
        let docs = fs::read_dir(root.join("docs")).unwrap();
        files.extend(docs.map(|entry| entry.unwrap().path()));
        files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
            .map(|path: PathBuf| Document {
                name: path.file_name().unwrap().to_string_lossy().into_owned(),
                text: fs::read_to_string(&path).unwrap(),
            })
            .collect()
    }

    /// Lines of blocks: indented by four blanks, or fenced and marked `sh`. A backslash at the end
    /// joins the next line.
    fn commands(&self) -> Vec<String> {
        let mut fence: Option<bool> = None;
        let mut all: Vec<String> = Vec::new();
        let mut joined = false;
        for line in self.text.lines() {
            if let Some(mark) = line.trim_start().strip_prefix("```") {
                fence = match fence {
                    None => Some(mark.trim() == "sh"),
                    Some(_) => None,
                };
                continue;
            }
            let shown = match fence {
                Some(is_sh) => is_sh.then_some(line),
                None => line.strip_prefix("    "),
            };
            let Some(shown) = shown else {
                joined = false;
                continue;
            };
            let piece = shown.trim();
            let (piece, more) = match piece.strip_suffix('\\') {
                Some(start) => (start, true),
                None => (piece, false),
            };
            match all.last_mut() {
                Some(last) if joined => last.push_str(piece),
                _ => all.push(piece.to_owned()),
            }
            joined = more;
        }
        all
    }

    /// `code` in running text.
    fn spans(&self) -> Vec<String> {
        let outside: Vec<&str> = self
            .text
            .split("\n```")
            .step_by(2)
            .flat_map(str::lines)
            .filter(|line| !line.starts_with("    "))
            .collect();
        let outside = outside.join(" ");
        let spans = outside.split('`').skip(1).step_by(2);
        spans.map(str::to_owned).collect()
    }
}

/// Words of a shell command up to a pipe, a list or a comment; variables stay as they are.
fn words(command: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let (mut quote, mut inside) = (None, false);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => (quote, inside) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if inside || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            (None, '|' | ';' | '&' | '>' | '#') if word.is_empty() && !inside => break,
            (None, c) => word.push(c),
        }
    }
    if inside || !word.is_empty() {
        all.push(word);
    }
    // Settings of the environment before the command.
    let first = all.iter().position(|word| !word.contains('='));
    all.split_off(first.unwrap_or(0))
}

#[test]
fn every_chaperone_command_parses() {
    let mut shown = BTreeSet::new();
    let mut wrong = Vec::new();
    for document in Document::all() {
        let whole = document.commands().into_iter().map(|text| (text, true));
        let spans = document.spans().into_iter().map(|text| (text, false));
        for (text, is_whole) in whole.chain(spans) {
            let words = words(&text);
            let is_command = words.first().is_some_and(|word| word == "chaperone");
            if !is_command || words.len() < 2 || NO_COMMANDS.contains(&text.as_str()) {
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
                wrong.push(format!("{}: `{text}`: {error}", document.name));
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
    for document in Document::all() {
        for text in document.commands().into_iter().chain(document.spans()) {
            let words = words(&text);
            if words.first().is_none_or(|word| word != "make") {
                continue;
            }
            for target in words.iter().skip(1).filter(|word| !word.contains('=')) {
                assert!(
                    targets.contains(target.as_str()),
                    "{}: {text}",
                    document.name
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 4, "the commands were not found: {seen}");
}

#[test]
fn links_lead_somewhere() {
    let root = workspace();
    for document in Document::all() {
        let top = matches!(document.name.as_str(), "README.md" | "CONTRIBUTING.md");
        let folder = if top { root.clone() } else { root.join("docs") };
        for link in document.text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            let file = link.split('#').next().unwrap();
            if link.contains("://") || file.is_empty() {
                continue;
            }
            assert!(folder.join(file).exists(), "{}: {link}", document.name);
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
fn every_row_of_the_failure_table_is_shown_by_tests() {
    let known = tests();
    let documents = Document::all();
    let table = documents
        .iter()
        .find(|it| it.name == "failures.md")
        .unwrap();
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
