//! PostgreSQL's suites and how their results are read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::postgres::{SUPERUSER, find_binaries};
use chaperone_test_support::{Account, Result};

use crate::drivers::Drivers;
use crate::python::{self, Driver};
use crate::stage::Stage;

/// What became of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// It says itself that it does not apply, or that it is known to fail.
    Skipped,
    /// It did not run.
    Missing,
}

/// Where everything is that others wrote.
#[derive(Debug)]
pub struct Sources {
    /// PostgreSQL's source tree, with what its suites need built.
    pub postgres: PathBuf,
    pub drivers: Drivers,
    /// What `tests/fidelity/python.sh` has filled.
    pub python: PathBuf,
}

/// Which tests of the regression and isolation suites to run.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    All,
    /// A schedule file.
    Schedule(&'a Path),
    /// By name, one after another.
    Tests(&'a [String]),
}

/// A suite that others wrote; most come with PostgreSQL's source.
#[derive(Clone, Copy, Debug)]
pub enum Suite {
    Regression,
    Isolation,
    Pipeline,
    /// Not PostgreSQL's: drivers that others wrote.
    Drivers,
    /// The suite that comes with a driver.
    Python(Driver),
}

/// Tests of `libpq_pipeline` with a reference trace.
const TRACED: [&str; 9] = [
    "disallowed_in_pipeline",
    "multi_pipelines",
    "nosync",
    "pipeline_abort",
    "pipeline_idle",
    "prepared",
    "simple_pipeline",
    "singlerow",
    "transaction",
];

/// Seconds for one test of `libpq_pipeline`. Direct, none takes two; one of them sends a hundred
/// thousand statements with effects, each of which Chaperone records twice.
const PATIENCE: &str = "180";
/// So much of what a failed test said is shown.
const SHOWN: usize = 1_000;

impl Suite {
    pub const ALL: [Suite; 6] = [
        Suite::Pipeline,
        Suite::Drivers,
        Suite::Python(Driver::Asyncpg),
        Suite::Python(Driver::Psycopg),
        Suite::Regression,
        Suite::Isolation,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Suite::Regression => "regression",
            Suite::Isolation => "isolation",
            Suite::Pipeline => "pipeline",
            Suite::Drivers => "drivers",
            Suite::Python(Driver::Psycopg) => "psycopg",
            Suite::Python(Driver::Asyncpg) => "asyncpg",
        }
    }

    /// Whether its tests pass or fail by an expectation of their own, with any server.
    #[must_use]
    pub fn knows_what_is_right(self) -> bool {
        !matches!(self, Suite::Drivers | Suite::Python(_))
    }

    /// Runs the suite; its files stay in `output`.
    ///
    /// # Errors
    /// It cannot be run at all.
    pub fn run(
        self,
        stage: &Stage,
        sources: &Sources,
        output: &Path,
        choice: &Choice<'_>,
    ) -> Result<BTreeMap<String, Outcome>> {
        fs::create_dir_all(output).context(format!("make {}", output.display()))?;
        let output = fs::canonicalize(output).context("find the output's folder")?;
        match self {
            Suite::Drivers => return sources.drivers.run(stage, &output),
            Suite::Python(driver) => {
                return python::run(driver, stage, &sources.python, &output, choice);
            }
            Suite::Regression | Suite::Isolation | Suite::Pipeline => {}
        }
        let source = &sources.postgres;
        let source = fs::canonicalize(source).context(format!("find {}", source.display()))?;
        match self {
            Suite::Regression => regress(
                stage,
                &tool("regress/pg_regress")?,
                &source.join("src/test/regress"),
                "parallel_schedule",
                &output,
                choice,
            ),
            Suite::Isolation => regress(
                stage,
                &tool("isolation/pg_isolation_regress")?,
                &source.join("src/test/isolation"),
                "isolation_schedule",
                &output,
                choice,
            ),
            Suite::Pipeline => pipeline(stage, &source, &output),
            Suite::Drivers | Suite::Python(_) => Ok(BTreeMap::new()),
        }
    }
}

/// The package's own folder of programs: what is on the PATH may be links to it.
fn programs() -> Result<PathBuf> {
    let server = fs::canonicalize(find_binaries()?.join("postgres")).context("find postgres")?;
    Ok(server.parent().unwrap_or(Path::new("/")).to_owned())
}

/// A test program that Debian's server package brings.
fn tool(name: &str) -> Result<PathBuf> {
    let beside = programs()?.join("../lib/pgxs/src/test").join(name);
    if beside.is_file() {
        Ok(beside)
    } else {
        Err(Error::Missing {
            what: beside.display().to_string(),
            mend: "install Debian's postgresql package, which has it".to_owned(),
        })
    }
}

fn regress(
    stage: &Stage,
    program: &Path,
    input: &Path,
    schedule: &str,
    output: &Path,
    choice: &Choice<'_>,
) -> Result<BTreeMap<String, Outcome>> {
    // The server reads and writes files in the output's folder, so both have to reach it.
    let account = Account::for_server()?;
    account.own(output)?;
    let mut command = account.command(program);
    stage.environment(&mut command);
    command
        .arg(format!("--inputdir={}", input.display()))
        .arg(format!("--outputdir={}", output.display()))
        .arg(format!("--dlpath={}", input.display()))
        .arg(format!("--bindir={}", programs()?.display()))
        .args(["--host=127.0.0.1", "--max-concurrent-tests=20"])
        .args(["--encoding=UTF8", "--no-locale"])
        .arg(format!("--port={}", stage.port()))
        .arg(format!("--user={SUPERUSER}"))
        .current_dir(output)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    match choice {
        Choice::All => {
            command.arg(format!("--schedule={}", input.join(schedule).display()));
        }
        Choice::Schedule(file) => {
            let file = fs::canonicalize(file).context(format!("find {}", file.display()))?;
            command.arg(format!("--schedule={}", file.display()));
        }
        Choice::Tests(tests) => {
            command.args(*tests);
        }
    }
    let mut child = command
        .spawn()
        .context(format!("start {}", program.display()))?;
    let mut outcomes = BTreeMap::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("read the suite's output")?;
            eprintln!("  {line}");
            if let Some((test, outcome)) = result(&line) {
                outcomes.insert(test, outcome);
            }
        }
    }
    let status = child.wait().context("wait for the suite")?;
    if outcomes.is_empty() {
        return Err(Error::Program {
            program: program.display().to_string(),
            status: status.to_string(),
            output: "no test ran; what it said is above".to_owned(),
        });
    }
    Ok(outcomes)
}

/// `test boolean ... ok   12 ms`, or `     float4 ... FAILED   13 ms` in a parallel group.
fn result(line: &str) -> Option<(String, Outcome)> {
    let (test, rest) = line.split_once(" ... ")?;
    let test = test.trim();
    let test = test.strip_prefix("test ").unwrap_or(test).trim();
    let outcome = match rest.split_whitespace().next()? {
        "ok" => Outcome::Passed,
        "FAILED" | "failed" => Outcome::Failed,
        _ => return None,
    };
    Some((test.to_owned(), outcome))
}

fn pipeline(stage: &Stage, source: &Path, output: &Path) -> Result<BTreeMap<String, Outcome>> {
    let folder = source.join("src/test/modules/libpq_pipeline");
    let program = folder.join("libpq_pipeline");
    let library = source.join("src/interfaces/libpq");
    let ask = |arguments: &[&str]| {
        // What hangs has failed.
        let mut command = Command::new("timeout");
        stage.environment(&mut command);
        if !stage.has_tls() {
            // Built without TLS; the system's own may be a later version, but has it.
            command.env("LD_LIBRARY_PATH", &library);
        }
        command
            .arg(PATIENCE)
            .arg(&program)
            .args(arguments)
            .output()
            .context("start libpq_pipeline")
    };
    let names = ask(&["tests"])?;
    let mut outcomes = BTreeMap::new();
    for test in String::from_utf8_lossy(&names.stdout).split_whitespace() {
        let trace = output.join(format!("{test}.trace"));
        // What an earlier run has left says nothing about this one.
        let _ = fs::remove_file(&trace);
        let mut arguments = vec!["-r", "700"];
        let path = trace.to_string_lossy().into_owned();
        let traced = TRACED.contains(&test);
        if traced {
            arguments.extend(["-t", &path]);
        }
        let conninfo = stage.conninfo("postgres");
        arguments.extend([test, &conninfo]);
        let run = ask(&arguments)?;
        let mut outcome = if run.status.success() {
            Outcome::Passed
        } else {
            let said = String::from_utf8_lossy(&run.stderr);
            let last: String = said.chars().rev().take(SHOWN).collect();
            eprintln!("  {test}: {}", last.chars().rev().collect::<String>());
            Outcome::Failed
        };
        outcomes.insert(test.to_owned(), outcome);
        if traced {
            let expected = folder.join("traces").join(format!("{test}.trace"));
            let same = fs::read(&trace).ok() == fs::read(&expected).ok() && trace.exists();
            outcome = if same {
                Outcome::Passed
            } else {
                Outcome::Failed
            };
            outcomes.insert(format!("{test}, trace"), outcome);
        }
    }
    Ok(outcomes)
}
