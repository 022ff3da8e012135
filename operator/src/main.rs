//! Reads the settings, starts the operator or what runs on nodes, ends it in order.

use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use berth_operator::settings::Settings;
use berth_operator::{mirrors, run};
use clap::Parser as _;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What runs on nodes; without it the operator runs.
const NODE_MIRRORS: &str = "node-mirrors";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == NODE_MIRRORS) {
        arguments.remove(1);
        let settings = mirrors::Settings::parse_from(arguments);
        let log = settings.log.clone();
        // It waits most of the time, on every node: one thread will do.
        return started(&log, runtime::Builder::new_current_thread(), async |shutdown| {
            Ok(mirrors::run(settings, shutdown).await?)
        });
    }
    let settings = Settings::parse();
    let log = settings.log.clone();
    started(&log, runtime::Builder::new_multi_thread(), async |shutdown| {
        // Both the API server's and the registry's clients use it; there is none yet.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(run::run(settings, shutdown).await?)
    })
}

/// Logs, and runs something until it ends or a signal ends it.
fn started(
    log: &str,
    mut builder: runtime::Builder,
    work: impl AsyncFnOnce(CancellationToken) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    // Without spaces around its parts, where tracing-subscriber 0.3.23 would cut names at wrong places, or panic.
    let parts: Vec<&str> = log.split(',').map(str::trim).collect();
    let filter = match EnvFilter::try_new(parts.join(",")) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("--log: {error}");
            return ExitCode::from(2);
        }
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().init();
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the program cannot start");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        end_on_signals(shutdown.clone())?;
        work(shutdown).await
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the program ends");
            ExitCode::FAILURE
        }
    }
}

fn end_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
