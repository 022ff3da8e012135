//! The image: what `tests/tools/image` makes is valid, the same every time, what the Containerfile says, and goes through
//! a registry unchanged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::content::sha256;
use harness::{Backend, Berth, Client, Layout, program, setting};
use serde_json::{Value, json};

use super::{checkout, read};

/// The tag of what is made here.
const TAG: &str = "test";

/// The tool, with the programs of `BERTH_BIN`, which need not be static.
struct Tool {
    registry: PathBuf,
    operator: PathBuf,
    provider: PathBuf,
    flags: Vec<&'static str>,
}

impl Tool {
    fn of_the_programs() -> Tool {
        let registry = PathBuf::from(setting("BERTH_BIN"));
        Tool {
            operator: registry.with_file_name("berth-operator"),
            provider: registry.with_file_name("berth-credential-provider"),
            registry,
            flags: vec!["--allow-dynamic"],
        }
    }

    /// With two programs, of which the second stands for the credential provider too.
    fn of(registry: &Path, operator: &Path) -> Tool {
        Tool {
            registry: registry.to_owned(),
            operator: operator.to_owned(),
            provider: operator.to_owned(),
            flags: vec!["--allow-dynamic"],
        }
    }

    fn attempt(&self, folder: &Path) -> Output {
        Command::new(checkout("tests/tools/image"))
            .args(&self.flags)
            .arg("--registry-bin")
            .arg(&self.registry)
            .arg("--operator-bin")
            .arg(&self.operator)
            .arg("--provider-bin")
            .arg(&self.provider)
            .arg("--output")
            .arg(folder.join("layout"))
            .arg("--archive")
            .arg(folder.join("image.tar"))
            .args(["--tag", &format!("berth:{TAG}")])
            .env("SOURCE_DATE_EPOCH", "1767225600")
            .output()
            .expect("the tool runs")
    }

    /// Makes the image; its digest.
    fn make(&self, folder: &Path) -> String {
        let output = self.attempt(folder);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(told.contains(&format!("docker.io/library/berth:{TAG}")), "{told}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What it says when it refuses.
    fn refusal(&self, folder: &Path) -> String {
        let output = self.attempt(folder);
        assert!(!output.status.success(), "it is made");
        assert!(!folder.join("layout").exists() && !folder.join("image.tar").exists());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn blob(folder: &Path, digest: &Value) -> Vec<u8> {
    let digest = digest.as_str().expect("a digest");
    let path = folder.join("layout/blobs").join(digest.replacen(':', "/", 1));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document(folder: &Path, digest: &Value) -> Value {
    serde_json::from_slice(&blob(folder, digest)).expect("JSON")
}

fn manifest(folder: &Path) -> Value {
    let index: Value = serde_json::from_str(&read(&folder.join("layout/index.json"))).expect("JSON");
    document(folder, &index["manifests"][0]["digest"])
}

fn config(folder: &Path) -> Value {
    document(folder, &manifest(folder)["config"]["digest"])
}

/// A layer's files as `tar` lists them: mode, owner, name.
fn listed(layer: &Path) -> Vec<String> {
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--gzip", "--numeric-owner", "--file"])
        .arg(layer)
        .output()
        .expect("tar runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", words[0], words[1], words[words.len() - 1])
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_the_programs_is_valid_and_goes_through_a_registry_unchanged() {
    let crane = Client::new("crane");
    let skopeo = Client::new("skopeo");
    let digest = Tool::of_the_programs().make(crane.home());
    let (layout, archive) = (crane.path_text("layout"), crane.path_text("image.tar"));

    crane.run(&["validate", "--tarball", &archive]).await;
    for reference in [
        format!("oci:{layout}:{TAG}"),
        format!("oci-archive:{archive}:{TAG}"),
        format!("docker-archive:{archive}"),
    ] {
        let seen = skopeo.run(&["inspect", "--config", &reference]).await;
        let seen: Value = serde_json::from_slice(&seen.stdout).expect("JSON");
        assert_eq!(
            seen["config"]["Entrypoint"],
            json!(["/berth-registry"]),
            "{reference}"
        );
        assert_eq!(seen["config"]["User"], "65532:65532", "{reference}");
        assert_eq!(seen["os"], "linux", "{reference}");
    }

    let berth = Berth::start(Backend::Embedded).await;
    let reference = format!("{}/berth:{TAG}", berth.address());
    crane.run(&["push", &layout, &reference]).await;
    assert_eq!(crane.run(&["digest", &reference]).await.text(), digest);
    crane.run(&["validate", "--remote", &reference]).await;
    crane
        .run(&["pull", "--format=oci", &reference, &crane.path_text("pulled")])
        .await;
    let pulled = Layout::at(&crane.path("pulled"));
    let index: Value = serde_json::from_str(&read(&crane.path("layout/index.json"))).expect("JSON");
    let manifest_bytes = blob(crane.home(), &index["manifests"][0]["digest"]);
    assert_eq!(sha256(&manifest_bytes), digest);
    pulled.assert_holds_bytes(&manifest_bytes);
    for layer in manifest(crane.home())["layers"].as_array().expect("layers") {
        pulled.assert_holds_bytes(&blob(crane.home(), &layer["digest"]));
    }
}

#[test]
fn the_image_holds_the_programs_certificates_and_a_folder_of_its_user_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let tool = Tool::of(&program("true"), &program("cat"));
    tool.make(folder.path());
    let layers = manifest(folder.path())["layers"].clone();
    let path = |number: usize| {
        let digest = layers[number]["digest"].as_str().expect("a digest");
        folder
            .path()
            .join("layout/blobs")
            .join(digest.replacen(':', "/", 1))
    };
    assert_eq!(
        listed(&path(0)),
        [
            "drwxr-xr-x 0/0 etc/",
            "drwxr-xr-x 0/0 etc/ssl/",
            "drwxr-xr-x 0/0 etc/ssl/certs/",
            "-r--r--r-- 0/0 etc/ssl/certs/ca-certificates.crt",
            "drwxr-xr-x 0/0 var/",
            "drwxr-xr-x 0/0 var/lib/",
            "drwx------ 65532/65532 var/lib/berth/",
        ]
    );
    assert_eq!(
        listed(&path(1)),
        [
            "-r-xr-xr-x 0/0 berth-credential-provider",
            "-r-xr-xr-x 0/0 berth-operator",
            "-r-xr-xr-x 0/0 berth-registry",
        ]
    );
    assert_eq!(layers.as_array().map(Vec::len), Some(2));
    let unpacked = Command::new("tar")
        .args(["--extract", "--gzip", "--to-stdout", "--file"])
        .arg(path(1))
        .arg("berth-registry")
        .output()
        .expect("tar runs");
    assert!(unpacked.stdout == std::fs::read(&tool.registry).expect("a program"));
}

#[test]
fn the_same_programs_give_the_same_bytes() {
    let folders = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
    let programs = folders[1].path().join("programs");
    std::fs::create_dir(&programs).expect("a folder");
    // Other names, times and modes.
    let copies = ["true", "cat"].map(|name| {
        let copy = programs.join(format!("copy-of-{name}"));
        std::fs::write(&copy, std::fs::read(program(name)).expect("a program")).expect("a copy");
        copy
    });
    let first = Tool::of(&program("true"), &program("cat")).make(folders[0].path());
    let second = Tool::of(&copies[0], &copies[1]).make(folders[1].path());
    assert_eq!(first, second);
    let [first, second] =
        folders.map(|folder| std::fs::read(folder.path().join("image.tar")).expect("an archive"));
    assert!(first == second, "the archives differ");
}

#[test]
fn programs_that_would_not_start_in_the_image_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (yes, cat) = (program("true"), program("cat"));
    let mut strict = Tool::of(&yes, &cat);
    strict.flags.clear();
    let told = strict.refusal(folder.path());
    assert!(told.contains("not linked statically"), "{told}");

    let text = folder.path().join("text");
    std::fs::write(&text, "no program").expect("a file");
    let told = Tool::of(&text, &cat).refusal(folder.path());
    assert!(told.contains("no 64-bit program"), "{told}");

    // The same program, said to be for the other of the two architectures.
    let mut bytes = std::fs::read(&yes).expect("a program");
    bytes[18] = if bytes[18] == 62 { 183 } else { 62 };
    let other = folder.path().join("other");
    std::fs::write(&other, &bytes).expect("a program");
    let told = Tool::of(&other, &cat).refusal(folder.path());
    assert!(told.contains("two architectures"), "{told}");
    let mut mixed = Tool::of(&yes, &cat);
    mixed.provider = other.clone();
    assert!(mixed.refusal(folder.path()).contains("two architectures"));
    Tool::of(&other, &other).make(folder.path());
    let named = if bytes[18] == 62 { "amd64" } else { "arm64" };
    assert_eq!(config(folder.path())["architecture"], named);
}

/// The instructions of the Containerfile's last stage, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = read(&checkout("Containerfile")).replace("\\\n", " ");
    let stage = text
        .rsplit_once("FROM scratch")
        .expect("a last stage from scratch")
        .1;
    let lines = stage.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn the_containerfile_says_the_same_as_the_tool() {
    let folder = tempfile::tempdir().expect("a folder");
    Tool::of(&program("true"), &program("cat")).make(folder.path());
    let made = config(folder.path())["config"].clone();
    let instructions = instructions();
    let find = |name: &str| {
        let found = instructions.iter().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    };
    assert_eq!(find("USER"), made["User"]);
    assert_eq!(
        json!({ format!("{}/tcp", find("EXPOSE")): {} }),
        made["ExposedPorts"]
    );
    assert_eq!(json!([find("ENV")]), made["Env"]);
    let entrypoint: Value = serde_json::from_str(&find("ENTRYPOINT")).expect("JSON");
    assert_eq!(entrypoint, made["Entrypoint"]);

    let version = find("ARG");
    let version = version.strip_prefix("VERSION=").expect("a version");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let labels = find("LABEL").replace("$VERSION", version);
    let mut said = serde_json::Map::new();
    for label in labels.split("\" ") {
        let (name, value) = label.trim().split_once("=\"").expect("a label");
        said.insert(name.to_owned(), value.trim_end_matches('"').into());
    }
    assert_eq!(Value::Object(said), made["Labels"]);
}

#[test]
fn the_chart_asks_for_the_image_that_the_tool_makes() {
    let objects = super::objects(&[]);
    let operator = super::find(&objects, "Deployment", "berth-operator");
    let image = &operator["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, format!("berth:{}", env!("CARGO_PKG_VERSION")));
    let tool = read(&checkout("tests/tools/image"));
    assert!(
        tool.contains("name=\"berth:$version\""),
        "the tool's default name has changed"
    );
}
