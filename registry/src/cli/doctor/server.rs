//! The server that runs here, and what it knows of the others, of its tenants and of what they depend on.

use std::error::Error;
use std::time::{Duration, Instant};

use http::header::HeaderMap;
use http::{Method, StatusCode};
use rustls::RootCertStore;
use serde_json::Value;
use url::Url;

use super::super::administer::plain;
use super::super::client::{Client, reachable};
use super::super::web;
use super::report::Report;
use crate::metadata::Time;
use crate::rfc3339;
use crate::settings::Settings;
use crate::webhooks::without_path;

/// Tenants whose hosts and caches are looked at.
const TENANTS: usize = 100;
/// What is due for longer is not kept up with.
const BEHIND: Duration = Duration::from_secs(3600);
/// How long replicas may take to serve what was changed last.
const SETTLING: Duration = Duration::from_secs(5);

/// What a server said.
#[derive(Default)]
pub(super) struct Told {
    /// Hosts of its tenants.
    pub(super) hosts: Vec<String>,
    /// Answers of the admin API, by the name of a file.
    pub(super) answers: Vec<(&'static str, Value)>,
    /// Its metrics, as they are scraped.
    pub(super) metrics: String,
}

/// `None` where no server runs.
pub(super) async fn look(
    report: &mut Report,
    settings: &Settings,
    server: Result<Option<Client>, Box<dyn Error>>,
) -> Option<Told> {
    let address = reachable(settings.admin_listen);
    let check = format!("admin API at {address}");
    let client = match server {
        Ok(Some(client)) => client,
        Ok(None) => {
            report.skipped(
                check,
                "no server listens there; start it, or give the settings it runs with",
            );
            return None;
        }
        Err(error) => {
            report.failed(
                check,
                error.to_string(),
                "give the --admin-key-file, --admin-listen and --admin-tls-cert that the server runs with",
            );
            return None;
        }
    };
    let mut told = Told::default();
    let replicas = match settled(&client).await {
        Ok(replicas) => {
            report.ok(check, "it answers");
            replicas
        }
        Err(error) => {
            report.failed(
                check,
                error.to_string(),
                "give the --admin-key-file that the server runs with",
            );
            return None;
        }
    };
    readiness(report, settings, &mut told).await;
    alike(report, &replicas);
    told.answers.push(("replicas.json", replicas));
    if let Ok(collection) = client.ask(Method::GET, "/admin/v1/gc", None).await {
        collected(report, &collection);
        told.answers.push(("gc.json", collection));
    }
    if let Ok(storage) = client.ask(Method::GET, "/admin/v1/storage", None).await {
        told.answers.push(("storage.json", storage));
    }
    match client.ask(Method::GET, "/admin/v1/tenants", None).await {
        Ok(tenants) => tenants_of(report, settings, &client, &tenants, &mut told).await,
        Err(error) => report.failed("tenants", error.to_string(), "look into the server's log"),
    }
    Some(told)
}

/// The replicas, when all serve the same or [`SETTLING`] is over: a change takes a moment to reach all of them.
async fn settled(client: &Client) -> Result<Value, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        let replicas = client.ask(Method::GET, "/admin/v1/replicas", None).await?;
        if replicas["served"] == true || begun.elapsed() >= SETTLING {
            return Ok(replicas);
        }
        tokio::time::sleep(SETTLING / 20).await;
    }
}

/// What its probes and its metrics say.
async fn readiness(report: &mut Report, settings: &Settings, told: &mut Told) {
    let address = reachable(settings.ops_listen);
    let roots = std::sync::Arc::new(RootCertStore::empty());
    let get = async |path: &str| {
        let url = Url::parse(&format!("http://{address}{path}")).map_err(|error| error.to_string())?;
        let answered = web::get(&url, HeaderMap::new(), None, &roots).await;
        answered.map_err(|error| error.to_string())
    };
    match get("/readyz").await {
        Ok(answered) if answered.parts.status == StatusCode::OK => report.ok("readiness", "ready"),
        Ok(answered) => {
            let body: Value = serde_json::from_slice(&answered.body).unwrap_or(Value::Null);
            let reasons = body["reasons"].as_array().map(|reasons| {
                let reasons: Vec<String> = reasons.iter().map(plain).collect();
                reasons.join("; ")
            });
            report.failed(
                "readiness",
                reasons.unwrap_or_else(|| answered.parts.status.to_string()),
                "see to what it names; it takes requests again by itself",
            );
        }
        Err(why) => report.warning(
            "readiness",
            format!("{address}: {why}"),
            "give the --ops-listen that the server runs with",
        ),
    }
    let Ok(answered) = get("/metrics").await else {
        return;
    };
    told.metrics = String::from_utf8_lossy(&answered.body).into_owned();
    let version = told.metrics.lines().find_map(|line| {
        let rest = line.strip_prefix("berth_build_info{")?;
        rest.split("version=\"").nth(1)?.split('"').next()
    });
    let own = env!("CARGO_PKG_VERSION");
    if let Some(version) = version.filter(|version| *version != own) {
        report.warning(
            "version",
            format!("the server is {version}, and this is {own}"),
            "look with the server's own binary: `kubectl exec` into its pod",
        );
    }
    if figure(&told.metrics, "berth_usage_drift_total") > 0.0 {
        report.warning(
            "counters",
            "a recount has found counters of what is stored wrong, and corrected them",
            "report it, with the log lines of level ERROR around it",
        );
    }
}

/// The value of a series without labels.
fn figure(metrics: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    metrics.lines().find_map(value).unwrap_or(0.0)
}

/// Whether the replicas serve the same by the same keys.
fn alike(report: &mut Report, replicas: &Value) {
    let all = replicas["replicas"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let name = |replica: &Value| format!("{} ({})", plain(&replica["host"]), plain(&replica["id"]));
    for replica in all {
        let failed = replica["failed"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !failed.is_empty() {
            let failed: Vec<String> = failed.iter().map(plain).collect();
            report.failed(
                format!("replica {}", name(replica)),
                format!("it cannot read {}", failed.join(", ")),
                "bring all replicas to one release, and to one --keys folder",
            );
        }
    }
    if all.windows(2).any(|pair| pair[0]["keys"] != pair[1]["keys"]) {
        report.warning(
            "keys",
            "replicas know different signing keys",
            "wait while keys are being rotated; else mount the same --keys folder everywhere",
        );
    }
    let version = plain(&replicas["version"]);
    match replicas["served"].as_bool() {
        Some(true) => report.ok(
            "configuration",
            format!("all {} replicas serve version {version}", all.len()),
        ),
        _ => report.warning(
            "configuration",
            format!("not all of {} replicas serve version {version}", all.len()),
            "ask again in a few seconds; a replica that stays behind cannot reach the metadata store",
        ),
    }
}

fn collected(report: &mut Report, collection: &Value) {
    if collection["paused"] == true {
        report.warning(
            "collection",
            format!("paused since {}: nothing is freed", plain(&collection["since"])),
            "berth-registry gc resume",
        );
    }
    let due = collection["queues"]["oldestDue"]
        .as_str()
        .and_then(|text| rfc3339::read(text).ok());
    let behind = due
        .map(|due| Time::now().0.saturating_sub(due.0))
        .unwrap_or_default();
    let limit = i64::try_from(BEHIND.as_micros()).unwrap_or(i64::MAX);
    match behind > limit {
        true => report.warning(
            "collection",
            format!("what is due waits for {} minutes", behind / 60_000_000),
            "look for `collection` in the log, and raise --gc-rate if the stores bear it",
        ),
        false => report.ok("collection", "it keeps up"),
    }
}

/// Their hosts, and the upstreams of their caches.
async fn tenants_of(
    report: &mut Report,
    settings: &Settings,
    client: &Client,
    tenants: &Value,
    told: &mut Told,
) {
    let all = tenants.as_array().map(Vec::as_slice).unwrap_or_default();
    report.ok("tenants", all.len().to_string());
    if all.len() > TENANTS {
        report.skipped(
            "tenants",
            format!("the hosts and caches of the first {TENANTS} are looked at; name others by --host"),
        );
    }
    for tenant in all.iter().take(TENANTS) {
        let name = plain(&tenant["tenant"]);
        if tenant["programmed"] == false {
            report.warning(
                format!("tenant {name}"),
                "not every replica serves its newest configuration",
                "see `configuration` above",
            );
        }
        told.hosts.push(format!("{name}.{}", settings.domain));
        let own = tenant["spec"]["hosts"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        told.hosts.extend(own.iter().map(plain));
        webhooks(report, client, &name).await;
        let path = format!("/admin/v1/tenants/{name}/pull-through");
        let Ok(caches) = client.ask(Method::GET, &path, None).await else {
            continue;
        };
        for cache in caches.as_array().map(Vec::as_slice).unwrap_or_default() {
            let check = format!("cache {name}/{}", plain(&cache["cache"]));
            match cache["reachable"].as_bool() {
                Some(true) => report.ok(check, plain(&cache["upstream"])),
                Some(false) => report.failed(
                    check,
                    format!("{}: {}", plain(&cache["upstream"]), plain(&cache["why"])),
                    "see to what it says: the upstream's credentials, its caBundle, HTTPS_PROXY, --egress-allow for \
                     private addresses",
                ),
                None => report.skipped(check, "nobody has pulled through it yet"),
            }
        }
    }
    // Names and hosts, and nothing that a spec may say besides.
    let shown: Vec<Value> = all
        .iter()
        .map(|tenant| {
            serde_json::json!({
                "tenant": tenant["tenant"], "generation": tenant["generation"], "version": tenant["version"],
                "programmed": tenant["programmed"], "behind": tenant["behind"], "hosts": tenant["spec"]["hosts"],
            })
        })
        .collect();
    told.answers.push(("tenants.json", Value::Array(shown)));
}

/// Whether events reach those who asked for them.
async fn webhooks(report: &mut Report, client: &Client, tenant: &str) {
    let path = format!("/admin/v1/tenants/{tenant}/webhooks");
    let Ok(webhooks) = client.ask(Method::GET, &path, None).await else {
        return;
    };
    for webhook in webhooks.as_array().map(Vec::as_slice).unwrap_or_default() {
        // A path or query may be what lets somebody in.
        let url = plain(&webhook["url"]);
        let parsed = Url::parse(&url).ok();
        let host = parsed.as_ref().and_then(Url::host_str).unwrap_or("?");
        let check = format!("webhook {tenant} at {host}");
        let dead = webhook["dead"].as_u64().unwrap_or_default();
        match webhook["lastError"].as_str() {
            Some(why) => report.failed(
                check,
                without_path(why, &url),
                "see to the receiver, its certificate, and --egress-allow for private addresses; what was given up is \
                 sent again by `berth-registry webhook replay`",
            ),
            None if dead > 0 => report.warning(
                check,
                format!("{dead} events were given up"),
                format!("`berth-registry webhook list --tenant {tenant}` names the webhook, `webhook dead` shows them, `webhook replay` sends them again"),
            ),
            None => report.ok(check, "its last delivery arrived, or none was tried"),
        }
    }
}
