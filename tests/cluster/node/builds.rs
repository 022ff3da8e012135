//! What a pipeline does with Berth: BuildKit builds from images in it, pushes to it and keeps its cache in it; cosign
//! signs what was built, and refuses what was not signed.
//!
//! BuildKit makes an SBOM (`attest:sbom`) by an image of a scanner that nobody has here: of its attestations only
//! provenance is asked for. cosign has no transparency log to tell: a configuration without services signs, and the log
//! is left out of the verification.

use harness::http::{Answer, send};
use harness::node::{Release, TenantOf, http, kubectl, logged_in};
use harness::{BuildKit, Client, Output, condition};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ATTESTATION: &str = "application/vnd.docker.attestation.manifest.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The step whose result no second run repeats; only a cache of all stages (`mode=max`) holds it.
const MAKES: &str = "[build 2/2] RUN";
/// A step of the last stage, which depends on an argument.
const GREETS: &str = "[stage-1 2/3] RUN";

async fn get(tenant: &TenantOf<'_>, path: &str) -> Answer {
    let request = http()
        .get(format!("https://{}/v2/{path}", tenant.host))
        .basic_auth("x-token", Some(tenant.token()))
        .header("Accept", format!("{INDEX}, {MANIFEST}"));
    send(request).await.expect(200)
}

/// What refers to a manifest.
async fn referrers(tenant: &TenantOf<'_>, repository: &str, digest: &str, more: &str) -> Vec<Value> {
    let path = format!("{repository}/referrers/{digest}{more}");
    let index = get(tenant, &path).await.json();
    index["manifests"].as_array().expect("a list").clone()
}

/// Something to be built in two stages, on an image of the same tenant.
struct Project {
    buildctl: Client,
    host: String,
}

impl Project {
    async fn of(tenant: &TenantOf<'_>) -> Project {
        let base = tenant.push_runnable("base/busybox", "1", 1000).await;
        let buildctl = tenant.client("buildctl");
        let containerfile = format!(
            "FROM {base} AS build\n\
             RUN cat /proc/sys/kernel/random/uuid >/made\n\
             FROM {base}\n\
             ARG GREETING\n\
             RUN echo \"$GREETING\" >/greeting\n\
             COPY --from=build /made /made\n\
             CMD [\"/bin/sh\", \"-c\", \"cat /greeting /made; sleep 1000000\"]\n"
        );
        buildctl.file("context/Containerfile", containerfile.as_bytes());
        Project {
            buildctl,
            host: tenant.host.clone(),
        }
    }

    /// Builds it; the progress.
    async fn build(&self, daemon: &BuildKit, greeting: &str, more: &[&str]) -> String {
        let greeting = format!("build-arg:GREETING={greeting}");
        let build = [
            "build",
            "--progress=plain",
            "--frontend=dockerfile.v0",
            "--local=context=context",
            "--local=dockerfile=context",
            "--opt=filename=Containerfile",
            "--opt",
            &greeting,
        ];
        daemon.run(&self.buildctl, &[&build[..], more].concat()).await
    }

    /// The argument that pushes what is built.
    fn pushed(&self, name: &str) -> String {
        format!("--output=type=image,name={}/{name},push=true", self.host)
    }

    /// A file of what was built, from a folder to which it was written.
    fn built(&self, folder: &str, file: &str) -> String {
        let path = self.buildctl.path(folder).join(file);
        std::fs::read_to_string(path)
            .expect("a built file")
            .trim()
            .to_owned()
    }
}

/// Whether a step was taken from a cache, as plain progress shows it.
fn is_cached(progress: &str, step: &str) -> bool {
    let number = |line: &str| line.split(' ').next().map(str::to_owned);
    let shown = progress.lines().find(|line| line.contains(step));
    let number = shown
        .and_then(number)
        .unwrap_or_else(|| panic!("no step {step:?} in {progress}"));
    progress.contains(&format!("\n{number} CACHED\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_buildkit_built_is_listed_with_its_provenance_and_rolls_out() {
    let release = Release::shared().await;
    let acme = release.new_tenant("builds", json!({})).await;
    let project = Project::of(&acme).await;
    let buildkit = BuildKit::start(&acme.host).await;
    let pushed = project.pushed("app:1");
    let more = [
        &pushed,
        "--output=type=local,dest=out",
        "--opt=attest:provenance=mode=max",
    ];
    project.build(&buildkit, "hello", &more).await;

    // The index names the image, and its attestation for no platform.
    let index = get(&acme, "app/manifests/1").await;
    assert_eq!(index.header("Content-Type"), INDEX);
    let index = index.json();
    let listed = index["manifests"].as_array().expect("manifests");
    assert_eq!(listed.len(), 2, "{index:#}");
    let (image, attestation) = (&listed[0], &listed[1]);
    assert_eq!(image["platform"]["os"], "linux");
    assert_eq!(
        attestation["platform"],
        json!({ "architecture": "unknown", "os": "unknown" })
    );
    assert_eq!(
        attestation["annotations"]["vnd.docker.reference.digest"],
        image["digest"]
    );
    // It refers to the image as well.
    let (digest, told) = (
        image["digest"].as_str().expect("a digest"),
        attestation["digest"].as_str().expect("a digest"),
    );
    let found = referrers(&acme, "app", digest, "").await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (&found[0]["digest"], &found[0]["artifactType"]),
        (&json!(told), &json!(ATTESTATION))
    );
    let attestation = get(&acme, &format!("app/manifests/{told}")).await.json();
    let layer = &attestation["layers"][0];
    assert_eq!(
        layer["annotations"]["in-toto.io/predicate-type"],
        "https://slsa.dev/provenance/v1"
    );
    let statement = layer["digest"].as_str().expect("a digest");
    let statement = get(&acme, &format!("app/blobs/{statement}")).await.json();
    let subject = statement["subject"][0]["digest"]["sha256"]
        .as_str()
        .expect("a subject");
    assert_eq!(format!("sha256:{subject}"), digest);
    // What it was built from came from here.
    let material = &statement["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    let from = format!("pkg:docker/{}/base/busybox@1?", acme.host);
    assert!(
        material["uri"].as_str().is_some_and(|uri| uri.starts_with(&from)),
        "{material:#}"
    );
    let base = digest_of(&acme, "base/busybox/manifests/1").await;
    assert_eq!(material["digest"]["sha256"], base.trim_start_matches("sha256:"));

    // The page says it in words.
    let page = http()
        .get(format!("https://{}/explorer/api/r/app/-/tags/1", acme.host))
        .basic_auth("x-token", Some(acme.token()));
    let page = send(page).await.expect(200).json();
    let read = &page["documents"]["provenance"]["content"];
    assert_eq!(
        read["predicateType"], "https://slsa.dev/provenance/v1",
        "{page:#}"
    );
    assert!(
        read["materials"][0]["name"]
            .as_str()
            .is_some_and(|uri| uri.starts_with(&from)),
        "{read:#}"
    );

    let shown = rolled_out(&acme, &format!("{}/app:1", acme.host)).await;
    assert_eq!(shown, format!("hello\n{}", project.built("out", "made")));
}

/// What an image writes as a Deployment of a namespace that gets the tenant's pull Secret.
async fn rolled_out(tenant: &TenantOf<'_>, image: &str) -> String {
    let plane = &tenant.release.plane;
    let apps = format!("{}-apps", tenant.name);
    tenant.pull_secret("apps").await;
    plane
        .wait("ServiceAccount", &apps, "default", |account| {
            account["imagePullSecrets"][0]["name"] == format!("berth-{}", tenant.name)
        })
        .await;
    let labels = json!({ "app": "built" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "built", "namespace": apps },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{ "name": "main", "image": image }],
                },
            },
        },
    });
    plane.apply(deployment).await.expect("a Deployment");
    plane
        .wait("Deployment", &apps, "built", |deployment| {
            condition(deployment, "Available").is_some_and(|found| found["status"] == "True")
        })
        .await;
    let shown = kubectl()
        .run(&["logs", "--namespace", &apps, "deployment/built"])
        .await;
    plane.delete("Deployment", &apps, "built").await;
    shown.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_builder_with_an_empty_cache_takes_steps_from_the_registry() {
    let release = Release::shared().await;
    let acme = release.new_tenant("caches", json!({})).await;
    let project = Project::of(&acme).await;
    let host = &acme.host;
    let forms = [("manifest", "true", MANIFEST), ("index", "false", INDEX)];
    let first = BuildKit::start(host).await;
    let exports = forms.map(|(form, as_manifest, _)| {
        format!(
            "--export-cache=type=registry,ref={host}/cache/{form}:1,mode=max,oci-mediatypes=true,image-manifest={as_manifest}"
        )
    });
    let pushed = project.pushed("app:1");
    let [as_manifest, as_index] = &exports;
    let more = [&pushed, "--output=type=local,dest=first", as_manifest, as_index];
    let progress = project.build(&first, "hello", &more).await;
    assert!(!is_cached(&progress, MAKES), "{progress}");
    drop(first);
    let made = project.built("first", "made");
    let built = get(&acme, "app/manifests/1").await.json();

    // Without a cache the step runs again: it would show in what follows.
    let alone = BuildKit::start(host).await;
    let progress = project
        .build(&alone, "hello", &["--output=type=local,dest=alone"])
        .await;
    assert!(!is_cached(&progress, MAKES), "{progress}");
    assert_ne!(project.built("alone", "made"), made);
    drop(alone);

    for (form, _, media_type) in forms {
        let cache = get(&acme, &format!("cache/{form}/manifests/1")).await;
        assert_eq!(cache.header("Content-Type"), media_type);
        assert_eq!(cache.json()["mediaType"], media_type);
        let fresh = BuildKit::start(host).await;
        let import = format!("--import-cache=type=registry,ref={host}/cache/{form}:1");

        // Nothing runs, and what is pushed is the same to the byte.
        let pushed = project.pushed(&format!("again/{form}:1"));
        let progress = project.build(&fresh, "hello", &[&pushed, &import]).await;
        assert!(is_cached(&progress, MAKES), "{form}: {progress}");
        assert!(is_cached(&progress, GREETS), "{form}: {progress}");
        let again = get(&acme, &format!("again/{form}/manifests/1")).await.json();
        assert_eq!(layers(&again), layers(&built), "{form}");

        // A change of the last stage takes the first one from the cache.
        let greeting = format!("bye {form}");
        let progress = project
            .build(&fresh, &greeting, &["--output=type=local,dest=changed", &import])
            .await;
        assert!(!is_cached(&progress, GREETS), "{form}: {progress}");
        assert_eq!(project.built("changed", "greeting"), greeting);
        assert_eq!(project.built("changed", "made"), made, "{form}: {progress}");
    }
}

/// Digests of an image's layers.
fn layers(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array();
    let layers = layers.unwrap_or_else(|| panic!("no image: {manifest:#}"));
    layers
        .iter()
        .map(|layer| layer["digest"].as_str().expect("a digest"))
        .collect()
}

/// cosign with two pairs of keys, `right` and `wrong`.
async fn cosign(secret: &Value) -> Client {
    let cosign = logged_in("cosign", secret).variable("COSIGN_PASSWORD", "a password");
    for name in ["right", "wrong"] {
        cosign
            .run(&["generate-key-pair", "--output-key-prefix", name])
            .await;
    }
    // Without it cosign asks the public installation which services to use.
    cosign
        .run(&["signing-config", "create", "--out", "services.json"])
        .await;
    cosign
}

async fn verify(cosign: &Client, key: &str, image: &str) -> Output {
    cosign
        .attempt(&["verify", "--key", key, "--insecure-ignore-tlog", image])
        .await
}

fn assert_verified(output: &Output, digest: &str) {
    assert!(output.success, "{}", output.stderr);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told:#}");
    assert_eq!(
        told[0]["critical"]["image"]["docker-manifest-digest"], digest,
        "{told:#}"
    );
}

fn assert_refused(output: &Output, why: &str) {
    assert!(!output.success, "{}", output.text());
    assert!(output.stderr.contains(why), "{}", output.stderr);
}

async fn digest_of(tenant: &TenantOf<'_>, path: &str) -> String {
    let found = get(tenant, path).await;
    found.header("Docker-Content-Digest").to_owned()
}

async fn tags(tenant: &TenantOf<'_>, repository: &str) -> Value {
    get(tenant, &format!("{repository}/tags/list")).await.json()["tags"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cosign_verifies_what_it_signed_and_nothing_else() {
    let release = Release::shared().await;
    let acme = release.new_tenant("signed", json!({})).await;
    let image = acme.push_runnable("app", "1", 1000).await;
    let other = acme.push_runnable("app", "2", 1000).await;
    let digest = digest_of(&acme, "app/manifests/1").await;
    let signer = cosign(&acme.secret).await;
    assert_refused(&verify(&signer, "right.pub", &image).await, "no signatures found");

    let exact = format!("{}/app@{digest}", acme.host);
    let sign = [
        "sign",
        "--key=right.key",
        "--yes",
        "--signing-config=services.json",
    ];
    signer.run(&[&sign[..], &[&exact]].concat()).await;

    // Those who verify only read.
    let reader = cosign(&acme.pull_secret("policy").await).await;
    let key = signer.path_text("right.pub");
    assert_verified(&verify(&reader, &key, &image).await, &digest);
    assert_refused(
        &verify(&reader, "wrong.pub", &image).await,
        "accepted signatures do not match threshold",
    );
    assert_refused(&verify(&reader, &key, &other).await, "no signatures found");

    // The signature is a referrer, and took no tag.
    let found = referrers(&acme, "app", &digest, "").await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["artifactType"], BUNDLE);
    assert_eq!(
        found[0]["annotations"]["dev.sigstore.bundle.predicateType"],
        "https://sigstore.dev/cosign/sign/v1"
    );
    let bundle = BUNDLE.replace('+', "%2B");
    let filter = |kind: &str| format!("?artifactType={kind}");
    assert_eq!(referrers(&acme, "app", &digest, &filter(&bundle)).await, found);
    let none: [Value; 0] = [];
    assert_eq!(
        referrers(&acme, "app", &digest, &filter("text%2Fplain")).await,
        none
    );
    assert_eq!(tags(&acme, "app").await, json!(["1", "2"]));

    // A tag that moves to something else does not take the signature along.
    acme.client("crane").run(&["copy", &other, &image]).await;
    assert_refused(&verify(&reader, &key, &image).await, "no signatures found");
    assert_verified(&verify(&reader, &key, &exact).await, &digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_of_the_older_form_is_a_tag() {
    let release = Release::shared().await;
    let acme = release.new_tenant("tagged", json!({})).await;
    let image = acme.push_runnable("app", "1", 1000).await;
    let other = acme.push_runnable("app", "2", 1000).await;
    let digest = digest_of(&acme, "app/manifests/1").await;
    let cosign = cosign(&acme.secret).await;
    let exact = format!("{}/app@{digest}", acme.host);
    cosign
        .run(&[
            "sign",
            "--key=right.key",
            "--yes",
            "--new-bundle-format=false",
            "--use-signing-config=false",
            "--tlog-upload=false",
            &exact,
        ])
        .await;
    let tag = format!("{}.sig", digest.replace(':', "-"));
    assert_eq!(tags(&acme, "app").await, json!(["1", "2", tag]));
    assert_verified(&verify(&cosign, "right.pub", &image).await, &digest);
    let refused = verify(&cosign, "wrong.pub", &image).await;
    assert_refused(&refused, "invalid signature when validating");
    assert_refused(&verify(&cosign, "right.pub", &other).await, "no signatures found");
}
