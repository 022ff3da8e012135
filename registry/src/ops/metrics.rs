//! The counters of the process, in OpenMetrics.
//!
//! Label values come from small fixed sets. A request looks nothing up by label: each combination's
//! counter is found once and kept in a table.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::Method;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process;
use super::ready::{Readiness, States};
use super::route::Route;
use crate::blobs::budget::Budget;

const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "other"];
const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
/// Seconds. A manifest from memory is below a millisecond; a layer may take minutes.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0,
];

type RequestLabels = [(&'static str, &'static str); 3];
type RouteLabels = [(&'static str, &'static str); 1];
/// Of each bucket the last request that is traced.
type Histogram = HistogramWithExemplars<[(&'static str, String); 1]>;

#[derive(Clone)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS.into_iter())
    }
}

/// One request that ended.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its class.
    pub route: Route,
    /// Its status; 499 if the client left before there was one.
    pub status: u16,
    /// From its head to the end of its answer.
    pub seconds: f64,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of its answer's body.
    pub sent: u64,
    /// Its trace, if it is traced: what a duration is an example of.
    pub trace_id: Option<&'a str>,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// What is shown besides, once it is there.
    further: OnceLock<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, Durations>,
    request_cells: [[[OnceLock<Counter>; STATUSES.len()]; Route::COUNT]; METHODS.len()],
    duration_cells: [OnceLock<Histogram>; Route::COUNT],
    received: Counter,
    sent: Counter,
    connections: Gauge,
    in_flight: Gauge,
}

/// A connection counted as open until dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Metrics {
    /// Metrics that also show `budget`, the upload buffers' memory, and whether the process is ready.
    pub fn new(budget: Budget, budget_bytes: u64, readiness: Arc<Readiness>) -> Arc<Self> {
        let mut all = Registry::default();
        let registry = all.sub_registry_with_prefix("berth");
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<RouteLabels, Histogram, Durations>::new_with_constructor(Durations);
        let (received, sent) = (Counter::default(), Counter::default());
        let (connections, in_flight) = (Gauge::default(), Gauge::default());
        registry.register("http_requests", "Requests that ended", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to the end of its answer",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register_with_unit(
            "http_received",
            "Bytes of requests' bodies",
            Unit::Bytes,
            received.clone(),
        );
        registry.register_with_unit("http_sent", "Bytes of answers' bodies", Unit::Bytes, sent.clone());
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register(
            "http_requests_in_flight",
            "Requests whose answers have not ended",
            in_flight.clone(),
        );
        registry.register(
            "build",
            "The running release",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(UploadBudget {
            budget,
            bytes: budget_bytes,
        }));
        registry.register_collector(Box::new(States(readiness)));
        // The process's own have the names that dashboards know, without a prefix.
        all.register_collector(Box::new(process::Process));
        Arc::new(Self {
            registry: all,
            further: OnceLock::new(),
            requests,
            durations,
            request_cells: Default::default(),
            duration_cells: Default::default(),
            received,
            sent,
            connections,
            in_flight,
        })
    }

    /// Counts a connection as open until the answer is dropped.
    pub fn connection(&self) -> Counted {
        self.connections.inc();
        Counted(self.connections.clone())
    }

    /// A request's head has come.
    pub fn request_started(&self) {
        self.in_flight.inc();
    }

    /// A request's answer has ended.
    pub fn request_ended(&self, seen: &Observation<'_>) {
        self.in_flight.dec();
        let method = METHODS
            .iter()
            .position(|name| *name == seen.method.as_str())
            .unwrap_or(METHODS.len() - 1);
        let status = usize::from(seen.status / 100)
            .checked_sub(1)
            .unwrap_or(usize::MAX)
            .min(STATUSES.len() - 1);
        let route = seen.route as usize;
        let counter = self.request_cells[method][route][status].get_or_init(|| {
            let labels = [
                ("method", METHODS[method]),
                ("route", seen.route.label()),
                ("status", STATUSES[status]),
            ];
            self.requests.get_or_create_owned(&labels)
        });
        counter.inc();
        let duration = self.duration_cells[route].get_or_init(|| {
            self.durations
                .get_or_create_owned(&[("route", seen.route.label())])
        });
        let example = seen.trace_id.map(|id| [("trace_id", id.to_owned())]);
        let now = example.is_some().then(SystemTime::now);
        duration.observe(seen.seconds, example, now);
        if seen.received > 0 {
            self.received.inc_by(seen.received);
        }
        if seen.sent > 0 {
            self.sent.inc_by(seen.sent);
        }
    }

    /// Shows what these collectors say besides. Once.
    pub fn also(&self, collectors: Vec<Box<dyn Collector>>) {
        let mut registry = Registry::default();
        for collector in collectors {
            registry.register_collector(collector);
        }
        if self.further.set(registry).is_err() {
            tracing::error!("further collectors of metrics are not shown");
        }
    }

    /// Everything in the OpenMetrics text form.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        if let Some(further) = self.further.get() {
            prometheus_client::encoding::text::encode_registry(&mut text, further)?;
        }
        prometheus_client::encoding::text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How much of the upload buffers' memory is free, read when asked.
#[derive(Debug)]
struct UploadBudget {
    budget: Budget,
    bytes: u64,
}

impl Collector for UploadBudget {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let free = i64::try_from(self.budget.free()).unwrap_or(i64::MAX);
        gauge(
            &mut encoder,
            "upload_memory_free_bytes",
            "Upload buffers' memory that is free",
            free,
        )?;
        let all = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        gauge(
            &mut encoder,
            "upload_memory_bytes",
            "Upload buffers' memory in all",
            all,
        )
    }
}

/// One gauge with a value read just now.
pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    let metric =
        encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
    gauge.encode(metric)
}

/// One counter with a value read just now.
pub(super) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> fmt::Result {
    let counter = ConstCounter::new(value);
    let metric =
        encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?;
    counter.encode(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_route_and_status_class() {
        let metrics = Metrics::new(Budget::new(1 << 20), 1 << 20, Arc::default());
        let connection = metrics.connection();
        for status in [200, 204, 404] {
            metrics.request_started();
            metrics.request_ended(&Observation {
                method: &Method::GET,
                route: Route::Manifest,
                status,
                seconds: 0.002,
                received: 0,
                sent: 10,
                trace_id: (status == 204).then_some("0af7651916cd43dd8448eb211c80319c"),
            });
        }
        let text = metrics.text().unwrap();
        for line in [
            r#"berth_http_requests_total{method="GET",route="manifest",status="2xx"} 2"#,
            r#"berth_http_requests_total{method="GET",route="manifest",status="4xx"} 1"#,
            r#"berth_http_request_duration_seconds_count{route="manifest"} 3"#,
            "berth_http_sent_bytes_total 30",
            "berth_http_connections 1",
            "berth_http_requests_in_flight 0",
            "berth_upload_memory_free_bytes 1048576",
            "berth_ready 0",
            r#"berth_http_request_duration_seconds_bucket{le="0.0025",route="manifest"} 3 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.002"#,
            "process_resident_memory_bytes ",
            "berth_build_info{version=",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        drop(connection);
        assert!(metrics.text().unwrap().contains("berth_http_connections 0"));
    }
}
