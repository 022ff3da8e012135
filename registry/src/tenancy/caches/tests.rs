use serde_json::json;

use super::*;

fn caches(objects: &[(&str, serde_json::Value)]) -> Caches {
    let mut caches = Caches::default();
    for (name, spec) in objects {
        let config = serde_json::from_value(spec.clone()).unwrap();
        caches.set(name, Some(config)).unwrap();
    }
    caches
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

#[test]
fn a_repository_belongs_to_the_cache_of_its_longest_prefix() {
    let caches = caches(&[
        (
            "a",
            json!({ "prefix": "up", "upstream": { "url": "https://a.example" } }),
        ),
        (
            "b",
            json!({ "prefix": "up/team", "upstream": { "url": "https://b.example" } }),
        ),
    ]);
    for (repository, expected) in [
        ("up/app", Some(("a", "app"))),
        ("up/x/team/app", Some(("a", "x/team/app"))),
        ("up/team", Some(("a", "team"))),
        ("up/team/app/x", Some(("b", "app/x"))),
        ("up", None),
        ("upper/app", None),
        ("app/up/x", None),
    ] {
        let name = name(repository);
        let found = caches.of(&name).map(|(cache, rest)| (cache.name.as_ref(), rest));
        assert_eq!(found, expected, "{repository}");
    }
}

#[test]
fn a_cache_without_a_prefix_has_all_that_no_other_has() {
    let caches = caches(&[
        (
            "all",
            json!({ "prefix": "", "upstream": { "url": "https://registry-1.docker.io" } }),
        ),
        (
            "b",
            json!({ "prefix": "ghcr.io", "upstream": { "url": "https://ghcr.io" } }),
        ),
    ]);
    for (repository, expected) in [
        ("alpine", ("all", "alpine")),
        ("grafana/loki", ("all", "grafana/loki")),
        ("ghcr.io", ("all", "ghcr.io")),
        ("ghcr.io/a/b", ("b", "a/b")),
    ] {
        let name = name(repository);
        let found = caches.of(&name).map(|(cache, rest)| (cache.name.as_ref(), rest));
        assert_eq!(found, Some(expected), "{repository}");
    }
    assert_eq!(caches.canonical(name("alpine")), name("library/alpine"));
}

#[test]
fn official_images_of_docker_hub_may_be_named_without_library() {
    let hub = json!({ "prefix": "docker.io", "upstream": { "url": "https://registry-1.docker.io" } });
    let behind = json!({
        "prefix": "mirror", "upstream": { "url": "https://mirror.example" }, "mirrorFor": ["index.docker.io"],
    });
    let other = json!({ "prefix": "ghcr.io", "upstream": { "url": "https://ghcr.io" } });
    let caches = caches(&[("hub", hub), ("behind", behind), ("other", other)]);
    for (written, meant) in [
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("docker.io/library/alpine", "docker.io/library/alpine"),
        ("docker.io/grafana/loki", "docker.io/grafana/loki"),
        ("mirror/alpine", "mirror/library/alpine"),
        ("ghcr.io/alpine", "ghcr.io/alpine"),
        ("alpine", "alpine"),
    ] {
        assert_eq!(caches.canonical(name(written)), name(meant), "{written}");
    }
}

#[test]
fn what_is_denied_may_not_be_pulled_whatever_is_allowed() {
    let caches = caches(&[(
        "a",
        json!({
            "prefix": "up", "upstream": { "url": "https://a.example" },
            "allow": ["team/**"], "deny": ["team/secret"],
            "tags": { "allow": ["v*"], "pinned": ["v1"] },
        }),
    )]);
    let cache = caches.get("a").unwrap();
    assert!(cache.allows("team/app"));
    assert!(!cache.allows("team/secret"));
    assert!(!cache.allows("other"));
    assert!(cache.allows_tag("v2") && !cache.allows_tag("latest"));
    assert!(cache.pins(&"v1".parse().unwrap()) && !cache.pins(&"v2".parse().unwrap()));
}

#[test]
fn what_is_read_with_a_password_is_private_unless_the_cache_says_otherwise() {
    let cache = |login: bool, visibility: Option<&str>| {
        let mut spec = json!({ "prefix": "up", "upstream": { "url": "https://a.example" } });
        if login {
            spec["upstream"]["username"] = json!("u");
            spec["upstream"]["password"] = json!("p");
        }
        if let Some(visibility) = visibility {
            spec["visibility"] = json!(visibility);
        }
        caches(&[("a", spec)]).get("a").unwrap().visibility()
    };
    assert_eq!(cache(false, None), None);
    assert_eq!(cache(true, None), Some(Visibility::Private));
    assert_eq!(cache(true, Some("Public")), Some(Visibility::Public));
    assert_eq!(cache(false, Some("Private")), Some(Visibility::Private));
}

#[test]
fn a_cache_that_drops_what_nobody_pulls_brings_its_own_policy() {
    let mut caches = caches(&[(
        "ns/hub",
        json!({ "prefix": "up", "upstream": { "url": "https://a.example" }, "keepUnpulled": "720h" }),
    )]);
    let policies = caches.policies().unwrap();
    assert_eq!(policies.len(), 1);
    assert_eq!(&*policies[0].name, "cache:ns/hub");
    let config = &policies[0].config;
    assert_eq!(config.repositories, ["up/**"]);
    assert_eq!(config.rules[0].since, Since::Pull);
    assert!(config.restore_window.as_ref().unwrap().duration().is_zero());
    caches.set("ns/hub", None).unwrap();
    assert!(caches.policies().unwrap().is_empty());
    assert!(caches.of(&name("up/app")).is_none());
}
