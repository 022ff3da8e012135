//! The page of a difference.

use maud::{Markup, html};

use super::compare::{Change, Where};
use super::{Compared, Difference};
use crate::explorer::answer::View;
use crate::explorer::path;
use crate::explorer::shown::{self, Column};
use crate::explorer::supply::sbom;
use crate::explorer::visit::Visit;

/// Rows of a table; the JSON has all.
const ROWS: usize = 200;

impl View for Difference {
    fn title(&self) -> String {
        match &self.compared {
            Some(_) => format!(
                "{}: {} and {}",
                self.repository,
                short(&self.from),
                short(&self.to)
            ),
            None => format!("Compare two tags of {}", self.repository),
        }
    }

    fn body(&self, _: &Visit) -> Markup {
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { (self.title()) }
            (self.form())
            @if let Some(compared) = &self.compared {
                (self.facts(compared))
                (layers(compared))
                (configuration(&compared.config))
                @if let Some(packages) = &compared.packages { (packages_of(packages)) }
            }
        }
    }
}

impl Difference {
    fn form(&self) -> Markup {
        html! {
            form.row method="get" action=(path::of_part(&self.repository, "difference")) {
                label for="from" { "From" }
                input #from name="from" value=(self.from) required placeholder="Tag or digest" autocomplete="off"
                    autocapitalize="none" spellcheck="false";
                label for="to" { "to" }
                input #to name="to" value=(self.to) required placeholder="Tag or digest" autocomplete="off"
                    autocapitalize="none" spellcheck="false";
                button type="submit" { "Compare" }
            }
            @if self.platforms.len() > 1 {
                nav.more aria-label="Platform" {
                    @for platform in self.platforms.iter().take(ROWS) {
                        a href=(self.of_platform(platform)) aria-current=[(Some(platform) == self.platform.as_ref()).then_some("page")] {
                            (platform)
                        }
                    }
                }
            }
        }
    }

    fn of_platform(&self, platform: &str) -> String {
        let parameters = [("from", &*self.from), ("to", &*self.to), ("platform", platform)];
        path::with_query(&path::of_part(&self.repository, "difference"), &parameters)
    }

    fn facts(&self, compared: &Compared) -> Markup {
        let manifest = |digest: &str| {
            html! { a href=(path::of_manifest(&self.repository, digest)) { (shown::digest(digest)) } }
        };
        html! {
            dl.facts {
                div { dt { "From" } dd { (manifest(&compared.from_digest)) ", " (shown::size(compared.from_size)) } }
                div { dt { "To" } dd { (manifest(&compared.to_digest)) ", " (shown::size(compared.to_size)) } }
                div { dt { "Grows by" } dd { (grown(compared.from_size, compared.to_size)) } }
                div { dt { "Layers in both" } dd { (shown::size(compared.shared_size)) } }
                @if let Some(platform) = &self.platform { div { dt { "Platform" } dd { (platform) } } }
            }
            @if compared.from_digest == compared.to_digest { p.empty { "They are the same manifest." } }
        }
    }
}

fn grown(from: u64, to: u64) -> Markup {
    match to.checked_sub(from) {
        Some(more) => shown::size(more),
        None => html! { "−" (shown::size(from - to)) },
    }
}

fn layers(compared: &Compared) -> Markup {
    if compared.layers.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="layers" {
            h2 #layers { "Layers" }
            (shown::table("Layers of both", &[Column::Text("Where"), Column::Number("Size"), Column::Text("Made by"), Column::Text("Digest")], &html! {
                        @for layer in compared.layers.iter().take(ROWS) {
                            tr {
                                th scope="row" { @match layer.found {
                                    Where::Both => "in both",
                                    Where::Added => strong { "added" },
                                    Where::Removed => del { "removed" },
                                } }
                                td.number { (shown::size(layer.size)) }
                                td { @if let Some(step) = &layer.made_by { code { (shown::cut(step)) } } }
                                td { (shown::digest(&layer.digest)) }
                            }
                        }
                    }))
            (shown::more(compared.layers.len(), ROWS))
        }
    }
}

fn configuration(changes: &[Change]) -> Markup {
    html! {
        section aria-labelledby="configuration" {
            h2 #configuration { "Configuration" }
            @if changes.is_empty() { p.hint { "The same." } } @else {
                (shown::table("What differs in the configuration", &[Column::Text("Key"), Column::Text("From"), Column::Text("To")], &html! {
                            @for change in changes.iter().take(ROWS) {
                                tr {
                                    th scope="row" { code { (shown::cut(&change.key)) } }
                                    td.text { (side(change.from.as_deref())) }
                                    td.text { (side(change.to.as_deref())) }
                                }
                            }
                        }))
                (shown::more(changes.len(), ROWS))
            }
        }
    }
}

fn packages_of(difference: &sbom::Difference) -> Markup {
    let versions = |versions: &[String]| match versions.is_empty() {
        true => html! { span.hint { "none" } },
        false => html! { (shown::cut(&versions.join(", "))) },
    };
    html! {
        section aria-labelledby="packages" {
            h2 #packages { "Packages" }
            p.hint { (shown::grouped(difference.same as u64)) " are the same." }
            @if !difference.packages.is_empty() {
                (shown::table("Packages that differ", &[Column::Text("Package"), Column::Text("Kind"), Column::Text("From"), Column::Text("To")], &html! {
                            @for package in difference.packages.iter().take(ROWS) {
                                tr {
                                    th scope="row" { (package.name) }
                                    td { (package.kind.as_deref().unwrap_or_default()) }
                                    td { (versions(&package.from)) }
                                    td { (versions(&package.to)) }
                                }
                            }
                        }))
                (shown::more(difference.packages.len(), ROWS))
            }
        }
    }
}

fn side(value: Option<&str>) -> Markup {
    match value {
        Some(value) => html! { (shown::cut(value)) },
        None => html! { span.hint { "not set" } },
    }
}

/// A digest's beginning, or a tag.
fn short(reference: &str) -> String {
    reference.chars().take(32).collect()
}
