//! The page of a manifest.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{Child, Config, Layer, Made, ManifestPage, Referrer, Tag, said};
use crate::explorer::answer::View;
use crate::explorer::artifact::{Kind, Platform};
use crate::explorer::path;
use crate::explorer::repositories::when;
use crate::explorer::shown::{self, Column};
use crate::explorer::visit::Visit;
use crate::metadata::Time;

/// Rows of a table of layers, steps or children; the JSON has all.
const ROWS: usize = 200;
/// Bars of the picture; the rest is one.
const BARS: usize = 60;

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

    fn body(&self, visit: &Visit) -> Markup {
        html! {
            (shown::crumbs(Some(&self.repository)))
            h1 { (self.title()) }
            p.lead { (capital(self.kind.words())) ", " @if !self.is_whole { "at least " } (shown::size(self.total_size)) }
            (self.facts())
            (self.ways(visit))
            section aria-labelledby="commands" {
                h2 #commands { "Commands" }
                dl.commands {
                    @for command in &self.commands {
                        div { dt { (command.program) } dd { pre { code data-copy { (command.line) } } } }
                    }
                }
            }
            (said::shown_of(&self.repository, &self.documents))
            (self.contents.shown())
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
            @if !self.referrers.is_empty() || !self.attached.is_empty() { (self.referrers()) }
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
                @if let Some(pulls) = self.pulls { div { dt { "Pulls by digest" } dd { (shown::grouped(pulls)) } } }
                @if !self.others().is_empty() { div { dt { "Also tagged" } dd {
                    @for (at, tag) in self.others().iter().enumerate() {
                        @if at > 0 { ", " }
                        a href=(path::of_tag(&self.repository, tag)) { (tag) }
                    }
                    @if self.more_tags { " and more" }
                } } }
                div { dt { "Media type" } dd { code { (self.media_type) } } }
                @if let Some(kind) = &self.artifact_type { div { dt { "Artifact type" } dd { code { (shown::cut(kind)) } } } }
                @if let Some(subject) = &self.subject {
                    div { dt { "About" } dd { a href=(path::of_manifest(&self.repository, subject)) { (shown::digest(subject)) } } }
                }
            }
        }
    }

    /// Other tags that point to it.
    fn others(&self) -> Vec<&String> {
        let own = self.tag.as_ref().map(|tag| &tag.name);
        self.tags.iter().filter(|tag| Some(*tag) != own).collect()
    }

    /// Where to go on, and what may be done.
    fn ways(&self, visit: &Visit) -> Markup {
        let part = |part: String| path::of_part(&self.repository, &part);
        let from = self.tag.as_ref().map_or(self.digest.as_str(), |tag| &tag.name);
        html! {
            p.more {
                @if let Some(tag) = self.tag.as_ref().filter(|_| self.is_known) {
                    a href=(part(format!("history/{}", tag.name))) { "History" }
                    a href=(part(format!("retention/{}", tag.name))) { "Why it stays" }
                }
                a href=(path::with_query(&part("difference".into()), &[("from", from)])) { "Compare" }
                @if self.may_delete {
                    @match &self.tag {
                        Some(tag) => a href=(part(format!("delete/tags/{}", tag.name))) { "Delete the tag" },
                        None => a href=(part(format!("delete/manifests/{}", self.digest))) { "Delete the manifest" },
                    }
                }
            }
            @if self.may_tag {
                details {
                    summary { "Add a tag" }
                    form.row method="post" action=(part("retag".into())) {
                        (visit.form_field())
                        input type="hidden" name="digest" value=(self.digest);
                        label.hidden for="new-tag" { "New tag" }
                        input #new-tag name="tag" required maxlength="128" pattern="[A-Za-z0-9_][A-Za-z0-9._\\-]*"
                            placeholder="New tag" autocomplete="off" autocapitalize="none" spellcheck="false";
                        button type="submit" { "Add" }
                    }
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
                (shown::table(title, &[Column::Text("Platform"), Column::Text("Kind"), Column::Text("Digest"), Column::Number("Layers"), Column::Number("Size")], &html! {
                            @for child in self.platforms.iter().take(ROWS) { (self.child(child)) }
                        }))
                (shown::more(self.platforms.len(), ROWS))
            }
        }
    }

    fn child(&self, child: &Child) -> Markup {
        html! {
            tr {
                th scope="row" {
                    @match (&child.platform, &child.about) {
                        (_, Some(about)) => { "about " (shown::digest(&shown::cut(about))) }
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
                (shown::table("What refers to this manifest", &[Column::Text("Kind"), Column::Text("Type"), Column::Text("Digest"), Column::Number("Manifest")], &html! {
                            @for referrer in &self.referrers { (self.referrer(referrer, 0)) }
                        }))
                @if self.more_referrers { p.hint { "There are more." } }
                @if !self.attached.is_empty() { p {
                    "By name: "
                    @for (at, tag) in self.attached.iter().enumerate() {
                        @if at > 0 { ", " }
                        a href=(path::of_tag(&self.repository, tag)) { (tag.rsplit('.').next().unwrap_or(tag)) }
                    }
                } }
            }
        }
    }

    fn referrer(&self, referrer: &Referrer, depth: usize) -> Markup {
        let descriptor = &referrer.descriptor;
        let kind = descriptor
            .artifact_type
            .as_deref()
            .unwrap_or(&descriptor.media_type);
        html! {
            tr {
                th scope="row" class=(format!("depth{depth}")) {
                    @if depth > 0 { span aria-hidden="true" { "↳ " } span.hidden { "about the one above: " } }
                    (referrer.kind.words())
                }
                td { code { (shown::cut(kind)) } }
                td { a href=(path::of_manifest(&self.repository, &descriptor.digest)) { (shown::digest(&descriptor.digest)) } }
                td.number { (shown::size(descriptor.size)) }
            }
            @for below in &referrer.referrers { (self.referrer(below, depth + 1)) }
        }
    }
}

fn tag_facts(tag: &Tag, now: Time) -> Markup {
    html! {
        div { dt { "Pushed" } dd { (shown::time(tag.pushed, now)) @if let Some(by) = &tag.pushed_by { " by " (by) } } }
        div { dt { "Pulled" } dd { (when(tag.pulled, now)) } }
        @if let Some(pulls) = tag.pulls { div { dt { "Pulls by this tag" } dd { (shown::grouped(pulls)) } } }
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
                                        (Some(title), _) => (shown::cut(title)),
                                        (None, Some(made_by)) => code { (shown::cut(made_by)) },
                                        (None, None) => span.hint { "unknown" },
                                    }
                                }
                                td {
                                    @if is_archive(&layer.media_type) {
                                        a href=(path::of_part(repository, &format!("files/{}", layer.digest))) title=(layer.digest) {
                                            (shown::digest(&layer.digest))
                                        }
                                    } @else { (shown::digest(&layer.digest)) }
                                }
                                td { code { (shown::cut(&layer.media_type)) } }
                            }
                        }
                    }
                }
            }
            (shown::more(layers.len(), ROWS))
        }
    }
}

/// Whether a layer's files can be listed, as far as its type says so.
fn is_archive(media_type: &str) -> bool {
    media_type.contains("tar")
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
    let list = |values: &[String]| html! { code { (shown::cut(&serde_json::to_string(values).unwrap_or_default())) } };
    html! {
        section aria-labelledby="configuration" {
            h2 #configuration { "Configuration" }
            dl.facts {
                div { dt { "Platform" } dd { (platform_text(&config.platform)) } }
                @if let Some(created) = &config.created { div { dt { "Created" } dd { (shown::cut(created)) } } }
                @if let Some(author) = &config.author { div { dt { "Author" } dd { (shown::cut(author)) } } }
                div { dt { "User" } dd { @match run.user.as_deref().filter(|user| !user.is_empty()) {
                    Some(user) => code { (shown::cut(user)) },
                    None => "root",
                } } }
                @if !run.entrypoint.is_empty() { div.long { dt { "Entrypoint" } dd { (list(&run.entrypoint)) } } }
                @if !run.cmd.is_empty() { div.long { dt { "Command" } dd { (list(&run.cmd)) } } }
                @if let Some(folder) = run.working_dir.as_deref().filter(|folder| !folder.is_empty()) {
                    div { dt { "Folder" } dd { code { (shown::cut(folder)) } } }
                }
                @if !run.exposed_ports.is_empty() { div { dt { "Ports" } dd { (shown::cut(&run.exposed_ports.join(", "))) } } }
                @if !run.volumes.is_empty() { div { dt { "Volumes" } dd { (shown::cut(&run.volumes.join(", "))) } } }
                @if let Some(signal) = &run.stop_signal { div { dt { "Stop signal" } dd { (shown::cut(signal)) } } }
            }
            @if !run.env.is_empty() {
                details { summary { "Environment (" (run.env.len()) ")" } ul.plain {
                    @for pair in run.env.iter().take(ROWS) { li { code { (shown::cut(pair)) } } }
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
                        code { (shown::cut(made.step.created_by.as_deref().unwrap_or("unknown"))) }
                        @if let Some(size) = made.size { " " (shown::size(size)) }
                        @if let Some(comment) = &made.step.comment { " " span.hint { (shown::cut(comment)) } }
                    }
                }
            }
            (shown::more(steps.len(), ROWS))
        }
    }
}

fn pairs(what: &str, pairs: &BTreeMap<String, String>) -> Markup {
    html! {
        (shown::table(what, &[Column::Text("Key"), Column::Text("Value")], &html! {
                    @for (key, value) in pairs.iter().take(ROWS) {
                        tr { th scope="row" { code { (shown::cut(key)) } } td.text { (shown::cut(value)) } }
                    }
                }))
        (shown::more(pairs.len(), ROWS))
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
    shown::cut(&text)
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters).collect()
}
