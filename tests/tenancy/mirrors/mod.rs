//! Requests by another host than the one in the image's name (`?ns=`): mirrors by an address, mirrors for upstreams.

mod addresses;
mod caches;
mod refusals;

use harness::http::{Answer, send};
use harness::{Admin, Berth};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{DOMAIN, to};

const HUB: &str = "docker.io";

fn acme() -> String {
    format!("acme.{DOMAIN}")
}

/// A read with no credential.
async fn read(berth: &Berth, host: &str, path: &str) -> Answer {
    send(to(berth, host, Method::GET, path)).await
}

/// A parameter of a challenge.
fn parameter<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let header = answer.header("www-authenticate");
    let (_, rest) = header
        .split_once(&format!("{name}=\""))
        .unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    rest.split('"').next().unwrap_or_default()
}

/// A request to the realm of a challenge, at the host that it names.
fn realm(berth: &Berth, answer: &Answer, method: Method, more: &str) -> RequestBuilder {
    let realm = parameter(answer, "realm").strip_prefix("http://").expect("http");
    let (host, path) = realm.split_once('/').expect("a path");
    let join = if path.contains('?') { '&' } else { '?' };
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("{join}{more}")
    };
    to(berth, host, method, &format!("/{path}{more}"))
}

/// The token that containerd gets for a challenge: first by POST, with its own idea of the scope besides.
async fn token_by_post(berth: &Berth, challenge: &Answer, password: &str, own_scope: &str) -> String {
    let form = format!(
        "grant_type=password&service={}&client_id=containerd-client&username=x-token&password={password}&scope={own_scope}+{}",
        parameter(challenge, "service"),
        parameter(challenge, "scope"),
    );
    let request = realm(berth, challenge, Method::POST, "")
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(form);
    let issued = send(request).await.expect(200).json();
    issued["access_token"].as_str().expect("a token").to_owned()
}

/// The token that a client gets by GET, with a password or as nobody.
async fn token_by_get(berth: &Berth, challenge: &Answer, password: Option<&str>) -> String {
    let query = format!(
        "service={}&scope={}",
        parameter(challenge, "service"),
        parameter(challenge, "scope")
    );
    let mut request = realm(berth, challenge, Method::GET, &query);
    if let Some(password) = password {
        request = request.basic_auth("x-token", Some(password));
    }
    let issued = send(request).await.expect(200).json();
    issued["token"].as_str().expect("a token").to_owned()
}

/// A cache of an upstream that nobody reaches: the address is one for documents (RFC 5737). What was pushed below its prefix
/// before is read.
async fn put_cache(admin: &Admin, tenant: &str, prefix: &str, mirror_for: &[&str]) {
    let spec = json!({
        "upstream": { "url": "https://192.0.2.1" },
        "tags": { "pinned": ["*"] },
        "prefix": prefix,
        "mirrorFor": mirror_for,
    });
    admin.put(&format!("tenants/{tenant}/caches/cache"), spec).await;
}

/// Everything that a client of a mirror reads of a repository that was filled by [`push`] with `0123456789`.
async fn reads_everything(
    berth: &Berth,
    host: &str,
    name: &str,
    ns: &str,
    bearer: &str,
    pushed: &(String, String),
) {
    let (blob, manifest) = pushed;
    let ask = async |method: Method, path: &str, range: &str| {
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v2/{name}/{path}{join}ns={ns}");
        let mut request = to(berth, host, method, &path).bearer_auth(bearer);
        if !range.is_empty() {
            request = request.header("range", range);
        }
        let answer = send(request).await;
        assert_eq!(answer.header("oci-namespace"), ns, "{host} {path}");
        answer
    };
    for path in ["manifests/v1".to_owned(), format!("manifests/{manifest}")] {
        let head = ask(Method::HEAD, &path, "").await.expect(200);
        let got = ask(Method::GET, &path, "").await.expect(200);
        assert_eq!(head.header("docker-content-digest"), manifest);
        assert_eq!(head.header("content-length"), got.body.len().to_string());
        assert_eq!(&harness::content::sha256(&got.body), manifest);
    }
    let path = format!("blobs/{blob}");
    let head = ask(Method::HEAD, &path, "").await.expect(200);
    assert_eq!(head.header("content-length"), "10");
    assert_eq!(ask(Method::GET, &path, "").await.expect(200).text(), "0123456789");
    let part = ask(Method::GET, &path, "bytes=2-4").await.expect(206);
    assert_eq!(
        (part.text().as_str(), part.header("content-range")),
        ("234", "bytes 2-4/10")
    );
    let tags = ask(Method::GET, "tags/list", "").await.expect(200).json();
    assert_eq!(tags, json!({ "name": name, "tags": ["v1", "v2"] }));
    let referrers = ask(Method::GET, &format!("referrers/{manifest}"), "")
        .await
        .expect(200);
    assert_eq!(referrers.json()["manifests"], json!([]));
    // The next page is at the same place.
    let page = ask(Method::GET, "tags/list?n=1", "").await.expect(200);
    let next = page
        .header("link")
        .trim_start_matches('<')
        .split('>')
        .next()
        .unwrap_or_default();
    let answer = send(to(berth, host, Method::GET, next).bearer_auth(bearer))
        .await
        .expect(200);
    assert_eq!(answer.json(), json!({ "name": name, "tags": ["v2"] }));
    let unknown = ask(Method::GET, "manifests/absent", "").await.expect(404);
    assert_eq!(unknown.error_code(), "MANIFEST_UNKNOWN");
}
