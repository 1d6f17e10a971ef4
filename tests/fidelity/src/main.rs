//! `make fidelity`: PostgreSQL's own suites, direct and through Chaperone with the allow-all
//! policy, and what differs.

mod drivers;
mod python;
mod stage;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use chaperone_test_support::{Result, error::Context as _};
use clap::Parser;

use drivers::Drivers;
use stage::{Stage, Way};
use suite::{Choice, Outcome, Sources, Suite};

/// What became of each test, by its name.
type Outcomes = BTreeMap<String, Outcome>;

#[derive(Debug, Parser)]
#[command(about = "Runs PostgreSQL's suites direct and through Chaperone and prints what differs")]
struct Options {
    /// PostgreSQL's source tree, as tests/fidelity/fetch.sh prints it
    #[arg(long, default_value = "target/fidelity")]
    source: PathBuf,
    /// Where tests/drivers/install.sh has put the drivers
    #[arg(long, default_value = "target/drivers")]
    drivers: PathBuf,
    /// Where tests/fidelity/python.sh has put the suites of drivers for Python
    #[arg(long, default_value = "target/fidelity/python")]
    python: PathBuf,
    /// The scripts that use them
    #[arg(long, default_value = "tests/drivers")]
    scripts: PathBuf,
    /// Suites to run: pipeline, drivers, asyncpg, psycopg, regression, isolation; all without
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// Only through Chaperone, against what the suites expect
    #[arg(long)]
    proxied_only: bool,
    /// TLS between the suites' clients and Chaperone
    #[arg(long)]
    tls: bool,
    /// Only these tests of the suites that know them by name
    #[arg(long, num_args = 1..)]
    tests: Vec<String>,
    /// A schedule for the regression suite in place of its own
    #[arg(long, conflicts_with = "tests")]
    schedule: Option<PathBuf>,
    /// Where outputs stay
    #[arg(long, default_value = "target/fidelity/results")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fidelity: {error}");
            ExitCode::from(2)
        }
    }
}

impl Options {
    fn choice(&self) -> Choice<'_> {
        match &self.schedule {
            Some(schedule) => Choice::Schedule(schedule),
            None if self.tests.is_empty() => Choice::All,
            None => Choice::Tests(&self.tests),
        }
    }
}

/// How many tests differ.
fn run(options: &Options) -> Result<usize> {
    let sources = Sources {
        postgres: options.source.clone(),
        drivers: Drivers {
            installed: options.drivers.clone(),
            scripts: options.scripts.clone(),
        },
        python: options.python.clone(),
    };
    let mut differing = 0;
    for suite in Suite::ALL {
        let name = suite.name();
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let run = |way: Way, choice: &Choice<'_>, folder: &str| -> Result<Outcomes> {
            eprintln!("fidelity: {folder}, {}", way.name());
            let stage = Stage::start(way, options.tls)?;
            let output = options.output.join(folder).join(way.name());
            let outcomes = suite.run(&stage, &sources, &output, choice)?;
            fs::write(output.join("chaperone.log"), stage.log())
                .context(format!("write to {}", output.display()))?;
            Ok(outcomes)
        };
        let choice = options.choice();
        // What has no expectation but what it sees of the server itself needs that first.
        let direct = if options.proxied_only && suite.knows_what_is_right() {
            None
        } else {
            Some(run(Way::Direct, &choice, name)?)
        };
        let proxied = run(Way::Proxied, &choice, name)?;
        let mut differs = report(name, direct.as_ref(), &proxied);
        if !differs.is_empty() && matches!(suite, Suite::Python(_)) {
            // Some of these tests hang on the clock. What they are worth shows when they run alone.
            let again = Choice::Tests(&differs);
            let name = format!("{name} again");
            let direct = run(Way::Direct, &again, &name)?;
            let proxied = run(Way::Proxied, &again, &name)?;
            differs = report(&name, Some(&direct), &proxied);
        }
        differing += differs.len();
    }
    Ok(differing)
}

/// Prints what came of it. Returns the tests that differ.
fn report(name: &str, direct: Option<&Outcomes>, proxied: &Outcomes) -> Vec<String> {
    let tally = |all: &Outcomes| {
        let count = |what| all.values().filter(|one| **one == what).count();
        let skipped = count(Outcome::Skipped);
        let passed = format!("{} of {}", count(Outcome::Passed), all.len() - skipped);
        match skipped {
            0 => passed,
            skipped => format!("{passed}, {skipped} skipped"),
        }
    };
    if let Some(direct) = direct {
        println!("{name}: direct {}", tally(direct));
    }
    println!("{name}: proxied {}", tally(proxied));
    let expected = |test: &String| {
        direct.map_or(Outcome::Passed, |all| {
            all.get(test).copied().unwrap_or(Outcome::Missing)
        })
    };
    let tests: BTreeSet<&String> = proxied
        .keys()
        .chain(direct.into_iter().flat_map(BTreeMap::keys))
        .collect();
    let mut differs = Vec::new();
    for test in tests {
        let through = proxied.get(test).copied().unwrap_or(Outcome::Missing);
        if through != expected(test) {
            println!(
                "  differs: {test}: {:?} direct, {through:?} proxied",
                expected(test)
            );
            differs.push(test.clone());
        }
    }
    differs
}
