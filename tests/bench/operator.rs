//! Tenants applied at once: the time until all are ready, API writes for each, and what a full second look writes.
//!
//! `./tests/run bench operator [TENANTS]`. The operator is the real one on a real API server, and runs as the
//! service account of the chart, so that the server's audit log counts what it alone asks for.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use harness::{Installation, Signal, condition, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(600);
/// How many are applied side by side, as a GitOps controller would.
const AT_ONCE: usize = 32;

#[tokio::main]
async fn main() {
    let count = std::env::args()
        .nth(1)
        .map_or(1000, |count| count.parse().expect("a number"));
    let mut berth = Installation::start().await;
    let apps = berth.namespace("apps", json!({ "pull": berth.id })).await;
    let spec = json!({
        "allowedNamespaces": { "from": "All" },
        "pullSecrets": { "namespaceSelector": { "matchLabels": { "pull": berth.id } } },
    });
    let names: Vec<String> = (0..count)
        .map(|number| berth.name(&format!("t{number}")))
        .collect();
    let begun = Instant::now();
    let applying = stream::iter(&names).map(async |name| {
        berth
            .plane
            .apply(berth.tenant(name, spec.clone()))
            .await
            .expect("it is accepted");
    });
    applying.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let applied = begun.elapsed();
    let label = format!("berth.dev/installation={}", berth.id);
    let all_ready = async |berth: &Installation| {
        let tenants = berth.plane.list("Tenant", "", &label).await;
        let ready = tenants
            .iter()
            .filter(|tenant| condition(tenant, "Ready").is_some_and(|ready| ready["status"] == "True"));
        (ready.count() == count).then_some(())
    };
    eventually("all Tenants are ready", LIMIT, async || all_ready(&berth).await).await;
    let ready = begun.elapsed();
    let secrets = berth.plane.list("Secret", &apps, "berth.dev/tenant").await.len();
    assert_eq!(secrets, count, "each has its Secret");
    let first = berth.writes();
    println!("{count} Tenants, each with a Secret in one namespace");
    println!(
        "  applied after {:.1} s, all ready after {:.1} s",
        applied.as_secs_f64(),
        ready.as_secs_f64()
    );
    println!("  API writes for each: {:.2}", first as f64 / count as f64);
    println!(
        "  peak memory of the operator: {} MiB",
        berth.operator(0).peak_memory() >> 20
    );

    berth.operator(0).signal(Signal::TERM);
    berth.operator(0).ended(Duration::from_secs(30)).await;
    let begun = Instant::now();
    let second = berth.start_operator().await;
    eventually("all Tenants were looked at again", LIMIT, async || {
        (berth.ready_looks(second, "Tenant").await >= count).then_some(())
    })
    .await;
    println!(
        "  a full second look after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    println!("  API writes of it: {}", berth.writes() - first);
    println!(
        "  peak memory of that operator: {} MiB",
        berth.operator(second).peak_memory() >> 20
    );
}
