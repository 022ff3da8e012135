//! Helm: charts as OCI artifacts.

use harness::{Backend, Berth, Client};

use super::tags;

on_both_backends!(pushes_and_pulls_a_chart);

async fn pushes_and_pulls_a_chart(backend: Backend) {
    let berth = Berth::start(backend).await;
    let helm = Client::new("helm");
    let registry_config = helm.path_text("registry.json");
    let helm = helm.variable("HELM_REGISTRY_CONFIG", &registry_config);
    let chart =
        "apiVersion: v2\nname: demo\nversion: 1.2.3+build.7\ndescription: A demo\ntype: application\n";
    helm.file("demo/Chart.yaml", chart.as_bytes());
    helm.file(
        "demo/templates/notes.yaml",
        b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: demo}\n",
    );
    helm.run(&["package", "demo"]).await;
    let package = "demo-1.2.3+build.7.tgz";
    let charts = format!("oci://{}/charts", berth.address());

    helm.run(&["push", "--plain-http", package, &charts]).await;

    // A tag may not hold a plus sign: Helm writes an underscore and reads it back.
    assert_eq!(tags(&berth, "charts/demo").await, ["1.2.3_build.7"]);
    let demo = format!("{charts}/demo");
    let version = ["--version", "1.2.3+build.7", "--plain-http"];
    helm.file("pulled/.keep", b"");
    helm.run(&[&["pull", &demo, "-d", "pulled"], &version[..]].concat())
        .await;
    let read = |name: &str| std::fs::read(helm.path(name)).expect("a chart archive");
    assert!(
        read(package) == read(&format!("pulled/{package}")),
        "the chart came back with other bytes"
    );
    helm.run(&[&["pull", &demo, "--untar", "--untardir", "pulled"], &version[..]].concat())
        .await;
    let pulled = std::fs::read_to_string(helm.path("pulled/demo/Chart.yaml")).expect("the pulled chart");
    assert!(pulled.contains("version: 1.2.3+build.7"), "{pulled}");
    let shown = helm
        .run(&[&["show", "chart", &demo], &version[..]].concat())
        .await
        .text();
    assert!(shown.contains("description: A demo"), "{shown}");
}
