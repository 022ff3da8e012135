//! Values that make no sense are refused before anything is rendered, and the message says where.

use super::{DISTRIBUTED, template};

/// Values, and what the message must name.
const REFUSED: &[(&str, &[&str])] = &[
    ("registrry.mode=embedded", &["registrry"]),
    ("registry.mode=clustered", &["/registry/mode", "distributed"]),
    (
        "registry.mode=distributed",
        &["/registry/metadata/existingSecret", "/registry/blobs/url"],
    ),
    (
        "registry.metadata.existingSecret=db",
        &["/registry/metadata/existingSecret"],
    ),
    (
        "registry.autoscaling.enabled=true",
        &["/registry/autoscaling/enabled"],
    ),
    (
        "registry.autoscaling.minReplicas=1",
        &["/registry/autoscaling/minReplicas"],
    ),
    ("registry.blobs.url=folder:/data", &["/registry/blobs/url"]),
    (
        "registry.persistence.accessModes={ReadOnlyMany}",
        &["/registry/persistence/accessModes/0"],
    ),
    ("registry.persistence.size=lots", &["/registry/persistence/size"]),
    ("registry.redirect=Sometimes", &["/registry/redirect"]),
    (
        "registry.regions.regions[0].name=eu,registry.regions.regions[0].blobs=s3://eu",
        &["/registry/regions"],
    ),
    (
        "registry.regions.regions[0].name=EU,registry.mode=distributed",
        &["/registry/regions/regions/0/name"],
    ),
    (
        "registry.regions.regions[0].name=eu,registry.regions.regions[0].bucket=s3://eu,registry.mode=distributed",
        &["/registry/regions/regions/0", "bucket"],
    ),
    ("registry.zone=a zone", &["/registry/zone"]),
    ("registry.readOnly.enabled=true", &["/registry/readOnly/enabled"]),
    (
        "registry.readOnly.primary=registry.example.com",
        &["/registry/readOnly/primary"],
    ),
    ("registry.uploadMemory=1Gi", &["/registry/uploadMemory"]),
    (
        "registry.trustedProxies={everyone}",
        &["/registry/trustedProxies/0"],
    ),
    ("registry.extraArgs.listen=x", &["/registry/extraArgs", "listen"]),
    (
        "registry.extraArgs.--tls-cert=x",
        &["/registry/extraArgs", "--tls-cert"],
    ),
    ("registry.service.port=0", &["/registry/service/port"]),
    ("registry.service.type=ExternalName", &["/registry/service/type"]),
    (
        "registry.topologySpread.zone=Maybe",
        &["/registry/topologySpread/zone"],
    ),
    (
        "registry.terminationGracePeriodSeconds=305",
        &["registry.terminationGracePeriodSeconds"],
    ),
    ("operator.replicas=0", &["/operator/replicas"]),
    ("operator.concurrency=0", &["/operator/concurrency"]),
    ("operator.tokenGrace=1d", &["/operator/tokenGrace"]),
    ("operator.namespaces={kube-system}", &["/operator/namespaces/0"]),
    ("operator.namespaces={berth-system}", &["operator.namespaces"]),
    (
        "operator.extraArgs.keys-secret=x",
        &["/operator/extraArgs", "keys-secret"],
    ),
    ("exposure.mode=loadbalancer", &["/exposure/mode"]),
    ("exposure.mode=gateway", &["/exposure/gateway/name"]),
    (
        "exposure.mode=gateway,exposure.gateway.create=true",
        &[
            "/exposure/gateway/className",
            "/exposure/gateway/tls/certificateRefs",
        ],
    ),
    (
        "exposure.mode=gateway,exposure.gateway.create=true,exposure.gateway.className=c,\
         exposure.gateway.tls.enabled=false,exposure.gateway.namespace=infra",
        &["/exposure/gateway/namespace"],
    ),
    (
        "exposure.routeAnnotations.buffered=true",
        &["/exposure/routeAnnotations/buffered"],
    ),
    ("domain=Registry.example.com", &["/domain"]),
    ("domain=registry.example.com:5000", &["/domain"]),
    ("externalScheme=ftp", &["/externalScheme"]),
    ("externalPort=70000", &["/externalPort"]),
    (
        "fullnameOverride=this-name-is-so-long-that-nothing-could-be-added-to-it",
        &["/fullnameOverride"],
    ),
    ("image.digest=sha256:abc", &["/image/digest"]),
    ("image.pullPolicy=Sometimes", &["/image/pullPolicy"]),
    ("keys.rotation=never", &["/keys/rotation"]),
    (
        "networkPolicy.apiServer.ports={0}",
        &["/networkPolicy/apiServer/ports/0"],
    ),
    (
        "metrics.podMonitor.interval=often",
        &["/metrics/podMonitor/interval"],
    ),
    ("nodeMirrors.hostsDir=certs.d", &["/nodeMirrors/hostsDir"]),
    ("nodeMirrors.hostsDir=/etc/../root", &["/nodeMirrors/hostsDir"]),
    ("nodeMirrors.hostsDir=/", &["/nodeMirrors/hostsDir"]),
    ("nodeMirrors.endpoint=https://a.b", &["/nodeMirrors/endpoint"]),
    (
        "nodeMirrors.mirrors[0].upstream=docker.io",
        &["/nodeMirrors/mirrors/0", "tenant", "endpoint"],
    ),
    (
        "nodeMirrors.mirrors[0].upstream=a/b,nodeMirrors.mirrors[0].tenant=acme",
        &["/nodeMirrors/mirrors/0/upstream"],
    ),
    (
        "nodeMirrors.mirrors[0].upstream=docker.io,nodeMirrors.mirrors[0].endpoint=https://a.b/acme",
        &["/nodeMirrors/mirrors/0/endpoint"],
    ),
    (
        "nodeMirrors.mirrors[0].upstream=a.b,nodeMirrors.mirrors[0].tenant=acme,\
         nodeMirrors.mirrors[1].upstream=a.b,nodeMirrors.mirrors[1].tenant=acme",
        &["nodeMirrors.mirrors", "a.b twice"],
    ),
    (
        "admissionPolicy.reservedNames={a.b}",
        &["/admissionPolicy/reservedNames/0"],
    ),
];

#[test]
fn values_that_make_no_sense_are_refused_and_the_message_says_where() {
    for (values, named) in REFUSED {
        let output = template("berth", &["--set", values]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values} was taken");
        for name in *named {
            assert!(message.contains(name), "{values}: no {name} in {message}");
        }
    }
}

#[test]
fn a_distributed_registry_has_at_least_two_replicas() {
    let one = template("berth", &["--set", DISTRIBUTED, "--set", "registry.replicas=1"]);
    assert!(!one.status.success());
    assert!(String::from_utf8_lossy(&one.stderr).contains("/registry/replicas"));
}

#[test]
fn what_only_reads_has_the_keys_of_its_primary_and_routes_that_no_operator_makes() {
    let reads = "registry.readOnly.enabled=true";
    let edge = "keys.secretName=copied,exposure.mode=ingress";
    for (values, named) in [
        ("exposure.mode=none", "keys.secretName"),
        (edge, "exposure.perTenantRoutes"),
    ] {
        let output = template("berth", &["--set", DISTRIBUTED, "--set", reads, "--set", values]);
        assert!(!output.status.success(), "{values} was taken");
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{named}");
    }
}

#[test]
fn an_autoscaler_needs_room() {
    let bounds = "registry.autoscaling.enabled=true,registry.autoscaling.minReplicas=5,registry.autoscaling.maxReplicas=4";
    let output = template("berth", &["--set", DISTRIBUTED, "--set", bounds]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("minReplicas"));
}

#[test]
fn an_autoscaler_needs_something_to_go_by() {
    let blind = "registry.autoscaling.enabled=true,registry.autoscaling.targetCPUUtilizationPercentage=0";
    let output = template("berth", &["--set", DISTRIBUTED, "--set", blind]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("targetCPUUtilizationPercentage"));
    let metric = r#"registry.autoscaling.metrics=[{"type":"External"}]"#;
    let output = template(
        "berth",
        &["--set", DISTRIBUTED, "--set", blind, "--set-json", metric],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_cluster_that_is_too_old_is_refused() {
    let output = template("berth", &["--kube-version", "v1.32.9"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("1.33"));
}
