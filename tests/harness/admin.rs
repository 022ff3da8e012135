//! The admin API of a registry under test.

use reqwest::Method;
use serde_json::{Value, json};

use crate::berth::Berth;
use crate::http::{Answer, client, send};

/// Speaks with the admin key.
#[derive(Debug, Clone)]
pub struct Admin {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Admin {
    /// The admin API of this server.
    ///
    /// # Panics
    /// If its key cannot be read.
    pub fn of(berth: &Berth) -> Admin {
        let key = std::fs::read_to_string(berth.data().join("keys/admin")).expect("the admin key");
        Admin {
            http: client(),
            base: berth.admin_url("/admin/v1/"),
            key: key.trim().to_owned(),
        }
    }

    /// One request; `path` without `/admin/v1/`.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        send(request).await
    }

    /// Makes a tenant what `spec` says.
    pub async fn put_tenant(&self, name: &str, spec: Value) {
        self.put(&format!("tenants/{name}"), spec).await;
    }

    /// Makes an object what `spec` says.
    pub async fn put(&self, path: &str, spec: Value) {
        self.ask(Method::PUT, path, Some(json!({ "spec": spec })))
            .await
            .expect(200);
    }

    /// A new token of a tenant.
    ///
    /// # Panics
    /// If it is not made.
    pub async fn token(&self, tenant: &str, repositories: &[&str], actions: &[&str]) -> String {
        let grants = json!([{ "repositories": repositories, "actions": actions }]);
        let made = self
            .ask(
                Method::POST,
                &format!("tenants/{tenant}/tokens"),
                Some(json!({ "name": "test", "grants": grants })),
            )
            .await
            .expect(200)
            .json();
        made["token"].as_str().expect("a token").to_owned()
    }

    /// The id of a token.
    pub fn id_of(token: &str) -> &str {
        token.split('_').nth(1).expect("a token has an id")
    }
}
