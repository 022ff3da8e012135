use super::*;
use serde_json::json;

fn statement(kind: &str, predicate: &Value) -> Vec<u8> {
    let subject = json!([{ "name": "app", "digest": { "sha256": "ab" } }]);
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "subject": subject, "predicate": predicate,
    });
    statement.to_string().into_bytes()
}

const V02: &str = "https://slsa.dev/provenance/v0.2";
const V1: &str = "https://slsa.dev/provenance/v1";

#[test]
fn what_buildkit_says_is_read() {
    let predicate = json!({
        "builder": { "id": "https://ci.test/runs/7" },
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": [
            { "uri": "pkg:docker/alpine@3.22?platform=linux%2Famd64", "digest": { "sha256": "aa" } },
            { "uri": "https://git.test/a/b.git#refs/heads/main", "digest": { "sha1": "c0ffee" } },
        ],
        "invocation": {
            "configSource": { "uri": "https://git.test/a/b.git#refs/heads/main", "digest": { "sha1": "c0ffee" }, "entryPoint": "Dockerfile" },
            "parameters": { "frontend": "gateway.v0", "args": { "build-arg:VERSION": "1.2", "target": "prod" }, "secrets": [{ "id": "npm" }] },
        },
        "metadata": {
            "buildInvocationID": "b-17", "buildStartedOn": "2026-01-02T03:04:05Z", "buildFinishedOn": "2026-01-02T03:05:05Z",
            "https://mobyproject.org/buildkit@v1#metadata": { "vcs": { "revision": "c0ffee-dirty" } },
        },
    });
    let read = read(&statement(V02, &predicate)).unwrap();
    assert_eq!(read.source.as_deref(), Some("https://git.test/a/b.git"));
    assert_eq!(read.source_link.as_deref(), Some("https://git.test/a/b"));
    assert_eq!(read.commit.as_deref(), Some("c0ffee-dirty"));
    assert_eq!(read.git_ref.as_deref(), Some("refs/heads/main"));
    assert_eq!(read.entry_point.as_deref(), Some("Dockerfile"));
    assert_eq!(read.build_id.as_deref(), Some("b-17"));
    assert_eq!(read.build_link.as_deref(), Some("https://ci.test/runs/7"));
    assert_eq!(
        (read.material_count, read.materials.len(), read.subject_count),
        (2, 2, 1)
    );
    assert_eq!(read.parameters["args.build-arg:VERSION"], "1.2");
    assert_eq!(read.parameters["secrets.0.id"], "npm");
}

#[test]
fn buildkits_slsa_1_is_read() {
    let predicate = json!({
        "buildDefinition": {
            "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
            "externalParameters": {
                "configSource": { "uri": "https://git.test/a/b.git#v1", "digest": { "sha1": "beef" }, "path": "Containerfile" },
                "request": { "frontend": "dockerfile.v0" },
            },
            "resolvedDependencies": [{ "uri": "pkg:docker/alpine@3", "digest": { "sha256": "aa" } }],
        },
        "runDetails": {
            "builder": { "id": "" },
            "metadata": { "invocationID": "no", "invocationId": "yes", "startedOn": "s", "finishedOn": "f" },
        },
    });
    let read = read(&statement(V1, &predicate)).unwrap();
    assert_eq!(
        (read.commit.as_deref(), read.git_ref.as_deref()),
        (Some("beef"), Some("v1"))
    );
    assert_eq!(read.entry_point.as_deref(), Some("Containerfile"));
    assert_eq!((read.builder, read.build_id.as_deref()), (None, Some("yes")));
    assert_eq!(read.parameters["request.frontend"], "dockerfile.v0");
}

#[test]
fn what_github_says_is_read() {
    let predicate = json!({
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": { "workflow": { "ref": "refs/tags/v2", "repository": "https://github.com/o/r", "path": ".github/workflows/x.yml" } },
            "internalParameters": { "github": { "event_name": "push" } },
            "resolvedDependencies": [{ "uri": "git+https://github.com/o/r@refs/tags/v2", "digest": { "gitCommit": "abc123" } }],
        },
        "runDetails": {
            "builder": { "id": "https://github.com/o/r/.github/workflows/x.yml@refs/tags/v2" },
            "metadata": { "invocationId": "https://github.com/o/r/actions/runs/5/attempts/1" },
        },
    });
    let read = read(&statement(V1, &predicate)).unwrap();
    assert_eq!(read.source_link.as_deref(), Some("https://github.com/o/r"));
    assert_eq!(
        (read.commit.as_deref(), read.git_ref.as_deref()),
        (Some("abc123"), Some("refs/tags/v2"))
    );
    assert_eq!(
        read.build_link.as_deref(),
        Some("https://github.com/o/r/actions/runs/5/attempts/1")
    );
}

#[test]
fn what_gitlab_says_is_read() {
    let predicate = json!({
        "buildDefinition": {
            "buildType": "https://gitlab.test/provenance/v1",
            "externalParameters": { "source": "https://gitlab.test/a/b", "entryPoint": "build", "variables": { "CI": "true" } },
            "resolvedDependencies": [{ "uri": "https://gitlab.test/a/b", "digest": { "gitCommit": "d00d" } }],
        },
        "runDetails": { "builder": { "id": "https://gitlab.test/a/b/-/runners/3" }, "metadata": { "invocationId": "99" } },
    });
    let read = read(&statement(V1, &predicate)).unwrap();
    assert_eq!(
        (read.source.as_deref(), read.commit.as_deref()),
        (Some("https://gitlab.test/a/b"), Some("d00d"))
    );
    assert_eq!(
        read.build_link.as_deref(),
        Some("https://gitlab.test/a/b/-/runners/3")
    );
}

#[test]
fn what_is_of_another_shape_hides_nothing_beside_it() {
    let predicate = json!({
        "builder": 7, "buildType": ["x"], "materials": { "uri": 1 },
        "invocation": { "configSource": "text", "parameters": [null, true, 3] },
        "metadata": { "buildStartedOn": "2026", "buildFinishedOn": {} },
    });
    let read = read(&statement(V02, &predicate)).unwrap();
    assert_eq!(read.started.as_deref(), Some("2026"));
    assert_eq!((read.builder, read.material_count), (None, 0));
    assert_eq!(read.parameters["1"], "true");
}

#[test]
fn what_may_be_secret_is_not_shown() {
    let predicate = json!({
        "invocation": {
            "parameters": { "args": { "build-arg:NPM_TOKEN": "hush", "build-arg:Api-Key": "hush", "x": "https://me:hush@git.test/a" } },
            "configSource": { "uri": "https://me:hush@git.test/a.git" },
        },
        "materials": [{ "uri": "https://hush@git.test/a.git" }],
    });
    let read = read(&statement(V02, &predicate)).unwrap();
    assert_eq!(read.source.as_deref(), Some("https://git.test/a.git"));
    assert_eq!(read.parameters["args.build-arg:NPM_TOKEN"], "not shown");
    let text = serde_json::to_string(&read).unwrap();
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn what_is_long_is_bounded() {
    let many: Vec<Value> = (0..5000)
        .map(|n| json!({ "uri": format!("u{n}"), "digest": { "sha256": "x".repeat(9000) } }))
        .collect();
    let arguments: serde_json::Map<String, Value> = (0..5000)
        .map(|n| (format!("a{n}"), json!("y".repeat(5000))))
        .collect();
    let predicate = json!({ "materials": many, "invocation": { "parameters": arguments }, "buildType": "z".repeat(100_000) });
    let read = read(&statement(V02, &predicate)).unwrap();
    assert_eq!(
        (read.materials.len(), read.material_count, read.parameters.len()),
        (KEPT, 5000, KEPT)
    );
    assert!(serde_json::to_vec(&read).unwrap().len() < 2 << 20);
}

#[test]
fn long_names_around_many_parameters_are_not_multiplied() {
    let many: serde_json::Map<String, Value> = (0..100_000).map(|n| (format!("a{n}"), json!(0))).collect();
    let mut nested = json!(many);
    for _ in 0..50 {
        nested = json!({ ("\u{1f600}".repeat(2000)): nested, "x": 1 });
    }
    let read = read(&statement(
        V02,
        &json!({ "invocation": { "parameters": nested } }),
    ))
    .unwrap();
    assert!(read.parameters.keys().all(|path| path.chars().count() <= PATH));
    assert!(read.parameters.len() <= KEPT);
}

#[test]
fn what_is_no_provenance_says_so() {
    for document in [
        json!({ "predicateType": "https://spdx.dev/Document", "predicate": {} }),
        json!({ "spdxVersion": "SPDX-2.3" }),
    ] {
        let error = read(document.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("SLSA provenance 0.2 and 1"), "{error}");
    }
    for text in ["", "{", "[]", "\u{feff}{}"] {
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}
