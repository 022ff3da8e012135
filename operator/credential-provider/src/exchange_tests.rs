use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::account::tests::token;

/// A server that gives these answers, a connection each, and tells what it was asked.
struct Server {
    origin: Url,
    asked: JoinHandle<Vec<String>>,
}

impl Server {
    /// `ORIGIN` in an answer stands for the server's own.
    async fn with(answers: &[String]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let answers: Vec<String> = answers
            .iter()
            .map(|answer| answer.replace("ORIGIN", &origin))
            .collect();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !is_whole(&request) && stream.read_buf(&mut request).await.expect("a request") > 0 {}
                asked.push(String::from_utf8(request).expect("text"));
                // Whoever asked may have heard enough.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            asked
        });
        let origin = Url::parse(&origin).expect("a URL");
        Server { origin, asked }
    }

    async fn exchange(&self, token: &str) -> Result<Exchanged, ExchangeError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_certs_only([])
            .build()
            .expect("a client");
        let image: Image = "acme.r.test/team/app:v1".parse().expect("an image");
        let account = Account::of(token).expect("a token");
        exchange(&http, &self.origin, &image, &account).await
    }

    async fn refusal(&self, token: &str) -> String {
        let told = self.exchange(token).await.err().expect("a refusal").to_string();
        assert!(
            !told.contains(token) && !told.contains(char::is_control),
            "{told}"
        );
        told
    }
}

/// Whether a request has come to its end.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
    let length = length.lines().next().unwrap_or("0");
    body.len() >= length.parse().expect("a length")
}

fn answer(status: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{header}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn challenge() -> String {
    let header = "WWW-Authenticate: Bearer realm=\"ORIGIN/v2/token\",service=\"acme.r.test\"\r\n";
    answer("401 Unauthorized", header, "")
}

fn account() -> String {
    let account = json!({ "namespace": "build", "serviceaccount": { "name": "ci" } });
    token(&json!({ "aud": ["r.test"], "kubernetes.io": account }))
}

#[tokio::test]
async fn a_token_is_exchanged_for_a_password_of_the_repository_alone() {
    let issued = json!({
        "token": "a", "scope": "repository:team/app:metadata,pull", "confined_token": "p", "confined_expires_in": 1800,
    });
    let server = Server::with(&[challenge(), answer("200 OK", "", &issued.to_string())]).await;
    let token = account();
    let Ok(Exchanged::Password {
        token: password,
        life,
    }) = server.exchange(&token).await
    else {
        panic!("no password");
    };
    assert_eq!((password.as_str(), life.as_secs()), ("p", 1800));
    let asked = server.asked.await.expect("both requests");
    assert!(
        asked[0].starts_with("GET /v2/ ") && !asked[0].contains(&token),
        "{}",
        asked[0]
    );
    let (head, body) = asked[1].split_once("\r\n\r\n").expect("a body");
    assert!(
        head.starts_with("POST /v2/token ") && !head.contains(&token),
        "{head}"
    );
    let form: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let value = |name: &str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(value("scope"), Some("repository:team/app:pull"));
    assert_eq!(value("access_type"), Some("confined"));
    assert_eq!(value("username"), Some("sa/build/ci"));
    assert_eq!(value("password"), Some(token.as_str()));
    assert_eq!(value("service"), Some("acme.r.test"));
}

#[tokio::test]
async fn a_registry_that_asks_for_nothing_gets_nothing() {
    let server = Server::with(&[answer("200 OK", "", "{}")]).await;
    assert!(matches!(
        server.exchange(&account()).await,
        Ok(Exchanged::NotNeeded)
    ));
    assert_eq!(server.asked.await.expect("a request").len(), 1);
}

#[tokio::test]
async fn a_token_goes_to_no_other_place_than_the_host_s_own_token_endpoint() {
    let elsewhere = "WWW-Authenticate: Bearer realm=\"https://evil.test/token\"\r\n";
    for (first, told) in [
        (answer("401 Unauthorized", elsewhere, ""), "evil.test"),
        (answer("401 Unauthorized", "", ""), "asks for no Bearer token"),
        (
            answer("307 Temporary Redirect", "Location: ORIGIN/elsewhere\r\n", ""),
            "307",
        ),
        (answer("404 Not Found", "", "<html>"), "404"),
    ] {
        // The server ends after the one request: a second one would find nobody.
        let server = Server::with(&[first]).await;
        let token = account();
        let refusal = server.refusal(&token).await;
        assert!(refusal.contains(told) && refusal.contains("/v2/"), "{refusal}");
        assert!(!server.asked.await.expect("a request").concat().contains(&token));
    }
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    let redirect = answer("307 Temporary Redirect", "Location: ORIGIN/elsewhere\r\n", "");
    let server = Server::with(&[challenge(), redirect]).await;
    assert!(server.refusal(&account()).await.contains("307"));
    assert_eq!(server.asked.await.expect("two requests").len(), 2);
}

#[tokio::test]
async fn an_account_that_is_not_trusted_is_told_why_and_what_to_change() {
    let token = account();
    let echo = json!({ "errors": [{ "message": format!("no trust\nrule accepts {token}") }] });
    let server = Server::with(&[challenge(), answer("401 Unauthorized", "", &echo.to_string())]).await;
    let told = server.refusal(&token).await;
    for part in [
        "sa/build/ci",
        "no trustrule accepts (the token)",
        "Tenant.spec.trust",
        "r.test",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn an_account_without_a_grant_is_told_so() {
    for issued in [
        json!({ "token": "a", "scope": "" }),
        json!({ "token": "a", "scope": "repository:team/app:metadata", "confined_token": "p", "confined_expires_in": 9 }),
    ] {
        let server = Server::with(&[challenge(), answer("200 OK", "", &issued.to_string())]).await;
        let told = server.refusal(&account()).await;
        for part in ["sa/build/ci", "acme.r.test/team/app", "grants"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}

#[tokio::test]
async fn a_registry_that_knows_no_confined_tokens_is_named() {
    let issued = json!({ "token": "a", "scope": "repository:team/app:pull" }).to_string();
    let server = Server::with(&[challenge(), answer("200 OK", "", &issued)]).await;
    assert!(server.refusal(&account()).await.contains("no confined tokens"));
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again_later() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let server = Server::with(&[challenge(), answer(status, "", "busy")]).await;
        let told = server.refusal(&account()).await;
        assert!(
            told.contains(&status[..3]) && told.contains("asks again"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_no_token_is_refused() {
    let long = format!("{{\"pad\":\"{}\"}}", "x".repeat(ANSWER_LIMIT));
    for (body, told) in [
        (long.as_str(), "more than"),
        ("<html>", "no token"),
        ("[]", "no token"),
    ] {
        let server = Server::with(&[challenge(), answer("200 OK", "", body)]).await;
        let refusal = server.refusal(&account()).await;
        assert!(refusal.contains(told), "{refusal}");
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_named() {
    let mut server = Server::with(&[]).await;
    (&mut server.asked).await.expect("no request");
    let origin = server.origin.clone();
    let told = server.refusal(&account()).await;
    assert!(
        told.contains(origin.as_str()) && told.to_lowercase().contains("connect"),
        "{told}"
    );
}
