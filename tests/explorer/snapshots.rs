//! What the pages and their JSON are, whole: a change of either shows in review.
//!
//! With `BERTH_BLESS=1` the files in `snapshots/` are written anew. What is another each time - hosts, times, names of
//! assets, forms' secrets, sealed places - is a word in them.

use std::path::PathBuf;

use harness::same_as_stored;

use super::{House, supply};

/// Pages by the names of their files.
const PAGES: [(&str, &str); 10] = [
    ("repositories", "/explorer/"),
    ("repository", "/explorer/r/team/app"),
    ("index", "/explorer/r/team/app/-/tags/v1"),
    ("difference", "/explorer/r/team/app/-/difference?from=v1&to=v2"),
    ("history", "/explorer/r/team/app/-/history/v1"),
    ("retention", "/explorer/r/team/app/-/retention/v1"),
    ("deleted", "/explorer/r/team/app/-/deleted"),
    ("delete", "/explorer/r/team/app/-/delete/tags/v1"),
    ("builds", "/explorer/builds?q=v1"),
    ("missing", "/explorer/r/team/none"),
];

fn stored(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("explorer/snapshots")
        .join(name)
}

/// With words for what is another each time, and a line for each element.
fn steady(text: &str, host: &str) -> String {
    let text = text.replace(host, "HOST");
    let text = between(&text, "/explorer/assets/", "/", "HASH");
    let text = between(&text, r#"name="form" value=""#, r#"""#, "FORM");
    let text = between(&text, r#"<time datetime=""#, "</time>", "TIME");
    let text = times(&text);
    let mut text = text
        .replace("><", ">\n<")
        .replace(r#"","#, "\",\n")
        .replace("},{", "},\n{");
    text.push('\n');
    text
}

/// Whatever lies between two texts becomes a word.
fn between(text: &str, begin: &str, end: &str, word: &str) -> String {
    let mut parts = text.split(begin);
    let mut steady = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find(end).map_or("", |at| &part[at..]);
        steady.extend([begin, word, rest]);
    }
    steady
}

/// Times (RFC 3339, in UTC) become a word.
fn times(text: &str) -> String {
    let is_time = |part: &str| {
        part.len() >= 20 && part.ends_with('Z') && part.as_bytes()[10] == b'T' && part.starts_with("20")
    };
    let parts = text
        .split('"')
        .map(|part| if is_time(part) { "TIME" } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_their_json_are_as_they_were() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "team/app").await;
    supply::push(&repository, "v1", "run-17", "1.3").await;
    supply::push(&repository, "v2", "run-18", "1.4").await;
    let person = house.person("acme", &token).await;
    let host = house.host("acme");
    for (name, path) in PAGES {
        let page = person.get(path).await.text();
        same_as_stored(&stored(&format!("{name}.html")), &steady(&page, &host));
        let api = path.replacen("/explorer/", "/explorer/api/", 1);
        let json = person.get(&api).await.text();
        same_as_stored(&stored(&format!("{name}.json")), &steady(&json, &host));
    }
}
