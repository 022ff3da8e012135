//! Alerts and the dashboard ask for metrics that exist.

use std::collections::BTreeSet;

use harness::http::{attempt, client};
use harness::{Backend, Berth};

use super::{DISTRIBUTED, chart, checkout, find, objects, read};

/// Names of ours in an expression or a text of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_part(letter))
        .filter(|word| word.starts_with("berth_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// What alerts and dashboard ask for.
fn asked() -> BTreeSet<String> {
    let objects = objects(&["--set", "metrics.prometheusRule.enabled=true"]);
    let alerts = find(&objects, "PrometheusRule", "berth")["spec"].to_string();
    let dashboard = read(&chart("files/dashboards/berth.json"));
    names(&alerts).into_iter().chain(names(&dashboard)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_and_dashboard_ask_for_metrics_that_a_registry_serves() {
    let berth = Berth::start(Backend::Embedded).await;
    // Counters by label appear with the first request.
    let _ = attempt(client().get(berth.url("/v2/"))).await;
    let served = attempt(client().get(berth.ops_url("/metrics")))
        .await
        .expect("metrics")
        .text();
    let served = names(&served);
    for name in asked().iter().filter(|name| !name.starts_with("berth_operator_")) {
        assert!(served.contains(name), "{name} is not served: {served:?}");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_the_operator_registers() {
    let source = read(&checkout("operator/src/metrics.rs"));
    let asked = asked();
    let asked: Vec<&str> = asked
        .iter()
        .filter_map(|name| name.strip_prefix("berth_operator_"))
        .collect();
    assert!(asked.len() > 3, "{asked:?}");
    for name in asked {
        let base = name.trim_end_matches("_total").trim_end_matches("_bucket");
        assert!(source.contains(&format!("\"{base}\"")), "{name}");
    }
}

#[test]
fn the_dashboard_is_json_and_is_put_in_as_it_is() {
    let stored: serde_json::Value =
        serde_json::from_str(&read(&chart("files/dashboards/berth.json"))).expect("JSON");
    let objects = objects(&["--set", "metrics.dashboard.enabled=true"]);
    let map = find(&objects, "ConfigMap", "berth-system-berth-dashboard");
    let text = map["data"]["berth.json"].as_str().expect("text");
    assert!(serde_json::from_str::<serde_json::Value>(text).expect("JSON") == stored);
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
}

#[test]
fn an_alert_may_be_left_out_and_the_volume_is_watched_where_there_is_one() {
    let alerts = |more: &[&str]| -> Vec<String> {
        let fixed = ["--set", "metrics.prometheusRule.enabled=true"];
        let objects = objects(&[&fixed, more].concat());
        let rules = &find(&objects, "PrometheusRule", "berth")["spec"]["groups"][0]["rules"];
        let rules = rules.as_array().expect("rules").iter();
        rules
            .map(|rule| rule["alert"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert!(alerts(&[]).contains(&"BerthVolumeFilling".to_owned()));
    assert!(!alerts(&["--set", DISTRIBUTED]).contains(&"BerthVolumeFilling".to_owned()));
    let without = alerts(&["--set", "metrics.prometheusRule.disabled={BerthManifestsSlow}"]);
    assert_eq!(without.len() + 1, alerts(&[]).len());
    assert!(!without.contains(&"BerthManifestsSlow".to_owned()));
}
