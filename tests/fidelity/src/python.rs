//! The test suites of drivers for Python, run by pytest against a server that is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chaperone_test_support::Result;
use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::postgres::SUPERUSER;

use crate::stage::Stage;
use crate::suite::{Choice, Outcome};

/// Seconds for a whole suite. One that hangs in spite of the limit for each test has failed.
const PATIENCE: &str = "7200";
/// Seconds for one test. One of asyncpg's makes a thousand tables, and before each statement
/// Chaperone looks at all that there are by then.
const OF_TEST: &str = "--timeout=900";

/// A driver that brings a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Psycopg,
    Asyncpg,
}

impl Driver {
    /// The folder of the suite, as `tests/fidelity/python.sh` lays it out.
    fn folder(self) -> &'static str {
        match self {
            Driver::Psycopg => "psycopg",
            Driver::Asyncpg => "asyncpg",
        }
    }

    /// What is chosen of the suite where nothing else is.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            // Tests that measure time, or that start Pythons of their own, tell of the machine.
            Driver::Psycopg => &["tests", "-m", "not slow and not timing and not subprocess"],
            // Of the whole source tree, and of its formatting.
            Driver::Asyncpg => &["tests", "--ignore", "tests/test__sourcecode.py"],
        }
    }
}

/// Runs the suite of a driver that is installed in `installed`. What pytest says stays in `output`.
///
/// # Errors
/// pytest cannot be run, or no test ran.
pub fn run(
    driver: Driver,
    stage: &Stage,
    installed: &Path,
    output: &Path,
    choice: &Choice<'_>,
) -> Result<BTreeMap<String, Outcome>> {
    let installed = fs::canonicalize(installed).context("find what python.sh has installed")?;
    let scripts = fs::canonicalize("tests/fidelity").context("find tests/fidelity")?;
    let written = output.join("outcomes");
    // What an earlier run has left says nothing about this one.
    let _ = fs::remove_file(&written);
    let _ = fs::remove_dir_all(output.join("cache"));
    let said = fs::File::create(output.join("pytest.out")).context("write pytest.out")?;
    let mut command = Command::new("timeout");
    stage.environment(&mut command);
    command
        .arg(PATIENCE)
        .arg(installed.join("venv/bin/python"))
        .args(["-m", "pytest", "-p", "outcomes"])
        .args(["-p", "no:randomly", "-q", "--tb=short", OF_TEST])
        .arg(format!(
            "--override-ini=cache_dir={}",
            output.join("cache").display()
        ))
        .current_dir(installed.join(driver.folder()))
        .env("PYTHONPATH", &scripts)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("OUTCOMES", &written)
        .stdin(Stdio::null())
        .stderr(said.try_clone().context("write pytest.out")?)
        .stdout(said);
    match driver {
        Driver::Psycopg => {
            command
                .env("PSYCOPG_IMPL", "python")
                .arg(format!("--test-dsn={}", stage.conninfo("postgres")));
        }
        Driver::Asyncpg => {
            command
                .env("PGHOST", "127.0.0.1")
                .env("PGPORT", stage.port().to_string())
                .env("PGUSER", SUPERUSER)
                .env("PGDATABASE", "postgres");
        }
    }
    match choice {
        Choice::Tests(tests) => command.args(*tests),
        Choice::All | Choice::Schedule(_) => command.args(driver.arguments()),
    };
    let status = command.status().context("start pytest")?;
    let outcomes = read(&written);
    if outcomes.is_empty() {
        return Err(Error::Program {
            program: "pytest".to_owned(),
            status: status.to_string(),
            output: format!("no test ran; see {}", output.join("pytest.out").display()),
        });
    }
    Ok(outcomes)
}

/// `passed tests/test_copy.py::test_copy_out[1]`
fn read(written: &PathBuf) -> BTreeMap<String, Outcome> {
    let lines = fs::read_to_string(written).unwrap_or_default();
    let outcome = |line: &str| {
        let (outcome, test) = line.split_once(' ')?;
        let outcome = match outcome {
            "passed" => Outcome::Passed,
            "skipped" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        Some((test.to_owned(), outcome))
    };
    lines.lines().filter_map(outcome).collect()
}
