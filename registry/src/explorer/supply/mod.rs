//! What documents about an image say: how it was built, and what it is made of. Pure, and for content that nobody
//! vouches for.
//!
//! [`statement`] opens what documents are wrapped in, [`provenance`] and [`sbom`] read them. What must hold: whoever
//! calls bounds a document's bytes, and what is kept of it is bounded here; text is text, and a link is one only if
//! [`is_web_link`] says so.

pub mod provenance;
pub mod sbom;
pub(crate) mod statement;

/// Longest text that is kept, in characters.
const TEXT: usize = 2000;
/// Longest link, in bytes.
const LINK: usize = 2000;

/// Why a document says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableDocument {
    /// It is not of the shape that it should have.
    #[error("the document cannot be read: {0}")]
    Malformed(String),
    /// It is of a kind that is not read here.
    #[error("{0} is not read here; what is: {1}")]
    Unsupported(String, &'static str),
}

impl From<serde_json::Error> for UnreadableDocument {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// At most the beginning of a text.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text.to_owned(),
    }
}

/// Whether a text is an address in the web that can be a link: http or https, with a host, without a user.
pub fn is_web_link(text: &str) -> bool {
    let is_plain = text.len() <= LINK && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    let begins = text.starts_with("https://") || text.starts_with("http://");
    is_plain
        && begins
        && url::Url::parse(text)
            .is_ok_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_in_the_web_are_links() {
        for text in ["https://git.test/a/b?c=d#e", "http://host:8080/"] {
            assert!(is_web_link(text), "{text}");
        }
        for text in [
            "",
            "javascript:alert(1)",
            "data:text/html,x",
            "https:evil.test",
            "HTTPS://x.test",
            "//x.test",
            "https://user@x.test/",
            "https://a.test/ b",
            "https://a.test/\n",
            "https://",
            &format!("https://a.test/{}", "x".repeat(LINK)),
        ] {
            assert!(!is_web_link(text), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "é".repeat(TEXT + 5);
        assert_eq!(clipped(&text).chars().count(), TEXT);
        assert_eq!(clipped("short"), "short");
    }
}
