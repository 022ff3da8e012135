//! The guides for Kubernetes and for operations, followed to the letter: every command of theirs is run, in their order.
//!
//! What is put in the place of a word of theirs is said in each test: there is no engine that could run kind, no way to
//! Docker Hub, and paths of the machine are the test's own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::http::{attempt, client};
use harness::node::{node_file, pod};
use harness::{ControlPlane, Database, Signal, eventually, setting};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Longest wait for a command of a guide.
const PATIENCE: Duration = Duration::from_secs(240);

/// The fenced blocks of a guide, with the heading that each is below.
fn blocks(guide: &str) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(checkout().join("docs").join(guide)).expect("a guide");
    let (mut blocks, mut heading, mut open) = (Vec::new(), String::new(), None::<(String, String)>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    title.clone_into(&mut heading);
                }
            }
            (Some(_), Some(_)) => {
                let (language, content) = open.take().expect("it is open");
                blocks.push((heading.clone(), language, content));
            }
            (Some((_, content)), None) => {
                content.push_str(line);
                content.push('\n');
            }
        }
    }
    blocks
}

fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the checkout")
}

/// Somebody at a terminal in the checkout's folder, with programs of their own and words that mean something else here.
struct Reader {
    folder: TempDir,
    words: Vec<(String, String)>,
}

impl Reader {
    fn new(words: &[(&str, String)]) -> Reader {
        let reader = Reader {
            folder: TempDir::with_prefix("berth-reader-").expect("a folder"),
            words: words
                .iter()
                .map(|(word, by)| ((*word).to_owned(), by.clone()))
                .collect(),
        };
        std::fs::create_dir(reader.path("bin")).expect("a folder");
        reader
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of the reader's own.
    fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\nset -e\n{script}")).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }

    fn meant(&self, block: &str) -> String {
        self.words
            .iter()
            .fold(block.to_owned(), |text, (word, by)| text.replace(word, by))
    }

    fn shell(&self, block: &str) -> Command {
        let programs = Path::new(&setting("BERTH_BIN"))
            .parent()
            .expect("a folder")
            .to_owned();
        let mut command = Command::new("bash");
        command
            .args(["-e", "-o", "pipefail", "-c", &self.meant(block)])
            .current_dir(checkout())
            .env("HOME", self.folder.path())
            .env(
                "PATH",
                format!(
                    "{}:{}:{}",
                    self.path("bin").display(),
                    programs.display(),
                    setting("PATH")
                ),
            )
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a block, which must succeed; what it printed.
    async fn runs(&self, block: &str) -> String {
        let output = tokio::time::timeout(PATIENCE, self.shell(block).output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{block} does not end"))
            .expect("a shell");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{block}\n{text}");
        text
    }

    /// Runs a block that ends with a server, until that is ready.
    async fn serves(&self, block: &str, ops: &str) -> Server {
        let mut command = self.shell(&block.replace("berth-registry serve", "exec berth-registry serve"));
        let child = command.stdout(Stdio::null()).spawn().expect("a shell");
        let (http, url) = (client(), format!("http://{ops}/readyz"));
        eventually(block, Duration::from_secs(60), async || {
            attempt(http.get(&url))
                .await
                .filter(|answer| answer.status == 200)
                .map(drop)
        })
        .await;
        Server(child)
    }
}

struct Server(Child);

impl Server {
    /// Asks it to end, as a supervisor does.
    async fn ends(mut self) {
        let id = self
            .0
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .expect("it runs");
        let pid = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        let ended = tokio::time::timeout(Duration::from_secs(60), self.0.wait()).await;
        assert!(ended.expect("it ends").expect("a status").success());
    }
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_operations_holds_on_a_machine() {
    let database = Database::create();
    let bucket = harness::Bucket::create();
    let folder = TempDir::with_prefix("berth-machine-").expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let reader = Reader::new(&[
        ("/var/lib/berth-restored", at("restored")),
        ("/var/lib/berth", at("data")),
        ("/backup", at("backup")),
        ("/etc/berth/keys", at("data/keys")),
        ("/etc/berth/admin-key", at("data/keys/admin")),
        ("postgres://berth:secret@db/berth", database.url()),
        ("s3://images/berth?region=eu-central-1", bucket.url()),
        (
            "AWS_ACCESS_KEY_ID=...",
            format!("AWS_ACCESS_KEY_ID={}", setting("AWS_ACCESS_KEY_ID")),
        ),
        (
            "AWS_SECRET_ACCESS_KEY=...",
            format!("AWS_SECRET_ACCESS_KEY={}", setting("AWS_SECRET_ACCESS_KEY")),
        ),
    ]);
    let of = |title: &str| -> Vec<String> {
        let found = blocks("operations.md").into_iter();
        found
            .filter(|(heading, language, _)| heading.starts_with(title) && language == "sh")
            .map(|(.., block)| block)
            .collect()
    };
    let image = node_file("images/busybox.tar");
    reader
        .runs(&format!("mkdir $HOME/image && tar -xf {image} -C $HOME/image"))
        .await;

    let [embedded] = of("Embedded").try_into().expect("one block");
    let server = reader.serves(&embedded, "127.0.0.1:5002").await;
    reader
        .runs("crane push $HOME/image 127.0.0.1:5000/team/app:v1")
        .await;
    let [doctor, _] = of("What is wrong").try_into().expect("two blocks");
    reader.runs(&doctor).await;
    let [backup, restored] = of("Backup").try_into().expect("two blocks");
    reader.runs(&backup).await;
    let copy = reader.serves(&restored, "127.0.0.1:6002").await;
    let digest = "crane digest 127.0.0.1:5000/team/app:v1";
    assert_eq!(
        reader.runs(digest).await,
        reader.runs(&digest.replace("5000", "6000")).await
    );
    reader
        .runs("crane pull --format=oci 127.0.0.1:6000/team/app:v1 $HOME/pulled")
        .await;
    copy.ends().await;
    server.ends().await;

    let [distributed] = of("Distributed").try_into().expect("one block");
    let server = reader.serves(&distributed, "127.0.0.1:5002").await;
    reader
        .runs("crane push $HOME/image 127.0.0.1:5000/team/app:v1")
        .await;
    server.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_releases_publishes_what_its_readers_verify() {
    let berth = harness::Berth::start(harness::Backend::Embedded).await;
    let host = berth.address();
    let reader = Reader::new(&[
        // The one that was uploaded to over plain HTTP says so.
        (
            "oci://registry.example.com/berth/charts",
            format!("oci://{host}/berth/charts --plain-http"),
        ),
        ("registry.example.com", host.clone()),
        ("$KEYS/", "$HOME/".to_owned()),
        ("cosign.pub", "$HOME/cosign.pub".to_owned()),
        ("cd target/release-", "cd $HOME/release-".to_owned()),
    ]);
    // The compiler is asked who it is, and is found in the home of whoever runs the tests.
    let programs = PathBuf::from(setting("BERTH_BIN"));
    let version = env!("CARGO_PKG_VERSION");
    let made = Command::new(checkout().join("tests/tools/release"))
        .args(["--trial", "--programs"])
        .arg(programs.parent().expect("a folder"))
        .arg("--output")
        .arg(reader.path(&format!("release-{version}")))
        .output();
    let made = harness::within("the files of a release", PATIENCE, made).await;
    let made = made.expect("the tool runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    reader
        .runs("cd $HOME && COSIGN_PASSWORD= cosign generate-key-pair")
        .await;
    let of = |title: &str| {
        let mut found = blocks("releasing.md").into_iter();
        let block = found.find(|(heading, language, _)| heading == title && language == "sh");
        block.unwrap_or_else(|| panic!("no commands below {title}")).2
    };
    reader
        .runs(&format!("export COSIGN_PASSWORD=\n{}", of("Publish")))
        .await;
    let listed = reader.runs(&of("Verify")).await;
    for name in ["tokio 1.", "berth-registry 0.", "libsqlite3-sys 0."] {
        assert!(listed.contains(name), "{listed}");
    }

    // People see both in the explorer.
    let http = client();
    let api = |path: &str| http.get(berth.url(&format!("/explorer/api/r/berth/berth/-/{path}")));
    let told = harness::http::send(api(&format!("tags/{version}")))
        .await
        .expect(200)
        .json();
    let document = told["documents"]["packages"]["digest"].as_str();
    let document = document.unwrap_or_else(|| panic!("no packages: {told:#}"));
    let packages = harness::http::send(api(&format!("packages/{document}"))).await;
    let packages = packages.expect(200).json();
    assert_eq!(packages["format"], "CycloneDX 1.6", "{packages:#}");
    assert!(packages["found"].as_u64() > Some(200), "{packages:#}");
    let built = told["documents"]["provenance"]["digest"].as_str();
    assert!(built.is_some(), "{told:#}");
}
