//! Whether a repository's content goes with the Repository that declares it.
//!
//! Content that went does not come back, so that everything must speak for it: the object asks for it by name and
//! nobody has paused it; the tenant admits its namespace as the API server says now, whatever a watch has missed;
//! nobody else declares the name; and the registry has the name from this very object, which it got only while the
//! object was admitted and held its claim. What speaks against it never holds the object back: the content stays.

use berth_crds::{DeletionPolicy, Repository, Tenant};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::claim::rivals;
use super::{Declared as _, Ending, path};
use crate::PAUSED;
use crate::admission::admits;
use crate::context::Context;
use crate::registry::Object;
use crate::tolerant::{Tolerant, Unread};
use crate::trouble::Trouble;

/// What becomes of the content of an object that is about to go.
pub async fn ending(repository: &Repository, ctx: &Context) -> Result<Ending, Trouble> {
    if let Some(ending) = by_itself(repository) {
        return Ok(ending);
    }
    if let Some(against) = against(repository, ctx).await? {
        return Ok(Ending::Kept(against));
    }
    if !rivals(repository, ctx).is_empty() {
        return Ok(Ending::Kept("another Repository declares the same name"));
    }
    let unread = ctx.watched.repositories.unreadable.all();
    if unread.iter().any(|unread| may_declare(unread, repository)) {
        return Ok(Ending::Kept(
            "a Repository that cannot be read declares the same name",
        ));
    }
    let stored = ctx.registry.object(&path(repository)).await?;
    Ok(by_registry(repository, stored.as_ref()))
}

/// Whether an object that cannot be read names the repository, too.
fn may_declare(unread: &Unread, repository: &Repository) -> bool {
    unread.object.metadata.uid != repository.metadata.uid
        && unread.object.metadata.deletion_timestamp.is_none()
        && unread.text("/spec/tenantRef/name") == Some(repository.tenant())
        && unread.text("/spec/name") == repository.spec.name.as_deref()
}

/// What the object alone decides; nothing if it asks for its content to go.
fn by_itself(repository: &Repository) -> Option<Ending> {
    if repository.spec.deletion_policy == DeletionPolicy::Retain {
        return Some(Ending::Stays);
    }
    if repository.spec.name.is_none() {
        return Some(Ending::Kept("an object with match owns no repository"));
    }
    if repository.annotations().contains_key(PAUSED) {
        return Some(Ending::Kept("the object is paused"));
    }
    repository
        .validate()
        .is_err()
        .then_some(Ending::Kept("the object is not valid"))
}

/// What the tenant and the namespace have against it, as they are now.
async fn against(repository: &Repository, ctx: &Context) -> Result<Option<&'static str>, kube::Error> {
    let namespace = repository.namespace().unwrap_or_default();
    let tenant = Api::<Tolerant<Tenant>>::all(ctx.client.clone())
        .get_opt(repository.tenant())
        .await?;
    let tenant = match tenant.map(|tenant| tenant.0).transpose() {
        Ok(tenant) => tenant,
        Err(_) => return Ok(Some("the Tenant cannot be read")),
    };
    let named = ListParams::default().fields(&format!("metadata.name={namespace}"));
    let namespaces = Api::<Namespace>::all(ctx.client.clone())
        .list_metadata(&named)
        .await?;
    let admitting = tenant.filter(|tenant| {
        tenant.metadata.deletion_timestamp.is_none()
            && namespaces
                .items
                .iter()
                .any(|found| admits(&tenant.spec.allowed_namespaces, found.labels()))
    });
    Ok(match admitting {
        None => Some("no Tenant of that name admits the namespace"),
        Some(tenant) if tenant.spec.suspend => Some("the tenant is suspended"),
        Some(_) => None,
    })
}

/// What the registry's own copy of the object decides.
fn by_registry(repository: &Repository, stored: Option<&Object>) -> Ending {
    match stored {
        // It was never served, or an earlier attempt has taken it back already.
        None => Ending::Stays,
        Some(object)
            if object.uid.is_some()
                && object.uid == repository.uid()
                && object.spec["name"].as_str() == repository.spec.name.as_deref() =>
        {
            Ending::Goes
        }
        Some(_) => Ending::Kept("the registry has the repository from another object"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn repository(metadata: Value, spec: Value) -> Repository {
        let mut all = json!({ "tenantRef": { "name": "acme" }, "deletionPolicy": "Delete" });
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let mut object =
            json!({ "metadata": { "name": "api", "namespace": "apps", "uid": "1" }, "spec": all });
        let own = object["metadata"].as_object_mut().unwrap();
        own.extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_object_must_ask_for_it_by_name_be_sound_and_not_be_paused() {
        let of = |metadata, spec| by_itself(&repository(metadata, spec));
        assert_eq!(of(json!({}), json!({ "name": "api" })), None);
        assert_eq!(
            of(json!({}), json!({ "name": "api", "deletionPolicy": "Retain" })),
            Some(Ending::Stays)
        );
        let kept = [
            (json!({}), json!({ "match": "**" })),
            (json!({}), json!({ "name": "api", "match": "**" })),
            (json!({}), json!({ "name": "API" })),
            (
                json!({ "annotations": { "berth.dev/paused": "" } }),
                json!({ "name": "api" }),
            ),
        ];
        for (metadata, spec) in kept {
            let ending = of(metadata, spec.clone());
            assert!(matches!(ending, Some(Ending::Kept(_))), "{spec}: {ending:?}");
        }
    }

    #[test]
    fn content_stays_while_an_object_that_cannot_be_read_may_declare_it() {
        let unread = |tenant: &str, name: &str, uid: &str| {
            let object = json!({
                "metadata": { "name": "other", "namespace": "apps", "uid": uid },
                "spec": { "tenantRef": { "name": tenant }, "name": name, "tomorrow": true },
            });
            let Tolerant(read) = serde_json::from_value::<Tolerant<Repository>>(object).unwrap();
            read.unwrap_err()
        };
        let own = repository(json!({}), json!({ "name": "api" }));
        assert!(may_declare(&unread("acme", "api", "2"), &own));
        for (tenant, name, uid) in [("acme", "web", "2"), ("other", "api", "2"), ("acme", "api", "1")] {
            assert!(
                !may_declare(&unread(tenant, name, uid), &own),
                "{tenant} {name} {uid}"
            );
        }
    }

    #[test]
    fn only_what_the_registry_has_from_this_object_goes() {
        let own = repository(json!({}), json!({ "name": "api" }));
        let of = |uid: Option<&str>, name: &str| {
            let uid = uid.map(str::to_owned);
            by_registry(
                &own,
                Some(&Object {
                    uid,
                    spec: json!({ "name": name }),
                }),
            )
        };
        assert_eq!(of(Some("1"), "api"), Ending::Goes);
        for (uid, name) in [(Some("2"), "api"), (None, "api"), (Some("1"), "web")] {
            assert!(matches!(of(uid, name), Ending::Kept(_)), "{uid:?} {name}");
        }
        assert_eq!(by_registry(&own, None), Ending::Stays, "it was never served");
        let unborn = repository(json!({ "uid": null }), json!({ "name": "api" }));
        let made_by_hand = Object {
            uid: None,
            spec: json!({ "name": "api" }),
        };
        assert!(matches!(
            by_registry(&unborn, Some(&made_by_hand)),
            Ending::Kept(_)
        ));
    }
}
