//! Addresses without the logins that some builders leave in them.

/// A text; if it is a web address (also `git+https`), without the user and password before its host.
pub(super) fn left_away(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, place) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) if is_web(scheme) => format!("{scheme}://{host}{place}"),
        _ => text,
    }
}

fn is_web(scheme: &str) -> bool {
    let scheme = scheme.rsplit('+').next().unwrap_or(scheme);
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_web_addresses_are_left_away() {
        for (told, left) in [
            ("https://user:hush@example.com/a@b", "https://example.com/a@b"),
            ("git+HTTPS://hush@example.com?x#y", "git+HTTPS://example.com?x#y"),
            ("https://a@b@example.com", "https://example.com"),
        ] {
            assert_eq!(left_away(told.to_owned()), left);
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for told in [
            "",
            "ssh://git@example.com/a",
            "git@example.com:a",
            "https://example.com/@a",
            "a://",
            "ü@x",
        ] {
            assert_eq!(left_away(told.to_owned()), told);
        }
    }
}
