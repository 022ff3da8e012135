//! The cluster on a laptop: kind takes `kind-config.yaml`, and the file goes with the chart's profile and with what the
//! registry serves.

use harness::content::sha256;
use harness::http::{client, send};
use harness::image::MANIFEST;
use harness::{Admin, Berth, Client, Image};
use reqwest::Method;
use serde_json::{Value, json};

use super::{checkout, find, objects, profile, read};

/// The address of the registry on nodes.
const NODE_PORT: &str = "127.0.0.1:30500";
/// The folder of hosts that nodes read.
const HOSTS: &str = "/etc/containerd/certs.d";

fn cluster() -> Value {
    serde_yaml::from_str(&read(&checkout("kind-config.yaml"))).expect("YAML")
}

/// The files by which nodes reach tenants: their folder's name and content.
fn hosts_files() -> Vec<(String, String)> {
    let folders = std::fs::read_dir(checkout("kind/certs.d")).expect("a folder");
    let files = folders.map(|folder| {
        let folder = folder.expect("a folder");
        let name = folder.file_name().into_string().expect("a plain name");
        (name, read(&folder.path().join("hosts.toml")))
    });
    files.collect()
}

/// What kind says to a configuration. There is no engine at the address that it is given, so nothing is ever made.
async fn answer_to(configuration: &str) -> String {
    let kind = Client::new("kind");
    let kubeconfig = kind.path_text("kubeconfig");
    let kind = kind
        .variable("KUBECONFIG", &kubeconfig)
        .variable("KIND_EXPERIMENTAL_PROVIDER", "docker")
        .variable("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let file = kind.file("kind-config.yaml", configuration.as_bytes());
    let output = kind.attempt(&["create", "cluster", "--config", &file]).await;
    assert!(!output.success, "a cluster without an engine");
    assert!(!kind.path("kubeconfig").exists());
    output.stderr
}

#[tokio::test]
async fn kind_takes_the_configuration_and_lacks_but_an_engine() {
    let told = answer_to(&read(&checkout("kind-config.yaml"))).await;
    assert!(told.contains("failed to get docker info"), "{told}");
    assert!(!told.contains("unable to decode config"), "{told}");
}

#[tokio::test]
async fn kind_refuses_a_copy_with_an_unknown_field() {
    let whole = read(&checkout("kind-config.yaml"));
    let wrong = whole.replacen("hostPort: 5000", "hostPort: 5000\n        hostPorts: 5000", 1);
    assert_ne!(whole, wrong);
    let told = answer_to(&wrong).await;
    assert!(told.contains("unable to decode config"), "{told}");
    assert!(told.contains("hostPorts"), "{told}");
}

#[tokio::test]
async fn kind_takes_the_configuration_with_the_workers_that_its_comments_offer() {
    let whole = read(&checkout("kind-config.yaml"));
    let more = whole
        .replacen("  # - role: worker", "  - role: worker", 1)
        .replacen("  #   extraMounts:", "    extraMounts:", 1);
    let parsed: Value = serde_yaml::from_str(&more).expect("YAML");
    let nodes = parsed["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0]["extraMounts"], nodes[1]["extraMounts"]);
    let told = answer_to(&more).await;
    assert!(told.contains("failed to get docker info"), "{told}");
}

#[test]
fn the_port_of_the_machine_leads_to_the_profiles_node_port() {
    let mapping = cluster()["nodes"][0]["extraPortMappings"][0].clone();
    let objects = objects(&["-f", &profile("kind")]);
    let port = &find(&objects, "Service", "berth")["spec"]["ports"][0];
    assert_eq!(mapping["containerPort"], port["nodePort"]);
    assert_eq!(mapping["listenAddress"], "127.0.0.1");
    let operator = find(&objects, "Deployment", "berth-operator");
    let arguments = &operator["spec"]["template"]["spec"]["containers"][0]["args"];
    let external = format!("--external-port={}", mapping["hostPort"]);
    assert!(
        arguments
            .as_array()
            .expect("arguments")
            .iter()
            .any(|argument| *argument == external),
        "{external}: {arguments}"
    );
    assert_eq!(NODE_PORT, format!("127.0.0.1:{}", port["nodePort"]));
}

#[test]
fn nodes_read_the_hosts_of_this_folder_whatever_version_their_containerd_has() {
    let cluster = cluster();
    let mount = &cluster["nodes"][0]["extraMounts"][0];
    assert_eq!(mount["containerPath"], HOSTS);
    let folder = mount["hostPath"].as_str().expect("a path");
    assert!(checkout(folder).is_dir(), "{folder}");
    let patches = cluster["containerdConfigPatches"].as_array().expect("patches");
    for (patch, (version, plugin)) in patches.iter().zip([
        ("version = 2", "plugins.\"io.containerd.grpc.v1.cri\".registry"),
        ("version = 3", "plugins.\"io.containerd.cri.v1.images\".registry"),
    ]) {
        let patch = patch.as_str().expect("a text");
        for part in [version, plugin, &format!("config_path = \"{HOSTS}\"")] {
            assert!(patch.contains(part), "{part}: {patch}");
        }
    }
    assert_eq!(patches.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_ask_for_by_these_hosts_is_the_tenants() {
    // As the chart starts it on a laptop.
    let berth = Berth::builder()
        .flag("--domain", "registry.localhost")
        .flag("--apex-tenant", "none")
        .flag("--open", "Never")
        .start()
        .await;
    let admin = Admin::of(&berth);
    for (folder, file) in hosts_files() {
        let host = folder
            .strip_suffix("_5000_")
            .expect("a host and the port of the machine");
        let tenant = host.strip_suffix(".registry.localhost").expect("a tenant's host");
        admin.put_tenant(tenant, json!({})).await;
        let token = admin.token(tenant, &["**"], &["pull", "push"]).await;
        // As laptops push, by the tenant's name.
        let image = Image::new(31, 1000);
        let pushed = async |method: Method, path: String, media_type: &str, body: &[u8]| {
            let request = client()
                .request(method, berth.url(&path))
                .header("host", format!("{host}:5000"))
                .header("content-type", media_type)
                .basic_auth("x-token", Some(&token))
                .body(body.to_vec());
            send(request).await.expect(201);
        };
        for blob in image.blobs() {
            let path = format!("/v2/team/app/blobs/uploads/?digest={}", sha256(blob));
            pushed(Method::POST, path, "application/octet-stream", blob).await;
        }
        let path = "/v2/team/app/manifests/v1".to_owned();
        pushed(Method::PUT, path, MANIFEST, &image.manifest).await;

        let line = file.lines().find_map(|line| line.strip_prefix("server = "));
        let server = line.expect("a server").trim_matches('"');
        assert_eq!(server, format!("http://{NODE_PORT}"));
        // The name of the folder is in `ns`, as containerd does for hosts that are not the image's own.
        let pull = |what: &str| client().get(berth.url(&format!("/v2/team/app/{what}?ns={host}:5000")));
        let challenge = send(pull("manifests/v1")).await.expect(401);
        let challenge = challenge.header("www-authenticate").to_owned();
        assert!(
            challenge.contains("scope=\"repository:team/app:pull\""),
            "{challenge}"
        );
        let form = format!(
            "grant_type=password&service=x&client_id=containerd-client&username=x-token&password={token}\
             &scope=repository:team/app:pull"
        );
        let realm = challenge.split('"').nth(1).expect("a realm").to_owned();
        let token_url = format!("http://{}/v2/token?ns={host}%3A5000", berth.address());
        assert_eq!(realm, token_url);
        let request = client()
            .post(realm)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let issued = send(request).await.expect(200).json();
        let access = issued["access_token"].as_str().expect("a token");
        let manifest = send(pull("manifests/v1").bearer_auth(access)).await.expect(200);
        assert!(manifest.body == image.manifest);
        for blob in image.blobs() {
            let path = format!("blobs/{}", sha256(blob));
            let answer = send(pull(&path).bearer_auth(access)).await.expect(200);
            assert!(answer.body == blob);
        }
    }
}
