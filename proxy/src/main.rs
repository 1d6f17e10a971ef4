//! The command line.

use std::process::ExitCode;

use chaperone::command::{
    Arguments, Command,
    approvals::{self, ApprovalsCommand},
    audit, explain, serve,
};
use clap::Parser;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(source) => serve::serve(&source),
        Command::Check(source) => serve::check(&source),
        Command::Explain(arguments) => said(explain::run(&arguments)),
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
    said(runtime.block_on(approvals::run(command)))
}

fn said(result: Result<String, impl std::fmt::Display>) -> ExitCode {
    match result {
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
