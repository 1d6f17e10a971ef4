//! The command line.

use std::process::ExitCode;

use chaperone::command::{
    approvals::{self, ApprovalsCommand},
    audit::{self, AuditCommand},
    policy::PolicyCommand,
    serve::{self, Source},
};
use clap::{Parser, Subcommand};

/// A WebAssembly-policy programmable proxy for protected health information.
///
/// Chaperone stands between whoever asks (an AI agent's runtime, a service, a person) and
/// PostgreSQL. Policies in WebAssembly decide what runs, mask what comes back and hold what is
/// risky for a person; a tamper-evident log says who got what, when and why.
#[derive(Parser)]
#[command(name = "chaperone", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM, which drains it
    Serve(Source),
    /// Check the configuration, keys and policies without starting anything
    Check(Source),
    /// See and answer statements that wait for a person
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// Verify, read and trace the audit log, offline
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Build and inspect policy modules
    #[command(subcommand)]
    Policy(PolicyCommand),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(source) => serve::serve(&source),
        Command::Check(source) => serve::check(&source),
        Command::Approvals(command) => approve(command),
        Command::Audit(command) => audit::run(command),
        Command::Policy(command) => match command.run(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
    }
}

fn approve(command: ApprovalsCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(approvals::run(command)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("chaperone: {error}");
    ExitCode::FAILURE
}
