//! `chaperone serve` and `chaperone check`.

use std::{path::PathBuf, process::ExitCode};

use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat},
    server::Server,
};

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "chaperone.toml")]
    pub config: PathBuf,
}

/// Serves until SIGTERM or Ctrl-C, then drains.
pub fn serve(source: &Source) -> ExitCode {
    let config = match Config::load(&source.config) {
        Ok(config) => config,
        Err(error) => return failed(&error),
    };
    log_to_stderr(&config);
    quiet_panics();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    runtime.block_on(async {
        match Server::start(&config).await {
            Ok(server) => {
                server.run(told_to_stop()).await;
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        }
    })
}

/// Checks configuration, keys, certificates and policies, and starts nothing.
pub fn check(source: &Source) -> ExitCode {
    match Config::load(&source.config).map_err(|error| error.to_string()) {
        Ok(config) => match crate::server::check(&config) {
            Ok(summary) => {
                print!("{summary}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("chaperone: {error}");
    ExitCode::FAILURE
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn log_to_stderr(config: &Config) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&config.log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(false).init(),
    }
}

/// A panic's message may quote what it was about; its place never does.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(
            place,
            "panic; its message is withheld, since it could quote data"
        );
    }));
}
