//! What differs between two bills of materials. A package is known by its kind and name; of one there may be several
//! versions.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Sbom;

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Packages with other versions, or that only one of them has.
    pub packages: Vec<Changed>,
    /// Number of packages that are the same.
    pub same: usize,
}

/// A package that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Whose package it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its versions in the older; empty if that does not have it.
    pub from: Vec<String>,
    /// Its versions in the newer; empty if that does not have it.
    pub to: Vec<String>,
}

type Key<'s> = (&'s str, Option<&'s str>);

/// What differs between an older and a newer one, by name.
pub fn difference(from: &Sbom, to: &Sbom) -> Difference {
    let mut all: BTreeMap<Key<'_>, [BTreeSet<&str>; 2]> = BTreeMap::new();
    for (side, sbom) in [from, to].into_iter().enumerate() {
        for package in &sbom.packages {
            let versions = all.entry((&package.name, package.kind.as_deref())).or_default();
            if let Some(versions) = versions.get_mut(side) {
                versions.insert(package.version.as_deref().unwrap_or("unknown"));
            }
        }
    }
    let mut difference = Difference::default();
    for ((name, kind), [from, to]) in all {
        if from == to {
            difference.same += 1;
            continue;
        }
        let owned = |versions: BTreeSet<&str>| versions.into_iter().map(str::to_owned).collect();
        difference.packages.push(Changed {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            from: owned(from),
            to: owned(to),
        });
    }
    difference
}
