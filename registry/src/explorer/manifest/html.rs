//! The page of a manifest.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{Child, Config, Layer, Made, ManifestPage, Tag};
use crate::explorer::answer::View;
use crate::explorer::artifact::{Descriptor, Kind, Platform};
use crate::explorer::path;
use crate::explorer::repositories::when;
use crate::explorer::shown;
use crate::explorer::visit::Visit;
use crate::metadata::Time;

/// Rows of a table of layers, steps or children; the JSON has all.
const ROWS: usize = 200;
/// Bars of the picture; the rest is one.
const BARS: usize = 60;
/// Longest text of one cell, in characters.
const CELL: usize = 2000;

impl View for ManifestPage {
    fn title(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{}", self.repository, tag.name),
            None => format!(
                "{}@{}",
                self.repository,
                self.digest.get(..19).unwrap_or(&self.digest)
            ),
        }
    }

    fn body(&self, _: &Visit) -> Markup {
        html! {
            nav.crumbs aria-label="Place" {
                a href=(path::ROOT) { "Repositories" } " / "
                a href=(path::of_repository(&self.repository)) { (self.repository) }
            }
            h1 { (self.title()) }
            p.lead { (capital(self.kind.words())) ", " @if !self.is_whole { "at least " } (shown::size(self.total_size)) }
            (self.facts())
            section aria-labelledby="commands" {
                h2 #commands { "Commands" }
                dl.commands {
                    @for command in &self.commands {
                        div { dt { (command.program) } dd { pre { code data-copy { (command.line) } } } }
                    }
                }
            }
            @if !self.platforms.is_empty() { (self.platforms()) }
            @if !self.layers.is_empty() { (layers(&self.repository, self.kind, &self.layers)) }
            @if let Some(config) = &self.config { (configuration(config)) }
            @if !self.history.is_empty() { (history(&self.history)) }
            @if !self.annotations.is_empty() {
                section aria-labelledby="annotations" {
                    h2 #annotations { "Annotations" }
                    (pairs("Annotations", &self.annotations))
                }
            }
            @if !self.referrers.is_empty() { (self.referrers()) }
            @if let Some(raw) = &self.raw {
                section aria-labelledby="manifest" {
                    h2 #manifest { "Manifest" }
                    details { summary { "Show the JSON" } pre { code data-copy { (raw) } } }
                }
            }
        }
    }
}

impl ManifestPage {
    fn facts(&self) -> Markup {
        html! {
            dl.facts {
                div.long { dt { "Digest" } dd { code data-copy { (self.digest) } } }
                @if let Some(tag) = &self.tag { (tag_facts(tag, self.now)) }
                div { dt { "Media type" } dd { code { (self.media_type) } } }
                @if let Some(kind) = &self.artifact_type { div { dt { "Artifact type" } dd { code { (cut(kind)) } } } }
                @if let Some(subject) = &self.subject {
                    div { dt { "About" } dd { a href=(path::of_manifest(&self.repository, subject)) { (shown::digest(subject)) } } }
                }
            }
        }
    }

    fn platforms(&self) -> Markup {
        let title = if self.kind == Kind::ImageIndex {
            "Platforms"
        } else {
            "Contents"
        };
        html! {
            section aria-labelledby="platforms" {
                h2 #platforms { (title) }
                div.wide tabindex="0" role="region" aria-label=(format!("Table of {title}")) {
                    table {
                        caption.hidden { (title) }
                        thead {
                            tr {
                                th scope="col" { "Platform" }
                                th scope="col" { "Kind" }
                                th scope="col" { "Digest" }
                                th.number scope="col" { "Layers" }
                                th.number scope="col" { "Size" }
                            }
                        }
                        tbody {
                            @for child in self.platforms.iter().take(ROWS) { (self.child(child)) }
                        }
                    }
                }
                (more(self.platforms.len()))
            }
        }
    }

    fn child(&self, child: &Child) -> Markup {
        html! {
            tr {
                th scope="row" {
                    @match (&child.platform, &child.about) {
                        (_, Some(about)) => { "about " (shown::digest(&cut(about))) }
                        (Some(platform), None) => (platform_text(platform)),
                        (None, None) => "any",
                    }
                }
                td { (child.kind.words()) }
                td { a href=(path::of_manifest(&self.repository, &child.digest)) { (shown::digest(&child.digest)) } }
                td.number { @if let Some(layers) = child.layers { (layers) } }
                td.number {
                    @match child.total_size {
                        Some(size) => (shown::size(size)),
                        None => span.hint { "unknown" },
                    }
                }
            }
        }
    }

    fn referrers(&self) -> Markup {
        html! {
            section aria-labelledby="referrers" {
                h2 #referrers { "Referrers" }
                div.wide tabindex="0" role="region" aria-label=("Table of referrers") {
                    table {
                        caption.hidden { "What refers to this manifest" }
                        thead { tr {
                            th scope="col" { "Kind" } th scope="col" { "Type" } th scope="col" { "Digest" }
                            th.number scope="col" { "Manifest" }
                        } }
                        tbody {
                            @for referrer in &self.referrers { (self.referrer(referrer)) }
                        }
                    }
                }
                @if self.more_referrers { p.hint { "There are more." } }
            }
        }
    }

    fn referrer(&self, referrer: &Descriptor) -> Markup {
        let kind = referrer.artifact_type.as_deref().unwrap_or(&referrer.media_type);
        html! {
            tr {
                th scope="row" { (Kind::of_type(kind).words()) }
                td { code { (cut(kind)) } }
                td { a href=(path::of_manifest(&self.repository, &referrer.digest)) { (shown::digest(&referrer.digest)) } }
                td.number { (shown::size(referrer.size)) }
            }
        }
    }
}

fn tag_facts(tag: &Tag, now: Time) -> Markup {
    html! {
        div { dt { "Pushed" } dd { (shown::time(tag.pushed, now)) @if let Some(by) = &tag.pushed_by { " by " (by) } } }
        div { dt { "Pulled" } dd { (when(tag.pulled, now)) } }
        @if let Some(expires) = tag.expires { div { dt { "Ends" } dd { (shown::time(expires, now)) } } }
    }
}

fn layers(repository: &str, kind: Kind, layers: &[Layer]) -> Markup {
    let title = match kind {
        Kind::Image => "Layers",
        _ => "Files",
    };
    let total: u64 = layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size));
    html! {
        section aria-labelledby="layers" {
            h2 #layers { (title) }
            (picture(layers, total))
            div.wide tabindex="0" role="region" aria-label=(format!("Table of {title}")) {
                table {
                    caption.hidden { (title) " of " (repository) }
                    thead { tr {
                        th scope="col" { "#" }
                        th.number scope="col" { "Size" }
                        th scope="col" { @if kind == Kind::Image { "Made by" } @else { "Name" } }
                        th scope="col" { "Digest" }
                        th scope="col" { "Media type" }
                    } }
                    tbody {
                        @for (at, layer) in layers.iter().take(ROWS).enumerate() {
                            tr {
                                th scope="row" { (at + 1) }
                                td.number { (shown::size(layer.size)) }
                                td {
                                    @match (&layer.title, &layer.made_by) {
                                        (Some(title), _) => (cut(title)),
                                        (None, Some(made_by)) => code { (cut(made_by)) },
                                        (None, None) => span.hint { "unknown" },
                                    }
                                }
                                td { (shown::digest(&layer.digest)) }
                                td { code { (cut(&layer.media_type)) } }
                            }
                        }
                    }
                }
            }
            (more(layers.len()))
        }
    }
}

/// The layers side by side, each as wide as its share.
fn picture(layers: &[Layer], total: u64) -> Markup {
    if total == 0 || layers.len() < 2 {
        return html! {};
    }
    // Of a thousand: what a float loses is not seen.
    #[expect(clippy::cast_precision_loss)]
    let share = |size: u64| size as f64 / total as f64 * 1000.0;
    let mut at = 0.0;
    let mut bars: Vec<(f64, f64, String)> = Vec::new();
    for (number, layer) in layers.iter().take(BARS).enumerate() {
        let text = format!("Layer {}: {}", number + 1, shown::size_text(layer.size));
        bars.push((at, share(layer.size), text));
        at += share(layer.size);
    }
    html! {
        svg.layers viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" aria-label="The layers by their share of the size" {
            @for (number, (x, width, text)) in bars.iter().enumerate() {
                rect class=(format!("bar{}", number % 6)) x=(format!("{x:.2}")) y="0" width=(format!("{width:.2}")) height="24" {
                    title { (text) }
                }
            }
            @if layers.len() > BARS {
                rect class="rest" x=(format!("{at:.2}")) y="0" width=(format!("{:.2}", 1000.0 - at)) height="24" {
                    title { "All others" }
                }
            }
        }
    }
}

fn configuration(config: &Config) -> Markup {
    let run = &config.run;
    let list =
        |values: &[String]| html! { code { (cut(&serde_json::to_string(values).unwrap_or_default())) } };
    html! {
        section aria-labelledby="configuration" {
            h2 #configuration { "Configuration" }
            dl.facts {
                div { dt { "Platform" } dd { (platform_text(&config.platform)) } }
                @if let Some(created) = &config.created { div { dt { "Created" } dd { (cut(created)) } } }
                @if let Some(author) = &config.author { div { dt { "Author" } dd { (cut(author)) } } }
                div { dt { "User" } dd { @match run.user.as_deref().filter(|user| !user.is_empty()) {
                    Some(user) => code { (cut(user)) },
                    None => "root",
                } } }
                @if !run.entrypoint.is_empty() { div.long { dt { "Entrypoint" } dd { (list(&run.entrypoint)) } } }
                @if !run.cmd.is_empty() { div.long { dt { "Command" } dd { (list(&run.cmd)) } } }
                @if let Some(folder) = run.working_dir.as_deref().filter(|folder| !folder.is_empty()) {
                    div { dt { "Folder" } dd { code { (cut(folder)) } } }
                }
                @if !run.exposed_ports.is_empty() { div { dt { "Ports" } dd { (cut(&run.exposed_ports.join(", "))) } } }
                @if !run.volumes.is_empty() { div { dt { "Volumes" } dd { (cut(&run.volumes.join(", "))) } } }
                @if let Some(signal) = &run.stop_signal { div { dt { "Stop signal" } dd { (cut(signal)) } } }
            }
            @if !run.env.is_empty() {
                details { summary { "Environment (" (run.env.len()) ")" } ul.plain {
                    @for pair in run.env.iter().take(ROWS) { li { code { (cut(pair)) } } }
                } }
            }
            @if !run.labels.is_empty() {
                details { summary { "Labels (" (run.labels.len()) ")" } (pairs("Labels", &run.labels)) }
            }
        }
    }
}

fn history(steps: &[Made]) -> Markup {
    html! {
        section aria-labelledby="history" {
            h2 #history { "History" }
            ol.history {
                @for made in steps.iter().take(ROWS) {
                    li {
                        code { (cut(made.step.created_by.as_deref().unwrap_or("unknown"))) }
                        @if let Some(size) = made.size { " " (shown::size(size)) }
                        @if let Some(comment) = &made.step.comment { " " span.hint { (cut(comment)) } }
                    }
                }
            }
            (more(steps.len()))
        }
    }
}

fn pairs(what: &str, pairs: &BTreeMap<String, String>) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(format!("Table of {what}")) {
            table {
                caption.hidden { (what) }
                thead { tr { th scope="col" { "Key" } th scope="col" { "Value" } } }
                tbody {
                    @for (key, value) in pairs.iter().take(ROWS) {
                        tr { th scope="row" { code { (cut(key)) } } td.text { (cut(value)) } }
                    }
                }
            }
        }
        (more(pairs.len()))
    }
}

fn more(count: usize) -> Markup {
    html! {
        @if count > ROWS { p.hint { "The first " (ROWS) " of " (count) " are shown; the JSON has all." } }
    }
}

fn platform_text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = platform.variant.as_deref().filter(|variant| !variant.is_empty()) {
        text = format!("{text}/{variant}");
    }
    if let Some(version) = &platform.os_version {
        text = format!("{text} ({version})");
    }
    cut(&text)
}

/// At most the beginning of a text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters).collect()
}
