//! What a Helm chart says of itself.

use maud::{Markup, html};

use crate::explorer::archive::chart::{Chart, Dependency, File, Maintainer, Text};
use crate::explorer::prose;
use crate::explorer::shown::{self, Column};
use crate::explorer::supply::is_web_link;

/// Templates that are named.
const TEMPLATES: usize = 200;

/// The chart's facts, its README, and its values.
pub fn shown(chart: &Chart) -> Markup {
    let document = &chart.document;
    html! {
        section aria-labelledby="chart" {
            h2 #chart { "Chart " (&*document.name) " " (&*document.version) }
            @if document.deprecated == Some(true) { p.alert { "This chart is deprecated." } }
            @if let Some(text) = &document.description { p { (&**text) } }
            dl.facts {
                (fact("App version", document.app_version.as_ref()))
                (fact("Kubernetes", document.kube_version.as_ref()))
                (fact("Type", document.kind.as_ref()))
                @if let Some(home) = &document.home { div { dt { "Home" } dd { (link(home)) } } }
                @if !document.sources.is_empty() { div { dt { "Sources" } dd { (joined(document.sources.iter().map(|text| link(text)))) } } }
                @if !document.maintainers.is_empty() {
                    div { dt { "Maintainers" } dd { (joined(document.maintainers.iter().map(maintainer))) } }
                }
                @if !document.keywords.is_empty() {
                    div { dt { "Keywords" } dd { (joined(document.keywords.iter().map(|text| html! { (&**text) }))) } }
                }
                @if !chart.subcharts.is_empty() { div { dt { "Includes" } dd { (chart.subcharts.join(", ")) } } }
            }
            @if !document.dependencies.is_empty() { (dependencies(&document.dependencies)) }
            @if !chart.templates.is_empty() {
                details { summary { "Templates (" (chart.templates.len()) ")" } ul.plain {
                    @for name in chart.templates.iter().take(TEMPLATES) { li { code { (name) } } }
                } (shown::more(chart.templates.len(), TEMPLATES)) }
            }
            @if let Some(values) = &chart.values {
                details { summary { "Values" @if chart.has_schema { " (with a schema)" } } (text(values)) }
            }
        }
        @if let Some(readme) = &chart.readme {
            section aria-labelledby="readme" {
                h2 #readme { "README" }
                div.prose { (prose::markdown(&readme.text)) }
                (cut(readme))
            }
        }
    }
}

fn fact(title: &str, value: Option<&Text>) -> Markup {
    html! { @if let Some(value) = value { div { dt { (title) } dd { (&**value) } } } }
}

fn text(file: &File) -> Markup {
    html! { pre { code { (file.text) } } (cut(file)) }
}

fn cut(file: &File) -> Markup {
    html! { @if file.is_cut { p.hint { "Only its beginning is shown, of " (shown::size(file.size)) "." } } }
}

fn maintainer(maintainer: &Maintainer) -> Markup {
    let place = maintainer.url.as_deref().filter(|url| is_web_link(url));
    html! {
        @match place {
            Some(url) => a href=(url) rel="noreferrer nofollow" { (&*maintainer.name) },
            None => (&*maintainer.name),
        }
        @if let Some(email) = &maintainer.email { " <" (&**email) ">" }
    }
}

fn dependencies(dependencies: &[Dependency]) -> Markup {
    html! {
        (shown::table("Dependencies of the chart", &[Column::Text("Dependency"), Column::Text("Version"), Column::Text("From"), Column::Text("If")], &html! {
                    @for dependency in dependencies {
                        tr {
                            th scope="row" { (&*dependency.name) }
                            td { (dependency.version.as_deref().unwrap_or_default()) }
                            td { @if let Some(place) = &dependency.repository { (link(place)) } }
                            td { @if let Some(condition) = &dependency.condition { code { (&**condition) } } }
                        }
                    }
                }))
    }
}

/// A link where it leads to the web; else the text.
pub fn link(text: &str) -> Markup {
    match is_web_link(text) {
        true => html! { a href=(text) rel="noreferrer nofollow" { (text) } },
        false => html! { code { (text) } },
    }
}

fn joined(parts: impl Iterator<Item = Markup>) -> Markup {
    html! {
        @for (at, part) in parts.enumerate() { @if at > 0 { ", " } (part) }
    }
}
