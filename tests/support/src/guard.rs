//! Child processes that never outlive their owner.
//!
//! Beside each child runs a small shell that waits on a pipe from this process. When this process
//! ends, in whatever way (SIGKILL too), the pipe closes and the shell ends the child and removes
//! its folder.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context as _, Result};

/// `$1` signal, `$2` process id. Lines on the pipe: "folder PATH" names what to remove at the end;
/// "done" means that the child was already waited for, so its id may belong to someone else.
const WATCH: &str = r#"
folder= state=orphan
while IFS= read -r line; do
    case "$line" in
        done) state=done ;;
        "folder "*) folder="${line#folder }" ;;
    esac
done
if [ "$state" != done ]; then
    kill -s "$1" "$2" 2>/dev/null
    tries=0
    while kill -0 "$2" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -s KILL "$2" 2>/dev/null
fi
[ -z "$folder" ] || rm -rf -- "$folder"
"#;

/// A running child with its guardian.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    guardian: Child,
    stop_signal: &'static str,
    grace: Duration,
    ended: Option<ExitStatus>,
}

impl Guarded {
    /// Starts `command` with its output appended to `log`. At the end it gets `stop_signal`
    /// (`TERM`, `QUIT`, ...).
    ///
    /// # Errors
    /// The log cannot be written, or the program or `sh` cannot be started.
    pub fn spawn(mut command: Command, stop_signal: &'static str, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .context(format!("open {}", log.display()))?;
        let err = out.try_clone().context("share the log")?;
        let program = command.get_program().to_string_lossy().into_owned();
        // A group of its own: Ctrl-C in the terminal is for the owner, who ends the child in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .context(format!("start {program}"))?;
        let guardian = Command::new("sh")
            .args([
                "-c",
                WATCH,
                "guardian",
                stop_signal,
                &child.id().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start sh")?;
        Ok(Guarded {
            child,
            guardian,
            stop_signal,
            grace: Duration::from_secs(10),
            ended: None,
        })
    }

    /// Hands a folder over: it is removed after the child has ended.
    ///
    /// # Errors
    /// The guardian is gone.
    pub fn owns(&mut self, folder: &Path) -> Result<()> {
        let line = format!("folder {}\n", folder.display());
        match &mut self.guardian.stdin {
            Some(pipe) => pipe
                .write_all(line.as_bytes())
                .context("write to the guardian"),
            None => Ok(()),
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal by name while the child has not been waited for.
    pub fn signal(&mut self, signal: &str) {
        if self.ended().is_none() {
            let _ = Command::new("sh")
                .args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal])
                .arg(self.child.id().to_string())
                .stderr(Stdio::null())
                // Ctrl-C must not keep the child from being told.
                .process_group(0)
                .status();
        }
    }

    /// Waits for the end; `None` when `patience` runs out.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the child in order, with force when it takes longer than ten seconds.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(self.stop_signal);
        if self.wait(self.grace).is_none() {
            self.signal("KILL");
            self.ended = self.child.wait().ok();
        }
        self.ended
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
        if let Some(mut pipe) = self.guardian.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.guardian.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap().keep();
        let log = folder.join("log");
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut guarded = Guarded::spawn(command, "TERM", &log).unwrap();
        guarded.owns(&folder).unwrap();
        let id = guarded.id();
        assert!(Path::new(&format!("/proc/{id}")).exists());
        drop(guarded);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert!(!folder.exists());
    }

    #[test]
    fn an_orphan_is_ended_by_its_guardian() {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut guarded = Guarded::spawn(command, "TERM", &folder.join("log")).unwrap();
        guarded.owns(&folder).unwrap();
        // What the kernel does when the owner is killed.
        drop(guarded.guardian.stdin.take());
        assert!(guarded.wait(Duration::from_secs(5)).is_some());
        let deadline = Instant::now() + Duration::from_secs(15);
        while folder.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!folder.exists());
    }
}
