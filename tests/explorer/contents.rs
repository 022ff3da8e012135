//! What lies in layers and charts.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::content::{blob, tar_of};
use harness::http::Repository;
use harness::image::{MANIFEST, descriptor};
use serde_json::{Value, json};

use super::House;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Pushes a manifest of one layer under a tag; the layer's digest.
async fn push(repository: &Repository, tag: &str, config: (&str, &[u8]), layer: (&str, &[u8])) -> String {
    repository.push_blob(config.1).await;
    let digest = repository.push_blob(layer.1).await;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(config.0, config.1), "layers": [descriptor(layer.0, layer.1)],
    });
    let manifest = manifest.to_string();
    repository
        .put_manifest(tag, MANIFEST, manifest.as_bytes())
        .await
        .expect(201);
    digest
}

async fn push_layer(repository: &Repository, tag: &str, layer: &[u8]) -> String {
    let config = ("application/vnd.oci.image.config.v1+json", &b"{}"[..]);
    push(repository, tag, config, (LAYER, layer)).await
}

fn names(page: &Value) -> Vec<&str> {
    let entries = page["entries"].as_array().expect("a list").iter();
    entries.map(|row| row["name"].as_str().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_layer_are_listed_a_folder_at_a_time() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let evil = "etc/<script>alert(1)</script>";
    let archive = tar_of(&[
        ("usr/bin/app", &[7; 3000]),
        ("usr/share/a.txt", b"abc"),
        ("usr/share/.wh.gone", b""),
        (evil, b"x"),
        ("README", b"hello"),
    ]);
    let layer = push_layer(&repository, "v1", &gzip(&archive)).await;
    let program = house.program("acme", &token);
    let at = format!("/explorer/r/app/-/files/{layer}");

    let top = program.json(&at).await;
    assert_eq!(names(&top), ["etc", "usr", "README"]);
    assert_eq!((&top["files"], &top["bytes"]), (&json!(4), &json!(3009)));
    let share = program.json(&format!("{at}?path=usr/share")).await;
    assert_eq!(names(&share), [".wh.gone", "a.txt"]);
    assert_eq!(share["entries"][0]["kind"], "whiteout");
    let found = program.json(&format!("{at}?q=bin/ap")).await;
    assert_eq!(names(&found), ["usr/bin/app"]);
    let page = program.get(&format!("{at}?path=etc")).await.expect(200).text();
    assert!(
        page.contains("&lt;script&gt;alert") && !page.contains("<script>alert"),
        "{page}"
    );
    let image = program.get("/explorer/r/app/-/tags/v1").await.expect(200).text();
    assert!(image.contains(&format!(r#"href="{at}""#)), "{image}");

    program.get(&format!("{at}?path=usr/none")).await.expect(404);
    program.get(&format!("{at}?path=README")).await.expect(404);
    program.get(&format!("{at}?path=../../etc")).await.expect(404);
    let none = format!("sha256:{}", "0".repeat(64));
    program
        .get(&format!("/explorer/r/app/-/files/{none}"))
        .await
        .expect(404);

    // Of another repository or tenant it is not there.
    let narrow = house.admin.token("acme", &["other"], &["pull"]).await;
    house.program("acme", &narrow).get(&at).await.expect(404);
    house
        .repository("acme", &token, "second")
        .await
        .push_blob(b"x")
        .await;
    program
        .get(&at.replace("/r/app/", "/r/second/"))
        .await
        .expect(404);
    let other = house.token("other").await;
    house.program("other", &other).get(&at).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_archive_or_a_bomb_is_told_in_words() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "app").await;
    let program = house.program("acme", &token);
    let bomb = gzip(&tar_of(&[("zeros", &vec![0; 200 << 20])]));
    assert!(bomb.len() < 1 << 20);
    for (number, (layer, words)) in [
        (b"not an archive at all".to_vec(), "neither a tar archive nor"),
        (bomb, "at most 200"),
        (Vec::new(), "neither a tar archive nor"),
    ]
    .into_iter()
    .enumerate()
    {
        let digest = push_layer(&repository, &format!("v{number}"), &layer).await;
        let at = format!("/explorer/r/app/-/files/{digest}");
        let text = program.get(&at).await.expect(409).text();
        assert!(text.contains(words), "{text}");
    }
    // What comes before the broken part is shown, and that it is not all.
    let whole = gzip(&tar_of(&[
        ("first", &blob(100_000, 1)),
        ("second", &blob(100_000, 2)),
    ]));
    let broken = push_layer(&repository, "cut", &whole[..whole.len() * 3 / 4]).await;
    let page = program.get(&format!("/explorer/r/app/-/files/{broken}")).await;
    let text = page.expect(200).text();
    assert!(
        text.contains("This is not all") && text.contains("first"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_is_shown_with_its_facts_readme_and_values() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let repository = house.repository("acme", &token, "charts/web").await;
    let chart = "apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: '7'\ndescription: A <b>web</b> server\n\
        home: https://web.test\nsources: ['javascript:alert(1)']\nmaintainers: [{name: Ann, url: 'https://ann.test'}]\n\
        dependencies: [{name: db, version: ^2, repository: 'oci://charts.test/db'}]\n";
    let readme = "# Web\n\nSome *text* <script>alert(1)</script> [bad](javascript:alert(2)) ![p](https://evil.test/p.png)\n";
    let archive = gzip(&tar_of(&[
        ("web/Chart.yaml", chart.as_bytes()),
        ("web/README.md", readme.as_bytes()),
        ("web/values.yaml", b"replicas: 2\n"),
        ("web/templates/web.yaml", b"x"),
    ]));
    let config = ("application/vnd.cncf.helm.config.v1+json", &b"{}"[..]);
    let layer = (
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        &archive[..],
    );
    push(&repository, "1.2.3", config, layer).await;
    let program = house.program("acme", &token);

    let told = program.json("/explorer/r/charts/web/-/tags/1.2.3").await;
    assert_eq!(told["kind"], "HelmChart");
    assert_eq!(told["contents"]["chart"]["version"], "1.2.3");
    assert_eq!(told["contents"]["chart"]["values"]["text"], "replicas: 2\n");
    let page = program
        .get("/explorer/r/charts/web/-/tags/1.2.3")
        .await
        .expect(200)
        .text();
    for text in [
        "Chart web 1.2.3",
        "<h3>Web</h3>",
        "<em>text</em>",
        "replicas: 2",
        "web.yaml",
        "https://ann.test",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    for text in ["<script>alert", r#"href="javascript"#, "<img", "<b>web</b>"] {
        assert!(!page.contains(text), "{text}: {page}");
    }
    // One that says something else is shown as what it is, and why its content is not.
    let layer = (
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        &b"nonsense"[..],
    );
    push(&repository, "0.0.1", config, layer).await;
    let page = program
        .get("/explorer/r/charts/web/-/tags/0.0.1")
        .await
        .expect(200)
        .text();
    assert!(page.contains("neither a tar archive nor"), "{page}");
}
