//! `make fidelity`: PostgreSQL's own suites, direct and through Chaperone with the allow-all
//! policy, and what differs.

mod drivers;
mod stage;
mod suite;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use chaperone_test_support::{Result, error::Context as _};
use clap::Parser;

use drivers::Drivers;
use stage::{Stage, Way};
use suite::{Choice, Outcome, Sources, Suite};

#[derive(Debug, Parser)]
#[command(about = "Runs PostgreSQL's suites direct and through Chaperone and prints what differs")]
struct Options {
    /// PostgreSQL's source tree, as tests/fidelity/fetch.sh prints it
    #[arg(long, default_value = "")]
    source: PathBuf,
    /// Where tests/drivers/install.sh has put the drivers
    #[arg(long, default_value = "")]
    drivers: PathBuf,
    /// The scripts that use them
    #[arg(long, default_value = "tests/drivers")]
    scripts: PathBuf,
    /// Suites to run: pipeline, drivers, regression, isolation; all without
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// Only through Chaperone, against what the suites expect
    #[arg(long)]
    proxied_only: bool,
    /// TLS between the suites' clients and Chaperone
    #[arg(long)]
    tls: bool,
    /// Only these tests of the regression and isolation suites, and what they need
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
    };
    let mut differing = 0;
    for suite in Suite::ALL {
        let name = suite.name();
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let run = |way: Way| -> Result<BTreeMap<String, Outcome>> {
            eprintln!("fidelity: {name}, {}", way.name());
            let stage = Stage::start(way, options.tls)?;
            let output = options.output.join(name).join(way.name());
            let outcomes = suite.run(&stage, &sources, &output, &options.choice())?;
            fs::write(output.join("chaperone.log"), stage.log())
                .context(format!("write to {}", output.display()))?;
            Ok(outcomes)
        };
        // A driver's script has no expectation but what it sees of the server itself.
        let direct = if options.proxied_only && !matches!(suite, Suite::Drivers) {
            None
        } else {
            Some(run(Way::Direct)?)
        };
        let proxied = run(Way::Proxied)?;
        differing += report(name, direct.as_ref(), &proxied);
    }
    Ok(differing)
}

fn report(
    name: &str,
    direct: Option<&BTreeMap<String, Outcome>>,
    proxied: &BTreeMap<String, Outcome>,
) -> usize {
    let passed = |all: &BTreeMap<String, Outcome>| {
        let passed = all.values().filter(|one| **one == Outcome::Passed).count();
        format!("{passed} of {}", all.len())
    };
    if let Some(direct) = direct {
        println!("{name}: direct {}", passed(direct));
    }
    println!("{name}: proxied {}", passed(proxied));
    let expected = |test: &String| {
        direct.map_or(Outcome::Passed, |all| {
            all.get(test).copied().unwrap_or(Outcome::Missing)
        })
    };
    let tests: std::collections::BTreeSet<&String> = proxied
        .keys()
        .chain(direct.into_iter().flat_map(BTreeMap::keys))
        .collect();
    let mut differing = 0;
    for test in tests {
        let through = proxied.get(test).copied().unwrap_or(Outcome::Missing);
        if through != expected(test) {
            differing += 1;
            println!(
                "  differs: {test}: {:?} direct, {through:?} proxied",
                expected(test)
            );
        }
    }
    differing
}
