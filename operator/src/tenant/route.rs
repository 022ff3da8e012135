//! The route by which a tenant's hosts reach the registry: one HTTPRoute, or one Ingress.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::settings::{Exposure, Settings};
use crate::{MANAGED_BY, MANAGER, TENANT};

/// Tells apart what was last applied, since a key that is wanted no longer is seen only by comparing.
const APPLIED: &str = "berth.dev/applied";

/// A route as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The whole object.
    pub object: Value,
}

/// Which resource routes are; none if others expose tenants.
pub fn resource(exposure: Exposure) -> Option<ApiResource> {
    let of = |group, version, kind, plural| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    };
    match exposure {
        Exposure::Gateway => Some(of("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")),
        Exposure::Ingress => Some(of("networking.k8s.io", "v1", "Ingress", "ingresses")),
        Exposure::None => None,
    }
}

/// The route of a tenant.
pub fn wanted(
    settings: &Settings,
    tenant: &str,
    owner: &OwnerReference,
    custom_hosts: &[String],
) -> Option<Wanted> {
    let resource = resource(settings.exposure)?;
    let hosts: Vec<String> = std::iter::once(settings.host(tenant))
        .chain(custom_hosts.iter().cloned())
        .collect();
    let spec = match settings.exposure {
        Exposure::Gateway => http_route(settings, &hosts),
        Exposure::Ingress => ingress(settings, &hosts),
        Exposure::None => return None,
    };
    let name = format!("berth-{tenant}");
    let mut annotations: serde_json::Map<String, Value> = settings
        .route_annotations
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let digest = Sha256::digest(json!([spec, annotations]).to_string().as_bytes());
    annotations.insert(APPLIED.to_owned(), json!(hex::encode(&digest[..8])));
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": { MANAGED_BY: MANAGER, TENANT: tenant },
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": spec,
    });
    Some(Wanted { name, object })
}

fn http_route(settings: &Settings, hosts: &[String]) -> Value {
    let mut parent = json!({
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": settings.gateway,
        "namespace": settings.gateway_namespace.as_deref().unwrap_or(&settings.namespace),
    });
    if let Some(section) = &settings.gateway_section {
        parent["sectionName"] = json!(section);
    }
    json!({
        "parentRefs": [parent],
        "hostnames": hosts,
        "rules": [{
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "backendRefs": [{ "name": settings.service, "port": settings.service_port }],
            // A layer of 50 GB takes as long as it takes.
            "timeouts": { "request": "0s" },
        }],
    })
}

fn ingress(settings: &Settings, hosts: &[String]) -> Value {
    let backend =
        json!({ "service": { "name": settings.service, "port": { "number": settings.service_port } } });
    let rule = |host: &String| json!({ "host": host, "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } });
    let mut spec = json!({ "rules": hosts.iter().map(rule).collect::<Vec<_>>() });
    if let Some(class) = &settings.ingress_class {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(secret) = &settings.ingress_tls_secret {
        spec["tls"] = json!([{ "hosts": hosts, "secretName": secret }]);
    }
    spec
}

/// Whether an object has everything that is wanted of it; what others added does not count.
pub fn covers(observed: &Value, wanted: &Value) -> bool {
    match (observed, wanted) {
        (Value::Object(observed), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| observed.get(key).is_some_and(|observed| covers(observed, wanted))),
        (Value::Array(observed), Value::Array(wanted)) => {
            observed.len() == wanted.len()
                && observed
                    .iter()
                    .zip(wanted)
                    .all(|(observed, wanted)| covers(observed, wanted))
        }
        _ => observed == wanted,
    }
}

/// Whether the edge serves the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It does.
    Yes,
    /// It has not said so yet.
    NotYet,
    /// It refuses.
    No(String),
}

/// What the edge says about a route.
pub fn accepted(exposure: Exposure, route: &DynamicObject) -> Accepted {
    let status = route.data.get("status");
    match exposure {
        Exposure::None => Accepted::Yes,
        Exposure::Ingress => {
            let addresses = status.and_then(|status| status.pointer("/loadBalancer/ingress"));
            match addresses.and_then(Value::as_array) {
                Some(addresses) if !addresses.is_empty() => Accepted::Yes,
                _ => Accepted::NotYet,
            }
        }
        Exposure::Gateway => {
            let parents = status
                .and_then(|status| status.get("parents"))
                .and_then(Value::as_array);
            let conditions: Vec<&Value> = parents
                .into_iter()
                .flatten()
                .filter_map(|parent| parent.get("conditions").and_then(Value::as_array))
                .flatten()
                .filter(|condition| is_current(route, condition))
                .collect();
            let of = |aspect: &str| {
                conditions
                    .iter()
                    .find(|condition| condition.get("type").and_then(Value::as_str) == Some(aspect))
            };
            let text = |condition: &Value, field: &str| {
                condition
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            for aspect in ["Accepted", "ResolvedRefs"] {
                match of(aspect) {
                    Some(condition) if text(condition, "status") == "True" => {}
                    Some(condition) if text(condition, "status") == "False" => {
                        let (reason, message) = (text(condition, "reason"), text(condition, "message"));
                        return Accepted::No(format!("{aspect} is False: {reason}: {message}"));
                    }
                    // Only what was said can be missing.
                    _ if aspect == "ResolvedRefs" && of("Accepted").is_some() => {}
                    _ => return Accepted::NotYet,
                }
            }
            Accepted::Yes
        }
    }
}

/// Whether a condition is about the route as it is now; edges that do not say count as current.
fn is_current(route: &DynamicObject, condition: &Value) -> bool {
    let of = condition.get("observedGeneration").and_then(Value::as_i64);
    of.is_none_or(|of| route.metadata.generation.is_none_or(|current| of >= current))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn settings(more: &[&str]) -> Settings {
        let base = [
            "berth-operator",
            "--registry-url=http://registry",
            "--registry-key-file=/key",
            "--domain=registry.test",
            "--namespace=berth",
        ];
        Settings::parse_from(base.iter().chain(more))
    }

    fn owner() -> OwnerReference {
        OwnerReference::default()
    }

    #[test]
    fn a_route_has_the_exact_hosts_and_no_time_limit() {
        let settings = settings(&[
            "--exposure=gateway",
            "--gateway=edge",
            "--gateway-namespace=infra",
        ]);
        let route = wanted(&settings, "acme", &owner(), &["registry.acme.com".to_owned()]).unwrap();
        assert_eq!(
            route.object["spec"]["hostnames"],
            json!(["acme.registry.test", "registry.acme.com"])
        );
        assert_eq!(route.object["spec"]["rules"][0]["timeouts"]["request"], "0s");
        assert_eq!(route.object["spec"]["parentRefs"][0]["namespace"], "infra");
        assert_eq!(route.object["metadata"]["namespace"], "berth");
    }

    #[test]
    fn an_ingress_has_a_rule_a_host_and_names_the_certificate() {
        let settings = settings(&[
            "--exposure=ingress",
            "--ingress-class=contour",
            "--ingress-tls-secret=tls",
        ]);
        let route = wanted(&settings, "acme", &owner(), &[]).unwrap();
        let spec = &route.object["spec"];
        assert_eq!(spec["rules"][0]["host"], "acme.registry.test");
        assert_eq!(spec["ingressClassName"], "contour");
        assert_eq!(spec["tls"][0]["hosts"], json!(["acme.registry.test"]));
        assert_eq!(wanted(&self::settings(&[]), "acme", &owner(), &[]), None);
    }

    #[test]
    fn what_is_wanted_no_longer_shows_in_the_digest() {
        let with = settings(&["--exposure=ingress", "--route-annotation=a=b"]);
        let without = settings(&["--exposure=ingress"]);
        let of = |settings| wanted(settings, "acme", &owner(), &[]).unwrap().object;
        // The API server kept both annotations.
        let mut observed = of(&with);
        assert!(covers(&observed, &of(&with)));
        observed["metadata"]["annotations"]["else"] = json!("theirs");
        assert!(covers(&observed, &of(&with)), "others may add");
        assert!(!covers(&observed, &of(&without)));
        observed["spec"]["rules"][0]["host"] = json!("stolen.example.com");
        assert!(!covers(&observed, &of(&with)), "drift");
    }

    #[test]
    fn the_edge_has_the_last_word() {
        let route = |status: Value| DynamicObject {
            types: None,
            metadata: Default::default(),
            data: json!({ "status": status }),
        };
        let said = |conditions: Value| {
            accepted(
                Exposure::Gateway,
                &route(json!({ "parents": [{ "conditions": conditions }] })),
            )
        };
        assert_eq!(accepted(Exposure::Gateway, &route(Value::Null)), Accepted::NotYet);
        assert_eq!(
            said(json!([{ "type": "Accepted", "status": "True" }])),
            Accepted::Yes
        );
        let refused = said(json!([
            { "type": "Accepted", "status": "True" },
            { "type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no service" }
        ]));
        assert!(matches!(refused, Accepted::No(why) if why.contains("BackendNotFound")));
        // What was said of an earlier generation does not count.
        let conditions = json!([{ "type": "Accepted", "status": "True", "observedGeneration": 1 }]);
        let mut changed = route(json!({ "parents": [{ "conditions": conditions }] }));
        changed.metadata.generation = Some(2);
        assert_eq!(accepted(Exposure::Gateway, &changed), Accepted::NotYet);
        changed.metadata.generation = Some(1);
        assert_eq!(accepted(Exposure::Gateway, &changed), Accepted::Yes);
        let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } });
        assert_eq!(accepted(Exposure::Ingress, &route(balanced)), Accepted::Yes);
        assert_eq!(accepted(Exposure::Ingress, &route(json!({}))), Accepted::NotYet);
    }
}
