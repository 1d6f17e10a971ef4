//! The demo, interrupted: from its first line on nothing of it is left. And what it says can be tried
//! by hand, while it stays up.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop anywhere"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// More than any step takes on a busy machine, policies built already.
const PATIENCE: Duration = Duration::from_secs(180);

/// A demo, in a folder and a session of its own, as in a terminal of its own.
struct Demo {
    child: Child,
    lines: BufReader<ChildStdout>,
    seen: String,
    place: tempfile::TempDir,
}

/// Whom a signal goes to.
#[derive(Clone, Copy)]
enum To {
    /// All that is in the foreground, as a terminal does.
    Group,
    /// The demo alone.
    Itself,
}

impl Demo {
    fn start() -> Self {
        Self::start_with("1", "")
    }

    /// With `STAY`, and a script as `cargo` if it is not empty.
    fn start_with(stay: &str, cargo: &str) -> Self {
        Self::start_by(&[], stay, cargo)
    }

    /// The same, by a program that becomes the demo.
    fn start_by(program: &[&str], stay: &str, cargo: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut path = std::env::var("PATH").unwrap();
        if !cargo.is_empty() {
            let file = place.path().join("cargo");
            fs::write(&file, format!("#!/bin/sh\n{cargo}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            path = format!("{}:{path}", place.path().display());
        }
        // Whatever the tests were started by may ignore signals, as nohup does.
        let mut child = Command::new("setsid")
            .args(["env", "--default-signal"])
            .args(program)
            .arg(env!("CARGO_BIN_EXE_demo"))
            .env("STAY", stay)
            .env_remove("CHECK")
            .env("PATH", path)
            .env("CHAPERONE_DEMO_FOLDER", place.path().join("demo"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Demo {
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
            seen: String::new(),
            place,
        }
    }

    /// Reads until a line has `text` in it.
    fn read_to(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            let count = self.lines.read_line(&mut line).unwrap();
            self.seen.push_str(&line);
            assert!(count > 0, "ended before {text:?}: {}", self.seen);
            if line.contains(text) {
                return;
            }
        }
    }

    fn signal(&self, name: &str, to: To) {
        let id = i64::from(self.child.id());
        let to = match to {
            To::Group => -id,
            To::Itself => id,
        };
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$1\" -- \"$2\"", "kill", name]);
        assert!(kill.arg(to.to_string()).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.lines.read_to_string(&mut self.seen).unwrap();
                return status;
            }
            assert!(Instant::now() < deadline, "it goes on: {}", self.seen);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What runs of it: its session is inherited by everything that it starts.
    fn processes(&self) -> Vec<(u32, String)> {
        let own = self.child.id().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let fields: Vec<&str> = fields.split_whitespace().collect();
            if fields.get(3) == Some(&own.as_str()) && fields[0] != "Z" {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((id, String::from_utf8_lossy(&words).replace('\0', " ")));
            }
        }
        found
    }

    /// Folders of its database: of the server's command line, and of whatever fills them.
    fn database_folders(&self) -> Vec<PathBuf> {
        let processes = self.processes();
        let words = processes.iter().flat_map(|(_, words)| words.split(' '));
        let folders = words.filter(|word| word.contains("/chp-pg-"));
        let data = folders.map(|word| PathBuf::from(word.trim_end_matches("/data")));
        data.collect()
    }

    fn nothing_is_left(&self, moment: &str, database: &[PathBuf]) {
        let left = self.processes();
        assert!(left.is_empty(), "at {moment:?}: {left:?}: {}", self.seen);
        let folder = self.place.path().join("demo");
        assert!(!folder.exists(), "at {moment:?}: {}", self.seen);
        for folder in database {
            assert!(!folder.exists(), "at {moment:?}: {}", folder.display());
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only after a test that failed; the servers' guardians do the rest.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal("KILL", To::Group);
            let _ = self.child.wait();
        }
    }
}

fn interrupted(moments: &[(&str, u64)], signal: &str, to: To, status: i32) {
    for (moment, milliseconds) in moments {
        let mut demo = Demo::start();
        demo.read_to(moment);
        // Not the very beginning of what the line speaks of.
        std::thread::sleep(Duration::from_millis(*milliseconds));
        let database = demo.database_folders();
        demo.signal(signal, to);
        let ended = demo.ended();
        assert_eq!(ended.code(), Some(status), "at {moment:?}: {}", demo.seen);
        assert!(!demo.seen.contains("Try it by hand"), "{}", demo.seen);
        demo.nothing_is_left(moment, &database);
    }
}

#[test]
fn ctrl_c_while_it_is_set_up() {
    let moments = [
        ("starting a throwaway PostgreSQL", 0),
        ("starting a throwaway PostgreSQL", 5),
        ("starting a throwaway PostgreSQL", 10),
        ("starting a throwaway PostgreSQL", 20),
        ("starting a throwaway PostgreSQL", 40),
        ("seeding the clinic", 300),
        ("building the policy clinical-access", 100),
        ("starting chaperone serve", 200),
    ];
    interrupted(&moments, "INT", To::Group, 130);
}

#[test]
fn sigterm_for_it_alone_while_it_is_set_up() {
    let moments = [
        ("starting a throwaway PostgreSQL", 50),
        ("seeding the clinic", 0),
        ("building the policy that step 5 will change", 300),
    ];
    interrupted(&moments, "TERM", To::Itself, 143);
}

#[test]
fn ctrl_c_while_the_story_is_played() {
    let mut demo = Demo::start_with("", "");
    demo.read_to("approver> chaperone approvals list");
    let database = demo.database_folders();
    assert!(!database.is_empty());
    demo.signal("INT", To::Group);
    assert_eq!(demo.ended().code(), Some(130), "{}", demo.seen);
    assert!(!demo.seen.contains("How it went"), "{}", demo.seen);
    demo.nothing_is_left("the story", &database);
}

/// As with `nohup`: who has the signal ignored wants it to go on when the terminal is closed.
#[test]
fn a_closed_terminal_ends_it_unless_it_was_told_to_ignore_that() {
    let mut demo = Demo::start();
    demo.read_to("seeding the clinic");
    demo.signal("HUP", To::Itself);
    assert_eq!(demo.ended().code(), Some(129), "{}", demo.seen);
    let mut demo = Demo::start_by(&["sh", "-c", "trap '' HUP; exec \"$0\""], "1", "");
    demo.read_to("seeding the clinic");
    demo.signal("HUP", To::Itself);
    demo.read_to("Ctrl-C ends everything");
    demo.signal("TERM", To::Itself);
    assert!(demo.ended().success(), "{}", demo.seen);
}

#[test]
fn builds_of_ten_minutes_are_not_waited_for() {
    // As a first build: a compiler that the demo's child has started, and that nobody else ends.
    let mut demo = Demo::start_with("1", "echo $$ > \"$0.runs\"; sleep 600 & wait");
    demo.read_to("building the policy clinical-access");
    let runs = demo.place.path().join("cargo.runs");
    let deadline = Instant::now() + PATIENCE;
    while fs::read(&runs).unwrap_or_default().is_empty() {
        assert!(Instant::now() < deadline, "{}", demo.seen);
        std::thread::sleep(Duration::from_millis(20));
    }
    let database = demo.database_folders();
    assert!(!database.is_empty());
    demo.signal("TERM", To::Itself);
    assert_eq!(demo.ended().code(), Some(143), "{}", demo.seen);
    demo.nothing_is_left("a long build", &database);
}

#[test]
fn what_it_says_can_be_tried_by_hand_until_ctrl_c() {
    let mut demo = Demo::start();
    demo.read_to("Ctrl-C ends everything");
    let (_, by_hand) = demo.seen.split_once("== Try it by hand").unwrap();
    let mut prelude = String::new();
    let mut said = Vec::new();
    for line in by_hand.lines().filter_map(|line| line.strip_prefix("   ")) {
        let command = line.split("   #").next().unwrap().trim_end();
        if command.starts_with(". ") {
            prelude = command.to_owned();
        } else if ["PGPASSWORD=", "$CHAPERONE_BIN ", "curl ", "psql "]
            .iter()
            .any(|start| command.starts_with(start))
        {
            let script = format!("set -e; {prelude}; {command}");
            let mut shell = Command::new("sh");
            for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
                shell.env_remove(variable);
            }
            shell.args(["-c", &script]).stdin(Stdio::null());
            let output = shell.output().unwrap();
            let text = [&*output.stdout, &*output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{command}: {text}");
            said.push((command.to_owned(), text));
        }
    }
    // Three who use psql, and the administrator; approvals, audit, metrics, explain.
    assert_eq!(said.len(), 8, "{said:#?}");
    let of = |word: &str| &said.iter().find(|it| it.0.contains(word)).unwrap().1;
    assert!(of("/metrics").contains("chaperone_"), "{}", of("/metrics"));
    assert!(of(" verify ").contains("head "), "{}", of(" verify "));
    let explained = of(" explain ");
    for word in ["agent-7", "[name]", "phi-masking"] {
        assert!(explained.contains(word), "{explained}");
    }

    let environment = demo.place.path().join("demo/env.sh");
    let environment = fs::read_to_string(environment).unwrap();
    let (_, port) = environment.split_once("CHAPERONE_PORT='").unwrap();
    let port: u16 = port.split('\'').next().unwrap().parse().unwrap();
    let database = demo.database_folders();
    assert!(!database.is_empty());
    demo.signal("INT", To::Group);
    assert!(demo.ended().success(), "{}", demo.seen);
    demo.nothing_is_left("the end", &database);
    TcpListener::bind(("127.0.0.1", port)).unwrap();
}
