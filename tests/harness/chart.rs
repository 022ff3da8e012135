//! The chart as `helm template` renders it.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize as _;
use serde_json::Value;

use crate::environment::program;

/// The chart's folder.
pub fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/berth")
}

/// All objects of a release. A value is `path=value`, as for `--set-string`; in a path `\.` is a dot of a key.
///
/// # Panics
/// If it does not render.
pub fn render(release: &str, namespace: &str, values: &[String]) -> Vec<Value> {
    let mut helm = Command::new(program("helm"));
    helm.args([
        "template",
        release,
        "--namespace",
        namespace,
        "--kube-version",
        "1.37.2",
    ]);
    for value in values {
        helm.args(["--set", value]);
    }
    let output = helm.arg(chart()).output().expect("helm runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let documents = serde_yaml::Deserializer::from_str(&text);
    let objects = documents.map(|document| Value::deserialize(document).expect("YAML"));
    objects.filter(|object| !object.is_null()).collect()
}

/// The value by which the chart passes a flag of the operator on, if it knows it.
pub fn value_of(flag: &str) -> Option<String> {
    let (name, value) = flag.strip_prefix("--")?.split_once('=')?;
    let path = match name {
        "exposure" => "exposure.mode",
        "gateway" => "exposure.gateway.name",
        "gateway-namespace" => "exposure.gateway.namespace",
        "gateway-section" => "exposure.gateway.sectionName",
        "ingress-class" => "exposure.ingress.className",
        "namespaces" => return Some(format!("operator.namespaces={{{value}}}")),
        "route-annotation" => {
            let (key, value) = value.split_once('=')?;
            return Some(format!(
                "exposure.routeAnnotations.{}={value}",
                key.replace('.', "\\.")
            ));
        }
        _ => return None,
    };
    Some(format!("{path}={value}"))
}

/// Arguments of the operator's container.
///
/// # Panics
/// If the chart renders no operator.
pub fn operator_arguments(objects: &[Value]) -> Vec<String> {
    let operator = objects.iter().find(|object| {
        object["kind"] == "Deployment"
            && object["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
    });
    let arguments = &operator.expect("an operator")["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array().expect("arguments").iter();
    arguments
        .map(|argument| argument.as_str().expect("text").to_owned())
        .collect()
}
