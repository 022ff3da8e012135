//! SPDX 2.2 and 2.3 as JSON (spdx.github.io/spdx-spec).

use serde::Deserialize;

use super::bounded::Bounded;
use super::{MOST, Package, Sbom, kind_of, told};
use crate::explorer::supply::{UnreadableDocument, clipped};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    spdx_version: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    creation_info: Option<Creation>,
    #[serde(default)]
    packages: Bounded<Listed, MOST>,
}

#[derive(Deserialize)]
struct Creation {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    creators: Bounded<String, 20>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    version_info: Option<String>,
    #[serde(default)]
    license_concluded: Option<String>,
    #[serde(default)]
    license_declared: Option<String>,
    #[serde(default)]
    supplier: Option<String>,
    #[serde(default)]
    external_refs: Bounded<Reference, 16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    reference_type: Option<String>,
    #[serde(default)]
    reference_locator: Option<String>,
}

/// Reads a document that says that it is one.
pub fn read(bytes: &[u8]) -> Result<Sbom, UnreadableDocument> {
    let document: Document = serde_json::from_slice(bytes)?;
    let creation = document.creation_info;
    let (created, creators) = creation.map_or((None, Vec::new()), |made| (made.created, made.creators.items));
    Ok(Sbom {
        format: clipped(&document.spdx_version.replacen('-', " ", 1)),
        name: told(document.name),
        created: told(created),
        tools: creators.iter().map(|text| clipped(text)).collect(),
        listed: document.packages.count,
        packages: document.packages.items.into_iter().filter_map(package).collect(),
    })
}

fn package(listed: Listed) -> Option<Package> {
    let references = listed.external_refs.items.into_iter();
    let purl = references
        .filter(|reference| reference.reference_type.as_deref() == Some("purl"))
        .find_map(|reference| told(reference.reference_locator));
    Some(Package {
        name: told(listed.name)?,
        version: told(listed.version_info),
        kind: purl.as_deref().and_then(kind_of),
        licenses: told(listed.license_concluded).or_else(|| told(listed.license_declared)),
        supplier: told(listed.supplier),
        purl,
    })
}
