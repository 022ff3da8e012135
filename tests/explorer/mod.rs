//! Stage `explorer`: the pages for people, over HTTP and in a real browser.
//!
//! What it is: a registry with two tenants and what clients push ([`House`]), and a visitor who follows no redirect and
//! keeps no cookie by himself ([`Visitor`]). What it may use: the harness. What must hold: a page shows what the API
//! would show to the same credential and nothing else, content is text wherever it comes from, and what changes
//! something was sent by a page of the host itself.

mod artifacts;
mod browser;
mod changes;
mod contents;
mod hostile;
mod isolation;
mod lists;
mod oidc;
mod places;
mod sessions;
mod snapshots;
mod supply;

use harness::http::{Answer, Repository, client, send};
use harness::{Admin, Berth, Builder, RoundRobin};
use http::{HeaderMap, HeaderValue};
use reqwest::Method;
use serde_json::{Value, json};

/// The domain of registries with several tenants.
const DOMAIN: &str = "localhost";

/// A registry with the tenants `acme` and `other`, each at its own host.
struct House {
    berth: Berth,
    admin: Admin,
}

/// Somebody at a tenant's host.
struct Visitor {
    base: String,
    host: String,
    headers: HeaderMap,
}

impl House {
    async fn new() -> House {
        House::of(Berth::builder()).await
    }

    async fn of(builder: Builder) -> House {
        let builder = builder
            .flag("--domain", DOMAIN)
            .flag("--external-scheme", "http")
            .flag("--apex-tenant", "none");
        let berth = builder.start().await;
        let admin = Admin::of(&berth);
        for tenant in ["acme", "other"] {
            admin.put_tenant(tenant, json!({})).await;
        }
        House { berth, admin }
    }

    /// `acme.localhost:port`.
    fn host(&self, tenant: &str) -> String {
        let port = self.berth.address().rsplit(':').next().map(str::to_owned);
        format!("{tenant}.{DOMAIN}:{}", port.expect("a port"))
    }

    /// Somebody who shows nothing.
    fn guest(&self, tenant: &str) -> Visitor {
        Visitor {
            base: self.berth.url(""),
            host: self.host(tenant),
            headers: HeaderMap::new(),
        }
    }

    /// Somebody with a token, as programs show it.
    fn program(&self, tenant: &str, token: &str) -> Visitor {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("x-token:{token}"));
        let mut visitor = self.guest(tenant);
        let value = HeaderValue::from_str(&format!("Basic {text}")).expect("a value");
        visitor.headers.insert("authorization", value);
        visitor
    }

    /// Somebody who has signed in with a token.
    async fn person(&self, tenant: &str, token: &str) -> Visitor {
        let mut visitor = self.guest(tenant);
        let answer = visitor.sign_in(token).await.expect(303);
        visitor.keep(&answer);
        visitor
    }

    /// A token that may do everything.
    async fn token(&self, tenant: &str) -> String {
        self.admin
            .token(tenant, &["**"], &["pull", "push", "delete"])
            .await
    }

    /// A repository, for whoever has this token.
    async fn repository(&self, tenant: &str, token: &str, name: &str) -> Repository {
        let mut headers = self.program(tenant, token).headers;
        headers.insert("host", HeaderValue::from_str(&self.host(tenant)).expect("a host"));
        let door = RoundRobin::adding(vec![self.berth.address()], headers).await;
        let repository = Repository::new(&format!("http://{}", door.address()), name);
        // It serves as long as the test does.
        std::mem::forget(door);
        repository
    }
}

impl Visitor {
    async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let mut request = client()
            .request(method, format!("{}{path}", self.base))
            .headers(self.headers.clone())
            .header("host", &self.host);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body);
        }
        send(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// A page's content as JSON.
    async fn json(&self, path: &str) -> Value {
        let path = path.replacen("/explorer/", "/explorer/api/", 1);
        self.get(&path).await.expect(200).json()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Sends the form to sign in by, as the page had it.
    async fn sign_in(&mut self, token: &str) -> Answer {
        let page = self.get("/explorer/sign-in").await.expect(200);
        self.keep(&page);
        let form = hidden(&page.text());
        self.post("/explorer/sign-in", &[("form", &form), ("token", token)])
            .await
    }

    /// Keeps the cookies of an answer, as a browser does.
    fn keep(&mut self, answer: &Answer) {
        let mut jar: Vec<(String, String)> = Vec::new();
        let old = self.headers.get("cookie").and_then(|value| value.to_str().ok());
        let lines = answer.headers.get_all("set-cookie").iter();
        let new = lines.filter_map(|line| line.to_str().ok()?.split(';').next());
        for pair in old.unwrap_or_default().split("; ").chain(new) {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            jar.retain(|(known, _)| known != name);
            if !value.is_empty() {
                jar.push((name.to_owned(), value.to_owned()));
            }
        }
        let text: Vec<String> = jar
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let value = HeaderValue::from_str(&text.join("; ")).expect("a value");
        self.headers.insert("cookie", value);
    }
}

/// What a page's form carries.
fn hidden(page: &str) -> String {
    let (_, rest) = page.split_once(r#"name="form" value=""#).expect("a form");
    rest.split('"').next().expect("a value").to_owned()
}
