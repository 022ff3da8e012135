//! What documents say about a manifest, in words.

use maud::{Markup, html};

use super::chart::link;
use super::documents::{Documents, Told};
use crate::explorer::parsed::Content;
use crate::explorer::supply::provenance::{Named, Provenance};
use crate::explorer::{path, shown};

/// Materials and parameters that are shown.
const ROWS: usize = 100;

/// The parts of the page.
pub fn shown_of(repository: &str, documents: &Documents) -> Markup {
    html! {
        @if let Some(told) = &documents.provenance { (provenance(repository, told)) }
        @if let Some(told) = &documents.packages {
            section aria-labelledby="packages" {
                h2 #packages { "Packages" }
                p {
                    a href=(path::of_part(repository, &format!("packages/{}", told.digest))) { "What it is made of" }
                    ", by a bill of materials of " (shown::size(told.size)) "."
                }
            }
        }
    }
}

fn provenance(repository: &str, told: &Told) -> Markup {
    html! {
        section aria-labelledby="provenance" {
            h2 #provenance { "Provenance" }
            @match told.content.as_deref() {
                Some(Content::Provenance(provenance)) => (words(provenance)),
                Some(Content::Unreadable(why)) => p.hint { "There is a document that says how this was built, but " (why) "." },
                _ => p.hint { "There is a document of " (shown::size(told.size)) " that says how this was built." },
            }
            p.hint {
                "As the document " (shown::digest(&told.digest)) " in " (repository) " says. Whether its signature holds has not been looked at."
            }
        }
    }
}

fn words(provenance: &Provenance) -> Markup {
    let maybe = |title: &str, value: Option<&String>| {
        html! { @if let Some(value) = value { div { dt { (title) } dd { (value) } } } }
    };
    html! {
        dl.facts {
            @if let Some(source) = &provenance.source {
                div { dt { "Source" } dd { @match &provenance.source_link {
                    Some(place) => a href=(place) rel="noreferrer nofollow" { (source) },
                    None => code { (source) },
                } } }
            }
            @if let Some(commit) = &provenance.commit { div { dt { "Commit" } dd { code { (commit) } } } }
            (maybe("Ref", provenance.git_ref.as_ref()))
            (maybe("Built from", provenance.entry_point.as_ref()))
            @if let Some(builder) = &provenance.builder { div { dt { "Builder" } dd { (link(builder)) } } }
            @if let Some(id) = &provenance.build_id { div { dt { "Build" } dd { (link(id)) } } }
            (maybe("Started", provenance.started.as_ref()))
            (maybe("Finished", provenance.finished.as_ref()))
            @if let Some(kind) = &provenance.build_type { div { dt { "Kind of build" } dd { (link(kind)) } } }
            div { dt { "Format" } dd { (provenance.predicate_type) } }
        }
        @if !provenance.materials.is_empty() {
            details {
                summary { "Materials (" (provenance.material_count) ")" }
                ul.plain { @for material in provenance.materials.iter().take(ROWS) { li { (named(material)) } } }
                (shown::more(provenance.material_count, ROWS))
            }
        }
        @if !provenance.parameters.is_empty() {
            details {
                summary { "Parameters (" (provenance.parameters.len()) ")" }
                ul.plain {
                    @for (key, value) in provenance.parameters.iter().take(ROWS) { li { code { (key) " = " (value) } } }
                }
                (shown::more(provenance.parameters.len(), ROWS))
            }
        }
    }
}

fn named(material: &Named) -> Markup {
    html! {
        code { (material.name) }
        @for (algorithm, hash) in &material.digest { " " span.hint { (algorithm) ":" (hash.get(..12).unwrap_or(hash)) } }
    }
}
