//! The life of a Tenant.

use harness::{Admin, Installation};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn an_applied_tenant_is_served_and_a_deleted_one_is_not() {
    let berth = Installation::start().await;
    let name = berth.name("acme");
    let tenant = berth.ready_tenant(&name, json!({ "displayName": "Acme" })).await;
    assert_eq!(tenant["status"]["host"], format!("{name}.registry.test"));
    let admin = Admin::of(&berth.registry);
    let stored = admin
        .ask(Method::GET, &format!("tenants/{name}"), None)
        .await
        .expect(200)
        .json();
    assert_eq!(stored["spec"]["displayName"], "Acme");
    assert_eq!(stored["uid"], tenant["metadata"]["uid"]);
    berth.plane.delete("Tenant", "", &name).await;
    berth.plane.wait_gone("Tenant", "", &name).await;
    admin
        .ask(Method::GET, &format!("tenants/{name}"), None)
        .await
        .expect(404);
}
