//! One route a tenant.

use harness::{Installation, condition};
use serde_json::{Value, json};

#[tokio::test]
async fn a_tenant_has_an_ingress_that_follows_it_and_closes_while_it_is_suspended() {
    let berth = Installation::builder()
        .flag("--exposure=ingress")
        .flag("--ingress-class=edge")
        .flag("--route-annotation=example.com/timeout=1h")
        .start()
        .await;
    let (name, custom) = (berth.name("acme"), format!("{}.example.com", berth.id));
    let (route, namespace) = (format!("berth-{name}"), berth.id.clone());
    let tenant = |spec: Value| berth.tenant(&name, spec);
    berth
        .plane
        .apply(tenant(json!({})))
        .await
        .expect("the Tenant is accepted");
    let made = berth.plane.wait("Ingress", &namespace, &route, |_| true).await;
    assert_eq!(made["spec"]["rules"][0]["host"], format!("{name}.registry.test"));
    assert_eq!(made["metadata"]["annotations"]["example.com/timeout"], "1h");
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "Tenant");
    // The edge has the last word.
    let waiting = berth
        .plane
        .wait_for("Tenant", "", &name, "Exposed", "Unknown", "RoutePending")
        .await;
    assert_eq!(
        condition(&waiting, "Ready").expect("a condition")["status"],
        "Unknown"
    );
    let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }] } });
    berth
        .plane
        .merge_status("Ingress", &namespace, &route, balanced.clone())
        .await;
    berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Served")
        .await;
    // It follows the spec, and comes back when someone deletes or bends it.
    berth
        .plane
        .apply(tenant(json!({ "hosts": [custom] })))
        .await
        .expect("the Tenant is accepted");
    let both = |ingress: &Value| {
        ingress["spec"]["rules"]
            .as_array()
            .is_some_and(|rules| rules.len() == 2)
    };
    berth.plane.wait("Ingress", &namespace, &route, both).await;
    berth
        .plane
        .merge(
            "Ingress",
            &namespace,
            &route,
            json!({ "spec": { "rules": [{ "host": "stolen.example.com" }] } }),
        )
        .await;
    berth.plane.wait("Ingress", &namespace, &route, both).await;
    let uid = made["metadata"]["uid"].clone();
    berth.plane.delete("Ingress", &namespace, &route).await;
    berth
        .plane
        .wait("Ingress", &namespace, &route, |ingress| {
            ingress["metadata"]["uid"] != uid
        })
        .await;
    // What others add is theirs.
    let theirs = json!({ "metadata": { "labels": { "team": "edge" } } });
    berth.plane.merge("Ingress", &namespace, &route, theirs).await;
    berth
        .plane
        .merge_status("Ingress", &namespace, &route, balanced)
        .await;
    let suspended = tenant(json!({ "hosts": [custom], "suspend": true }));
    berth
        .plane
        .apply(suspended)
        .await
        .expect("the Tenant is accepted");
    berth
        .plane
        .wait_for("Tenant", "", &name, "Ready", "True", "Suspended")
        .await;
    assert!(berth.plane.find("Ingress", &namespace, &route).await.is_none());
    // The garbage collector takes the route of a deleted Tenant at the latest.
    berth
        .plane
        .apply(tenant(json!({ "suspend": false })))
        .await
        .expect("the Tenant is accepted");
    berth.plane.wait("Ingress", &namespace, &route, |_| true).await;
    berth.plane.delete("Tenant", "", &name).await;
    berth.plane.wait_gone("Ingress", &namespace, &route).await;
}

#[tokio::test]
async fn a_cluster_without_the_gateway_api_says_so() {
    let berth = Installation::builder()
        .flag("--exposure=gateway")
        .flag("--gateway=edge")
        .start()
        .await;
    let name = berth.name("acme");
    berth
        .plane
        .apply(berth.tenant(&name, json!({})))
        .await
        .expect("the Tenant is accepted");
    let told = berth
        .plane
        .wait_for("Tenant", "", &name, "Exposed", "False", "NoSuchResource")
        .await;
    assert_eq!(condition(&told, "Ready").expect("a condition")["status"], "False");
    assert_eq!(
        condition(&told, "Reconciling").expect("a condition")["status"],
        "True"
    );
}
