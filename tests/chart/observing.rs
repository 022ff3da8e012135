//! Alerts and the dashboard ask for metrics that exist.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::http::{attempt, client};
use harness::{Backend, Berth, eventually};
use serde_json::Value;

use super::{DISTRIBUTED, chart, checkout, find, objects, read};

/// Metrics that others serve and we ask for.
const OF_OTHERS: [&str; 2] = [
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
];
/// Words of PromQL beside functions, which a parenthesis follows.
const WORDS: [&str; 12] = [
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "inf",
];

/// The names of metrics in an expression of PromQL: what is no function, no word of the language, no label and no text.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(next) = rest.chars().next() {
        match next {
            '"' => rest = rest[1..].split_once('"').expect("a text ends").1,
            // No text of ours holds a brace.
            '{' => rest = rest.split_once('}').expect("a selector ends").1,
            '[' => rest = rest.split_once(']').expect("a range ends").1,
            letter if letter.is_ascii_alphabetic() || letter == '_' => {
                let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
                let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                rest = behind.trim_start();
                let takes_labels = ["by", "without", "on", "ignoring", "group_left", "group_right"];
                if takes_labels.contains(&word) && rest.starts_with('(') {
                    rest = rest.split_once(')').expect("labels end").1;
                } else if !WORDS.contains(&word)
                    // A function, or an aggregation with its labels in front.
                    && !["(", "by ", "without "].iter().any(|next| rest.starts_with(next))
                {
                    names.insert(word.to_owned());
                }
            }
            // A number with its unit is no name.
            digit if digit.is_ascii_digit() => {
                rest =
                    rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '.');
            }
            other => rest = &rest[other.len_utf8()..],
        }
    }
    names
}

/// The rules of the chart's alerts.
fn alerts() -> Vec<Value> {
    let objects = objects(&["--set", "metrics.prometheusRule.enabled=true"]);
    let rules = &find(&objects, "PrometheusRule", "berth")["spec"]["groups"][0]["rules"];
    rules.as_array().expect("rules").clone()
}

/// All expressions of a dashboard.
fn expressions_of(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    _ => expressions_of(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions_of(item, found)),
        _ => {}
    }
}

/// What alerts and dashboard ask for, with where.
fn asked() -> Vec<(String, String)> {
    let mut asked = Vec::new();
    for rule in alerts() {
        let place = rule["alert"].as_str().expect("a name");
        let expression = rule["expr"].as_str().expect("an expression");
        asked.extend(
            metrics_of(expression)
                .into_iter()
                .map(|name| (name, place.to_owned())),
        );
    }
    let mut expressions = Vec::new();
    let dashboard = serde_json::from_str(&read(&chart("files/dashboards/berth.json"))).expect("JSON");
    expressions_of(&dashboard, &mut expressions);
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in &expressions {
        asked.extend(
            metrics_of(expression)
                .into_iter()
                .map(|name| (name, expression.clone())),
        );
    }
    asked
}

/// The names of series that a text of metrics stands for: also of families that have none yet.
fn series_of(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            let endings: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                "gauge" => &[""],
                other => panic!("{name} is a {other}"),
            };
            endings.iter().map(move |ending| format!("{name}{ending}"))
        })
        .collect()
}

/// The names in the tables of docs/observability.md.
fn documented() -> BTreeSet<String> {
    let text = read(&checkout("docs/observability.md"));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split(['`', '{']).next());
    names
        .filter(|name| name.starts_with("berth_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

async fn metrics_at(berth: &Berth) -> String {
    let metrics = attempt(client().get(berth.ops_url("/metrics"))).await;
    metrics.expect("metrics").text()
}

/// A registry that only reads, with a region, once it knows how its database stands.
async fn reader() -> Berth {
    let folder = tempfile::TempDir::with_prefix("berth-regions-").expect("a temporary folder");
    let file = folder.path().join("regions.yaml");
    std::fs::write(
        &file,
        "regions:\n- name: eu\n  blobs: s3://eu?endpoint=http://127.0.0.1:1\n",
    )
    .expect("a file");
    let primary = Berth::start(Backend::Distributed).await;
    let reader = Berth::builder()
        .storage(primary.storage().clone(), 1)
        .flag("--read-only", "true")
        .flag("--primary", "http://127.0.0.1:9")
        .flag("--regions", file.to_str().expect("a plain name"))
        .start()
        .await;
    eventually("the standby's lag", Duration::from_secs(30), async || {
        let metrics = metrics_at(&reader).await;
        metrics.contains("berth_standby_lag_seconds ").then_some(())
    })
    .await;
    reader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_serves_what_alerts_and_dashboard_ask_of_it_and_the_documents_name_it_all() {
    let berth = Berth::builder().flag("--tenant-metrics", "true").start().await;
    // Counters by label appear with the first request.
    let _ = attempt(client().get(berth.url("/v2/"))).await;
    let text = metrics_at(&berth).await;
    let mut served = series_of(&text);
    // What only those have that read from a standby, or from buckets of regions.
    served.extend(series_of(&metrics_at(&reader().await).await));
    for (name, place) in asked() {
        let is_other = name.starts_with("berth_operator_") || OF_OTHERS.contains(&name.as_str());
        assert!(
            is_other || served.contains(&name),
            "{place} asks for {name}, which is not served"
        );
    }
    let edges = |text: &str| -> BTreeSet<String> {
        let labels = text.split("le=\"").skip(1);
        labels
            .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .collect()
    };
    let asked_edges: BTreeSet<String> = alerts()
        .iter()
        .flat_map(|rule| edges(rule["expr"].as_str().expect("an expression")))
        .collect();
    assert!(
        !asked_edges.is_empty() && asked_edges.is_subset(&edges(&text)),
        "{asked_edges:?}"
    );
    // Of a histogram the documents name what its series have in common.
    let of_registry = |name: &String| !name.starts_with("berth_operator_");
    let told: BTreeSet<String> = documented().into_iter().filter(of_registry).collect();
    let plain = |name: &String| {
        let name = name.strip_suffix("_bucket").unwrap_or(name).to_owned();
        (!name.ends_with("_sum") && !name.ends_with("_count")).then_some(name)
    };
    let served: BTreeSet<String> = served.iter().filter_map(plain).collect();
    assert_eq!(told, served, "docs/observability.md and /metrics differ");
}

/// That the table of the documents and what the operator serves are the same is tested where its metrics are made.
#[test]
fn the_operator_serves_what_alerts_and_dashboard_ask_of_it() {
    let told = documented();
    let asked = asked();
    let of_operator = asked
        .iter()
        .filter(|(name, _)| name.starts_with("berth_operator_"));
    let mut many = 0;
    for (name, place) in of_operator {
        many += 1;
        let plain = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(
            told.contains(plain),
            "{place} asks for {name}, which is not served"
        );
    }
    assert!(many > 5);
}

#[test]
fn names_are_found_in_expressions_and_nothing_else_is() {
    let names = |expression| metrics_of(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        names(
            r#"sum by (le) (rate(a_bucket{x="y",z=~"b_.*"}[5m])) / on () group_left () max(c offset 2m) > 14.4 * 1e3"#
        ),
        ["a_bucket", "c"]
    );
    assert_eq!(names("time() - d:e and vector(0) unless f"), ["d:e", "f"]);
}

#[test]
fn every_alert_says_what_to_do_in_a_section_of_the_documents() {
    let text = read(&checkout("docs/observability.md"));
    let sections: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|title| format!("docs/observability.md#{}", title.to_lowercase()))
        .collect();
    let alerts = alerts();
    assert!(alerts.len() > 20);
    let mut named = BTreeSet::new();
    for rule in &alerts {
        let name = rule["alert"].as_str().expect("a name");
        let runbook = rule["annotations"]["runbook_url"].as_str().expect("a runbook");
        assert!(sections.contains(runbook), "{name}: {runbook} is no section");
        assert!(rule["annotations"]["summary"].is_string(), "{name}");
        assert!(rule["annotations"]["description"].is_string(), "{name}");
        let severity = rule["labels"]["severity"].as_str().expect("a severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}");
        named.insert(runbook.to_owned());
    }
    let of_alerts = sections.iter().filter(|section| section.contains("#berth"));
    for section in of_alerts {
        assert!(named.contains(section), "{section} is no alert's");
    }
    let elsewhere = "metrics.prometheusRule.runbooks=https://runbooks.test/berth";
    let objects = objects(&["--set", "metrics.prometheusRule.enabled=true", "--set", elsewhere]);
    let rule = &find(&objects, "PrometheusRule", "berth")["spec"]["groups"][0]["rules"][0];
    let url = &rule["annotations"]["runbook_url"];
    assert_eq!(url, "https://runbooks.test/berth#berthregistrydown");
}

#[test]
fn expressions_are_balanced_and_select_this_release_alone() {
    for rule in alerts() {
        let name = rule["alert"].as_str().expect("a name");
        let expression = rule["expr"].as_str().expect("an expression");
        for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
            let count = |wanted| expression.matches(wanted).count();
            assert_eq!(count(open), count(close), "{name}: {expression}");
        }
        let selectors = expression.matches('{').count();
        let ours = expression.matches(r#"namespace="berth-system""#).count();
        assert_eq!(selectors, ours, "{name}: {expression}");
        assert!(!metrics_of(expression).is_empty(), "{name}");
        assert!(
            !expression.contains(",,") && !expression.contains(",}"),
            "{name}: {expression}"
        );
    }
}

#[test]
fn traces_go_where_the_values_say_and_the_policy_lets_them() {
    let off = objects(&["--set", "networkPolicy.enabled=true"]);
    let text = serde_json::to_string(&off).expect("JSON");
    assert!(!text.contains("otlp-endpoint") && !text.contains("4318"));
    let on = objects(&[
        "--set",
        "networkPolicy.enabled=true,registry.tracing.endpoint=http://otel.monitoring:4318,registry.tracing.sample=0.2",
        "--set",
        "networkPolicy.tracing.to[0].namespaceSelector.matchLabels.name=monitoring",
    ]);
    let pod = &find(&on, "StatefulSet", "berth")["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments: Vec<&str> = pod
        .as_array()
        .expect("arguments")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        arguments.contains(&"--otlp-endpoint=http://otel.monitoring:4318"),
        "{arguments:?}"
    );
    assert!(arguments.contains(&"--trace-sample=0.2"), "{arguments:?}");
    let egress = &find(&on, "NetworkPolicy", "berth")["spec"]["egress"];
    let rule = egress
        .as_array()
        .expect("rules")
        .iter()
        .find(|rule| rule["ports"][0]["port"] == 4318);
    let to = &rule.expect("a rule")["to"][0]["namespaceSelector"]["matchLabels"]["name"];
    assert_eq!(to, "monitoring");
}

#[test]
fn the_dashboard_is_json_and_is_put_in_as_it_is() {
    let stored: Value = serde_json::from_str(&read(&chart("files/dashboards/berth.json"))).expect("JSON");
    let objects = objects(&["--set", "metrics.dashboard.enabled=true"]);
    let map = find(&objects, "ConfigMap", "berth-system-berth-dashboard");
    let text = map["data"]["berth.json"].as_str().expect("text");
    assert!(serde_json::from_str::<Value>(text).expect("JSON") == stored);
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
    let without = alerts(&["--set", "metrics.prometheusRule.disabled={BerthWebhooksBehind}"]);
    assert_eq!(without.len() + 1, alerts(&[]).len());
    assert!(!without.contains(&"BerthWebhooksBehind".to_owned()));
}
