//! What is done on a cluster: the quickstart, the guide to operations there, and the one to upgrades.

use std::path::Path;

use harness::node::{node_file, pod};
use harness::{ControlPlane, setting};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::{Reader, blocks, checkout, commands};

/// What kind does for ports of the machine.
async fn forward(from: &str, to: &'static str) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(from).await.expect("the port is free");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    })
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quickstart_and_the_guide_to_operations_hold_on_a_cluster() {
    let plane = ControlPlane::connect().await;
    // An installation without a selector looks after every Tenant: there must be no others.
    let reader = Reader::new(&[
        ("tests/tools/image --archive", {
            let programs = Path::new(&setting("BERTH_BIN"))
                .parent()
                .expect("a folder")
                .display()
                .to_string();
            format!(
                "tests/tools/image --registry-bin {programs}/berth-registry --operator-bin {programs}/berth-operator \
                 --provider-bin {programs}/berth-credential-provider --archive"
            )
        }),
        ("target/berth.tar", "$HOME/berth.tar".to_owned()),
        // No way leads to Docker Hub.
        ("crane copy busybox:latest", "crane push $HOME/busybox".to_owned()),
        ("-f acme.yaml", "-f $HOME/acme.yaml".to_owned()),
        ("-f hello.yaml", "-f $HOME/hello.yaml".to_owned()),
        (
            "--reuse-values --wait",
            "--reuse-values --wait --set-json 'registry.extraVolumes=[{\"name\":\"backup\",\"emptyDir\":{}}]' \
             --set-json 'registry.extraVolumeMounts=[{\"name\":\"backup\",\"mountPath\":\"/backup\"}]'"
                .to_owned(),
        ),
        // The copy of the folder is the node's, as kind mounts it.
        ("kind/certs.d", node_file("certs.d")),
    ]);
    reader
        .runs("kubectl delete tenants --all --wait --timeout=120s && mkdir $HOME/busybox")
        .await;
    reader
        .runs(&format!(
            "tar -xf {} -C $HOME/busybox",
            node_file("images/busybox.tar")
        ))
        .await;
    // The cluster is there; what kind would do to it is done.
    reader.program(
        "kind",
        r#"case "$*" in
        "create cluster --config kind-config.yaml" | "delete cluster --name berth") ;;
        "load image-archive "*" --name berth") exec tests/tools/node import "$BERTH_TEST_NODE_DIR" "$3" ;;
        *) echo "kind $* is not in the guide" >&2; exit 1 ;;
        esac"#,
    );
    copy_folder(&checkout().join("kind/certs.d"), Path::new(&node_file("certs.d")));
    let port = forward("127.0.0.1:5000", "127.0.0.1:30500").await;

    let mut run = 0;
    let guide = blocks("quickstart-kubernetes.md");
    for (heading, language, block) in guide.iter().filter(|(heading, ..)| heading != "The end") {
        match language.as_str() {
            "yaml" => {
                let name = if block.contains("kind: Tenant") {
                    "acme.yaml"
                } else {
                    "hello.yaml"
                };
                std::fs::write(reader.path(name), block).expect("a file");
            }
            // Other engines' ways to the same image.
            "sh" if ["docker ", "podman "].iter().any(|engine| block.contains(engine)) => {}
            "sh" => {
                let told = reader.runs(block).await;
                run += 1;
                if block.contains("logs hello") {
                    assert!(told.contains("pulled from Berth"), "{told}");
                }
            }
            other => panic!("a block of {other} below {heading}"),
        }
    }
    assert!(run >= 6, "only {run} blocks were run");

    for (heading, language, block) in blocks("operations.md") {
        let in_a_pod = heading == "What is wrong" && block.contains("kubectl");
        if language != "sh" || !(heading == "On Kubernetes" || in_a_pod) {
            continue;
        }
        reader.runs(&block).await;
        run += 1;
    }
    assert!(run >= 11, "only {run} blocks were run");
    // The upgrade brings a volume for backups along.
    let [upgrade] = commands("upgrade.md", "Distributed")
        .try_into()
        .expect("one block");
    let [backup] = commands("backup.md", "Every night")
        .try_into()
        .expect("one block");
    let [back] = commands("upgrade.md", "Going back")
        .try_into()
        .expect("one block");
    reader.runs(&upgrade).await;
    let told = reader.runs(&backup).await;
    assert!(told.contains("000001-"), "{told}");
    reader.runs(&back).await;
    // What was pushed before the release was uninstalled runs after it was installed again.
    let image = "acme.registry.localhost:5000/team-a/app:v1";
    plane.wait_for("Tenant", "", "acme", "Ready", "True", "").await;
    plane
        .apply(pod("acme", "again", image, "echo still there", json!({})))
        .await
        .expect("a pod");
    harness::node::in_phase(&plane, "acme", "again", "Succeeded").await;
    assert_eq!(harness::node::logs("acme", "again").await, "still there");
    let end: Vec<&str> = guide
        .iter()
        .filter(|(heading, ..)| heading == "The end")
        .map(|(.., block)| block.as_str())
        .collect();
    assert!(!end.is_empty());
    for block in end {
        reader.runs(block).await;
    }
    reader
        .runs("helm uninstall berth --namespace berth-system --wait && kubectl delete namespace acme berth-system")
        .await;
    port.abort();
}
