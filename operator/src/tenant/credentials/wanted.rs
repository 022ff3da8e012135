//! Which credentials a tenant is to have.

use std::collections::BTreeSet;

use berth_crds::{Action, AllowedNamespaces, Grant, Tenant};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use sha2::{Digest as _, Sha256};

use super::super::credential::{Credential, Purpose};
use super::Refusal;
use crate::admission::admits;
use crate::context::{Context, selects};

/// The Secrets that the tenant wants, by namespace and name; and those that it cannot have.
pub(super) fn wanted(tenant: &Tenant, ctx: &Context) -> (Vec<Credential>, Vec<Refusal>) {
    let (name, spec) = (tenant.name_any(), &tenant.spec);
    let hosts: Vec<String> = std::iter::once(ctx.settings.host(&name))
        .chain(spec.hosts.iter().cloned())
        .map(|host| ctx.settings.with_port(&host))
        .collect();
    let refusal = |namespace: &str| {
        let is_open = !ctx.settings.is_reserved(namespace) && ctx.settings.covers(namespace);
        let found = ctx.watched.namespaces.get(&ObjectRef::new(namespace));
        refusal(
            namespace,
            is_open,
            found.as_ref().map(|found| &found.metadata),
            &spec.allowed_namespaces,
        )
    };
    let (mut credentials, mut refused) = (Vec::new(), Vec::new());
    for token in &spec.tokens {
        let target = &token.secret_ref;
        if let Some(Refusal { reason, message }) = refusal(&target.namespace) {
            let message = format!("token {}: {message}", token.name);
            refused.push(Refusal { reason, message });
            continue;
        }
        credentials.push(Credential {
            purpose: Purpose::Organization,
            name: token.name.clone(),
            namespace: target.namespace.clone(),
            secret: target.name.clone(),
            grants: token.grants.clone(),
            expires_after: token.expires_after.clone(),
            rotate_every: token.rotate_every.clone(),
            hosts: hosts.clone(),
        });
    }
    if let Some(pull) = &spec.pull_secrets {
        let chosen = ctx.namespaces(|namespace, labels| {
            selects(&pull.namespace_selector, labels) && refusal(namespace).is_none()
        });
        credentials.extend(chosen.into_iter().map(|namespace| Credential {
            purpose: Purpose::Pull,
            name: pull_name(&namespace),
            secret: format!("berth-{name}"),
            grants: vec![Grant {
                repositories: vec!["**".to_owned()],
                actions: vec![Action::Pull],
            }],
            expires_after: None,
            rotate_every: pull.rotate_every.clone(),
            hosts: hosts.clone(),
            namespace,
        }));
    }
    let mut seen = BTreeSet::new();
    credentials.retain(|credential| {
        let is_new = seen.insert((credential.namespace.clone(), credential.secret.clone()));
        if !is_new {
            let message = format!(
                "Secret {}/{} is wanted twice by this tenant",
                credential.namespace, credential.secret
            );
            refused.push(Refusal {
                reason: "SecretConflict",
                message,
            });
        }
        is_new
    });
    (credentials, refused)
}

/// Why no Secret of the tenant can be in a namespace; `is_open` says whether those of any tenant may.
fn refusal(
    namespace: &str,
    is_open: bool,
    found: Option<&ObjectMeta>,
    allowed: &AllowedNamespaces,
) -> Option<Refusal> {
    let refusal = |reason, message| Some(Refusal { reason, message });
    if !is_open {
        let message = format!("no Secret of a tenant may be in namespace {namespace}");
        return refusal("SecretConflict", message);
    }
    // Nothing can be made in one that is about to go.
    let Some(found) = found.filter(|found| found.deletion_timestamp.is_none()) else {
        let message = format!("there is no namespace {namespace}, or it is being deleted");
        return refusal("NamespaceMissing", message);
    };
    let labels = found.labels.clone().unwrap_or_default();
    if admits(allowed, &labels) {
        return None;
    }
    let message = format!("the tenant does not admit namespace {namespace} (spec.allowedNamespaces)");
    refusal("NotAdmitted", message)
}

/// Name of a namespace's tokens at the registry: a DNS label, unique however long the namespace's name is.
fn pull_name(namespace: &str) -> String {
    let name = format!("pull-{namespace}");
    if name.len() <= 63 {
        return name;
    }
    let digest = hex::encode(&Sha256::digest(namespace.as_bytes())[..4]);
    format!("{}-{digest}", &name[..54])
}

#[cfg(test)]
mod tests {
    use berth_crds::NamespacesFrom;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_namespace_that_no_secret_can_be_in_is_told_from_one_that_is_not_admitted() {
        let apps = ObjectMeta::default();
        let going = ObjectMeta {
            deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        let allowed = |from| AllowedNamespaces {
            from,
            ..AllowedNamespaces::default()
        };
        let reason = |is_open, found, from| {
            refusal("apps", is_open, found, &allowed(from)).map(|refusal| refusal.reason)
        };
        assert_eq!(reason(true, Some(&apps), NamespacesFrom::All), None);
        assert_eq!(
            reason(true, Some(&apps), NamespacesFrom::None),
            Some("NotAdmitted")
        );
        assert_eq!(
            reason(false, Some(&apps), NamespacesFrom::All),
            Some("SecretConflict")
        );
        assert_eq!(reason(true, None, NamespacesFrom::All), Some("NamespaceMissing"));
        assert_eq!(
            reason(true, Some(&going), NamespacesFrom::All),
            Some("NamespaceMissing")
        );
    }

    #[test]
    fn names_of_pull_tokens_are_labels_and_differ_for_long_namespaces() {
        assert_eq!(pull_name("apps"), "pull-apps");
        let (a, b) = (
            pull_name(&format!("{}a", "x".repeat(62))),
            pull_name(&format!("{}b", "x".repeat(62))),
        );
        assert!(a != b && a.len() <= 63 && b.len() <= 63);
    }
}
