//! Who speaks with the cluster and its edge.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::text;
use crate::client::Client;
use crate::environment::setting;
use crate::http::provide_tls;

/// `kubectl` as the cluster's administrator.
pub fn kubectl() -> Client {
    Client::new("kubectl").variable("KUBECONFIG", &setting("KUBECONFIG"))
}

/// Helm as the cluster's administrator, without a login.
pub fn helm() -> Client {
    Client::new("helm").variable("KUBECONFIG", &setting("KUBECONFIG"))
}

/// A client program with the credentials of a Secret as they are, which trusts the edge's authority.
pub fn logged_in(program: &str, secret: &Value) -> Client {
    let client = Client::new(program)
        .variable("SSL_CERT_FILE", &setting("SSL_CERT_FILE"))
        .variable("KUBECONFIG", &setting("KUBECONFIG"));
    client.file(
        ".docker/config.json",
        entry(secret, ".dockerconfigjson").as_bytes(),
    );
    client
}

/// An HTTP client that trusts the edge's authority and follows no redirect.
pub fn http() -> reqwest::Client {
    provide_tls();
    let pem = std::fs::read(setting("BERTH_TEST_EDGE_CA")).expect("the edge's authority");
    let authority = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_certs_only([authority])
        .build()
        .expect("an HTTP client")
}

/// An entry of a Secret, as text.
pub fn entry(secret: &Value, key: &str) -> String {
    let data = secret["data"][key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {secret}"));
    text(&STANDARD.decode(data).expect("base64"))
}
