//! Bills of materials: SPDX 2.2 and 2.3, CycloneDX 1.2 to 1.6, as JSON.
//!
//! Packages are taken as they come, at most [`MOST`], so that a document costs a small multiple of its bytes whatever
//! it says.

mod bounded;
mod cyclonedx;
mod difference;
mod spdx;

use serde::{Deserialize, Serialize};

pub use self::difference::{Difference, difference};
use super::{UnreadableDocument, clipped, statement};

/// Packages that are kept of one document.
const MOST: usize = 100_000;
/// What is read here, for those who have something else.
const READ: &str = "SPDX 2.2 and 2.3 and CycloneDX 1.2 to 1.6, as JSON";

/// What something is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sbom {
    /// Like `SPDX 2.3`.
    pub format: String,
    /// What it is about, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was made, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What made it, at most 20.
    pub tools: Vec<String>,
    /// By name and version, each once; at most 100,000.
    pub packages: Vec<Package>,
    /// How many the document lists, each time it lists them.
    pub listed: usize,
}

/// A package.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whose package it is, like `deb`, `npm` or `library`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its package URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
    /// Its licences as one text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licenses: Option<String>,
    /// Who provides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
}

impl Package {
    /// Whether its name, version, package URL or licences hold a text; `wanted` is in lower case.
    pub fn holds(&self, wanted: &str) -> bool {
        let texts = [
            Some(&self.name),
            self.version.as_ref(),
            self.purl.as_ref(),
            self.licenses.as_ref(),
        ];
        texts
            .into_iter()
            .flatten()
            .any(|text| text.to_lowercase().contains(wanted))
    }
}

/// What tells the formats apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    spdx_version: Option<String>,
    #[serde(default)]
    bom_format: Option<String>,
    #[serde(default)]
    spec_version: Option<String>,
    #[serde(rename = "@context", default)]
    context: Option<serde::de::IgnoredAny>,
}

/// Reads a document of at most some MiB.
pub fn read(bytes: &[u8]) -> Result<Sbom, UnreadableDocument> {
    let opened = statement::open(bytes)?;
    let probe: Probe = serde_json::from_slice(&opened.document)?;
    let unsupported = |what: String| Err(UnreadableDocument::Unsupported(clipped(&what), READ));
    let mut sbom = match (&probe.spdx_version, &probe.bom_format) {
        (Some(version), _) if matches!(version.as_str(), "SPDX-2.2" | "SPDX-2.3") => {
            spdx::read(&opened.document)?
        }
        (Some(version), _) => return unsupported(version.clone()),
        (None, Some(format)) if format == "CycloneDX" => {
            let version = probe.spec_version.unwrap_or_default();
            if !version.starts_with("1.") {
                return unsupported(format!("CycloneDX {version}"));
            }
            cyclonedx::read(&opened.document, &version)?
        }
        (None, Some(format)) => return unsupported(format.clone()),
        (None, None) if probe.context.is_some() => return unsupported("SPDX 3 (JSON-LD)".to_owned()),
        (None, None) => {
            return unsupported(
                opened
                    .predicate_type
                    .unwrap_or_else(|| "a document of no known format".to_owned()),
            );
        }
    };
    sbom.packages.sort_unstable();
    sbom.packages.dedup();
    Ok(sbom)
}

/// A text that says something; `NOASSERTION` and `NONE` (SPDX 2.3, section 7) say nothing.
fn told(text: Option<String>) -> Option<String> {
    let text = text?;
    let short = text.trim();
    let says = !short.is_empty() && short != "NOASSERTION" && short != "NONE";
    says.then(|| clipped(short))
}

/// The type in a package URL.
fn kind_of(purl: &str) -> Option<String> {
    let (kind, _) = purl.strip_prefix("pkg:")?.split_once('/')?;
    (!kind.is_empty()).then(|| clipped(kind))
}

#[cfg(test)]
mod tests;
