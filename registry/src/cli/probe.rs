//! `probe`: whether a registry answers at an address, asked once, from where the command runs.
//!
//! It needs no settings, no stores and no credential, so that it can run wherever the binary is: as a test of an
//! installation in a cluster, or behind an edge.

use std::time::Duration;

use bytes::Bytes;
use clap::{Arg, ArgMatches, Command};
use http::header::{HOST, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use http_body_util::Full;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::client::exchange;
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
    let unreachable = |why: String| ProbeError::Unreachable(url.to_string(), why);
    let wrong = |why: &str| ProbeError::Address(format!("{url}: {why}"));
    let host = url.host_str().ok_or_else(|| wrong("no host"))?;
    let port = url.port_or_known_default().ok_or_else(|| wrong("no port"))?;
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let request = Request::get(url.path())
        .header(HOST, authority)
        .body(Full::new(Bytes::new()))
        .map_err(|error| wrong(&error.to_string()))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let answer = match url.scheme() {
        "http" => exchange(stream, request).await,
        "https" => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from(bare.to_owned()).map_err(|error| wrong(&error.to_string()))?;
            let connector = TlsConnector::from(std::sync::Arc::new(config));
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            exchange(stream, request).await
        }
        _ => return Err(wrong("neither http nor https")),
    };
    let (head, _) = answer.map_err(unreachable)?;
    Ok((head.status, head.headers.contains_key(WWW_AUTHENTICATE)))
}
