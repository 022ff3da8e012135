//! Hosts and names on the apex are unique in the installation.
//!
//! Whoever is served with a name keeps it, so that nobody's Tenant stops for what another one says; of several that
//! are not, the oldest gets it.

use berth_crds::Tenant;
use kube::{Resource as _, ResourceExt as _};

use crate::context::Context;
use crate::declared::seniority;
use crate::registry::Object;
use crate::trouble::Trouble;

/// Whether the tenant may have the names that it wants.
pub async fn claimed(tenant: &Tenant, ctx: &Context) -> Result<(), Trouble> {
    if tenant.spec.hosts.is_empty() && tenant.spec.apex_aliases.is_empty() {
        return Ok(());
    }
    for other in ctx.watched.tenants.all() {
        if other.uid() == tenant.uid() || other.meta().deletion_timestamp.is_some() {
            continue;
        }
        let shared = shared(tenant, &other);
        if shared.is_empty() {
            continue;
        }
        // Only rivals are asked about, so that this costs nothing as a rule.
        let own = served(tenant, ctx).await?;
        let theirs = served(&other, ctx).await?;
        let is_older = age(&other) < age(tenant);
        let lost = shared
            .iter()
            .find(|name| is_lost(name, own.as_ref(), theirs.as_ref(), is_older));
        if let Some(lost) = lost {
            return Err(Trouble::stalled(
                "Conflict",
                format!(
                    "{} is held by Tenant {}; choose another, or give it up there first",
                    lost.text(),
                    other.name_any()
                ),
            ));
        }
    }
    Ok(())
}

/// A name that only one Tenant may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name<'a> {
    Host(&'a str),
    Apex(&'a str),
}

impl Name<'_> {
    fn text(self) -> String {
        let (Self::Host(name) | Self::Apex(name)) = self;
        name.to_owned()
    }

    /// Whether what the registry has of a tenant says so.
    fn is_in(self, served: &Object) -> bool {
        let (field, name) = match self {
            Self::Host(name) => ("hosts", name),
            Self::Apex(name) => ("apexAliases", name),
        };
        let names = served.spec[field].as_array();
        names.is_some_and(|names| {
            names
                .iter()
                .filter_map(|other| other.as_str())
                .any(|other| other.eq_ignore_ascii_case(name))
        })
    }
}

/// Names that both want.
fn shared<'a>(tenant: &'a Tenant, other: &Tenant) -> Vec<Name<'a>> {
    let hosts = tenant.spec.hosts.iter();
    let hosts = hosts.filter(|host| other.spec.hosts.contains(host));
    let aliases = tenant.spec.apex_aliases.iter();
    let aliases = aliases.filter(|alias| other.spec.apex_aliases.contains(alias));
    hosts
        .map(|host| Name::Host(host))
        .chain(aliases.map(|alias| Name::Apex(alias)))
        .collect()
}

/// What the registry has from this very object.
async fn served(tenant: &Tenant, ctx: &Context) -> Result<Option<Object>, Trouble> {
    let stored = ctx
        .registry
        .object(&format!("tenants/{}", tenant.name_any()))
        .await?;
    Ok(stored.filter(|stored| stored.uid.is_some() && stored.uid == tenant.uid()))
}

/// Whether a name is the other's: who is served with it, else who is older.
fn is_lost(name: &Name<'_>, own: Option<&Object>, theirs: Option<&Object>, is_older: bool) -> bool {
    let is_in = |served: Option<&Object>| served.is_some_and(|served| name.is_in(served));
    match (is_in(own), is_in(theirs)) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => is_older,
    }
}

fn age(tenant: &Tenant) -> impl Ord + use<> {
    let status = tenant.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice());
    seniority(tenant, conditions.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_served_with_a_name_keeps_it_and_else_the_oldest_gets_it() {
        let served = |hosts: &[&str], apex: &[&str]| Object {
            uid: Some("1".to_owned()),
            spec: json!({ "hosts": hosts, "apexAliases": apex }),
        };
        let (with, without) = (
            served(&["r.acme.com"], &[]),
            served(&["other.acme.com"], &["r.acme.com"]),
        );
        let host = Name::Host("r.acme.com");
        let cases = [
            (Some(&with), Some(&without), true, false),
            (Some(&with), None, true, false),
            (Some(&without), Some(&with), false, true),
            (None, Some(&with), false, true),
            (None, None, true, true),
            (None, None, false, false),
            (Some(&without), Some(&without), true, true),
        ];
        for (own, theirs, is_older, lost) in cases {
            let found = is_lost(&host, own, theirs, is_older);
            assert_eq!(found, lost, "{own:?} {theirs:?} {is_older}");
        }
        assert!(Name::Apex("r.acme.com").is_in(&without) && !Name::Apex("r.acme.com").is_in(&with));
    }
}
