use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::metadata::TenantId;
use crate::metadata::configuration::{Object, ObjectKind};

fn object(tenant: i64, name: &str, kind: ObjectKind, object: &str, spec: &Value) -> Object {
    Object {
        tenant: TenantId(tenant),
        tenant_name: name.to_owned(),
        tenant_uid: format!("uid-{tenant}"),
        kind,
        name: object.to_owned(),
        uid: None,
        generation: 1,
        spec: Some(spec.to_string()),
        hash: String::new(),
        built_in: false,
        version: tenant,
    }
}

fn snapshot() -> Snapshot {
    Snapshot::default().with(vec![
        object(
            1,
            "acme",
            ObjectKind::Tenant,
            "",
            &json!({ "hosts": ["registry.acme.com"], "apexAliases": ["old", "other"] }),
        ),
        object(
            1,
            "acme",
            ObjectKind::Repository,
            "a",
            &json!({ "name": "team/api", "aliases": ["old", "legacy/api"] }),
        ),
        object(2, "other", ObjectKind::Tenant, "", &json!({})),
        object(3, "default", ObjectKind::Tenant, "", &json!({})),
    ])
}

fn names(apex: Apex) -> Names {
    Names {
        domain: "example.com".into(),
        apex_hosts: vec!["berth.svc".into()],
        apex,
    }
}

/// What a host and a name mean: `tenant/repository`.
fn resolved(names: &Names, snapshot: &Snapshot, host: &str, name: &str) -> Option<String> {
    let place = names.place(snapshot, host)?;
    let named = names.repository(snapshot, &place, &name.parse().ok()?)?;
    Some(format!("{}|{}", named.tenant.name, named.name))
}

#[test]
fn a_table_of_hosts_and_names() {
    let (paths, tenant) = (names(Apex::Paths), names(Apex::Tenant("acme".into())));
    let first = names(Apex::First);
    let snapshot = snapshot();
    for (names, host, name, expected) in [
        (&paths, "acme.example.com", "app", Some("acme|app")),
        (&paths, "acme.example.com", "other/app", Some("acme|other/app")),
        (&paths, "acme.example.com", "old", Some("acme|team/api")),
        (&paths, "acme.example.com", "legacy/api", Some("acme|team/api")),
        (&paths, "other.example.com", "old", Some("other|old")),
        (&paths, "registry.acme.com", "app", Some("acme|app")),
        (&paths, "nobody.example.com", "app", None),
        (&paths, "a.acme.example.com", "app", None),
        (&paths, "acmeexample.com", "app", None),
        (&paths, "elsewhere.com", "app", None),
        (&paths, "", "app", None),
        (&paths, "example.com", "acme/app", Some("acme|app")),
        (&paths, "berth.svc", "acme/a/b", Some("acme|a/b")),
        (&paths, "127.0.0.1", "acme/app", Some("acme|app")),
        (&paths, "::1", "acme/app", Some("acme|app")),
        (&paths, "example.com", "nobody/app", None),
        (&paths, "example.com", "acme", None),
        (&paths, "example.com", "old", Some("acme|team/api")),
        (&paths, "example.com", "acme/old", Some("acme|team/api")),
        // A tenant's name wins over whoever holds it as an older name.
        (&paths, "example.com", "other", None),
        (&tenant, "example.com", "other/app", Some("acme|other/app")),
        (&tenant, "127.0.0.1", "old", Some("acme|team/api")),
        (&tenant, "other.example.com", "app", Some("other|app")),
        (&first, "example.com", "acme/app", Some("default|acme/app")),
    ] {
        assert_eq!(
            resolved(names, &snapshot, host, name).as_deref(),
            expected,
            "{host} {name}"
        );
    }
    let without_default =
        Snapshot::default().with(vec![object(1, "acme", ObjectKind::Tenant, "", &json!({}))]);
    assert_eq!(
        resolved(&first, &without_default, "example.com", "acme/app").as_deref(),
        Some("acme|app")
    );
    assert_eq!(
        resolved(
            &names(Apex::Tenant("gone".into())),
            &snapshot,
            "example.com",
            "app"
        ),
        None
    );
}

#[test]
fn a_spec_that_cannot_be_read_leaves_its_predecessor_and_everything_else() {
    let before = snapshot();
    let after = before.with(vec![
        object(1, "acme", ObjectKind::Tenant, "", &json!({ "hosts": 7 })),
        object(1, "acme", ObjectKind::Repository, "a", &json!({ "name": "NO" })),
        object(4, "new", ObjectKind::Tenant, "", &json!({ "hosts": 7 })),
    ]);
    let paths = names(Apex::Paths);
    assert_eq!(
        resolved(&paths, &after, "registry.acme.com", "old").as_deref(),
        Some("acme|team/api")
    );
    assert_eq!(
        after.failed().map(|(key, _)| key).collect::<Vec<_>>(),
        ["repositories/acme/a", "tenants/acme/", "tenants/new/"]
    );
    // A tenant that never had a good spec is there, with nothing allowed that a spec would have to allow.
    let new = after.by_name("new").unwrap();
    assert!(new.trust.is_empty() && !new.has_public());
    let healed = after.with(vec![
        object(1, "acme", ObjectKind::Tenant, "", &json!({})),
        object(1, "acme", ObjectKind::Repository, "a", &json!({ "name": "x" })),
        object(4, "new", ObjectKind::Tenant, "", &json!({})),
    ]);
    assert_eq!(healed.failed().count(), 0);
    assert_eq!(resolved(&paths, &healed, "registry.acme.com", "old"), None);
}

#[test]
fn what_is_said_by_name_wins_over_globs_and_globs_follow_their_objects() {
    let snapshot = Snapshot::default().with(vec![
        object(
            1,
            "acme",
            ObjectKind::Tenant,
            "",
            &json!({ "repositories": { "visibility": "Public" } }),
        ),
        object(
            1,
            "acme",
            ObjectKind::Repository,
            "1",
            &json!({ "match": "a/**", "visibility": "Private", "quota": { "tags": 5 } }),
        ),
        object(
            1,
            "acme",
            ObjectKind::Repository,
            "2",
            &json!({ "match": "a/b/**", "visibility": "Public", "immutableTags": ["v*"] }),
        ),
        object(
            1,
            "acme",
            ObjectKind::Repository,
            "3",
            &json!({ "name": "a/b/c", "immutableTags": ["stable"] }),
        ),
    ]);
    let acme = snapshot.by_name("acme").unwrap();
    let about = |name: &str| {
        let name: RepositoryName = name.parse().unwrap();
        let rules = &acme.repositories;
        let immutable: Vec<String> = rules.immutable(&name).map(ToString::to_string).collect();
        (
            rules.visibility(&name).map(|v| format!("{v:?}")),
            rules.quota(&name, |q| Some(q.tags)),
            immutable,
            rules.declares(&name),
        )
    };
    assert_eq!(about("x"), (None, None, vec![], false));
    assert_eq!(about("a/x"), (Some("Private".into()), Some(5), vec![], false));
    assert_eq!(
        about("a/b/x"),
        (Some("Private".into()), Some(5), vec!["v*".into()], false)
    );
    let (visibility, _, immutable, declared) = about("a/b/c");
    assert_eq!(
        (visibility.as_deref(), immutable, declared),
        (Some("Private"), vec!["stable".into(), "v*".into()], true)
    );
}

proptest! {
    #[test]
    fn a_host_below_the_domain_is_its_label_s_tenant_or_nobody_s(label in "[a-z0-9.-]{0,12}", name in "[a-z0-9/]{1,12}") {
        let (names, snapshot) = (names(Apex::Paths), snapshot());
        let host = format!("{label}.example.com");
        let expected = ["acme", "other", "default"].contains(&label.as_str());
        prop_assert_eq!(names.place(&snapshot, &host).is_some(), expected);
        if let Some(found) = resolved(&names, &snapshot, &host, &name) {
            let tenant = format!("{label}|");
            prop_assert!(found.starts_with(&tenant));
        }
    }

    #[test]
    fn on_the_apex_a_path_leads_to_the_tenant_that_it_names(tenant in "[a-z]{1,8}", rest in "[a-z]{1,8}(/[a-z]{1,8}){0,3}") {
        let (names, snapshot) = (names(Apex::Paths), snapshot());
        let found = resolved(&names, &snapshot, "example.com", &format!("{tenant}/{rest}"));
        let known = ["acme", "other", "default"].contains(&tenant.as_str());
        prop_assert_eq!(found.is_some(), known);
        if let Some(found) = found {
            let prefix = format!("{tenant}|");
            prop_assert!(found.starts_with(&prefix));
        }
    }
}
