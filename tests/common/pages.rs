//! The pages, the commands that they show, and which test runs each of them.
#![allow(
    dead_code,
    reason = "each test program uses another part of what they share"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use chaperone_test_support::policies::workspace;

#[path = "commands.rs"]
mod commands;

pub use commands::{COMMANDS, Way};

/// The commands of a page that one test has to run: it takes them one by one and ends with
/// [`Shown::all_ran`].
#[derive(Debug)]
pub struct Shown(Vec<String>);

impl Shown {
    /// What the page shows now, as far as it is for `test` to run, in the page's order.
    pub fn to(page: &str, test: &str) -> Self {
        let of_test = |text: &str| {
            COMMANDS.iter().any(|(of, way, texts)| {
                *of == page && matches!(way, Way::By(by) if *by == test) && texts.contains(&text)
            })
        };
        let shown = Page::read(page).commands().into_iter();
        let texts = shown.map(|command| command.text);
        let shown: Vec<String> = texts.filter(|text| of_test(text)).collect();
        assert!(!shown.is_empty(), "{page} shows nothing to {test}");
        Shown(shown)
    }

    /// The next command of those that begin with `start`.
    pub fn take(&mut self, start: &str) -> String {
        let found = self.0.iter().position(|text| text.starts_with(start));
        let found = found.unwrap_or_else(|| panic!("no {start:?} in {:?}", self.0));
        self.0.remove(found)
    }

    /// All of them, in order.
    pub fn all(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }

    /// Nothing was left out.
    pub fn all_ran(self) {
        assert!(self.0.is_empty(), "not run: {:?}", self.0);
    }
}

/// Runs `command` in a shell that finds `chaperone` (at `program`), and gives both streams of it.
pub fn shell(folder: &Path, program: &str, command: &str, variables: &[(&str, &str)]) -> Output {
    let mut shell = shell_command(folder, program, command);
    shell.envs(variables.iter().copied()).output().unwrap()
}

/// What [`shell`] runs, not yet started, for callers that want something else of it.
pub fn shell_command(folder: &Path, program: &str, command: &str) -> Command {
    let programs = folder.join("bin");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        symlink(program, programs.join("chaperone")).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()));
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        shell.env_remove(variable);
    }
    shell
}

/// A page, by its path in the repository.
pub struct Page {
    pub name: String,
    pub text: String,
}

/// Something that a page shows as code.
#[derive(Clone, Debug)]
pub struct Code {
    pub text: String,
    /// A line of a block; otherwise it stands in running text.
    pub is_line: bool,
}

impl Page {
    /// Every page, and the example of a configuration, whose comments show commands too.
    pub fn all() -> Vec<Page> {
        let root = workspace();
        let mut names = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let elsewhere = name.starts_with('.') || name == "target" || name == "node_modules";
                if path.is_dir() && !elsewhere {
                    folders.push(path);
                } else if name.ends_with(".md") {
                    let inside = path.strip_prefix(&root).unwrap();
                    names.push(inside.to_string_lossy().into_owned());
                }
            }
        }
        names.push("docs/chaperone.toml".to_owned());
        names.sort();
        names.iter().map(|name| Page::read(name)).collect()
    }

    /// One page.
    pub fn read(name: &str) -> Page {
        Page {
            name: name.to_owned(),
            text: fs::read_to_string(workspace().join(name)).unwrap(),
        }
    }

    /// What is shown as code, in its order: lines of blocks that are indented by four blanks, or
    /// fenced and marked `sh` (a backslash at the end joins the next line), and `code` in text.
    pub fn code(&self) -> Vec<Code> {
        if self.name.ends_with(".toml") {
            return self.comments();
        }
        let mut all = Vec::new();
        let mut fence: Option<bool> = None;
        let mut paragraph = String::new();
        let mut joined = false;
        for line in self.text.lines() {
            let mark = line.trim_start().strip_prefix("```");
            let shown = match (mark, fence) {
                (Some(mark), None) => {
                    fence = Some(mark.trim() == "sh");
                    None
                }
                (Some(_), Some(_)) => {
                    fence = None;
                    None
                }
                (None, Some(is_sh)) => is_sh.then_some(line),
                (None, None) => line.strip_prefix("    "),
            };
            if mark.is_none() && fence.is_none() && shown.is_none() && !line.is_empty() {
                paragraph.push_str(line);
                paragraph.push(' ');
            } else {
                spans(&std::mem::take(&mut paragraph), &mut all);
            }
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
                Some(Code { text, .. }) if joined => text.push_str(piece),
                _ => all.push(Code {
                    text: piece.to_owned(),
                    is_line: true,
                }),
            }
            joined = more;
        }
        spans(&paragraph, &mut all);
        all
    }

    fn comments(&self) -> Vec<Code> {
        let mut all = Vec::new();
        for line in self.text.lines() {
            let Some((_, comment)) = line.split_once("# ") else {
                continue;
            };
            if is_command(comment, false) {
                let text = comment.to_owned();
                all.push(Code {
                    text,
                    is_line: true,
                });
            } else {
                spans(comment, &mut all);
            }
        }
        all
    }

    /// Of [`Page::code`] what is a command: it begins with a program's name, in blocks also with
    /// one of SQL or psql. Without comments.
    pub fn commands(&self) -> Vec<Code> {
        let is_shown = |code: &Code| {
            let sql = ["ALTER ", "COMMENT ", "CREATE ", "GRANT ", "SELECT ", "\\"];
            is_command(&code.text, code.is_line)
                || code.is_line && sql.iter().any(|start| code.text.starts_with(start))
        };
        let mut all = self.code();
        all.retain(is_shown);
        for code in &mut all {
            let end = code.text.find(" # ").unwrap_or(code.text.len());
            code.text.truncate(code.text[..end].trim_end().len());
        }
        all
    }
}

fn spans(text: &str, all: &mut Vec<Code>) {
    all.extend(text.split('`').skip(1).step_by(2).map(|text| Code {
        text: text.to_owned(),
        is_line: false,
    }));
}

/// Programs, and words that a shell knows itself: commands also where they are not installed, and in
/// running text, where much else could have the name of some program.
#[rustfmt::skip]
const PROGRAMS: [&str; 29] = [
    "apt-get", "cargo", "cat", "cd", "chaperone", "chmod", "cp", "curl", "docker", "export", "git",
    "grep", "head", "journalctl", "kill", "ls", "make", "npm", "openssl", "pg_dump", "pgbench",
    "podman", "printf", "psql", "python3", "rm", "rustup", "sh", "systemctl",
];

/// Texts in the auditors' description of the format that only look like commands.
const NO_COMMANDS: [&str; 4] = [
    "chaperone audit data key 1",
    "chaperone audit blind 1",
    "chaperone audit long 1",
    "chaperone audit sent 1",
];

/// Whether a text begins with a program's name and goes on: one word alone is only a name.
fn is_command(text: &str, is_line: bool) -> bool {
    let is_name = |name: &str| !name.contains(' ');
    if text
        .split_once("=$(")
        .is_some_and(|(name, _)| is_name(name))
    {
        return true;
    }
    let words = words(text);
    let Some(first) = words.first().filter(|_| words.len() > 1) else {
        return false;
    };
    let in_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !first.contains('/') && std::env::split_paths(&path).any(|it| it.join(first).is_file())
    };
    let known = PROGRAMS.contains(&first.as_str());
    (known || is_line && in_path()) && !NO_COMMANDS.contains(&text)
}

/// Words of a shell command up to a pipe, a list or a comment; variables stay as they are.
pub fn words(command: &str) -> Vec<String> {
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
