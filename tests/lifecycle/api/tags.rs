//! What became of tags, and how deleted ones come back.

use harness::{Backend, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Content, Place, WAIT, settings};

async fn with_content(backend: Backend) -> (Place, Content) {
    let place = Place::start(settings(backend).flag("--restore-window", "1h")).await;
    let content = place.content("acme").await;
    (place, content)
}

fn names(page: &Value) -> Vec<&str> {
    let tags = page["tags"].as_array().expect("tags");
    tags.iter().filter_map(|tag| tag["tag"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_and_images_that_were_deleted_come_back() {
    for backend in Backend::BOTH {
        let (place, content) = with_content(backend).await;
        let app = json!({ "name": "app", "aliases": ["old-app"] });
        place.admin.put("tenants/acme/repositories/apps/app", app).await;
        let first = content.push("app", "v1", b"one").await;
        let second = content.push("app", "v2", b"two").await;
        assert_eq!(content.push("app", "v2.1", b"two").await, second);
        let restore = async |tag: &str| {
            let path = format!("tenants/acme/tags/restore?repository=app&tag={tag}");
            place.post(&path).await
        };

        // 1. A tag that was deleted by its name.
        content.delete("app/manifests/v1").await;
        let deleted = place.get("tenants/acme/tags/deleted?repository=app").await;
        assert_eq!((names(&deleted), &deleted["next"]), (vec!["v1"], &Value::Null));
        let tag = &deleted["tags"][0];
        assert_eq!(tag["digest"], first);
        assert!(
            tag["restorableUntil"].as_str() > tag["deletedAt"].as_str(),
            "{tag}"
        );
        let back = restore("v1").await.expect(201).json();
        assert_eq!(back, json!({ "repository": "app", "tag": "v1", "digest": first }));
        content.get("app/manifests/v1").await.expect(200);

        // 2. An image that was deleted by its digest, with both of its tags.
        content.delete(&format!("app/manifests/{second}")).await;
        content.get("app/manifests/v2").await.expect(404);
        let page = place
            .get("tenants/acme/tags/deleted?repository=old-app&limit=1")
            .await;
        let next = page["next"].as_str().expect("a second page");
        let rest = place
            .get(&format!(
                "tenants/acme/tags/deleted?repository=app&limit=1&after={next}"
            ))
            .await;
        let mut both = [names(&page), names(&rest)].concat();
        both.sort_unstable();
        assert_eq!(both, ["v2", "v2.1"]);
        let listed = place.json(&["tag", "deleted", "app", "--tenant", "acme"]);
        assert_eq!(listed.as_array().map(Vec::len), Some(2));
        let text = place.text(&["tag", "restore", "old-app", "v2", "--tenant", "acme"]);
        assert_eq!(text, format!("app:v2 points to {second} again\n"));
        restore("v2.1").await.expect(201);
        content.get("app/manifests/v2").await.expect(200);
        let blob = harness::content::sha256(b"two");
        assert_eq!(
            content.get(&format!("app/blobs/{blob}")).await.expect(200).body,
            b"two"
        );

        // 3. What is there, or never was.
        let (reason, error) = place
            .refused(
                Method::POST,
                "tenants/acme/tags/restore?repository=app&tag=v2",
                409,
            )
            .await;
        assert_eq!(reason, "Exists");
        assert!(
            error.contains(&second) && error.contains("delete it first"),
            "{error}"
        );
        let (_, error) = place
            .refused(
                Method::POST,
                "tenants/acme/tags/restore?repository=app&tag=v3",
                404,
            )
            .await;
        assert!(
            error.contains("app:v3 was not deleted, or too long ago"),
            "{error}"
        );
        let complaint = place.complaint(&["tag", "restore", "app", "v3", "--tenant", "acme"], 1);
        assert!(complaint.contains("was not deleted"), "{complaint}");

        // 4. Both are in the audit trail.
        let trail = place.get("audit?tenant=acme&limit=1000").await;
        let records = trail["records"].as_array().unwrap();
        let of = |object: &str| {
            let mut of = records
                .iter()
                .filter(|r| r["action"] == "tag.restore" && r["object"] == object);
            of.next().map(|record| record["outcome"].clone())
        };
        assert_eq!(
            (of("app:v1"), of("app:v3")),
            (Some(json!("done")), Some(json!("denied")))
        );

        // 5. The repository says when it was last pushed to and pulled from.
        let shown = place.get("tenants/acme/catalog/app").await;
        assert!(
            shown["lastPush"].is_string() && shown["lastPull"].is_string(),
            "{shown}"
        );
        content.push("fresh", "v1", b"one").await;
        assert_eq!(
            place.get("tenants/acme/catalog/fresh").await["lastPull"],
            Value::Null
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_come_back_says_why() {
    for backend in Backend::BOTH {
        let (place, content) = with_content(backend).await;
        let refused = async |repository: &str, tag: &str, status: u16| {
            let path = format!("tenants/acme/tags/restore?repository={repository}&tag={tag}");
            place.refused(Method::POST, &path, status).await
        };

        // 1. Something that it needs has been deleted since.
        let child = content.push("app", "child", b"child").await;
        let index = content.push_index("app", "all", &child).await;
        content.delete(&format!("app/manifests/{index}")).await;
        content.delete(&format!("app/manifests/{child}")).await;
        let (reason, error) = refused("app", "all", 409).await;
        assert_eq!(reason, "Missing");
        assert!(error.contains(&child), "{error}");
        place.text(&["tag", "restore", "app", "child", "--tenant", "acme"]);
        place.text(&["tag", "restore", "app", "all", "--tenant", "acme"]);
        content.get("app/manifests/all").await.expect(200);

        // 2. It would be too much.
        content.push("full", "v1", b"one").await;
        content.delete("full/manifests/v1").await;
        content.push("full", "v2", b"two").await;
        place
            .admin
            .put_tenant("acme", json!({ "quota": { "tagsPerRepository": 1 } }))
            .await;
        let (reason, error) = refused("full", "v1", 409).await;
        assert_eq!(reason, "OverQuota");
        assert!(error.contains("1 of 1 tags used"), "{error}");
        place.admin.put_tenant("acme", json!({})).await;

        // 3. Its time is over.
        let brief = json!({ "repositories": ["brief"], "restoreWindow": "1s", "schedule": super::NEVER });
        place
            .admin
            .put("tenants/acme/retention-policies/apps/brief", brief)
            .await;
        content.push("brief", "v1", b"brief").await;
        content.delete("brief/manifests/v1").await;
        eventually("it can no longer come back", WAIT, async || {
            let deleted = place.get("tenants/acme/tags/deleted?repository=brief").await;
            names(&deleted).is_empty().then_some(())
        })
        .await;
        refused("brief", "v1", 404).await;

        // 4. Requests that mean nothing.
        for (method, path, status) in [
            (Method::GET, "tenants/nobody/tags/deleted?repository=app", 404),
            (Method::GET, "tenants/acme/tags/deleted?repository=none", 404),
            (Method::GET, "tenants/acme/tags/deleted", 400),
            (
                Method::GET,
                "tenants/acme/tags/deleted?repository=app&after=x",
                400,
            ),
            (
                Method::POST,
                "tenants/nobody/tags/restore?repository=app&tag=v1",
                404,
            ),
            (
                Method::POST,
                "tenants/acme/tags/restore?repository=none&tag=v1",
                404,
            ),
            (
                Method::POST,
                "tenants/acme/tags/restore?repository=app&tag=..",
                400,
            ),
            (
                Method::GET,
                "tenants/nobody/tags/history?repository=app&tag=v1",
                404,
            ),
            (
                Method::GET,
                "tenants/acme/tags/history?repository=none&tag=v1",
                404,
            ),
            (
                Method::GET,
                "tenants/acme/tags/history?repository=app&tag=v1&before=7",
                400,
            ),
            (Method::GET, "tenants/acme/tags/history?repository=app", 400),
        ] {
            place.refused(method, path, status).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_a_tag_is_told_in_pages_newest_first() {
    for backend in Backend::BOTH {
        let (place, content) = with_content(backend).await;
        let mut digests = Vec::new();
        for body in ["one", "two", "three"] {
            digests.push(content.push("app", "latest", body.as_bytes()).await);
        }
        content.push("app", "later", b"later").await;
        content.delete("app/manifests/latest").await;
        let path = "tenants/acme/tags/history?repository=app&tag=latest";
        let whole = place.get(path).await;
        assert_eq!(whole["next"], Value::Null);
        let told: Vec<(&str, &str)> = whole["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                (
                    event["action"].as_str().unwrap(),
                    event["digest"].as_str().unwrap(),
                )
            })
            .collect();
        let (one, two, three) = (&*digests[0], &*digests[1], &*digests[2]);
        assert_eq!(
            told,
            [
                ("deleted", three),
                ("pushed", three),
                ("pushed", two),
                ("pushed", one)
            ]
        );
        assert!(whole["events"][0]["by"].as_str().is_some_and(|by| !by.is_empty()));

        for size in 1..=5 {
            let (mut pages, mut before) = (Vec::new(), String::new());
            loop {
                let page = place.get(&format!("{path}&limit={size}{before}")).await;
                pages.extend(page["events"].as_array().unwrap().clone());
                match page["next"].as_str() {
                    Some(next) => before = format!("&before={next}"),
                    None => break,
                }
            }
            assert_eq!(Value::from(pages), whole["events"], "pages of {size}");
        }
        assert_eq!(
            place.json(&["tag", "history", "app", "latest", "--tenant", "acme"]),
            whole["events"]
        );
        let newest = place.text(&[
            "tag", "history", "app", "latest", "--tenant", "acme", "--limit", "1",
        ]);
        assert_eq!(newest.lines().count(), 2, "{newest}");
        assert!(newest.contains("deleted"), "{newest}");
        assert_eq!(
            place
                .get("tenants/acme/tags/history?repository=app&tag=never")
                .await["events"],
            json!([])
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_tells_of_another_tenants_tags() {
    for backend in Backend::BOTH {
        let (place, acme) = with_content(backend).await;
        let other = place.content("other").await;
        acme.push("app", "v1", b"acme").await;
        let deleted = acme.push("app", "gone", b"acme, deleted").await;
        acme.delete("app/manifests/gone").await;
        acme.push("secret", "v1", b"secret").await;
        let policy =
            json!({ "repositories": ["**"], "schedule": super::NEVER, "rules": [{ "tags": ["none"] }] });
        place
            .admin
            .put("tenants/acme/retention-policies/apps/ci", policy)
            .await;
        let own = other.push("app", "v1", b"other").await;

        let history = place
            .get("tenants/other/tags/history?repository=app&tag=v1")
            .await;
        assert_eq!(history["events"].as_array().map(Vec::len), Some(1));
        assert_eq!(history["events"][0]["digest"], own);
        assert_eq!(
            place
                .get("tenants/other/tags/history?repository=app&tag=gone")
                .await["events"],
            json!([])
        );
        assert_eq!(
            place.get("tenants/other/tags/deleted?repository=app").await["tags"],
            json!([])
        );
        assert_eq!(place.get("tenants/other/retention").await, json!([]));
        let told = place
            .get("tenants/other/retention/explain?repository=app&tag=v1")
            .await;
        assert_eq!((&told["digest"], &told["policies"]), (&json!(own), &json!([])));
        for (method, path) in [
            (Method::POST, "tags/restore?repository=app&tag=gone"),
            (Method::GET, "tags/deleted?repository=secret"),
            (Method::GET, "tags/history?repository=secret&tag=v1"),
            (Method::GET, "retention?policy=apps/ci"),
            (Method::POST, "retention/run?policy=apps/ci"),
            (Method::POST, "retention/preview?policy=apps/ci"),
            (Method::POST, "retention/preview?repository=secret"),
            (Method::GET, "retention/explain?repository=app&tag=gone"),
            (Method::GET, "retention/explain?repository=secret&tag=v1"),
            (Method::GET, "catalog/secret"),
        ] {
            let (_, error) = place.refused(method, &format!("tenants/other/{path}"), 404).await;
            assert!(
                !error.contains("acme") && !error.contains(&deleted),
                "{path}: {error}"
            );
        }
        other.get("app/manifests/gone").await.expect(404);
        let preview = place
            .post("tenants/acme/retention/preview?policy=apps/ci")
            .await
            .expect(200)
            .json();
        assert_eq!(preview["evaluated"], 2, "only its own tags");
    }
}
