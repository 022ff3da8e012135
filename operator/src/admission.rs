//! Both sides must agree: an object names its Tenant, and the Tenant admits the object's namespace.

use std::collections::BTreeMap;

use berth_crds::{AllowedNamespaces, NamespacesFrom};

use crate::context::selects;

/// Whether a tenant admits a namespace.
pub fn admits(allowed: &AllowedNamespaces, labels: &BTreeMap<String, String>) -> bool {
    match allowed.from {
        NamespacesFrom::None => false,
        NamespacesFrom::All => true,
        NamespacesFrom::Selector => allowed
            .selector
            .as_ref()
            .is_some_and(|selector| selects(selector, labels)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allowed(value: serde_json::Value) -> AllowedNamespaces {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_namespace_is_admitted_as_the_tenant_says() {
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        assert!(!admits(&AllowedNamespaces::default(), &labels));
        assert!(admits(&allowed(json!({ "from": "All" })), &labels));
        let by = |selector| allowed(json!({ "from": "Selector", "selector": selector }));
        assert!(admits(&by(json!({ "matchLabels": { "team": "a" } })), &labels));
        assert!(!admits(&by(json!({ "matchLabels": { "team": "b" } })), &labels));
        let unreadable = json!({ "matchExpressions": [{ "key": "team", "operator": "Near" }] });
        assert!(!admits(&by(unreadable), &labels));
        let not = json!({ "matchExpressions": [{ "key": "team", "operator": "NotIn", "values": ["b"] }] });
        assert!(admits(&by(not), &labels));
    }
}
