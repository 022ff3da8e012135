//! The way to the collector: the registry's own client, behind the trait that the exporter asks for.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use url::Url;

use crate::egress::{Allow, Channel, Client, Dialer};

/// How long the collector may take for one batch.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read; it says at most which spans were refused.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The collector.
pub(super) struct Collector(Channel);

impl Collector {
    /// At this URL. Whoever runs the registry named it: its address may be a private one.
    pub(super) fn of(endpoint: &str) -> Result<Self, String> {
        let url = Url::parse(endpoint).map_err(|error| error.to_string())?;
        let host = url.host_str().ok_or("it names no host")?;
        let host = host.trim_matches(['[', ']']).parse()?;
        let dialer = Dialer::new(Allow(vec![host])).with_proxies_of_environment();
        let channel = Client::new(dialer).channel(None);
        channel.map(Self).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let answer = self.0.send(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let answer: Result<_, HttpError> = tokio::time::timeout(TIMEOUT, exchange).await?;
        if let Err(error) = &answer {
            // The exporter does not pass on why.
            tracing::debug!(%error, "a batch of spans was not taken");
        }
        answer
    }
}
