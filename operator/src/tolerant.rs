//! Objects as an API server stores them, which may be more than this release can read: a definition may be newer than
//! the operator, or have admitted what its types refuse. A list with one such object must not be lost with it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use kube::api::DynamicObject;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object, or what is known of one that cannot be read.
#[derive(Debug, Clone)]
pub struct Tolerant<K>(pub Result<K, Box<Unread>>);

/// An object that cannot be read.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Which field is wrong, and why.
    pub why: String,
    /// The object, as it is stored.
    pub object: DynamicObject,
}

impl Unread {
    /// A text of it, by its JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.object.data.pointer(pointer).and_then(Value::as_str)
    }

    /// The conditions of its status; none if they cannot be read either.
    pub fn conditions(&self) -> Vec<Condition> {
        let conditions = self.object.data.pointer("/status/conditions");
        let read = conditions.map(Vec::<Condition>::deserialize);
        read.and_then(Result::ok).unwrap_or_default()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Tolerant<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let why = match serde_path_to_error::deserialize(&value) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        let object = serde_json::from_value(value).map_err(D::Error::custom)?;
        Ok(Self(Err(Box::new(Unread { why, object }))))
    }
}

impl<K: Resource> Resource for Tolerant<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }
    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }
    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }
    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unread) => &unread.object.metadata,
        }
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unread) => &mut unread.object.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_crds::RetentionPolicy;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_cannot_be_read_says_why_and_keeps_what_it_is() {
        let object = |window: &str| {
            let policy = json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "RetentionPolicy",
                "metadata": { "name": "ci", "namespace": "apps", "uid": "1" },
                "spec": { "tenantRef": { "name": "acme" }, "rules": [{ "keepLast": 1 }], "restoreWindow": window },
                "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "Served", "message": "",
                    "lastTransitionTime": "2026-01-31T12:00:00Z" }] },
            });
            serde_json::from_value::<Tolerant<RetentionPolicy>>(policy).unwrap()
        };
        assert!(object("72h").0.is_ok());
        let endless = object("999999999h");
        assert_eq!(endless.meta().uid.as_deref(), Some("1"));
        let unread = endless.0.unwrap_err();
        assert!(unread.why.starts_with("spec.restoreWindow: "), "{}", unread.why);
        assert!(unread.why.contains("ten years"), "{}", unread.why);
        assert_eq!(unread.text("/spec/tenantRef/name"), Some("acme"));
        assert_eq!(unread.conditions()[0].reason, "Served");
    }
}
