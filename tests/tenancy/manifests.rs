//! `--manifests`: the four kinds from a folder, applied as they change.

use harness::{Admin, Berth};
use reqwest::Method;

use super::{DOMAIN, eventually, settings};

const ACME: &str = "\
apiVersion: berth.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec: {displayName: Acme, quota: {storage: 1Gi}}
---
apiVersion: berth.dev/v1alpha1
kind: Repository
metadata: {name: api, namespace: acme}
spec: {tenantRef: {name: acme}, name: team/api, aliases: [old]}
";

async fn tenants(admin: &Admin) -> Vec<String> {
    let tenants = admin.ask(Method::GET, "tenants", None).await.expect(200).json();
    tenants
        .as_array()
        .expect("a list")
        .iter()
        .map(|tenant| tenant["tenant"].as_str().expect("a name").to_owned())
        .collect()
}

async fn started(folder: &tempfile::TempDir) -> (Berth, Admin) {
    let berth = settings()
        .flag("--manifests", folder.path().to_str().expect("a plain path"))
        .start()
        .await;
    let admin = Admin::of(&berth);
    (berth, admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_applied_at_the_start_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme.yaml"), ACME).unwrap();
    let (berth, admin) = started(&folder).await;
    assert_eq!(tenants(&admin).await, ["acme"], "from the first request on");
    let api = admin
        .ask(Method::GET, "tenants/acme/repositories/acme/api", None)
        .await
        .expect(200)
        .json();
    assert_eq!(api["spec"]["name"], "team/api");

    std::fs::write(
        folder.path().join("other.yml"),
        ACME.replace("acme", "other").replace("Acme", "Other"),
    )
    .unwrap();
    eventually("the new file is applied", async || {
        tenants(&admin).await == ["acme", "other"]
    })
    .await;
    std::fs::write(folder.path().join("acme.yaml"), ACME.replace("1Gi", "2Gi")).unwrap();
    eventually("the changed file is applied", async || {
        let acme = admin
            .ask(Method::GET, "tenants/acme", None)
            .await
            .expect(200)
            .json();
        acme["spec"]["quota"]["storage"] == "2Gi"
    })
    .await;
    // What the folder has never said stays; what it says no more goes.
    admin.put_tenant("by-hand", serde_json::json!({})).await;
    std::fs::remove_file(folder.path().join("other.yml")).unwrap();
    eventually("the removed file is taken back", async || {
        tenants(&admin).await == ["acme", "by-hand"]
    })
    .await;
    drop(berth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_a_mistake_is_reported_by_line_and_left_out_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme.yaml"), ACME).unwrap();
    let (berth, admin) = started(&folder).await;
    // The tenant's part is right, the repository's is not: nothing of the file is applied.
    let bad = ACME.replace("1Gi", "5Gi").replace("team/api", "Team/api");
    std::fs::write(folder.path().join("acme.yaml"), bad).unwrap();
    eventually("the mistake is reported", async || {
        let log = berth.log();
        log.contains("acme.yaml") && log.contains("\"line\":9") && log.contains("spec.name")
    })
    .await;
    let acme = admin
        .ask(Method::GET, "tenants/acme", None)
        .await
        .expect(200)
        .json();
    assert_eq!(acme["spec"]["quota"]["storage"], "1Gi");
    admin
        .ask(Method::GET, "tenants/acme/repositories/acme/api", None)
        .await
        .expect(200);
    // A name that another file's object holds is that file's mistake alone.
    let thief = "apiVersion: berth.dev/v1alpha1\nkind: Tenant\nmetadata: {name: thief}\nspec: {}\n---\n\
        apiVersion: berth.dev/v1alpha1\nkind: Repository\nmetadata: {name: x}\nspec: {tenantRef: {name: nobody}, name: x}\n";
    std::fs::write(folder.path().join("thief.yaml"), thief).unwrap();
    std::fs::write(folder.path().join("acme.yaml"), ACME.replace("1Gi", "3Gi")).unwrap();
    eventually("the good file is applied beside the bad one", async || {
        let acme = admin
            .ask(Method::GET, "tenants/acme", None)
            .await
            .expect(200)
            .json();
        acme["spec"]["quota"]["storage"] == "3Gi" && berth.log().contains("thief.yaml")
    })
    .await;
    assert_eq!(tenants(&admin).await, ["acme"]);
    assert!(!DOMAIN.is_empty());
}
