//! Markdown of whoever has pushed it, as HTML that can do nothing: no markup of its own, no pictures, links only to the
//! web. The parser knows CommonMark and escapes what it writes; this module decides what is left of it.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::supply::is_web_link;

/// Most bytes that are read; the rest is left out.
const LIMIT: usize = 512 << 10;

/// The text as paragraphs, lists, tables and code. Headings begin below those of the page.
pub fn markdown(text: &str) -> Markup {
    let end = (0..=LIMIT.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let text = &text[..end.unwrap_or_default()];
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let events = Parser::new_ext(text, options).map(tamed);
    let mut page = String::with_capacity(text.len() * 2);
    html::push_html(&mut page, events);
    PreEscaped(page)
}

fn tamed(event: Event<'_>) -> Event<'_> {
    match event {
        // Shown as it stands, and not obeyed.
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
        Event::Start(Tag::Heading { level, .. }) => Event::Start(Tag::Heading {
            level: lower(level),
            id: None,
            classes: Vec::new(),
            attrs: Vec::new(),
        }),
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(lower(level))),
        Event::Start(Tag::Link {
            link_type, dest_url, ..
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: match is_web_link(&dest_url) {
                true => dest_url,
                false => CowStr::Borrowed("#"),
            },
            title: CowStr::Borrowed(""),
            id: CowStr::Borrowed(""),
        }),
        // What would be loaded from elsewhere is a word in its place: the text that stands for it.
        Event::Start(Tag::Image { .. }) => Event::Start(Tag::Emphasis),
        Event::End(TagEnd::Image) => Event::End(TagEnd::Emphasis),
        other => other,
    }
}

/// Two levels lower, as far as there are levels.
fn lower(level: HeadingLevel) -> HeadingLevel {
    match level {
        HeadingLevel::H1 => HeadingLevel::H3,
        HeadingLevel::H2 => HeadingLevel::H4,
        HeadingLevel::H3 => HeadingLevel::H5,
        _ => HeadingLevel::H6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        markdown(text).into_string()
    }

    #[test]
    fn text_lists_tables_and_code_are_what_they_say() {
        let shown = page(
            "# Title\n\nSome *text*.\n\n- one\n- two\n\n| a | b |\n|-|-|\n| 1 | 2 |\n\n```\nx < y\n```\n",
        );
        for part in [
            "<h3>Title</h3>",
            "<em>text</em>",
            "<li>one</li>",
            "<td>1</td>",
            "x &lt; y",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn nothing_in_it_can_do_anything() {
        for text in [
            "<script>alert(1)</script>",
            "a <img src=x onerror=alert(1)> b",
            "[a](javascript:alert(1))",
            "[a](data:text/html,<script>alert(1)</script>)",
            "![pixel](https://evil.test/pixel.png)",
            "<div\nonclick=alert(1)>\n\ntext",
            "[a](https://a.test/\"onmouseover=alert(1))",
            "# <b>t</b> {#id onclick=x}",
            "<javascript:alert(1)>",
            "[a]\n\n[a]: vbscript:x",
        ] {
            let shown = page(text);
            for bad in [
                "<script",
                "<img",
                "<div",
                "href=\"javascript",
                "href=\"data",
                "href=\"vbscript",
                "id=",
                "<b>",
                "\"onmouseover",
            ] {
                assert!(!shown.contains(bad), "{text}: {shown}");
            }
        }
    }

    #[test]
    fn what_is_very_long_or_deep_is_cut_and_does_no_harm() {
        let deep = "> ".repeat(50_000);
        assert!(page(&deep).len() < 50_000_000);
        let long = "é".repeat(LIMIT);
        assert!(page(&long).len() <= LIMIT + 100);
        assert!(page(&"[".repeat(100_000)).len() < 10_000_000);
    }
}
