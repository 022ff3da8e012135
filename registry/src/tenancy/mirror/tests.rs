use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::names::Apex;
use super::*;
use crate::metadata::TenantId;
use crate::metadata::configuration::{Object, ObjectKind};

fn object(tenant: i64, name: &str, kind: ObjectKind, object: &str, spec: &Value) -> Object {
    Object {
        tenant: TenantId(tenant),
        tenant_name: name.to_owned(),
        tenant_uid: format!("uid-{tenant}"),
        kind,
        name: object.to_owned(),
        uid: None,
        generation: 1,
        spec: Some(spec.to_string()),
        hash: String::new(),
        built_in: false,
        version: tenant,
    }
}

fn cache(prefix: &str, mirror_for: &[&str]) -> Value {
    json!({ "upstream": { "url": "https://registry-1.docker.io" }, "prefix": prefix, "mirrorFor": mirror_for })
}

/// `acme` is a mirror for the Hub and more, also for what is another tenant's; `default` for the Hub alone.
fn snapshot() -> Snapshot {
    let theirs = ["registry.other.com", "other.example.com"];
    Snapshot::default().with(vec![
        object(
            1,
            "acme",
            ObjectKind::Tenant,
            "",
            &json!({ "hosts": ["registry.acme.com"] }),
        ),
        object(1, "acme", ObjectKind::Cache, "hub", &cache("hub", &["docker.io"])),
        object(
            1,
            "acme",
            ObjectKind::Cache,
            "more",
            &cache("more/of", &["quay.io:443", "a.test:5000", "10.1.1.1:5000"]),
        ),
        object(1, "acme", ObjectKind::Cache, "theirs", &cache("theirs", &theirs)),
        object(
            2,
            "other",
            ObjectKind::Tenant,
            "",
            &json!({ "hosts": ["registry.other.com"] }),
        ),
        object(3, "default", ObjectKind::Tenant, "", &json!({})),
        object(
            3,
            "default",
            ObjectKind::Cache,
            "hub",
            &cache("docker.io", &["docker.io"]),
        ),
    ])
}

fn names(apex: Apex) -> Names {
    Names {
        domain: "example.com".into(),
        apex_hosts: vec!["berth.svc".into(), "10.9.9.9".into()],
        apex,
    }
}

fn namespace(text: &str) -> Namespace {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("ns", text)
        .finish();
    Namespace::of(&query).unwrap().unwrap()
}

/// What `app/x` is at a host by a name: tenant, repository, and by what it has come there.
fn meant(names: &Names, host: &str, ns: &str) -> String {
    let snapshot = snapshot();
    let (place, via) = match names.meant(&snapshot, host, Some(namespace(ns))) {
        Ok(meant) => meant,
        Err(Nowhere::Host(host)) => return format!("nobody at {host}"),
        Err(Nowhere::Tenant { .. }) => return "no mirror".to_owned(),
        Err(Nowhere::Apex { .. }) => return "no mirror at the apex".to_owned(),
    };
    let tenant = match &place {
        Place::Tenant(tenant) => tenant.name.as_str(),
        Place::Apex => "apex",
    };
    let name = via.repository(&"app/x".parse().unwrap()).unwrap();
    let way = match &via {
        Via::Host => "",
        Via::Mirror(_) => " mirrored",
        Via::Cache(..) => " cached",
    };
    format!("{tenant} {name}{way}")
}

#[test]
fn a_host_of_nobody_serves_the_tenant_that_ns_names() {
    let (paths, first) = (names(Apex::Paths), names(Apex::First));
    for names in [&paths, &first] {
        for host in [
            "10.96.3.4",
            "::1",
            "example.com",
            "berth.svc",
            "node-7",
            "localhost",
        ] {
            for (ns, expected) in [
                ("acme.example.com", "acme app/x mirrored"),
                ("ACME.example.com.:5000", "acme app/x mirrored"),
                ("registry.acme.com", "acme app/x mirrored"),
                ("other.example.com:80", "other app/x mirrored"),
                ("nobody.example.com", "nobody at nobody.example.com"),
                ("a.acme.example.com", "nobody at a.acme.example.com"),
            ] {
                assert_eq!(meant(names, host, ns), expected, "{host} {ns}");
            }
        }
    }
    for (host, ns, expected) in [
        // The apex has several names, which are one place.
        ("10.96.3.4", "example.com", "apex app/x"),
        ("berth.svc", "10.9.9.9:5000", "apex app/x"),
        ("node-7", "example.com:5000", "apex app/x mirrored"),
        // No tenant to be a mirror.
        ("10.96.3.4", "docker.io", "no mirror at the apex"),
        ("example.com", "10.1.1.1:5000", "no mirror at the apex"),
        ("node-7", "docker.io", "nobody at node-7"),
        ("node-7", "node-8", "nobody at node-7"),
    ] {
        assert_eq!(meant(&paths, host, ns), expected, "{host} {ns}");
    }
    for (host, ns, expected) in [
        ("localhost", "default.example.com", "default app/x mirrored"),
        ("10.96.3.4", "default.example.com", "default app/x"),
        ("10.96.3.4", "docker.io", "default docker.io/app/x cached"),
        ("10.96.3.4", "ghcr.io", "no mirror"),
    ] {
        assert_eq!(meant(&first, host, ns), expected, "{host} {ns}");
    }
}

#[test]
fn a_tenant_s_host_never_serves_another_tenant_or_another_tenant_s_name() {
    let names = names(Apex::First);
    for host in ["acme.example.com", "registry.acme.com"] {
        for ns in [
            "other.example.com",
            "registry.other.com:5000",
            "default.example.com",
            "nobody.example.com",
            "example.com",
            "berth.svc",
            "10.9.9.9",
        ] {
            assert_eq!(meant(&names, host, ns), "no mirror", "{host} {ns}");
        }
        for ns in [host, "acme.example.com:5000", "registry.acme.com"] {
            assert_eq!(meant(&names, host, ns), "acme app/x", "{host} {ns}");
        }
    }
    // Also where no tenant of the name is, or is any more.
    assert_eq!(
        meant(&names, "gone.example.com", "acme.example.com"),
        "nobody at gone.example.com"
    );
}

#[test]
fn a_tenant_s_host_is_a_mirror_for_what_its_caches_list() {
    let names = names(Apex::Paths);
    for (ns, expected) in [
        ("docker.io", "acme hub/app/x cached"),
        ("Docker.IO", "acme hub/app/x cached"),
        ("registry-1.docker.io", "acme hub/app/x cached"),
        ("index.docker.io:443", "acme hub/app/x cached"),
        ("quay.io", "acme more/of/app/x cached"),
        ("quay.io:8443", "no mirror"),
        ("a.test:5000", "acme more/of/app/x cached"),
        ("a.test", "no mirror"),
        ("10.1.1.1:5000", "acme more/of/app/x cached"),
        ("[::1]:5000", "no mirror"),
        ("ghcr.io", "no mirror"),
        ("hub", "no mirror"),
    ] {
        assert_eq!(meant(&names, "acme.example.com", ns), expected, "{ns}");
    }
    assert_eq!(meant(&names, "other.example.com", "docker.io"), "no mirror");
}

#[test]
fn a_cache_that_cannot_be_read_leaves_the_mirrors_as_they_are() {
    let before = snapshot();
    let unread = object(1, "acme", ObjectKind::Cache, "hub", &cache("NO", &["docker.io"]));
    let after = before.with(vec![unread]);
    let prefix = |snapshot: &Snapshot| {
        let acme = snapshot.by_name("acme").unwrap();
        let prefix = acme.caches.mirrors.prefix(&namespace("docker.io"));
        prefix.map(|prefix| prefix.as_ref().map(ToString::to_string).unwrap_or_default())
    };
    assert_eq!(prefix(&after).as_deref(), Some("hub"));
    let mut gone = object(1, "acme", ObjectKind::Cache, "hub", &json!({}));
    gone.spec = None;
    assert_eq!(prefix(&before.with(vec![gone])), None);
}

#[test]
fn a_name_that_grows_too_long_below_the_prefix_is_nothing() {
    let name: RepositoryName = "a".repeat(250).parse().unwrap();
    let via = Via::Cache(namespace("docker.io"), Some("docker.io".parse().unwrap()));
    assert_eq!(via.repository(&name), None);
}

#[test]
fn ns_is_one_host_with_an_optional_port() {
    let of = |query: &str| Namespace::of(query).map(|found| found.map(|namespace| namespace.text));
    assert_eq!(of(""), Ok(None));
    assert_eq!(of("n=5&last=ns"), Ok(None));
    assert_eq!(of("n=5&ns=docker.io"), Ok(Some("docker.io".into())));
    assert_eq!(of("ns=a.test%3A5000"), Ok(Some("a.test:5000".into())));
    assert_eq!(of("ns=docker.io&ns=docker.io"), Ok(Some("docker.io".into())));
    assert_eq!(of("ns=docker.io&ns=ghcr.io"), Err(NamespaceError::Several));
    for malformed in [
        "ns",
        "ns=",
        "ns=a/b",
        "ns=https://docker.io",
        "ns=a:port",
        "ns=a%22b",
        "ns=a%0d%0ab",
        "ns=..%2f",
        "ns=docker.io&ns=",
    ] {
        assert_eq!(of(malformed), Err(NamespaceError::Malformed), "{malformed}");
    }
    let long = format!("ns={}", "a".repeat(300));
    assert_eq!(of(&long), Err(NamespaceError::Malformed));
    assert_eq!(namespace("[::1]:5000").parameter(), "ns=%5B%3A%3A1%5D%3A5000");
}

proptest! {
    #[test]
    fn what_is_read_can_stand_in_a_header_and_is_read_again(query in "(ns=[a-z0-9.:%\\[\\]-]{0,20}&?){1,2}|.{0,40}") {
        if let Ok(Some(namespace)) = Namespace::of(&query) {
            prop_assert!(!namespace.text.contains(['"', '\\', ' ', '\r', '\n']));
            prop_assert_eq!(Namespace::of(&namespace.parameter()), Ok(Some(namespace)));
        }
    }
}
