//! `make soak`: a hundred clients with mixed statements through the three example policies, while
//! modules are replaced and people approve, for ten minutes.
//!
//! What must hold, or it ends with 1: no client hears an error that it did not ask for; every statement
//! that was sent to the backend is in the log, once, and the log verifies; every approval that was given
//! was used; memory does not grow from the second quarter to the last. Times are printed and judge
//! nothing.

mod chain;
mod client;
mod memory;
mod stage;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaperone_test_support::Result;
use clap::Parser;

use memory::Memory;
use stage::Stage;
use tally::Tally;

#[derive(Debug, Parser)]
#[command(about = "Keeps Chaperone busy for a long time and counts what comes of it")]
struct Options {
    /// How long clients send statements
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many clients there are; one in ten asks for approvals
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// The folder of the log; a temporary one in the current folder otherwise
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(broken) if broken.is_empty() => {
            println!("soak: all rules hold");
            ExitCode::SUCCESS
        }
        Ok(broken) => {
            for rule in broken {
                println!("soak: BROKEN: {rule}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<Vec<String>> {
    let mut stage = Stage::set(options.folder.as_deref())?;
    let tally = Tally::default();
    let stop = AtomicBool::new(false);
    println!(
        "soak: {} clients for {} s, {}",
        options.clients,
        options.seconds,
        if cfg!(debug_assertions) {
            "as built for development"
        } else {
            "as built for release"
        }
    );
    let start = Instant::now();
    let length = Duration::from_secs(options.seconds);
    let memory = thread::scope(|scope| {
        let (stage, tally, stop) = (&stage, &tally, &stop);
        scope.spawn(move || stage.reload(tally, stop));
        scope.spawn(move || stage.approve(tally, stop));
        let memory = scope.spawn(move || Memory::watch(stage.process_id(), length));
        let end = start + length;
        let clients = scope.spawn(move || client::crowd(stage, tally, options.clients, end));
        let mut next = start;
        while !clients.is_finished() {
            if Instant::now() >= next {
                println!("soak: {:>4} s: {}", start.elapsed().as_secs(), tally.line());
                next += (length / 10).max(Duration::from_secs(5));
            }
            thread::sleep(Duration::from_millis(200));
        }
        stop.store(true, Ordering::Relaxed);
        memory.join().unwrap_or_default()
    });
    let elapsed = start.elapsed().as_secs_f64();
    let drained = stage.end();
    let chain = chain::read(&stage)?;

    println!("\n{}", tally.table(elapsed));
    println!("{}", memory.table());
    println!("{}", chain.table());
    let mut broken = tally.broken();
    broken.extend(memory.broken());
    broken.extend(chain.broken(&tally));
    if !drained {
        broken.push("the proxy did not end when it was told to".to_owned());
    }
    broken.extend(stage.complaints());
    Ok(broken)
}
