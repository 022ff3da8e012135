//! The kinds as a whole: examples, rules as a table, and what the schemas must have.

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::*;

const TENANT: &str = r#"
apiVersion: berth.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  displayName: Acme Corp
  hosts: [registry.acme.com]
  allowedNamespaces: {from: Selector, selector: {matchLabels: {berth.dev/tenant: acme}}}
  repositories: {creation: OnPush, visibility: Private, sparse: Never}
  quota: {storage: 500Gi, repositories: 1000, tagsPerRepository: 0}
  billing: {price: "0.20", currency: USD}
  pullSecrets:
    namespaceSelector: {matchLabels: {berth.dev/pull: acme}}
    serviceAccounts: [default]
    rotateEvery: 720h
  tokens:
    - name: ci
      secretRef: {namespace: acme-ci, name: berth-ci}
      grants: [{repositories: ["team-a/**"], actions: [pull, push]}]
      expiresAfter: 2160h
      rotateEvery: 720h
  trust:
    - issuer: https://token.actions.githubusercontent.com
      audience: acme.registry.example.com
      claims: {repository: acme/app, ref: refs/heads/main}
      signIn: {title: Sign in with Acme, scopes: [openid, groups], session: 8h}
      grants: [{repositories: ["app"], actions: [pull, push]}]
    - serviceAccounts: {namespaceSelector: {matchLabels: {berth.dev/pull: acme}}, names: [default]}
      grants: [{repositories: ["**"], actions: [pull]}]
  redirect: Auto
  apexAliases: [d58mfwccbf]
  policy: {opaqueMediaTypes: false, referrersPerSubject: 1000}
  webhooks: [{url: https://hooks.example.com, events: [push, delete], secretRef: {namespace: x, name: y}}]
  suspend: false
  deletionPolicy: Retain
"#;

const REPOSITORY: &str = r#"
apiVersion: berth.dev/v1alpha1
kind: Repository
metadata: {name: api, namespace: acme}
spec:
  tenantRef: {name: acme}
  name: team-a/api
  description: the API
  visibility: Private
  lifecycle: Ephemeral
  ephemeralAfter: 168h
  immutableTags: ["v*"]
  aliases: [d58mfwccbf]
  retentionPolicyRef: {name: ci}
  quota: {storage: 50Gi, tags: 10}
  deletionPolicy: Retain
"#;

const POLICY: &str = r#"
apiVersion: berth.dev/v1alpha1
kind: RetentionPolicy
metadata: {name: ci, namespace: acme}
spec:
  tenantRef: {name: acme}
  repositories: ["team-a/**"]
  rules:
    - tags: ["v*"]
      not: ["*-rc"]
      keepWithin: 720h
      keepLast: 20
      keepSemver: {major: 2, minor: 3}
  untagged: {deleteAfter: 168h}
  restoreWindow: 72h
  schedule: "0 * * * *"
  dryRun: false
"#;

const CACHE: &str = r#"
apiVersion: berth.dev/v1alpha1
kind: PullThroughCache
metadata: {name: hub, namespace: acme}
spec:
  tenantRef: {name: acme}
  upstream: {url: https://registry-1.docker.io, credentialsSecretRef: {name: hub}, timeout: 30s}
  prefix: docker.io
  mirrorFor: [docker.io]
  allow: ["library/**"]
  deny: []
  tags: {revalidateAfter: 5m, serveStaleOnError: 24h, allow: ["v*"], pinned: ["v1.*"], keepDeleted: true}
  keepUnpulled: 720h
  visibility: Public
  prefetch: ["library/alpine:3.20"]
"#;

fn value(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_examples_are_valid_and_come_back_as_they_were() {
    for text in [TENANT, REPOSITORY, POLICY, CACHE] {
        let resource = Resource::from_value(value(text)).unwrap();
        let again = match &resource {
            Resource::Tenant(object) => serde_json::to_value(object),
            Resource::Repository(object) => serde_json::to_value(object),
            Resource::RetentionPolicy(object) => serde_json::to_value(object),
            Resource::PullThroughCache(object) => serde_json::to_value(object),
        };
        assert_eq!(Resource::from_value(again.unwrap()).unwrap(), resource);
    }
}

#[test]
fn every_breach_of_a_rule_is_told_with_its_field() {
    let long = "a".repeat(300);
    let cases: [(&str, &str, Value, &str); 50] = [
        (TENANT, "/spec/displayName", json!(long), "spec.displayName"),
        (TENANT, "/spec/hosts/0", json!("a..b"), "spec.hosts[0]"),
        (TENANT, "/spec/hosts", json!(["a.b", "a.b"]), "spec.hosts[1]"),
        (TENANT, "/spec/hosts", json!(vec!["a.b"; 17]), "spec.hosts"),
        (TENANT, "/spec/billing/price", json!("-1"), "spec.billing.price"),
        (
            TENANT,
            "/spec/billing/price",
            Value::Null,
            "spec.billing.currency",
        ),
        (
            TENANT,
            "/spec/billing/currency",
            json!("usd"),
            "spec.billing.currency",
        ),
        (
            TENANT,
            "/spec/allowedNamespaces/from",
            json!("All"),
            "spec.allowedNamespaces.selector",
        ),
        (
            TENANT,
            "/spec/pullSecrets/rotateEvery",
            json!("5s"),
            "spec.pullSecrets.rotateEvery",
        ),
        (
            TENANT,
            "/spec/pullSecrets/serviceAccounts/0",
            json!("A"),
            "spec.pullSecrets.serviceAccounts[0]",
        ),
        (TENANT, "/spec/tokens/0/name", json!("A b"), "spec.tokens[0].name"),
        (
            TENANT,
            "/spec/tokens/0/secretRef/namespace",
            json!("A"),
            "spec.tokens[0].secretRef.namespace",
        ),
        (
            TENANT,
            "/spec/tokens/0/grants",
            json!([]),
            "spec.tokens[0].grants",
        ),
        (
            TENANT,
            "/spec/tokens/0/grants/0/repositories/0",
            json!("A"),
            "spec.tokens[0].grants[0].repositories[0]",
        ),
        (
            TENANT,
            "/spec/tokens/0/grants/0/actions",
            json!([]),
            "spec.tokens[0].grants[0].actions",
        ),
        (
            TENANT,
            "/spec/tokens/0/rotateEvery",
            json!("3000h"),
            "spec.tokens[0].rotateEvery",
        ),
        (TENANT, "/spec/trust/0/issuer", json!("x"), "spec.trust[0].issuer"),
        (
            TENANT,
            "/spec/trust/0/issuer",
            Value::Null,
            "spec.trust[0].issuer",
        ),
        (
            TENANT,
            "/spec/trust/0/audience",
            json!(""),
            "spec.trust[0].audience",
        ),
        (
            TENANT,
            "/spec/trust/0/signIn/session",
            json!("13h"),
            "spec.trust[0].signIn.session",
        ),
        (
            TENANT,
            "/spec/trust/0/signIn/scopes/0",
            json!("a b"),
            "spec.trust[0].signIn.scopes[0]",
        ),
        (
            TENANT,
            "/spec/trust/0/signIn/title",
            json!("two\nlines"),
            "spec.trust[0].signIn.title",
        ),
        (TENANT, "/spec/trust/1/signIn", json!({}), "spec.trust[1].signIn"),
        (
            TENANT,
            "/spec/trust/1/audience",
            json!("x"),
            "spec.trust[1].serviceAccounts",
        ),
        (
            TENANT,
            "/spec/trust/1/serviceAccounts/names",
            json!([]),
            "spec.trust[1].serviceAccounts.names",
        ),
        (TENANT, "/spec/apexAliases/0", json!("a/b"), "spec.apexAliases[0]"),
        (TENANT, "/spec/webhooks/0/url", json!("x"), "spec.webhooks[0].url"),
        (
            TENANT,
            "/spec/webhooks/0/events",
            json!([]),
            "spec.webhooks[0].events",
        ),
        (TENANT, "/metadata/name", json!("A"), "metadata.name"),
        (REPOSITORY, "/spec/name", json!("A"), "spec.name"),
        (REPOSITORY, "/spec/match", json!("a/**"), "spec.name"),
        (
            REPOSITORY,
            "/spec/lifecycle",
            json!("Persistent"),
            "spec.ephemeralAfter",
        ),
        (
            REPOSITORY,
            "/spec/ephemeralAfter",
            json!("0s"),
            "spec.ephemeralAfter",
        ),
        (
            REPOSITORY,
            "/spec/immutableTags/0",
            json!("a/b"),
            "spec.immutableTags[0]",
        ),
        (
            REPOSITORY,
            "/spec/aliases/0",
            json!("team-a/api"),
            "spec.aliases[0]",
        ),
        (
            REPOSITORY,
            "/spec/tenantRef/name",
            json!("A"),
            "spec.tenantRef.name",
        ),
        (POLICY, "/spec/schedule", json!("often"), "spec.schedule"),
        (
            POLICY,
            "/spec/rules/0/keepLast",
            json!(0),
            "spec.rules[0].keepLast",
        ),
        (
            POLICY,
            "/spec/rules/0/tags/0",
            json!("a b"),
            "spec.rules[0].tags[0]",
        ),
        (
            CACHE,
            "/spec/upstream/url",
            json!("https://u:p@x"),
            "spec.upstream.url",
        ),
        (CACHE, "/spec/prefix", json!("A"), "spec.prefix"),
        (CACHE, "/spec/mirrorFor/0", json!("a:b"), "spec.mirrorFor[0]"),
        (CACHE, "/spec/allow/0", json!("A"), "spec.allow[0]"),
        (CACHE, "/spec/tags/allow/0", json!("a/b"), "spec.tags.allow[0]"),
        (CACHE, "/spec/tags/allow", json!(vec!["a"; 65]), "spec.tags.allow"),
        (CACHE, "/spec/tags/pinned/0", json!(""), "spec.tags.pinned[0]"),
        (CACHE, "/spec/visibility", json!("public"), "spec"),
        (
            CACHE,
            "/spec/prefetch/0",
            json!("library/alpine"),
            "spec.prefetch[0]",
        ),
        (CACHE, "/spec/prefetch", json!(vec!["a:1"; 257]), "spec.prefetch"),
        (
            CACHE,
            "/spec/upstream/credentialsSecretRef/name",
            json!("A"),
            "spec.upstream.credentialsSecretRef.name",
        ),
    ];
    for (text, pointer, wrong, path) in cases {
        let mut document = value(text);
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[field.parse::<usize>().unwrap()] = wrong.clone(),
            object => object[field] = wrong.clone(),
        }
        let problems = Resource::from_value(document).expect_err(pointer);
        assert_eq!(problems[0].path, path, "{pointer} {wrong}: {problems:?}");
        assert!(problems[0].why.len() > 10);
    }
}

#[test]
fn what_a_cache_lists_is_bounded_in_its_schema_too() {
    let definition = serde_json::to_value(PullThroughCache::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let bounds = [
        ("/properties/prefetch", 256, 512),
        ("/properties/tags/properties/allow", 64, 128),
        ("/properties/tags/properties/pinned", 64, 128),
    ];
    for (pointer, items, length) in bounds {
        let list = schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(
            (&list["maxItems"], &list["items"]["maxLength"]),
            (&json!(items), &json!(length)),
            "{pointer}"
        );
        assert!(list["items"]["pattern"].is_string(), "{pointer}");
    }
    let visibility = &schema["properties"]["visibility"]["enum"];
    assert!(
        visibility.as_array().unwrap().contains(&json!("Public")),
        "{visibility}"
    );
}

#[test]
fn a_cache_may_be_without_a_prefix() {
    let mut document = value(CACHE);
    document["spec"].as_object_mut().unwrap().remove("prefix");
    let Resource::PullThroughCache(cache) = Resource::from_value(document.clone()).unwrap() else {
        panic!("it is a cache");
    };
    let again = serde_json::to_value(&cache.spec).unwrap();
    assert!(again.get("prefix").is_none(), "{again}");
    document["spec"]["prefix"] = json!("");
    assert!(Resource::from_value(document).is_ok());
}

#[test]
fn the_registry_gets_nothing_of_a_cache_that_it_would_refuse() {
    let config = |pointer: &str, wrong: Value| {
        let mut config = json!({
            "upstream": { "url": "https://registry-1.docker.io" }, "prefix": "docker.io",
            "tags": { "allow": [], "pinned": [] }, "prefetch": [],
        });
        *config.pointer_mut(pointer).unwrap() = wrong;
        let config: admin::CacheConfig = serde_json::from_value(config).unwrap();
        config.validate().map_err(|problems| problems[0].path.clone())
    };
    assert_eq!(config("/prefetch", json!(["a:1"])), Ok(()));
    for (pointer, wrong, path) in [
        ("/prefetch", json!(["a"]), "spec.prefetch[0]"),
        ("/tags/allow", json!(["a b"]), "spec.tags.allow[0]"),
        ("/tags/pinned", json!(["a b"]), "spec.tags.pinned[0]"),
        (
            "/upstream",
            json!({ "url": "https://a.example", "username": "ann" }),
            "spec.upstream.password",
        ),
    ] {
        assert_eq!(config(pointer, wrong), Err(path.to_owned()));
    }
}

#[test]
fn unknown_fields_kinds_and_versions_are_refused() {
    for (pointer, wrong) in [
        ("/spec/displayname", json!("x")),
        ("/kind", json!("Tennant")),
        ("/apiVersion", json!("v1")),
    ] {
        let mut document = value(TENANT);
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[field] = wrong;
        assert!(Resource::from_value(document).is_err(), "{pointer}");
    }
    assert!(Resource::from_value(json!(7)).is_err());
}

/// Every schema below `schema`, with its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}[]"), &schema[inner], visit);
        }
    }
}

/// Schemas that Kubernetes itself has made.
fn is_foreign(path: &str) -> bool {
    ["elector", ".conditions"].iter().any(|part| path.contains(part))
}

#[test]
fn every_field_is_explained_and_bounded() {
    for definition in [
        Tenant::crd(),
        Repository::crd(),
        RetentionPolicy::crd(),
        PullThroughCache::crd(),
    ] {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut fields = 0;
        for part in ["spec", "status"] {
            walk(part, &schema["properties"][part], &mut |path, schema| {
                if is_foreign(path) || path.ends_with("[]") || path == "status" {
                    return;
                }
                fields += 1;
                assert!(
                    schema["description"].as_str().is_some_and(|text| text.len() > 3),
                    "{path}: {schema}"
                );
                let bounded = |names: &[&str]| names.iter().any(|name| !schema[*name].is_null());
                match schema["type"].as_str() {
                    Some("string") => assert!(bounded(&["maxLength", "enum", "pattern"]), "{path}: {schema}"),
                    Some("array") => assert!(bounded(&["maxItems"]), "{path}: {schema}"),
                    _ => {}
                }
            });
        }
        assert!(fields > 8, "{fields}");
    }
}
