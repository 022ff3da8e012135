//! Repositories in other orders, images by their build, two tags side by side, what is stored.

use harness::image::{INDEX, MANIFEST, descriptor};
use harness::{Image, Index, eventually};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

use super::House;

const PATIENCE: Duration = Duration::from_secs(30);

fn names(page: &Value) -> Vec<String> {
    let list = page["repositories"].as_array().expect("a list").iter();
    list.map(|row| row["name"].as_str().expect("text").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_are_listed_by_last_push_and_by_size_page_by_page() {
    let house = House::new().await;
    let token = house.token("acme").await;
    for number in 0..55_usize {
        let image = Image::new(number as u64, 100 + 100 * ((number * 7) % 55));
        let name = format!("r{number:02}");
        image
            .push(&house.repository("acme", &token, &name).await, "v1")
            .await;
    }
    let program = house.program("acme", &token);
    for (sort, by) in [("pushed", "lastPush"), ("size", "bytes")] {
        let first = program.json(&format!("/explorer/?sort={sort}")).await;
        assert_eq!(names(&first).len(), 50);
        let next = first["next"].as_str().expect("a next page");
        let second = program
            .json(&format!("/explorer/?sort={sort}&after={next}"))
            .await;
        let rows: Vec<&Value> = [&first, &second]
            .into_iter()
            .flat_map(|page| page["repositories"].as_array().expect("a list"))
            .collect();
        assert_eq!(rows.len(), 55);
        assert_eq!(second["next"], Value::Null);
        let descends = rows.windows(2).all(|pair| match by {
            "bytes" => pair[0][by].as_u64() >= pair[1][by].as_u64(),
            _ => pair[0][by].as_str() >= pair[1][by].as_str(),
        });
        assert!(descends, "{sort}: {rows:?}");
        let mut all: Vec<String> = names(&first).into_iter().chain(names(&second)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 55);
    }
    let newest = names(&program.json("/explorer/?sort=pushed").await);
    assert_eq!(newest[0], "r54");
    let found = program.json("/explorer/?sort=size&q=r1").await;
    assert_eq!(names(&found).len(), 10);

    // A narrow token sees its own alone, and is told no other's name by the place of its next page.
    let narrow = house.admin.token("acme", &["r0*"], &["pull"]).await;
    let narrow = house.program("acme", &narrow);
    for sort in ["pushed", "size"] {
        let page = narrow.json(&format!("/explorer/?sort={sort}")).await;
        let seen = names(&page);
        assert!(
            seen.len() == 10 && seen.iter().all(|name| name.starts_with("r0")),
            "{seen:?}"
        );
    }
    narrow.get("/explorer/?sort=size&after=1.2").await.expect(400);
}

fn image(seed: u8, annotations: &Value, env: &str, layers: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": [env], "Labels": { "org.opencontainers.image.revision": format!("c0ffee{seed}") } },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let config = config.to_string().into_bytes();
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor(tar, layer)).collect::<Vec<_>>(),
        "annotations": annotations,
    });
    (manifest.to_string().into_bytes(), config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_found_by_its_build_commit_and_tag() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "web").await;
    let (manifest, config) = image(1, &json!({ "berth.dev/build-id": "b-42/7" }), "A=1", &[]);
    repository.push_blob(&config).await;
    repository
        .put_manifest("v1", MANIFEST, &manifest)
        .await
        .expect(201);
    let plain = Image::new(9, 100);
    for tag in ["b77-api", "b77-db", "b777"] {
        plain
            .push(&house.repository("acme", &token, "project").await, tag)
            .await;
    }
    let program = house.program("acme", &token);

    // 1. By what the annotation says, at once.
    let found = program.json("/explorer/builds?q=b-42%2F7").await;
    assert_eq!(found["images"][0]["repository"], "web");
    assert_eq!(
        (&found["images"][0]["by"], &found["images"][0]["tags"]),
        (&json!(["build"]), &json!(["v1"]))
    );
    assert_eq!(
        program.json("/explorer/builds/b-42%2F7").await["images"],
        found["images"]
    );

    // 2. By what a label of its configuration says, once that has been read.
    let by_commit = eventually("the label is known", PATIENCE, async || {
        let found = program.json("/explorer/builds/c0ffee1").await;
        (found["images"][0]["by"] == json!(["commit"])).then_some(found)
    })
    .await;
    assert_eq!(by_commit["images"][0]["repository"], "web");

    // 3. By tags that are named after it.
    let tagged = program.json("/explorer/builds/b77").await;
    let [image] = &tagged["images"].as_array().expect("a list")[..] else {
        panic!("{tagged}");
    };
    assert_eq!(
        (&image["by"], &image["tags"]),
        (&json!(["tag"]), &json!(["b77-api", "b77-db", "b777"]))
    );
    let page = program.get("/explorer/builds?q=b77").await.expect(200).text();
    assert!(page.contains("project") && page.contains("b77-api"), "{page}");
    let none = program.get("/explorer/builds?q=nothing").await.expect(200).text();
    assert!(none.contains("No image that you may see"), "{none}");

    // 4. Never another's, nor what one may not see.
    let other = house.token("other").await;
    for id in ["b77", "b-42%2F7", "c0ffee1"] {
        let found = house
            .program("other", &other)
            .json(&format!("/explorer/builds/{id}"))
            .await;
        assert_eq!(found["images"], json!([]), "{id}");
        let narrow = house.admin.token("acme", &["elsewhere/**"], &["pull"]).await;
        let found = house
            .program("acme", &narrow)
            .json(&format!("/explorer/builds/{id}"))
            .await;
        assert_eq!(found["images"], json!([]), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tags_are_compared_by_layers_and_configuration() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let layers = [vec![1; 1000], vec![2; 2000], vec![3; 4000]];
    for layer in &layers {
        repository.push_blob(layer).await;
    }
    for (tag, env, parts) in [
        ("v1", "MODE=slow", &layers[..2]),
        ("v2", "MODE=fast", &[layers[0].clone(), layers[2].clone()]),
    ] {
        let (manifest, config) = image(1, &json!({}), env, parts);
        repository.push_blob(&config).await;
        repository
            .put_manifest(tag, MANIFEST, &manifest)
            .await
            .expect(201);
    }
    let program = house.program("acme", &token);
    let told = program.json("/explorer/r/app/-/difference?from=v1&to=v2").await;
    let compared = &told["compared"];
    assert_eq!(compared["sharedSize"], 1000);
    let found: Vec<&Value> = compared["layers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| &row["found"])
        .collect();
    assert_eq!(found, [&json!("both"), &json!("added"), &json!("removed")]);
    assert_eq!(
        compared["config"],
        json!([{ "key": "env MODE", "from": "slow", "to": "fast" }])
    );
    let grown = compared["toSize"].as_u64().expect("a size") - compared["fromSize"].as_u64().expect("a size");
    assert_eq!(grown, 2000);
    let page = program
        .get("/explorer/r/app/-/difference?from=v1&to=v2")
        .await
        .expect(200)
        .text();
    assert!(page.contains("env MODE") && page.contains("removed"), "{page}");
    let same = program
        .get("/explorer/r/app/-/difference?from=v1&to=v1")
        .await
        .expect(200)
        .text();
    assert!(same.contains("the same manifest"), "{same}");
    program.get("/explorer/r/app/-/difference").await.expect(200);
    program
        .get("/explorer/r/app/-/difference?from=v1&to=none")
        .await
        .expect(404);
    program
        .get("/explorer/r/app/-/difference?from=v1&to=a%20b")
        .await
        .expect(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_indexes_the_images_of_one_platform_are_compared() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    for (tag, seed) in [("v1", 1), ("v2", 10)] {
        let images = ["amd64", "arm64"].iter().zip(seed..);
        let index = Index::new(
            images
                .map(|(arch, seed)| Image::of_platform(arch, seed, 1000))
                .collect(),
        );
        for image in &index.images {
            image.push(&repository, &image.digest()).await;
        }
        repository
            .put_manifest(tag, INDEX, &index.manifest)
            .await
            .expect(201);
    }
    let program = house.program("acme", &token);
    let at = "/explorer/r/app/-/difference?from=v1&to=v2";
    let told = program.json(at).await;
    assert_eq!(told["platforms"], json!(["linux/amd64", "linux/arm64"]));
    assert_eq!(told["platform"], "linux/amd64");
    let arm = program.json(&format!("{at}&platform=linux/arm64")).await;
    assert_ne!(arm["compared"]["toDigest"], told["compared"]["toDigest"]);
    program
        .get(&format!("{at}&platform=linux/s390x"))
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_and_what_it_costs_is_for_whoever_sees_everything() {
    let house = House::new().await;
    let token = house.token("acme").await;
    for (name, size) in [("small", 1000), ("large", 90_000)] {
        Image::new(1, size)
            .push(&house.repository("acme", &token, name).await, "v1")
            .await;
    }
    house
        .admin
        .put_tenant(
            "acme",
            json!({ "quota": { "storage": "1Mi", "repositories": 5 } }),
        )
        .await;
    let program = house.program("acme", &token);
    let usage = program.json("/explorer/usage").await;
    assert_eq!((&usage["repositories"], &usage["tags"]), (&json!(2), &json!(2)));
    assert_eq!(
        (&usage["storageLimit"], &usage["repositoriesLimit"]),
        (&json!(1 << 20), &json!(5))
    );
    assert_eq!(usage["largest"][0]["repository"], "large");
    assert_eq!(usage["month"]["currency"], "USD");
    let page = program.get("/explorer/usage?days=365").await.expect(200).text();
    assert!(
        page.contains("<meter") && page.contains("Largest repositories"),
        "{page}"
    );

    let narrow = house.admin.token("acme", &["small"], &["pull"]).await;
    house
        .program("acme", &narrow)
        .get("/explorer/usage")
        .await
        .expect(403);
    let other = house.token("other").await;
    assert_eq!(
        house.program("other", &other).json("/explorer/usage").await["bytes"],
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_has_a_past_and_a_price_of_its_own() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    Image::new(1, 90_000).push(&repository, "v1").await;
    let narrow = house.admin.token("acme", &["app"], &["pull"]).await;
    let program = house.program("acme", &narrow);
    let usage = program.json("/explorer/r/app/-/usage").await;
    assert_eq!((&usage["tags"], &usage["days"]), (&json!(1), &json!(30)));
    assert!(usage["bytes"].as_u64().unwrap() > 90_000, "{usage}");
    assert_eq!(usage["currency"], "USD");
    let page = program
        .get("/explorer/r/app/-/usage?days=365")
        .await
        .expect(200)
        .text();
    assert!(page.contains("A month at this size"), "{page}");
    program.get("/explorer/r/none/-/usage").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_are_counted_by_tag_and_by_digest() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let image = Image::new(1, 1000);
    image.push(&repository, "v1").await;
    for _ in 0..3 {
        repository.get_manifest("v1").await.expect(200);
    }
    repository.get_manifest(&image.digest()).await.expect(200);
    // The admin API has what happened a moment ago written.
    let written = house
        .admin
        .ask(Method::GET, "tenants/acme/catalog/app", None)
        .await;
    written.expect(200);
    let program = house.program("acme", &token);
    let page = program.json("/explorer/r/app/-/tags/v1").await;
    assert_eq!((&page["tag"]["pulls"], &page["pulls"]), (&json!(3), &json!(1)));
    let listed = program.json("/explorer/r/app").await;
    assert_eq!(listed["tags"][0]["pulls"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_can_be_turned_off() {
    let berth = harness::Berth::builder()
        .flag("--explorer", "false")
        .start()
        .await;
    let repository = harness::http::Repository::new(&berth.url(""), "app");
    Image::new(1, 1000).push(&repository, "v1").await;
    for path in [
        "/",
        "/explorer/",
        "/explorer/r/app",
        "/explorer/api/",
        "/explorer/sign-in",
    ] {
        let request = harness::http::client().get(berth.url(path));
        harness::http::send(request).await.expect(404);
    }
    repository.get_manifest("v1").await.expect(200);
}
