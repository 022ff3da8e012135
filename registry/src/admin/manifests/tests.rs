use super::*;

fn read_text(text: &str) -> Result<Vec<Document>, Vec<Wrong>> {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secrets/hub");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("username"), "user\n").unwrap();
    fs::write(secret.join("password"), "hunter2\n").unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, text).unwrap();
    read(&file)
}

const GOOD: &str = "\
# a comment
apiVersion: berth.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec: {displayName: Acme}
---
apiVersion: berth.dev/v1alpha1
kind: PullThroughCache
metadata: {name: hub}
spec:
  tenantRef: {name: acme}
  upstream: {url: https://registry-1.docker.io, credentialsSecretRef: {name: hub}}
  prefix: docker.io
---
";

#[test]
fn a_file_of_several_documents_is_read_with_its_secrets() {
    let documents = read_text(GOOD).unwrap();
    assert_eq!(
        documents.iter().map(|document| document.line).collect::<Vec<_>>(),
        [1, 7]
    );
    let State::Is(Spec::Cache(cache)) = &documents[1].wanted.state else {
        panic!("no cache");
    };
    assert_eq!(cache.upstream.password.as_ref().unwrap().0, "hunter2");
    assert_eq!(documents[1].wanted.name, "default/hub");
    assert!(!format!("{documents:?}").contains("hunter2"));
}

#[test]
fn every_mistake_is_told_with_its_line_and_nothing_is_used() {
    let bad = GOOD.replace("displayName: Acme", "displayname: Acme");
    let wrong = read_text(&bad).unwrap_err();
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].why.contains("displayname"), "{}", wrong[0]);

    let bad = GOOD.replace("prefix: docker.io", "prefix: Docker.io");
    let wrong = read_text(&bad).unwrap_err();
    assert_eq!(
        (wrong[0].line, wrong[0].why.starts_with("spec.prefix: ")),
        (13, true),
        "{}",
        wrong[0]
    );

    let wrong = read_text(&GOOD.replace("kind: PullThroughCache", "kind: Cache")).unwrap_err();
    assert_eq!(wrong[0].line, 8, "{}", wrong[0]);
    let wrong = read_text(&GOOD.replace("{name: hub}}", "{name: absent}}")).unwrap_err();
    assert!(wrong[0].why.contains("absent"), "{}", wrong[0]);
    let wrong = read_text("a: [1\nb: 2\n").unwrap_err();
    assert!(wrong[0].line >= 1, "{}", wrong[0]);
}
