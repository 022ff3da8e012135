//! `cache`: how pull-through caches fare, and fetching before anybody asks.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::administer::{group, leaf, plain, positional, query, show, tenant_flag, tenant_path};
use super::client::Client;
use super::table::{Table, bytes};
use super::{Ended, Output};
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "cache";

/// Between two looks at a blob; the server waits for it in between as well.
const EVERY: Duration = Duration::from_millis(100);

/// Some images are not here.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {all} images could not be fetched")]
struct NotWarm {
    failed: usize,
    all: usize,
}

/// Nothing is named.
#[derive(Debug, thiserror::Error)]
#[error("cache {0} has no spec.prefetch: list images there, or name them after the cache")]
struct NothingToFetch(String);

/// Its arguments.
pub(super) fn command() -> Command {
    let list = leaf(
        "list",
        "List pull-through caches: whether their upstreams answer, hits, misses, and what the upstream's limit leaves",
        "  berth-registry cache list --tenant acme",
    )
    .arg(tenant_flag());
    let warm = leaf(
        "warm",
        "Fetch images through a cache before anybody pulls them: those of its spec.prefetch, or these",
        "  berth-registry cache warm apps/hub --tenant acme\n  \
           berth-registry cache warm apps/hub library/alpine:3.20 --tenant acme --platform linux/amd64",
    )
    .arg(positional("cache", "Its name, as `cache list` shows it"))
    .arg(
        Arg::new("image")
            .value_name("IMAGE")
            .action(ArgAction::Append)
            .help("<repository>:<tag> or <repository>@<digest>, as the upstream calls it"),
    )
    .arg(
        Arg::new("platform")
            .long("platform")
            .value_name("PLATFORM")
            .action(ArgAction::Append)
            .help("Of an index only what is for this platform, as os/architecture[/variant]; repeatable"),
    )
    .arg(tenant_flag());
    group(NAME, "Pull-through caches: list, warm", [list, warm])
}

/// Does what the matches of a leaf say.
pub(super) async fn run(settings: &Settings, leaf: &str, matches: &ArgMatches, output: Output) -> Ended {
    let path = format!("{}/pull-through", tenant_path(matches));
    let client = Client::open(settings).await?;
    if leaf == "list" {
        return show(output, &client.ask(Method::GET, &path, None).await?, list);
    }
    let cache = matches.get_one::<String>("cache").map_or("", String::as_str);
    let many = |name: &str| -> Vec<String> {
        let given = matches.get_many::<String>(name);
        given.map(|given| given.cloned().collect()).unwrap_or_default()
    };
    let mut images = many("image");
    if images.is_empty() {
        let known = client
            .ask(Method::GET, &format!("{path}?cache={}", query(cache)), None)
            .await?;
        let listed = known["prefetch"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        images = listed.iter().map(plain).collect();
    }
    if images.is_empty() {
        return Err(NothingToFetch(cache.to_owned()).into());
    }
    let warming = Warming {
        client: &client,
        path: format!("{path}/warm?cache={}", query(cache)),
        platforms: many("platform"),
        bars: (stderr().is_terminal() && matches!(output, Output::Text)).then(MultiProgress::new),
    };
    let mut outcomes = Vec::new();
    for image in &images {
        outcomes.push(match warming.image(image).await {
            Ok((digest, fetched)) => json!({ "image": image, "digest": digest, "bytes": fetched }),
            Err(error) => json!({ "image": image, "error": error.to_string() }),
        });
    }
    let failed = outcomes
        .iter()
        .filter(|outcome| !outcome["error"].is_null())
        .count();
    show(output, &outcomes.into(), outcome)?;
    match failed {
        0 => Ok(()),
        failed => Err(NotWarm {
            failed,
            all: images.len(),
        }
        .into()),
    }
}

/// Images on their way.
struct Warming<'c> {
    client: &'c Client,
    path: String,
    platforms: Vec<String>,
    /// Where they are drawn, if that can be seen.
    bars: Option<MultiProgress>,
}

impl Warming<'_> {
    /// Fetches an image with all that it lists: its digest, and the bytes that it has in all.
    async fn image(&self, image: &str) -> Result<(String, u64), Box<dyn Error>> {
        let bar = self.bar(image);
        let top = self.ask(image, None).await?;
        let repository = match image.split_once('@') {
            Some((repository, _)) => repository,
            None => image.rsplit_once(':').map_or(image, |(repository, _)| repository),
        };
        // Each blob once, whichever of the manifests list it.
        let mut blobs: BTreeMap<String, u64> = BTreeMap::new();
        let mut total = number(&top["size"]);
        let mut manifests = vec![top.clone()];
        while let Some(manifest) = manifests.pop() {
            for child in manifest["manifests"].as_array().into_iter().flatten() {
                if self.wants(&child["platform"]) {
                    let child = format!("{repository}@{}", plain(&child["digest"]));
                    let child = self.ask(&child, None).await?;
                    total += number(&child["size"]);
                    manifests.push(child);
                }
            }
            for blob in manifest["blobs"].as_array().into_iter().flatten() {
                blobs.insert(plain(&blob["digest"]), number(&blob["size"]));
            }
        }
        let all: u64 = blobs.values().sum();
        if let Some(bar) = &bar {
            bar.set_length(all);
        }
        let mut done = 0;
        for (digest, size) in blobs {
            loop {
                let state = self.ask(image, Some(&digest)).await?;
                if let Some(bar) = &bar {
                    bar.set_position(done + number(&state["arrived"]));
                }
                if state["stored"] == true {
                    break;
                }
                tokio::time::sleep(EVERY).await;
            }
            done += size;
        }
        if let Some(bar) = bar {
            bar.finish();
        }
        Ok((plain(&top["digest"]), total + all))
    }

    async fn ask(&self, image: &str, blob: Option<&str>) -> Result<Value, Box<dyn Error>> {
        let mut path = format!("{}&image={}", self.path, query(image));
        if let Some(blob) = blob {
            path = format!("{path}&blob={}", query(blob));
        }
        self.client.ask(Method::POST, &path, None).await
    }

    fn wants(&self, platform: &Value) -> bool {
        self.platforms.is_empty()
            || platform
                .as_str()
                .is_some_and(|platform| self.platforms.iter().any(|wanted| wanted == platform))
    }

    fn bar(&self, image: &str) -> Option<ProgressBar> {
        let style =
            ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        let bar = ProgressBar::new(0)
            .with_style(style.ok()?)
            .with_message(image.to_owned());
        Some(self.bars.as_ref()?.add(bar))
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn list(caches: &Value) -> String {
    let row = |cache: &Value| {
        let state = match cache["reachable"].as_bool() {
            None => "not asked yet".to_owned(),
            Some(true) => "reachable".to_owned(),
            Some(false) => format!("fails: {}", plain(&cache["why"])),
        };
        let limit = &cache["rateLimit"];
        let limit = limit
            .is_object()
            .then(|| format!("{}/{}", limit["remaining"], limit["limit"]));
        json!({
            "cache": cache["cache"], "upstream": cache["upstream"], "state": state, "hits": cache["hits"],
            "misses": cache["misses"], "saved": bytes(number(&cache["bytesSaved"])),
            "stored": bytes(number(&cache["bytes"])), "limit": limit,
        })
    };
    let rows: Vec<Value> = caches.as_array().into_iter().flatten().map(row).collect();
    Table::of(
        [
            "CACHE", "UPSTREAM", "HITS", "MISSES", "SAVED", "STORED", "LEFT", "STATE",
        ],
        [
            "cache", "upstream", "hits", "misses", "saved", "stored", "limit", "state",
        ],
        &rows.into(),
    )
    .to_string()
}

fn outcome(outcomes: &Value) -> String {
    let row = |outcome: &Value| {
        let state = match outcome["error"].as_str() {
            Some(error) => format!("failed: {error}"),
            None => "here".to_owned(),
        };
        let size = outcome["bytes"].as_u64().map(bytes);
        json!({ "image": outcome["image"], "digest": outcome["digest"], "size": size, "state": state })
    };
    let rows: Vec<Value> = outcomes.as_array().into_iter().flatten().map(row).collect();
    Table::of(
        ["IMAGE", "DIGEST", "SIZE", "STATE"],
        ["image", "digest", "size", "state"],
        &rows.into(),
    )
    .to_string()
}
