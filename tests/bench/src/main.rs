//! `make bench`: interleaved rounds of pgbench against PostgreSQL itself and against what can stand
//! before it, with each proxy's CPU time per statement.
//!
//! Absolute figures say little on a shared machine; the ratios are what to quote. Results go to a
//! folder as a Markdown table and an SVG plot.

mod once;
mod peer;
mod relay;
mod report;
mod workload;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime};

use chaperone_test_support::error::Context as _;
use chaperone_test_support::{Auth, Postgres, Result};
use clap::{Args, Parser, Subcommand};

use peer::{Peer, Variant};
use report::Cell;
use workload::{WORKLOADS, Workload};

#[derive(Debug, Parser)]
#[command(about = "Times Chaperone against PostgreSQL, PgBouncer and a bare relay")]
struct Options {
    #[command(subcommand)]
    job: Option<Job>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// The bare relay, until killed
    Relay {
        /// Where to listen on 127.0.0.1
        port: u16,
        /// PostgreSQL's Unix socket
        socket: PathBuf,
    },
    /// What happens once: a start, a reload, a connection, an idle session
    Once {
        /// Sessions that do nothing
        #[arg(long, default_value_t = 10_000)]
        idle: usize,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Seconds of one run of pgbench
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Rounds over all peers; medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Workloads to run, by the beginning of their names; all without
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// Peers to run, by a part of their names; all without
    #[arg(long, num_args = 1..)]
    peers: Vec<String>,
    /// Another build of Chaperone to be timed beside this one
    #[arg(long)]
    before: Option<PathBuf>,
    /// Where results go
    #[arg(long, default_value = "bench/results")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.job {
        Some(Job::Relay { port, socket }) => relay::serve(*port, socket).context("relay"),
        Some(Job::Once { idle }) => chaperone()
            .and_then(|binary| once::everything(&binary, *idle))
            .map(|table| println!("{table}")),
        None => options.run.everything(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

const ALLOW_ALL: [(&str, &str); 1] = [("allow-all", "")];
const THREE: [(&str, &str); 3] = [
    (
        "clinical-access",
        include_str!("../settings/clinical-access.toml"),
    ),
    ("phi-masking", include_str!("../settings/phi-masking.toml")),
    (
        "risky-commands",
        include_str!("../settings/risky-commands.toml"),
    ),
];

const VARIANTS: [Variant; 4] = [
    variant("allow-all", &ALLOW_ALL, false, false),
    variant("three policies", &THREE, false, false),
    variant("three policies, TLS", &THREE, true, false),
    variant("three policies, log on disk", &THREE, false, true),
];

const fn variant(
    name: &'static str,
    modules: &'static [(&'static str, &'static str)],
    tls: bool,
    disk: bool,
) -> Variant {
    Variant {
        name,
        modules,
        tls,
        disk,
    }
}

impl Run {
    fn everything(&self) -> Result<()> {
        if cfg!(debug_assertions) {
            say("this is a debug build: the figures mean nothing");
        }
        let workloads: Vec<Workload> = WORKLOADS
            .into_iter()
            .filter(|one| {
                self.only.is_empty() || self.only.iter().any(|name| one.name.starts_with(name))
            })
            .collect();
        say("starting PostgreSQL and filling it");
        let postgres = Postgres::options().auth(Auth::Trust).start()?;
        postgres.script(
            "postgres",
            "CREATE ROLE bench LOGIN; CREATE DATABASE bench OWNER bench;",
        )?;
        workload::seed(&postgres)?;
        let disk = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(std::env::current_dir().context("find the current folder")?)
            .context("make a folder on disk")?;
        let memory = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in("/dev/shm")
            .context("make a folder in /dev/shm")?;
        // PgBouncer's account has to reach its configuration.
        open_up(memory.path())?;
        let peers = self.peers(&postgres, disk.path(), memory.path())?;

        let mut cells: Vec<Cell> = Vec::new();
        for workload in &workloads {
            for peer in &peers {
                cells.push(Cell {
                    workload: *workload,
                    peer: peer.name.clone(),
                    rounds: Vec::new(),
                });
            }
        }
        let start = Instant::now();
        for round in 1..=self.rounds {
            let mut cell = cells.iter_mut();
            for workload in &workloads {
                for (peer, cell) in peers.iter().zip(&mut cell) {
                    let measured = workload::run(*workload, peer, self.seconds, memory.path())?;
                    say(&format!(
                        "round {round}, {}, {}: {:.0} per second ({} s)",
                        workload.name,
                        peer.name,
                        measured.per_second,
                        start.elapsed().as_secs()
                    ));
                    cell.rounds.push(measured);
                }
            }
        }
        self.publish(&cells, fdatasyncs(disk.path())?)
    }

    fn peers(&self, postgres: &Postgres, disk: &Path, memory: &Path) -> Result<Vec<Peer>> {
        let binary = chaperone()?;
        let wanted = |name: &str| {
            name == "direct"
                || self.peers.is_empty()
                || self.peers.iter().any(|part| name.contains(part.as_str()))
        };
        let mut peers = vec![Peer::direct(postgres)];
        if wanted("PgBouncer") {
            peers.push(Peer::pgbouncer(postgres, memory)?);
        }
        if wanted("relay") {
            peers.push(Peer::relay(postgres, memory)?);
        }
        for (place, variant) in VARIANTS.iter().enumerate() {
            if wanted(variant.name) {
                say(&format!("starting Chaperone: {}", variant.name));
                let log = if variant.disk { disk } else { memory };
                let folder = log.join(format!("chaperone-{place}"));
                let name = variant.name.to_owned();
                peers.push(Peer::chaperone(name, variant, postgres, &binary, &folder)?);
                if let Some(before) = &self.before {
                    let folder = log.join(format!("before-{place}"));
                    let name = format!("{} (before)", variant.name);
                    peers.push(Peer::chaperone(name, variant, postgres, before, &folder)?);
                }
            }
        }
        Ok(peers)
    }

    fn publish(&self, cells: &[Cell], fdatasync: f64) -> Result<()> {
        let header = format!(
            "{} rounds of {} s, medians. {}. fdatasync of 512 appended bytes on the disk of the log: {fdatasync:.0} µs.\n\n",
            self.rounds,
            self.seconds,
            machine()
        );
        let table = header + &report::table(cells);
        std::fs::create_dir_all(&self.output).context("make the results' folder")?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        for (end, text) in [("md", &table), ("svg", &report::plot(cells))] {
            let file = self.output.join(format!("{now}.{end}"));
            std::fs::write(&file, text).context(format!("write {}", file.display()))?;
            say(&format!("wrote {}", file.display()));
        }
        println!("\n{table}");
        Ok(())
    }
}

/// The proxy that was built with this program.
fn chaperone() -> Result<PathBuf> {
    Ok(std::env::current_exe()
        .context("find this program")?
        .with_file_name("chaperone"))
}

/// The mean time of an append with fdatasync, in microseconds.
fn fdatasyncs(folder: &Path) -> Result<f64> {
    use std::io::Write as _;
    const TIMES: u32 = 500;
    let mut file = std::fs::File::create(folder.join("fdatasync")).context("make a file")?;
    let start = Instant::now();
    for _ in 0..TIMES {
        file.write_all(&[7; 512]).context("append")?;
        file.sync_data().context("sync")?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES))
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version = Command::new("pgbench").arg("--version").output();
    let version = version.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    format!("{model}, {cores} cores, {version}")
}

fn open_up(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .context("open up the folder")
}

fn say(line: &str) {
    eprintln!("bench: {line}");
}
