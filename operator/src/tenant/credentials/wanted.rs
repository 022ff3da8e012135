//! Which credentials a tenant is to have.

use std::collections::BTreeSet;

use berth_crds::{Action, Grant, Tenant};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::super::credential::{Credential, Purpose};
use crate::admission::admits;
use crate::context::{Context, selects};

/// The Secrets that the tenant wants, by namespace and name; and those that it cannot have.
pub(super) fn wanted(tenant: &Tenant, ctx: &Context) -> (Vec<Credential>, Vec<String>) {
    let (name, spec) = (tenant.name_any(), &tenant.spec);
    let hosts: Vec<String> = std::iter::once(ctx.settings.host(&name))
        .chain(spec.hosts.iter().cloned())
        .map(|host| ctx.settings.with_port(&host))
        .collect();
    let may_lie_in = |namespace: &str| {
        !ctx.settings.is_reserved(namespace)
            && ctx.settings.covers(namespace)
            && ctx
                .labels_of(namespace)
                .is_some_and(|labels| admits(&spec.allowed_namespaces, &labels))
    };
    let (mut credentials, mut refused) = (Vec::new(), Vec::new());
    for token in &spec.tokens {
        let target = &token.secret_ref;
        if !may_lie_in(&target.namespace) {
            refused.push(format!(
                "token {}: the tenant does not admit namespace {} (spec.allowedNamespaces), or no Secret of a tenant may be there",
                token.name, target.namespace
            ));
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
            selects(&pull.namespace_selector, labels) && may_lie_in(namespace)
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
            refused.push(format!(
                "Secret {}/{} is wanted twice by this tenant",
                credential.namespace, credential.secret
            ));
        }
        is_new
    });
    (credentials, refused)
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
    use super::*;

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
