//! Service accounts whose `imagePullSecrets` name a Secret.
//!
//! The list is atomic for the API server, so that server-side apply would own the others' entries too: it is read,
//! changed in our entry alone and written back in the very version read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{LocalObjectReference, ServiceAccount};
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::context::Context;
use crate::trouble::Trouble;

/// Attempts against others who write at the same time.
const ATTEMPTS: usize = 5;

/// Versions in which accounts were seen to name a Secret, so that they need not be read again.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<(String, String, String), String>>);

impl Seen {
    /// Forgets accounts that are not there any more, by namespace and name.
    pub fn retain(&self, is_there: impl Fn(&str, &str) -> bool) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(namespace, account, _), _| is_there(namespace, account));
    }

    fn is(&self, key: &(String, String, String), version: &str) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(key).is_some_and(|seen| seen == version)
    }

    fn note(&self, key: (String, String, String), version: Option<String>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => seen.insert(key, version),
            None => seen.remove(&key),
        };
    }
}

/// Makes accounts name a Secret. Those that do not exist follow once they do.
pub async fn ensure(
    ctx: &Context,
    namespace: &str,
    secret: &str,
    accounts: &[String],
) -> Result<(), Trouble> {
    for account in accounts {
        let reference = ObjectRef::new(account).within(namespace);
        let Some(known) = ctx.watched.accounts.get(&reference) else {
            continue;
        };
        let key = (namespace.to_owned(), account.clone(), secret.to_owned());
        if ctx
            .accounts_seen
            .is(&key, &known.resource_version().unwrap_or_default())
        {
            continue;
        }
        let version = change(ctx, namespace, account, |list| {
            let is_there = list.iter().any(|entry| entry.name == secret);
            if !is_there {
                list.push(LocalObjectReference {
                    name: secret.to_owned(),
                });
            }
        })
        .await?;
        ctx.accounts_seen.note(key, version);
    }
    Ok(())
}

/// Makes accounts not name a Secret.
pub async fn release(
    ctx: &Context,
    namespace: &str,
    secret: &str,
    accounts: &[String],
) -> Result<(), Trouble> {
    for account in accounts {
        change(ctx, namespace, account, |list| {
            list.retain(|entry| entry.name != secret)
        })
        .await?;
        let key = (namespace.to_owned(), account.clone(), secret.to_owned());
        ctx.accounts_seen.note(key, None);
    }
    Ok(())
}

/// Changes an account's list; its version afterwards, if it exists.
async fn change(
    ctx: &Context,
    namespace: &str,
    account: &str,
    change: impl Fn(&mut Vec<LocalObjectReference>),
) -> Result<Option<String>, Trouble> {
    let api = Api::<ServiceAccount>::namespaced(ctx.client.clone(), namespace);
    let mut attempt = 1;
    loop {
        let Some(found) = api.get_opt(account).await? else {
            return Ok(None);
        };
        let before = found.image_pull_secrets.clone().unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(found.resource_version());
        }
        let patch = json!({
            "metadata": { "resourceVersion": found.resource_version() },
            "imagePullSecrets": after,
        });
        match api
            .patch(account, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(kube::Error::Api(error)) if error.code == 409 && attempt < ATTEMPTS => attempt += 1,
            Err(kube::Error::Api(error)) if error.code == 404 => return Ok(None),
            outcome => return Ok(outcome?.resource_version()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_that_are_gone_are_forgotten() {
        let seen = Seen::default();
        let key = |namespace: &str| {
            (
                namespace.to_owned(),
                "default".to_owned(),
                "berth-acme".to_owned(),
            )
        };
        for namespace in ["kept", "gone"] {
            seen.note(key(namespace), Some("7".to_owned()));
        }
        seen.retain(|namespace, account| (namespace, account) == ("kept", "default"));
        assert!(seen.is(&key("kept"), "7"));
        assert!(!seen.is(&key("gone"), "7"));
        assert_eq!(seen.0.lock().unwrap().len(), 1);
    }
}
