//! Ctrl-C, SIGTERM and a closed terminal at any moment: what runs for the demo ends, so that whoever
//! waits for it gets an error and cleans up on the way out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use chaperone_test_support::error::{Context as _, Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks at what still runs.
const PAUSE: Duration = Duration::from_millis(100);

/// Most time between a signal's effects on two processes of one group.
const BESIDE: Duration = Duration::from_secs(1);

/// So many looks in vain, and programs are killed.
const LOOKS: u32 = 30;

/// Whether the demo is to end.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    came: Condvar,
    /// Held while programs are ended; whether that is all over.
    over: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// The signal's number.
    came: Option<u8>,
    /// Everything stands, and its owner waits for the signal.
    awaited: bool,
}

impl Interrupt {
    /// From now on signals do not end this process by themselves.
    ///
    /// # Errors
    /// The system does not let us watch for them.
    pub fn watch() -> Result<Self> {
        let own = Interrupt(Arc::default());
        let watched = own.clone();
        let (started, result) = mpsc::channel();
        thread::spawn(move || watched.run(&started));
        let ended = || std::io::Error::other("the watch for signals ended");
        result
            .recv()
            .unwrap_or_else(|_| Err(ended()))
            .context("watch for signals")?;
        Ok(own)
    }

    /// Nothing more is to be done once a signal came.
    ///
    /// # Errors
    /// It came.
    pub fn check(&self) -> Result<()> {
        match self.state().came {
            Some(signal) => Err(Error::Interrupted { signal }),
            None => Ok(()),
        }
    }

    /// As [`Interrupt::check`], after something has failed. Ctrl-C goes to programs beside us too, and
    /// one that ends of it can be noticed before our own signal.
    ///
    /// # Errors
    /// It came.
    pub fn check_failure(&self) -> Result<()> {
        let state = self.state();
        let calm = |state: &mut State| state.came.is_none();
        drop(self.0.came.wait_timeout_while(state, BESIDE, calm));
        self.check()
    }

    /// Waits for a signal, which ends nothing but this wait.
    pub fn wait(&self) {
        let mut state = self.state();
        state.awaited = true;
        while state.came.is_none() {
            let woken = self.0.came.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends nothing more, and nothing is under way that would: this process may go.
    pub fn over(&self) {
        let over = self.0.over.lock();
        *over.unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, started: &mpsc::Sender<std::io::Result<()>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        // Whoever had it ignored (nohup) wants the demo to outlive the terminal. SIGINT is another
        // matter: a shell has it ignored by whatever runs in the background.
        let outlives = ignores(1);
        let outcome = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let mut interrupted = signal(SignalKind::interrupt())?;
                let mut terminated = signal(SignalKind::terminate())?;
                let mut hung_up = match outlives {
                    true => None,
                    false => Some(signal(SignalKind::hangup())?),
                };
                let _ = started.send(Ok(()));
                Ok(tokio::select! {
                    _ = interrupted.recv() => 2,
                    _ = terminated.recv() => 15,
                    _ = hang_up(&mut hung_up) => 1,
                })
            })
        });
        let came = match outcome {
            Ok(came) => came,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let mut state = self.state();
        state.came = Some(came);
        let awaited = state.awaited;
        drop(state);
        self.0.came.notify_all();
        if awaited {
            return;
        }
        // Again and again: the other thread may be about to start something.
        for look in 0.. {
            let over = self.0.over.lock();
            let over = over.unwrap_or_else(PoisonError::into_inner);
            if *over {
                return;
            }
            end_what_runs(if look < LOOKS { "TERM" } else { "KILL" });
            drop(over);
            thread::sleep(PAUSE);
        }
    }
}

async fn hang_up(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether this process was started with the signal of that number ignored.
fn ignores(signal: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A line of the table of processes.
#[derive(Debug)]
struct Process {
    id: u32,
    parent: u32,
    group: u32,
    name: String,
}

/// Ends what was started in the foreground (compilers, psql, copying) with all that it has started,
/// and asks servers to end. The shells that guard servers stay: they remove folders.
fn end_what_runs(how: &str) {
    let mut held = BTreeSet::new();
    // What is stopped starts nothing new, so that in the end nothing is missed.
    loop {
        let new: Vec<u32> = foreground().difference(&held).copied().collect();
        if new.is_empty() {
            break;
        }
        send("STOP", &new);
        held.extend(new);
    }
    let mut all: Vec<u32> = held.iter().copied().collect();
    let own = std::process::id();
    let processes = processes();
    let children = processes.iter().filter(|process| process.parent == own);
    let servers = children.filter(|child| child.group == child.id && child.name != "sh");
    all.extend(servers.map(|server| server.id));
    send(how, &all);
    send("CONT", &all);
}

/// What descends from this process and is in its group.
fn foreground() -> BTreeSet<u32> {
    let processes = processes();
    let own = std::process::id();
    let group = processes.iter().find(|process| process.id == own);
    let group = group.map_or(own, |process| process.group);
    let mut found = BTreeSet::from([own]);
    loop {
        let before = found.len();
        let related = processes.iter().filter(|it| found.contains(&it.parent));
        let related: Vec<u32> = related
            .filter(|it| it.group == group)
            .map(|it| it.id)
            .collect();
        found.extend(related);
        if found.len() == before {
            found.remove(&own);
            return found;
        }
    }
}

/// All that run; what has ended and was not yet waited for does not count.
fn processes() -> Vec<Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let read = folders.filter_map(|folder| {
        let id = folder.file_name().to_string_lossy().parse().ok()?;
        let text = fs::read_to_string(folder.path().join("stat")).ok()?;
        // A name may hold anything, blanks and parentheses too.
        let (start, rest) = text.rsplit_once(')')?;
        let (_, name) = start.split_once('(')?;
        let mut fields = rest.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        Some(Process {
            id,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            name: name.to_owned(),
        })
    });
    read.collect()
}

fn send(signal: &str, to: &[u32]) {
    if to.is_empty() {
        return;
    }
    // In a group of its own, so that it is none of those that are ended.
    let _ = Command::new("sh")
        .args(["-c", "kill -s \"$@\"", "kill", signal])
        .args(to.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .status();
}
