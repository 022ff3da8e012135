//! Where a list goes on.

/// The query of a `Link` to the next page (RFC 8288).
pub fn next_query(link: &str) -> Option<&str> {
    let (target, parameters) = link.split_once('<')?.1.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        let parameter = parameter.trim().replace('"', "");
        parameter.eq_ignore_ascii_case("rel=next")
    });
    let (_, query) = target.split_once('?')?;
    is_next.then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_upstreams_to_name() {
        for (link, expected) in [
            ("</v2/a/tags/list?n=2&last=b>; rel=\"next\"", Some("n=2&last=b")),
            (
                "<https://up/v2/a/tags/list?next_page=x%3D>; rel=next",
                Some("next_page=x%3D"),
            ),
            ("</v2/a/tags/list?n=2>; rel=\"prev\"", None),
            ("</v2/a/tags/list>; rel=\"next\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_query(link), expected, "{link}");
        }
    }
}
