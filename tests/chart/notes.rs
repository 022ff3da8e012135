//! What Helm says after an installation: the next step, for what was chosen.

use super::{DISTRIBUTED, NAMESPACE, chart, helm};

fn notes(values: &str) -> String {
    let folder = chart("");
    let folder = folder.to_str().expect("a plain path");
    let output = helm(&[
        "install",
        "berth",
        folder,
        "-n",
        NAMESPACE,
        "--dry-run=client",
        "--set",
        values,
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, notes) = text.split_once("NOTES:").expect("notes");
    notes.to_owned()
}

#[test]
fn the_notes_name_the_next_step_for_what_was_chosen() {
    let made = "exposure.mode=gateway,exposure.gateway.create=true,exposure.gateway.className=c,\
        exposure.gateway.tls.enabled=false";
    for (values, said, unsaid) in [
        (
            "externalPort=8080",
            "port-forward service/berth 8080:80",
            "WARNING",
        ),
        (
            "registry.service.type=NodePort,registry.service.nodePort=30500",
            "at port 30500",
            "port-forward",
        ),
        (
            "exposure.mode=gateway,exposure.gateway.name=edge,exposure.gateway.namespace=infra",
            "-n infra get gateway edge",
            "ingress controller",
        ),
        (
            "registry.mode=distributed,registry.metadata.existingSecret=db,registry.blobs.url=s3://blobs,\
             registry.readOnly.enabled=true,registry.readOnly.primary=https://registry.example.com,keys.secretName=copied",
            "its primary's, https://registry.example.com.",
            "kubectl create namespace",
        ),
        (made, "get gateway berth", "must admit routes"),
        (
            "exposure.mode=ingress",
            "WARNING: exposure.ingress.tlsSecret is empty",
            "get gateway",
        ),
        (
            "exposure.mode=ingress,exposure.ingress.tlsSecret=tls",
            "point to the ingress controller",
            "WARNING",
        ),
        (
            "registry.persistence.enabled=false",
            "All images are lost",
            "Back it up",
        ),
        ("crds.keep=false", "deletes every Tenant", "keeps the definitions"),
        (DISTRIBUTED, "rollout status deployment/berth", "statefulset"),
        (
            "operator.namespaces={apps}",
            "these namespaces only: apps",
            "WARNING",
        ),
    ] {
        let notes = notes(values);
        assert!(notes.contains(said), "{values}: no {said:?} in {notes}");
        assert!(!notes.contains(unsaid), "{values}: {unsaid:?} in {notes}");
    }
}
