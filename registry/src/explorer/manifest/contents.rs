//! What an artifact holds, read into words where it is a chart.

use std::sync::Arc;

use maud::{Markup, html};
use serde::{Serialize, Serializer};

use super::chart;
use crate::domain::Digest;
use crate::explorer::answer::Failure;
use crate::explorer::artifact::{Document, Kind};
use crate::explorer::parsed::{self, Content, Sort};
use crate::explorer::visit::Visit;
use crate::metadata::Repository;

/// The layer of a chart that is its archive (Helm's OCI support, "Content Layer").
const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// What was read.
#[derive(Debug, Default, Serialize)]
pub struct Contents {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "content")]
    chart: Option<Arc<Content>>,
}

impl Contents {
    /// Of a manifest.
    pub async fn of(
        visit: &Visit,
        repository: &Repository,
        kind: Kind,
        document: &Document,
    ) -> Result<Self, Failure> {
        let mut contents = Self::default();
        if kind == Kind::HelmChart {
            let layer = document.layers.iter().find(|layer| layer.media_type == CHART);
            let digest = layer.and_then(|layer| layer.digest.parse::<Digest>().ok());
            if let Some(digest) = digest {
                contents.chart =
                    parsed::read_if_free(&visit.explorer, repository, &digest, Sort::Chart).await?;
            }
        }
        Ok(contents)
    }

    /// As parts of the page.
    pub fn shown(&self) -> Markup {
        html! {
            @match self.chart.as_deref() {
                Some(Content::Chart(chart)) => (chart::shown(chart)),
                Some(Content::Unreadable(why)) => p.alert { "The chart cannot be read: " (why) },
                _ => {},
            }
        }
    }
}

fn content<S: Serializer>(content: &Option<Arc<Content>>, to: S) -> Result<S::Ok, S::Error> {
    match content.as_deref() {
        Some(Content::Chart(chart)) => chart.serialize(to),
        Some(Content::Unreadable(why)) => serde_json::json!({ "unreadable": why }).serialize(to),
        _ => to.serialize_none(),
    }
}
