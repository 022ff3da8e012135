//! Traces: whose they are, what they hold, and that nobody waits for them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use harness::content::sha256;
use harness::http::{Repository, client, send};
use harness::image::MANIFEST;
use harness::{Admin, Backend, Berth, Collector, Image, TracedSpan, eventually, free_port};
use reqwest::{Method, RequestBuilder};

const LIMIT: Duration = Duration::from_secs(20);
/// Span of the client that asks.
const ASKS: &str = "b7ad6b7169203331";
/// Kinds of spans, as the protocol numbers them.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// A trace of its own, by a number.
fn trace(number: u32) -> String {
    format!("0af7651916cd43dd8448eb21{number:08x}")
}

fn within(request: RequestBuilder, trace: &str, sampled: bool) -> RequestBuilder {
    let flags = u8::from(sampled);
    request.header("traceparent", format!("00-{trace}-{ASKS}-{flags:02x}"))
}

async fn traced(backend: Backend, collector: &Collector, share: &str) -> Berth {
    Berth::builder()
        .backend(backend)
        .flag("--otlp-endpoint", collector.url())
        .flag("--trace-sample", share)
        .flag("--log-format", "json")
        .start()
        .await
}

fn of<'a>(spans: &'a [TracedSpan], trace: &str) -> Vec<&'a TracedSpan> {
    spans.iter().filter(|span| span.trace == trace).collect()
}

/// The spans of requests of a trace, by their names.
fn requests(spans: &[TracedSpan], trace: &str) -> Vec<String> {
    let of = of(spans, trace).into_iter();
    let mut names: Vec<String> = of
        .filter(|span| span.kind == SERVER)
        .map(|span| span.name.clone())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_push_and_a_pull_are_of_the_client_s_trace_with_the_stores_below_them() {
    for backend in Backend::BOTH {
        let collector = Collector::start().await;
        let mut berth = traced(backend, &collector, "0").await;
        let repository = Repository::new(&berth.url(""), "app");
        let (push, pull) = (trace(1), trace(2));
        let content = vec![7; 100_000];
        let digest = sha256(&content);
        let upload = repository.request(Method::POST, &format!("blobs/uploads/?digest={digest}"));
        send(within(upload, &push, true).body(content)).await.expect(201);
        let image = Image::new(1, 1000);
        for blob in image.blobs() {
            repository.push_blob(blob).await;
        }
        let manifest = repository
            .request(Method::PUT, "manifests/v1")
            .header("Content-Type", MANIFEST)
            .body(image.manifest.clone());
        send(within(manifest, &push, true)).await.expect(201);
        let get = |path: &str| within(repository.request(Method::GET, path), &pull, true);
        send(get("manifests/v1")).await.expect(200);
        send(get(&format!("blobs/{digest}"))).await.expect(200);

        let spans = collector
            .spans_when("all four requests", |spans| {
                requests(spans, &push).len() + requests(spans, &pull).len() == 4
            })
            .await;

        assert_eq!(requests(&spans, &push), ["POST upload", "PUT manifest"]);
        assert_eq!(requests(&spans, &pull), ["GET blob", "GET manifest"]);
        assert!(
            spans.iter().all(|span| span.trace == push || span.trace == pull),
            "nothing else is traced: {spans:#?}"
        );
        let all: Vec<&TracedSpan> = spans.iter().filter(|span| span.kind == SERVER).collect();
        for span in &all {
            assert_eq!(span.parent, ASKS, "{span:?}");
            assert_eq!(span.attribute("berth.tenant"), "default", "{span:?}");
            assert_eq!(span.attribute("berth.repository"), "app", "{span:?}");
            assert_eq!(span.attribute("resource.service.name"), "berth-registry");
            assert!(["200", "201"].contains(&span.attribute("http.response.status_code")));
            assert!(!span.failed);
            let below: Vec<_> = spans.iter().filter(|child| child.parent == span.id).collect();
            let asks_metadata = |child: &&&TracedSpan| {
                child.kind == CLIENT
                    && ["sqlite", "postgresql"].contains(&child.attribute("db.system.name"))
                    && !child.attribute("db.operation.name").is_empty()
            };
            // On SQLite a cache in front of the store may know.
            let expects = span.name != "GET manifest" && span.name != "GET blob";
            if expects || backend != Backend::Embedded {
                assert!(
                    below.iter().any(|child| asks_metadata(&child)),
                    "{}: {below:#?}",
                    span.name
                );
            }
        }
        let asked = |name: &str| {
            spans
                .iter()
                .any(|span| span.attribute("db.operation.name") == name)
        };
        assert!(asked("commit_upload") && asked("put_manifest"), "{spans:#?}");
        if backend != Backend::Embedded {
            let calls: Vec<&str> = spans.iter().map(|span| span.attribute("rpc.method")).collect();
            assert!(calls.contains(&"PutObject"), "{calls:?}");
            assert!(calls.contains(&"GetObject"), "{calls:?}");
        }
        berth.terminate(LIMIT).await;
        let log = berth.log();
        let lines = log.lines().filter(|line| line.contains("\"target\":\"access\""));
        let with_trace = lines.filter(|line| line.contains(&format!("\"trace_id\":\"{push}\"")));
        assert_eq!(with_trace.count(), 2, "{log}");
        assert!(
            !log.contains("otel."),
            "what is for traces is not in the log: {log}"
        );
    }
}

#[tokio::test]
async fn a_client_that_does_not_record_is_not_recorded_and_nonsense_begins_a_new_trace() {
    let collector = Collector::start().await;
    let berth = traced(Backend::Embedded, &collector, "1").await;
    let ping = || client().get(berth.url("/v2/"));
    let (quiet, loud) = (trace(1), trace(2));
    send(within(ping(), &quiet, false)).await.expect(200);
    send(ping().header("traceparent", format!("00-{}-{ASKS}-01", "0".repeat(32))))
        .await
        .expect(200);
    send(within(ping(), &loud, true)).await.expect(200);

    let is_ping = |span: &&TracedSpan| span.name == "GET ping";
    let spans = collector
        .spans_when("the pings that are recorded", |spans| {
            spans.iter().filter(is_ping).count() >= 2
        })
        .await;

    assert!(of(&spans, &quiet).is_empty(), "{spans:#?}");
    assert_eq!(of(&spans, &loud).len(), 1);
    let fresh = spans.iter().find(|span| is_ping(span) && span.trace != loud);
    assert_eq!(fresh.expect("a trace of its own").parent, "", "it begins here");
}

#[tokio::test]
async fn clients_that_all_want_a_trace_do_not_all_get_one() {
    let collector = Collector::start().await;
    let berth = traced(Backend::Embedded, &collector, "0").await;
    let http = client();
    let asked = Cell::new(0);
    let refused = eventually("some are refused", LIMIT, async || {
        let pings = (0..150).map(|number| send(within(http.get(berth.url("/v2/")), &trace(number), true)));
        futures_util::future::join_all(pings).await;
        asked.set(asked.get() + 150);
        let text = send(http.get(berth.ops_url("/metrics"))).await.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("berth_trace_refused_requests_total "));
        line.and_then(|number| number.parse::<u64>().ok())
            .filter(|number| *number > 0)
    })
    .await;
    assert!(refused < asked.get(), "some are traced: {refused} of {asked:?}");
}

#[tokio::test]
async fn no_exported_byte_holds_a_secret() {
    for backend in Backend::BOTH {
        let collector = Collector::start().await;
        let berth = Berth::builder()
            .backend(backend)
            .flag("--redirect", "Always")
            .flag("--trace-sample", "1")
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
            .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=swordfish")
            .variable("OTEL_SERVICE_NAME", "images")
            .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
            .start()
            .await;
        let admin = Admin::of(&berth);
        let repository = Repository::new(&berth.url(""), "app");
        let image = Image::new(1, 1000);
        image.push(&repository, "v1").await;
        let token = admin.token("default", &["**"], &["pull", "push"]).await;
        let get = |path: &str| repository.request(Method::GET, path);
        let path = format!("blobs/{}", sha256(&image.layers[0]));
        send(get(&path).basic_auth("x-token", Some(&token))).await;
        send(get("manifests/v1?password=hunter2").bearer_auth("hunter3")).await;
        send(
            get("tags/list")
                .header("X-Request-Id", "mine")
                .header("Cookie", "hunter4"),
        )
        .await;
        let form = "grant_type=password&service=x&username=u&password=hunter5";
        let kind = "application/x-www-form-urlencoded";
        send(
            client()
                .post(berth.url("/v2/token"))
                .header("Content-Type", kind)
                .body(form),
        )
        .await;
        send(client().get(berth.url("/v2/app/manifests/hunter7"))).await;

        let last = |spans: &[TracedSpan]| {
            let own = |name: &str| spans.iter().filter(|span| span.name == name).count();
            own("GET tags") > 0 && own("GET manifest") > 1
        };
        let spans = collector.spans_when("the last requests", last).await;
        let names = |name: &str, value: &str| spans.iter().any(|span| span.attribute(name) == value);
        assert!(names("resource.service.name", "images"));
        assert!(names("resource.deployment.environment.name", "tests"));
        let bytes = collector.bytes();
        let key = std::fs::read_to_string(berth.data().join("keys/admin"));
        let key = key
            .map(|key| key.trim().to_owned())
            .unwrap_or_else(|_| "absent".to_owned());
        let password = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap_or_else(|_| "absent".to_owned());
        let mut secrets = vec![
            token.as_str(),
            &key,
            &password,
            "swordfish",
            "X-Amz",
            "hunter",
            "Bearer",
            "Basic",
            "password",
        ];
        secrets.retain(|secret| secret.len() > 3);
        for secret in secrets {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is exported");
        }
        assert!(
            collector
                .headers()
                .contains(&"x-collector-key: swordfish".to_owned())
        );
        assert!(collector.headers().contains(&"/v1/traces".to_owned()));
    }
}

/// The counter of spans that were dropped for this reason.
async fn dropped(berth: &Berth, reason: &str) -> u64 {
    let text = send(client().get(berth.ops_url("/metrics")))
        .await
        .expect(200)
        .text();
    let series = format!("berth_trace_dropped_spans_total{{reason=\"{reason}\"}} ");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(&series))
        .expect("the series");
    value.parse().expect("a number")
}

#[tokio::test]
async fn a_collector_that_hangs_delays_no_request_and_the_end_by_five_seconds_at_most() {
    let collector = Collector::start_hanging().await;
    let mut berth = traced(Backend::Embedded, &collector, "1").await;
    let http = client();
    eventually("the queue is full", 4 * LIMIT, async || {
        let pings = (0..400).map(|_| async {
            let asked = Instant::now();
            send(http.get(berth.url("/v2/"))).await.expect(200);
            assert!(asked.elapsed() < LIMIT / 2, "a request waited");
        });
        futures_util::future::join_all(pings).await;
        (dropped(&berth, "queue").await > 0).then_some(())
    })
    .await;
    assert!(collector.requests() >= 1);
    let ending = Instant::now();
    let status = berth.terminate(LIMIT).await;
    assert_eq!(status.code(), Some(0));
    let took = ending.elapsed();
    assert!(took < Duration::from_secs(9), "the end took {took:?}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_said_once_and_its_spans_are_counted() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let mut berth = Berth::builder()
        .flag("--otlp-endpoint", &url)
        .flag("--trace-sample", "1")
        .start()
        .await;
    let http = client();
    let (rounds, seen) = (Cell::new(0), Cell::new(0));
    eventually("three batches have failed", LIMIT, async || {
        send(http.get(berth.url("/v2/"))).await.expect(200);
        let now = dropped(&berth, "export").await;
        if now > seen.get() {
            rounds.set(rounds.get() + 1);
            seen.set(now);
        }
        (rounds.get() == 3).then_some(())
    })
    .await;
    assert_eq!(berth.terminate(LIMIT).await.code(), Some(0));
    let log = berth.log();
    let said = log
        .lines()
        .filter(|line| line.contains("the collector of traces"))
        .count();
    assert_eq!(said, 1, "{log}");
}

#[tokio::test]
async fn a_duration_shows_the_trace_that_it_is_an_example_of() {
    let collector = Collector::start().await;
    let berth = traced(Backend::Embedded, &collector, "0").await;
    let traced = trace(9);
    send(client().get(berth.url("/v2/"))).await.expect(200);
    let text = send(client().get(berth.ops_url("/metrics"))).await.text();
    assert!(!text.contains("# {"), "nothing was traced: {text}");
    send(within(client().get(berth.url("/v2/")), &traced, true))
        .await
        .expect(200);
    let example = format!("# {{trace_id=\"{traced}\"}} ");
    let line = eventually("an example is shown", LIMIT, async || {
        let text = send(client().get(berth.ops_url("/metrics"))).await.text();
        let line = text.lines().find(|line| line.contains(&example));
        line.map(str::to_owned)
    })
    .await;
    assert!(
        line.starts_with("berth_http_request_duration_seconds_bucket{"),
        "{line}"
    );
    assert!(line.contains("route=\"ping\""), "{line}");
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let mut berth = Berth::builder().flag("--log-format", "json").start().await;
    send(within(client().get(berth.url("/v2/")), &trace(1), true))
        .await
        .expect(200);
    let text = send(client().get(berth.ops_url("/metrics"))).await.text();
    assert!(text.contains("berth_trace_exported_spans_total 0\n"), "{text}");
    assert!(!text.contains("# {"), "{text}");
    berth.terminate(LIMIT).await;
    assert!(!berth.log().contains("trace_id"));
}
