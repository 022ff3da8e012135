//! The finalizer of what the registry has been told of.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::FINALIZER;

/// Adds the finalizer. Others' are not touched, and a concurrent change of the list is not lost.
pub async fn add<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if object.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set(api, object, &finalizers).await
}

/// Removes the finalizer.
pub async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|name| name != FINALIZER);
    if finalizers.len() == object.finalizers().len() {
        return Ok(());
    }
    match set(api, object, &finalizers).await {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        outcome => outcome,
    }
}

async fn set<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch =
        json!({ "metadata": { "finalizers": finalizers, "resourceVersion": object.resource_version() } });
    api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
}
