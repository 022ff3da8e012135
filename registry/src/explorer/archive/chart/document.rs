//! `Chart.yaml`, as Helm describes it in "The Chart.yaml File" of its documentation of charts.

use serde::{Deserialize, Serialize};

use super::super::unreadable::UnreadableArchive;
use super::bounded::{List, Map, Text};

/// Brackets in a document. The parser looks at all open ones for each part of the text, which takes minutes for a
/// quarter of a million of them.
const BRACKETS: usize = 10_000;

/// What a chart says about itself. Texts and lists are cut as [`Text`] and [`List`] say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// What it is called.
    pub name: Text,
    /// Its own version, a semantic one if Helm made it.
    #[serde(default)]
    pub version: Text,
    /// The version of what it installs.
    #[serde(default)]
    pub app_version: Option<Text>,
    /// One sentence about it.
    #[serde(default)]
    pub description: Option<Text>,
    /// Versions of Kubernetes that it is for, as a range.
    #[serde(default)]
    pub kube_version: Option<Text>,
    /// `application` or `library`; the first if it says nothing.
    #[serde(default, rename = "type")]
    pub kind: Option<Text>,
    /// An address of its project.
    #[serde(default)]
    pub home: Option<Text>,
    /// Addresses of source code.
    #[serde(default)]
    pub sources: List<Text>,
    /// Words to find it by.
    #[serde(default)]
    pub keywords: List<Text>,
    /// Who looks after it.
    #[serde(default)]
    pub maintainers: List<Maintainer>,
    /// Charts that it needs.
    #[serde(default)]
    pub dependencies: List<Dependency>,
    /// An address of a picture. It is never loaded here.
    #[serde(default)]
    pub icon: Option<Text>,
    /// Whether it should no longer be used.
    #[serde(default)]
    pub deprecated: Option<bool>,
    /// Anything else.
    #[serde(default)]
    pub annotations: Map,
}

/// Who looks after a chart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Maintainer {
    /// Their name.
    #[serde(default)]
    pub name: Text,
    /// Their address for mail.
    #[serde(default)]
    pub email: Option<Text>,
    /// An address of theirs.
    #[serde(default)]
    pub url: Option<Text>,
}

/// A chart that another needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Dependency {
    /// What it is called.
    #[serde(default)]
    pub name: Text,
    /// Versions that do, as a range.
    #[serde(default)]
    pub version: Option<Text>,
    /// Where it comes from.
    #[serde(default)]
    pub repository: Option<Text>,
    /// The value that says whether it is wanted.
    #[serde(default)]
    pub condition: Option<Text>,
}

impl Document {
    /// Reads the document. Its length is bounded by whoever read it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, UnreadableArchive> {
        let brackets = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
        if brackets > BRACKETS {
            return Err(UnreadableArchive::Chart(format!(
                "it has {brackets} opening brackets; at most {BRACKETS} are read"
            )));
        }
        serde_yaml::from_slice(bytes).map_err(|error| UnreadableArchive::Chart(error.to_string()))
    }
}
