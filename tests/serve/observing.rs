//! Metrics, probes, request ids, the admin listener's door.

use harness::http::{Repository, client, send};
use harness::{Backend, Berth, Image};
use reqwest::Method;

#[tokio::test]
async fn metrics_count_what_was_asked_and_say_how_the_process_is() {
    let berth = Berth::builder().flag("--upload-memory", "64MiB").start().await;
    let repository = Repository::new(&berth.url(""), "app");
    Image::new(1, 1000).push(&repository, "v1").await;
    for _ in 0..3 {
        repository.get_manifest("v1").await.expect(200);
    }
    repository.get_manifest("absent").await.expect(404);

    let answer = send(client().get(berth.ops_url("/metrics"))).await.expect(200);

    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    for line in [
        r#"berth_http_requests_total{method="GET",route="manifest",status="2xx"} 3"#,
        r#"berth_http_requests_total{method="GET",route="manifest",status="4xx"} 1"#,
        r#"berth_http_requests_total{method="PUT",route="manifest",status="2xx"} 1"#,
        r#"berth_http_request_duration_seconds_count{route="manifest"} 5"#,
        "berth_http_requests_in_flight 0",
        "berth_upload_memory_bytes 67108864",
        "berth_upload_memory_free_bytes 67108864",
        "berth_http_sent_bytes_total ",
        "berth_http_received_bytes_total ",
        "berth_build_info{version=",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn probes_answer_and_nothing_else_is_at_the_ops_listener() {
    for backend in Backend::BOTH {
        let berth = Berth::start(backend).await;
        for (path, status) in [("/livez", 200), ("/readyz", 200), ("/v2/", 404), ("/", 404)] {
            send(client().get(berth.ops_url(path))).await.expect(status);
        }
        let ready = send(client().get(berth.ops_url("/readyz"))).await;
        assert_eq!(ready.json(), serde_json::json!({"ready": true}));
    }
}

#[tokio::test]
async fn the_admin_api_needs_its_key_for_everything() {
    let berth = Berth::start(Backend::Embedded).await;
    let key = std::fs::read_to_string(berth.data().join("keys/admin")).expect("the key");
    let key = key.trim();
    let ask = async |path: &str, authorization: &str| {
        let request = client().get(berth.admin_url(path));
        send(request.header("Authorization", authorization)).await
    };

    for path in ["/admin/v1/state", "/admin/v1/nothing", "/"] {
        send(client().get(berth.admin_url(path))).await.expect(401);
        for wrong in [
            "Bearer wrong",
            "Bearer ",
            "Basic x",
            key,
            &format!("Bearer {}", &key[1..]),
        ] {
            let refused = ask(path, wrong).await.expect(401);
            assert!(
                refused.header("www-authenticate").starts_with("Bearer"),
                "{wrong}"
            );
        }
    }
    let state = ask("/admin/v1/state", &format!("Bearer {key}"))
        .await
        .expect(200)
        .json();
    assert_eq!(state["objects"][0]["tenant"], "default");
    ask("/admin/v1/nothing", &format!("Bearer {key}"))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_request_s_id_comes_back_and_stands_in_the_log() {
    let mut berth = Berth::start(Backend::Embedded).await;
    let repository = Repository::new(&berth.url(""), "app");

    let mine = repository
        .request(Method::GET, "tags/list")
        .header("X-Request-Id", "from-the-client-7");
    let mine = send(mine).await;
    let made = send(repository.request(Method::GET, "tags/list")).await;

    assert_eq!(mine.header("x-request-id"), "from-the-client-7");
    let id = made.header("x-request-id").to_owned();
    assert!(id.len() >= 16);
    berth.terminate(std::time::Duration::from_secs(20)).await;
    for id in ["from-the-client-7", &id] {
        let named = berth.log().lines().filter(|line| line.contains(id)).count();
        assert_eq!(named, 1, "one line a request");
    }
}

#[tokio::test]
async fn the_log_says_of_every_answer_that_went_out_whole_that_it_is_complete() {
    let mut berth = Berth::builder().flag("--log-format", "json").start().await;
    let repository = Repository::new(&berth.url(""), "app");
    let content = vec![7; 3 << 20];
    let digest = repository.push_blob(&content).await;
    let path = format!("blobs/{digest}");
    let whole = send(repository.request(Method::GET, &path)).await.expect(200);
    assert_eq!(whole.body.len(), content.len());
    let part = repository
        .request(Method::GET, &path)
        .header("Range", "bytes=5-99");
    send(part).await.expect(206);
    send(repository.request(Method::HEAD, &path)).await.expect(200);

    berth.terminate(std::time::Duration::from_secs(20)).await;
    let log = berth.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of_blob = lines.iter().filter(|line| {
        line["path"]
            .as_str()
            .is_some_and(|target| target.ends_with(&path))
    });
    let told: Vec<_> = of_blob
        .map(|line| (line["sent"].as_u64(), line["complete"].as_bool()))
        .collect();
    let complete = Some(true);
    assert_eq!(
        told,
        [
            (Some(3 << 20), complete),
            (Some(95), complete),
            (Some(0), complete)
        ],
        "{log}"
    );
}
