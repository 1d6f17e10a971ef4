//! The real `psql`, once per statement or as a session that stays open.

use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Context as _, Error, Result};

/// How to reach a server with psql.
#[derive(Clone, Debug)]
pub struct Psql {
    conninfo: Vec<(String, String)>,
    password: Option<String>,
    arguments: Vec<String>,
}

/// What one run of psql said.
#[derive(Clone, Debug)]
pub struct PsqlOutput {
    /// Whether the exit status was 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Psql {
    /// Connection parameters, as in `host`, `port`, `user`, `dbname`, `sslmode`, `sslrootcert`.
    #[must_use]
    pub fn new(parameters: &[(&str, &str)]) -> Self {
        let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        Psql {
            conninfo: parameters.iter().map(own).collect(),
            password: None,
            arguments: Vec::new(),
        }
    }

    /// Sets or replaces one connection parameter.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.conninfo.retain(|(known, _)| known != key);
        self.conninfo.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The password, handed over in the environment.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// A further command-line argument of psql.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The connection string, without the password.
    #[must_use]
    pub fn conninfo(&self) -> String {
        let quoted = |value: &str| {
            let plain = !value.is_empty() && !value.contains([' ', '\'', '\\']);
            if plain {
                value.to_owned()
            } else {
                format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
            }
        };
        let pairs: Vec<String> = self
            .conninfo
            .iter()
            .map(|(key, value)| format!("{key}={}", quoted(value)))
            .collect();
        pairs.join(" ")
    }

    /// The command without any statement, for callers that want to run it themselves.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("psql");
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(variable);
        }
        command.args(["--no-psqlrc", "--no-password", "--pset=pager=off"]);
        command.args(&self.arguments);
        command.arg(format!("--dbname={}", self.conninfo()));
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }

    /// Runs one string of statements (`-c`): psql sends it as one simple query.
    ///
    /// # Errors
    /// psql cannot be started. A failing statement is no error here: see [`PsqlOutput::ok`].
    pub fn run(&self, sql: &str) -> Result<PsqlOutput> {
        let mut command = self.command();
        command.arg("--command").arg(sql);
        finish(command.stdin(Stdio::null()))
    }

    /// Runs a script on standard input, statement by statement, stopping at the first error.
    ///
    /// # Errors
    /// As [`Psql::run`].
    pub fn script(&self, sql: &str) -> Result<PsqlOutput> {
        let mut child = self
            .command()
            .args(["--quiet", "--set=ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start psql")?;
        let pipe = child.stdin.take();
        let feeder = {
            let sql = sql.to_owned();
            std::thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(sql.as_bytes())))
        };
        let output = child.wait_with_output().context("wait for psql")?;
        let _ = feeder.join();
        Ok(PsqlOutput::from(output))
    }

    /// Unaligned tuples only; an error when a statement fails.
    ///
    /// # Errors
    /// psql cannot be started, or the statement failed.
    pub fn value(&self, sql: &str) -> Result<String> {
        let output = self
            .clone()
            .argument("-qAt")
            .argument("--set=ON_ERROR_STOP=1")
            .run(sql)?;
        if output.ok {
            Ok(output.stdout.trim_end().to_owned())
        } else {
            Err(Error::Program {
                program: "psql".to_owned(),
                status: "error".to_owned(),
                output: output.stderr,
            })
        }
    }

    /// A session that stays open.
    ///
    /// # Errors
    /// psql cannot be started.
    pub fn session(&self) -> Result<PsqlSession> {
        PsqlSession::open(self)
    }
}

fn finish(command: &mut Command) -> Result<PsqlOutput> {
    Ok(PsqlOutput::from(command.output().context("start psql")?))
}

impl From<std::process::Output> for PsqlOutput {
    fn from(output: std::process::Output) -> Self {
        PsqlOutput {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl PsqlOutput {
    /// Standard output and error, one after the other.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// One psql process with its session kept open between statements.
#[derive(Debug)]
pub struct PsqlSession {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    count: u64,
}

impl PsqlSession {
    fn open(psql: &Psql) -> Result<Self> {
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        let mut command = psql.command();
        command
            .arg("--set=VERBOSITY=verbose")
            .arg("--set=SHOW_CONTEXT=never");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().context("share a pipe")?)
            .stderr(writer)
            .spawn()
            .context("start psql")?;
        // The command still holds the writing ends; the reader would never see the end.
        drop(command);
        let input = child.stdin.take();
        let lines = pump(reader);
        Ok(PsqlSession {
            child,
            input,
            lines,
            count: 0,
        })
    }

    /// Sends statements (each with its semicolon) or backslash commands, and returns everything
    /// printed until they are done.
    ///
    /// # Errors
    /// psql ended, or `patience` ran out; the error holds what was printed so far.
    pub fn run(&mut self, statements: &str, patience: Duration) -> Result<String> {
        self.send(statements)?;
        self.wait(patience)
    }

    /// Sends statements without waiting.
    ///
    /// # Errors
    /// psql ended.
    pub fn send(&mut self, statements: &str) -> Result<()> {
        self.count += 1;
        let text = format!("{statements}\n\\echo {}\n", self.mark());
        let Some(input) = &mut self.input else {
            return Err(self.failed(String::new()));
        };
        input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush())
            .context("write to psql")
    }

    /// Waits for what was sent last.
    ///
    /// # Errors
    /// As [`PsqlSession::run`].
    pub fn wait(&mut self, patience: Duration) -> Result<String> {
        let deadline = std::time::Instant::now() + patience;
        let mark = self.mark();
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.trim_end() == mark => return Ok(seen),
                Ok(line) => seen.push_str(&line),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Error::Timeout {
                        what: "psql".to_owned(),
                        seconds: patience.as_secs(),
                        output: seen,
                    });
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.failed(seen)),
            }
        }
    }

    fn mark(&self) -> String {
        format!("--end-of-{}--", self.count)
    }

    fn failed(&mut self, output: String) -> Error {
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Error::Program {
            program: "psql".to_owned(),
            status,
            output,
        }
    }
}

impl Drop for PsqlSession {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        while std::time::Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pump(reader: PipeReader) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        loop {
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_)
                    if sender
                        .send(String::from_utf8_lossy(&line).into_owned())
                        .is_err() =>
                {
                    return;
                }
                Ok(_) => {}
            }
        }
    });
    lines
}
