//! A credential provider of the kubelet (KEP-4412): it exchanges the service-account token of a pod for a password that
//! pulls the pod's image, and nothing else.
//!
//! The kubelet starts it for an image, writes one request to its standard input and reads one response from its standard
//! output. What must hold: the token goes to nobody but the registry whose audience it has; on failure nothing is
//! written to standard output, the exit code is not 0 and one line on standard error, which the kubelet logs, says what to
//! change; no output holds the token; it ends within a minute, when the kubelet would kill it.

mod account;
mod challenge;
mod exchange;
mod image;
mod protocol;
mod provide;
mod settings;

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use protocol::Request;
use settings::Settings;

fn main() -> ExitCode {
    // Prints help, version and usage errors itself, and ends with 0 or 2.
    let settings = Settings::parse();
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if this fails.
            let _ = writeln!(io::stderr(), "berth-credential-provider: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(
            "the kubelet starts this program and writes a request to its standard input; see --help".into(),
        );
    }
    let request = Request::read(stdin.lock())?;
    // Fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let response = runtime.block_on(provide::provide(settings, &request));
    // A name that is still being looked up must not hold the end up.
    runtime.shutdown_background();
    let text = serde_json::to_string(&response?)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}
