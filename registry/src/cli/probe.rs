//! `probe`: whether a registry answers at an address, asked once, from where the command runs.
//!
//! It needs no settings, no stores and no credential, so that it can run wherever the binary is: as a test of an
//! installation in a cluster, or behind an edge.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use http::StatusCode;
use http::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

use super::web::{self, WebError};
use super::{Ended, Output};
use crate::settings::units::Span;

/// Its name on the command line.
pub(super) const NAME: &str = "probe";

/// There is no registry at the address.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("{0}: an address is like http://berth.berth-system.svc/v2/")]
    Address(String),
    #[error("{0} does not answer: {1}")]
    Unreachable(String, String),
    #[error("{0} answers {1}, which is no registry: it would be 200, or 401 with a challenge")]
    Other(String, StatusCode),
}

/// Its arguments.
pub(super) fn command(output: Arg) -> Command {
    Command::new(NAME)
        .about("Ask once whether a registry answers at an address; 0 if it does")
        .arg(
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("Address of the API's root, like http://berth.berth-system.svc/v2/"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("TIME")
                .default_value("10s")
                .value_parser(|text: &str| text.parse::<Span>().map_err(|error| error.to_string()))
                .help("How long the answer may take"),
        )
        .arg(output)
}

/// Asks.
pub(super) async fn run(matches: &ArgMatches, output: Output) -> Ended {
    let text = matches
        .get_one::<String>("url")
        .map(String::as_str)
        .unwrap_or_default();
    let timeout = matches
        .get_one::<Span>("timeout")
        .map_or(Duration::from_secs(10), |span| span.0);
    let url = Url::parse(text).map_err(|error| ProbeError::Address(format!("{text}: {error}")))?;
    let asked = tokio::time::timeout(timeout, ask(&url)).await;
    let (status, challenged) = asked.map_err(|_| {
        ProbeError::Unreachable(text.to_owned(), format!("nothing came within {timeout:?}"))
    })??;
    if status != StatusCode::OK && !(status == StatusCode::UNAUTHORIZED && challenged) {
        return Err(ProbeError::Other(text.to_owned(), status).into());
    }
    match output {
        Output::Text => println!("{text} is a registry: {status}"),
        Output::Json => println!(
            "{}",
            serde_json::json!({ "url": text, "status": status.as_u16() })
        ),
    }
    Ok(())
}

/// The answer's status, and whether it says how to authenticate.
async fn ask(url: &Url) -> Result<(StatusCode, bool), ProbeError> {
    let roots = web::roots(None).map_err(|error| ProbeError::Address(error.to_string()))?;
    let answered = web::get(url, HeaderMap::new(), None, &roots).await;
    let answered = answered.map_err(|error| match error {
        WebError::Address(why) => ProbeError::Address(why),
        other => ProbeError::Unreachable(url.to_string(), other.to_string()),
    })?;
    let parts = answered.parts;
    Ok((parts.status, parts.headers.contains_key(WWW_AUTHENTICATE)))
}
