//! A token of one tenant tries everything at another. What it is told must not depend on what is there.

use std::collections::BTreeMap;

use harness::Backend;
use harness::http::{Answer, send};
use reqwest::Method;
use serde_json::json;

use super::{DOMAIN, access_token, get, push, settings, to, two_tenants};

/// What of an answer a client can see, without what differs in every answer.
fn seen(answer: &Answer, names: &[&str]) -> String {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &answer.headers {
        if !["date", "x-request-id"].contains(&name.as_str()) {
            headers.insert(name.to_string(), value.to_str().unwrap_or_default().to_owned());
        }
    }
    let mut text = format!("{} {headers:?} {}", answer.status, answer.text());
    // Names of the same length stand for each other: an answer may repeat what was asked.
    for name in names {
        text = text.replace(name, "NAME");
    }
    text
}

/// Every request of the API for a repository that holds this content, or does not.
fn attempts(
    repository: &str,
    blob: &str,
    manifest: &str,
    upload: &str,
) -> Vec<(Method, String, &'static str)> {
    let mut all = Vec::new();
    for method in [Method::GET, Method::HEAD] {
        for path in [
            "manifests/v1".to_owned(),
            format!("manifests/{manifest}"),
            format!("blobs/{blob}"),
            "tags/list".to_owned(),
            "tags/list?n=1".to_owned(),
            format!("referrers/{manifest}"),
            format!("blobs/uploads/{upload}"),
        ] {
            all.push((method.clone(), format!("/v2/{repository}/{path}"), ""));
        }
    }
    for path in [
        "manifests/v1".to_owned(),
        format!("manifests/{manifest}"),
        format!("blobs/{blob}"),
        format!("blobs/uploads/{upload}"),
    ] {
        all.push((Method::DELETE, format!("/v2/{repository}/{path}"), ""));
    }
    all.push((Method::PUT, format!("/v2/{repository}/manifests/v1"), "{}"));
    all.push((
        Method::PUT,
        format!("/v2/{repository}/manifests/{manifest}?tag=v2"),
        "{}",
    ));
    all.push((Method::POST, format!("/v2/{repository}/blobs/uploads/"), ""));
    all.push((
        Method::POST,
        format!("/v2/{repository}/blobs/uploads/?digest={blob}"),
        "x",
    ));
    all.push((
        Method::POST,
        format!("/v2/{repository}/blobs/uploads/?mount={blob}"),
        "",
    ));
    all.push((
        Method::PATCH,
        format!("/v2/{repository}/blobs/uploads/{upload}"),
        "x",
    ));
    all.push((
        Method::PUT,
        format!("/v2/{repository}/blobs/uploads/{upload}?digest={blob}"),
        "",
    ));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_tenant_can_be_observed_with_another_s_credentials() {
    let (berth, admin) = two_tenants(settings()).await;
    let all = ["pull", "push", "delete"];
    let (mine, theirs) = (
        admin.token("acme", &["**"], &all).await,
        admin.token("other", &["**"], &all).await,
    );
    let (acme, other) = (format!("acme.{DOMAIN}"), format!("other.{DOMAIN}"));
    // What acme has; `void` is a name of the same length that nobody has.
    let (blob, manifest) = push(&berth, &acme, &mine, "data", b"secret of acme", "v1").await;
    let started =
        send(to(&berth, &acme, Method::POST, "/v2/data/blobs/uploads/").basic_auth("x-token", Some(&mine)))
            .await
            .expect(202);
    let upload = started.header("docker-upload-uuid").to_owned();
    let theirs_for_data = access_token(&berth, &other, &theirs, "repository:data:pull,push,delete").await;
    let refresh = get(
        &berth,
        &acme,
        &mine,
        "/v2/token?offline_token=true&scope=repository:data:pull",
    )
    .await
    .json();
    let refresh = refresh["refresh_token"].as_str().unwrap().to_owned();

    let mut tried = 0;
    // On acme's host, with whatever is not acme's: as if neither tenant's content were there.
    type Credential<'a> = (&'static str, Option<&'a str>, Option<&'a str>);
    let credentials: [Credential<'_>; 6] = [
        ("nothing", None, None),
        ("the other's token", Some(&theirs), None),
        ("the other's access token", None, Some(&theirs_for_data)),
        ("a refresh token as bearer", None, Some(&refresh)),
        ("no token at all", Some("wrong"), None),
        ("a token as bearer", None, Some(&mine)),
    ];
    for (what, password, bearer) in credentials {
        let ask = async |host: &str, (method, path, body): (Method, String, &'static str)| {
            let mut request = to(&berth, host, method, &path).body(body);
            if let Some(password) = password {
                // Another user each time, so that failures are not what is measured.
                request = request.basic_auth(&path, Some(password));
            }
            if let Some(bearer) = bearer {
                request = request.bearer_auth(bearer);
            }
            send(request).await
        };
        let there = attempts("data", &blob, &manifest, &upload);
        let absent = attempts("void", &blob, &manifest, &upload);
        for (there, absent) in there.into_iter().zip(absent) {
            let tried_what = format!("{what}: {} {}", there.0, there.1);
            let (a, b) = (ask(&acme, there).await, ask(&acme, absent).await);
            assert_eq!(seen(&a, &["data"]), seen(&b, &["void"]), "{tried_what}");
            assert!([401, 403].contains(&a.status.as_u16()), "{tried_what}: {a:?}");
            tried += 1;
        }
        for path in ["/v2/_catalog", "/v2/"] {
            let answer = ask(&acme, (Method::GET, path.to_owned(), "")).await;
            assert_eq!(answer.status, 401, "{what}: {path}");
            tried += 1;
        }
    }

    // On its own host the other tenant finds its own things alone, whatever it asks for by digest or name.
    push(&berth, &other, &theirs, "mine", b"of the other", "v1").await;
    let own = async |(method, path, body): (Method, String, &'static str)| {
        let request = to(&berth, &other, method, &path).basic_auth("x-token", Some(&theirs));
        send(request.body(body)).await
    };
    for (there, absent) in attempts("data", &blob, &manifest, &upload)
        .into_iter()
        .zip(attempts("void", &blob, &manifest, &upload))
    {
        let tried_what = format!("{} {}", there.0, there.1);
        if there.0 == Method::POST {
            continue;
        }
        let (a, b) = (own(there).await, own(absent).await);
        assert_eq!(seen(&a, &["data"]), seen(&b, &["void"]), "{tried_what}");
        tried += 1;
    }
    for path in [
        format!("/v2/data/blobs/uploads/?mount={blob}"),
        format!("/v2/data/blobs/uploads/?mount={blob}&from=data"),
        format!("/v2/data/blobs/uploads/?mount={blob}&from=acme/data"),
        format!("/v2/data/blobs/uploads/?mount={blob}&from=../acme/data"),
    ] {
        let answer = own((Method::POST, path, "")).await.expect(202);
        assert_eq!(answer.header("docker-content-digest"), "");
        tried += 1;
    }
    let catalog = own((Method::GET, "/v2/_catalog".to_owned(), ""))
        .await
        .expect(200);
    assert_eq!(catalog.json(), json!({ "repositories": ["mine"] }));

    // On the apex a path names the tenant: another tenant's looks like one that does not exist.
    for (there, absent) in attempts("acme/data", &blob, &manifest, &upload)
        .into_iter()
        .zip(attempts("none/data", &blob, &manifest, &upload))
    {
        for password in [None, Some(theirs.as_str())] {
            let ask = async |(method, path, body): (Method, String, &'static str)| {
                let mut request = to(&berth, DOMAIN, method, &path).body(body);
                if let Some(password) = password {
                    request = request.basic_auth(&path, Some(password));
                }
                send(request).await
            };
            let tried_what = format!("apex: {} {}", there.0, there.1);
            let (a, b) = (ask(there.clone()).await, ask(absent.clone()).await);
            assert_eq!(seen(&a, &["acme/data"]), seen(&b, &["none/data"]), "{tried_what}");
            assert_eq!(a.status, 401, "{tried_what}");
            tried += 1;
        }
    }

    // Tokens of one tenant buy nothing at the other, on any host.
    for host in [acme.as_str(), DOMAIN] {
        for scope in [
            "repository:data:pull",
            "repository:acme/data:pull",
            "registry:catalog:*",
        ] {
            let path = format!("/v2/token?scope={scope}");
            let answer = get(&berth, host, &theirs, &path).await;
            if host == DOMAIN {
                let token = answer.expect(200).json()["token"].as_str().unwrap().to_owned();
                let request = to(&berth, host, Method::GET, "/v2/acme/data/manifests/v1").bearer_auth(token);
                send(request).await.expect(401);
            } else {
                answer.expect(401);
            }
            tried += 1;
        }
    }
    // Hosts that are not what they seem.
    for (name, value) in [
        ("X-Forwarded-Host", acme.as_str()),
        ("Forwarded", &format!("host={acme}")),
        ("X-Original-Host", acme.as_str()),
        ("X-Host", acme.as_str()),
    ] {
        let request = to(&berth, &other, Method::GET, "/v2/data/manifests/v1").header(name, value);
        send(request.basic_auth("x-token", Some(&theirs)))
            .await
            .expect(404);
        let request = to(&berth, &other, Method::GET, "/v2/data/manifests/v1").header(name, value);
        send(request.basic_auth("x-token", Some(&mine))).await.expect(401);
        tried += 2;
    }
    assert!(tried >= 200, "{tried} attempts");
    println!("{tried} attempts, none of which showed anything");

    // And acme's things are as they were.
    get(&berth, &acme, &mine, "/v2/data/manifests/v1")
        .await
        .expect(200);
    get(&berth, &acme, &mine, &format!("/v2/data/blobs/uploads/{upload}"))
        .await
        .expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_belongs_to_who_started_it() {
    let (berth, admin) = two_tenants(settings().backend(Backend::Embedded)).await;
    let grants = json!([{ "repositories": ["**"], "actions": ["push"] }]);
    let host = format!("acme.{DOMAIN}");
    let mut tokens = Vec::new();
    for name in ["one", "two"] {
        let body = json!({ "name": name, "grants": grants });
        let made = admin
            .ask(Method::POST, "tenants/acme/tokens", Some(body))
            .await
            .expect(200)
            .json();
        tokens.push(made["token"].as_str().unwrap().to_owned());
    }
    let started = to(&berth, &host, Method::POST, "/v2/app/blobs/uploads/").basic_auth("", Some(&tokens[0]));
    let location = send(started).await.expect(202).header("location").to_owned();

    for (method, path) in [
        (Method::GET, location.clone()),
        (Method::PATCH, location.clone()),
        (
            Method::PUT,
            format!("{location}?digest={}", harness::content::sha256(b"")),
        ),
        (Method::DELETE, location.clone()),
    ] {
        let other = to(&berth, &host, method, &path).basic_auth("", Some(&tokens[1]));
        assert_eq!(send(other).await.expect(404).error_code(), "BLOB_UPLOAD_UNKNOWN");
    }
    send(to(&berth, &host, Method::GET, &location).basic_auth("", Some(&tokens[0])))
        .await
        .expect(204);
}
