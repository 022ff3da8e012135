//! Traces for OpenTelemetry: which requests and tasks are traced, their spans, and how these get to a collector.
//!
//! [`sampling`] decides by the client's [`traceparent`] and by chance; [`span`] has the spans that the other modules put
//! around their work; [`export`] queues what has ended and sends it to [`collector`] in batches; [`figures`] counts.
//! It may use `egress` as its way out, and the settings.
//!
//! What must hold: without a collector nothing of it runs, and a request costs no more than a look at a static; no
//! request ever waits for the collector, and what it does not take is dropped and counted; no span holds a secret, a
//! query string or a header: attributes are those that are named in [`span`].

mod collector;
mod export;
mod figures;
mod sampling;
pub mod span;
pub(crate) mod traceparent;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler as Always, SdkTracerProvider};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::registry::LookupSpan;

pub use figures::Figures;

use collector::Collector;
use export::{Exports, Queue};
use sampling::Sampler;

/// The library's own variables, for those who set all their programs up alike.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Turns everything off whatever else is set.
const DISABLED_VARIABLE: &str = "OTEL_SDK_DISABLED";
/// Names the service in place of [`SERVICE`].
const SERVICE_VARIABLE: &str = "OTEL_SERVICE_NAME";
/// What the service is called.
const SERVICE: &str = "berth-registry";
/// How long the end of the process waits for what is queued.
const LAST: Duration = Duration::from_secs(5);

/// What decides about requests and tasks; empty while nothing is traced.
static SAMPLER: OnceLock<Sampler> = OnceLock::new();

/// Why traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The collector's URL or headers.
    #[error("--otlp-endpoint: {0}")]
    Collector(String),
}

/// Traces that are to go to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
    exports: Exports,
    endpoint: String,
}

/// The task that sends them.
pub struct Sending {
    // Spans of the process's end still go by it.
    _provider: SdkTracerProvider,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Traces {
    /// Sets traces up, if a collector is named by the setting or by the environment. `share` is the part of requests, 0 to
    /// 1, that are traced where the client says nothing of it.
    pub fn of(endpoint: Option<&str>, share: f64) -> Option<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable(DISABLED_VARIABLE).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let endpoint = endpoint
            .map(str::to_owned)
            .or_else(|| variable(ENDPOINT_VARIABLE))?;
        // Attributes of the environment come with the builder.
        let mut resource = Resource::builder().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        ]);
        if variable(SERVICE_VARIABLE).is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let resource = resource.build();
        let (queue, exports) = Queue::new(resource.clone());
        // What is not to be traced never becomes a span: the sampler is ours.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Always::AlwaysOn)
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let _ = SAMPLER.set(Sampler::new(share));
        Some(Self {
            provider,
            exports,
            endpoint,
        })
    }

    /// Makes traces of the spans of [`span`], and of no others.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(SERVICE))
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false);
        // A child whose parent is not traced is not traced.
        let filter = dynamic_filter_fn(|metadata, context| {
            span::is_root(metadata) || (span::is_child(metadata) && context.lookup_current().is_some())
        });
        let filter = filter
            .with_callsite_filter(|metadata| {
                if span::is_root(metadata) || span::is_child(metadata) {
                    Interest::sometimes()
                } else {
                    Interest::never()
                }
            })
            .with_max_level_hint(LevelFilter::TRACE);
        layer.with_filter(filter)
    }

    /// Starts to send.
    pub fn send(self) -> Result<Sending, TelemetryError> {
        let collector = Collector::of(&self.endpoint).map_err(TelemetryError::Collector)?;
        let end = CancellationToken::new();
        let task = self
            .exports
            .start(&self.endpoint, collector, end.clone())
            .map_err(TelemetryError::Collector)?;
        Ok(Sending {
            _provider: self.provider,
            end,
            task,
        })
    }
}

impl Sending {
    /// Sends what is queued, for five seconds at most.
    pub async fn finish(mut self) {
        self.end.cancel();
        if tokio::time::timeout(LAST, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}
