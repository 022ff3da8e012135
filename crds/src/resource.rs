//! A resource of any of the four kinds, as a YAML document holds it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::check::Invalid;
use super::{GROUP, PullThroughCache, Repository, RetentionPolicy, Tenant, VERSION};

/// A resource of any of the four kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// A tenant.
    Tenant(Box<Tenant>),
    /// A repository.
    Repository(Box<Repository>),
    /// A retention policy.
    RetentionPolicy(Box<RetentionPolicy>),
    /// A cache.
    PullThroughCache(Box<PullThroughCache>),
}

impl Resource {
    /// Reads a resource and checks it.
    pub fn from_value(value: Value) -> Result<Self, Vec<Invalid>> {
        let refused = |path: &str, why: String| {
            vec![Invalid {
                path: path.to_owned(),
                why,
            }]
        };
        let text = |field: &str| {
            value
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version != format!("{GROUP}/{VERSION}") {
            return Err(refused(
                "apiVersion",
                format!("{version:?} is not {GROUP}/{VERSION}"),
            ));
        }
        let name = value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let by_kind = if kind == "Tenant" {
            super::check::label
        } else {
            super::check::dns_name
        };
        by_kind(&name).map_err(|why| refused("metadata.name", why))?;
        match kind.as_str() {
            "Tenant" => {
                let tenant: Tenant = parse(value)?;
                tenant.spec.validate()?;
                Ok(Self::Tenant(Box::new(tenant)))
            }
            "Repository" => {
                let repository: Repository = parse(value)?;
                repository.spec.validate()?;
                Ok(Self::Repository(Box::new(repository)))
            }
            "RetentionPolicy" => {
                let policy: RetentionPolicy = parse(value)?;
                policy.spec.validate()?;
                Ok(Self::RetentionPolicy(Box::new(policy)))
            }
            "PullThroughCache" => {
                let cache: PullThroughCache = parse(value)?;
                cache.spec.validate()?;
                Ok(Self::PullThroughCache(Box::new(cache)))
            }
            other => Err(refused(
                "kind",
                format!("{other:?} is none of Tenant, Repository, RetentionPolicy, PullThroughCache"),
            )),
        }
    }
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Vec<Invalid>> {
    serde_json::from_value(value).map_err(|error| {
        vec![Invalid {
            path: "spec".to_owned(),
            why: error.to_string(),
        }]
    })
}
