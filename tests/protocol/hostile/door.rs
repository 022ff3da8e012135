//! Requests that did not begin on this machine find the open registry closed.

use harness::http::send;
use reqwest::Method;

use super::Target;

#[tokio::test]
async fn a_proxy_s_headers_close_the_open_mode() {
    let target = Target::start().await;

    for header in [
        "Forwarded: for=127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Proto: http",
        "x-forwarded-anything: ",
        "X-FORWARDED-FOR: ::1",
    ] {
        for (method, path) in [
            ("GET", "/v2/"),
            ("GET", "/v2/team-a/app/manifests/v1"),
            ("GET", "/v2/_catalog"),
            ("POST", "/v2/team-a/app/blobs/uploads/"),
            ("DELETE", "/v2/team-a/app/manifests/v1"),
        ] {
            let said = target
                .say(format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n\r\n"
                ))
                .await;
            assert_eq!(said.status, 401, "{method} {path} {header}: {said:?}");
            assert!(
                said.text.to_lowercase().contains("www-authenticate: "),
                "{said:?}"
            );
        }
    }
    target.survived().await;
}

#[tokio::test]
async fn a_host_that_is_not_this_machine_closes_the_open_mode() {
    let target = Target::start().await;
    let close = "Connection: close\r\n\r\n";

    for head in [
        "GET /v2/ HTTP/1.1\r\nHost: registry.example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: localhost.example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1.example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: example.com:localhost\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: localhost@example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: localhost:5000@example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: localhost:5000.example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: [::1]example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: [::1].example.com:5000\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: 10.0.0.1\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: 0.0.0.0\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: [::ffff:10.0.0.1]\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: \r\n",
        "GET /v2/ HTTP/1.1\r\n",
        "GET /v2/ HTTP/1.0\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nHost: registry.example.com\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: registry.example.com\r\nHost: localhost\r\n",
        "GET http://registry.example.com/v2/ HTTP/1.1\r\nHost: localhost\r\n",
        "GET http://localhost/v2/ HTTP/1.1\r\nHost: registry.example.com\r\n",
        "GET http://localhost:5000@registry.example.com/v2/ HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let said = target.say(format!("{head}{close}")).await;
        assert!([400, 401, 404].contains(&said.status), "{head}: {said:?}");
    }
    // Two hosts are no request at all, also where both are this machine.
    let said = target
        .say(format!(
            "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n{close}"
        ))
        .await;
    assert_eq!(said.status, 400);
    // A credential that means nothing opens nothing, and the open mode needs none.
    let request = target.repository.request(Method::GET, "tags/list");
    send(request.basic_auth("x-token", Some("berth_x_y")))
        .await
        .expect(200);
    let said = target
        .say(format!(
            "GET /v2/ HTTP/1.1\r\nHost: registry.example.com\r\nAuthorization: Basic eDp5\r\n{close}"
        ))
        .await;
    assert_eq!(said.status, 404);
    target.survived().await;
}

#[tokio::test]
async fn open_never_closes_it_for_everybody() {
    let berth = harness::Berth::builder().flag("--open", "Never").start().await;
    let repository = harness::http::Repository::new(&berth.url(""), "app");

    send(repository.at(Method::GET, "/v2/")).await.expect(401);
    let refused = repository.get("tags/list").await.expect(401);
    assert_eq!(refused.error_code(), "UNAUTHORIZED");
    send(repository.request(Method::POST, "blobs/uploads/"))
        .await
        .expect(401);
}
