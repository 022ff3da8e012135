//! The queue of spans that have ended, and the task that sends them in batches.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, TIMEOUT};
use super::figures::{Figure, count};

/// Spans that wait, at most: about a kilobyte each.
const QUEUE: usize = 4096;
/// Spans of one batch, at most.
const BATCH: usize = 512;
/// How long a batch that is not full waits.
const GATHER: Duration = Duration::from_secs(1);
/// Where the protocol wants spans of a collector.
const PATH: &str = "/v1/traces";

/// Where ended spans go.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

/// Where they come out.
pub(super) struct Exports {
    ended: mpsc::Receiver<SpanData>,
    resource: Resource,
}

impl Queue {
    pub(super) fn new(resource: Resource) -> (Self, Exports) {
        let (queue, ended) = mpsc::channel(QUEUE);
        (Self(queue), Exports { ended, resource })
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    /// Never waits: whoever ends a span may be a request.
    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            count(Figure::Overflowed, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Exports {
    /// Sends for ever; after `end`, what is queued and no more.
    pub(super) fn start(
        self,
        endpoint: &str,
        collector: Collector,
        end: CancellationToken,
    ) -> Result<JoinHandle<()>, String> {
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        exporter.set_resource(&self.resource);
        Ok(tokio::spawn(self.run(exporter, end)))
    }

    async fn run(mut self, exporter: SpanExporter, end: CancellationToken) {
        let mut answers = true;
        loop {
            let batch = self.gather(&end).await;
            if batch.is_empty() {
                return;
            }
            let spans = batch.len();
            match exporter.export(batch).await {
                Ok(()) => {
                    count(Figure::Exported, spans);
                    if !answers {
                        tracing::info!("the collector of traces takes spans again");
                    }
                    answers = true;
                }
                Err(error) => {
                    count(Figure::Failed, spans);
                    // Said once: it may be away for days.
                    if answers {
                        tracing::warn!(%error, "the collector of traces does not take spans; they are dropped until it does");
                    }
                    answers = false;
                }
            }
        }
    }

    /// The next batch: a full one, or what has come within a while of its first span. Empty at the end.
    async fn gather(&mut self, end: &CancellationToken) -> Vec<SpanData> {
        let mut batch = Vec::new();
        let mut until: Option<Instant> = None;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let late = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                received = self.ended.recv_many(&mut batch, room) => {
                    // Nobody is left who could end a span.
                    if received == 0 {
                        break;
                    }
                    until.get_or_insert_with(|| Instant::now() + GATHER);
                }
                () = late => break,
                () = end.cancelled() => break,
            }
        }
        batch
    }
}
