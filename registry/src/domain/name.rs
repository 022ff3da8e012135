//! Names of tenants, repositories and tags (distribution-spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

/// Longest repository name in bytes: many clients cap host and name together at 255 characters.
pub const REPOSITORY_NAME_LIMIT: usize = 255;

/// Longest tag in bytes.
pub const TAG_LIMIT: usize = 128;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of the grammar of repository names.
    #[error(
        "a repository name is lower-case letters and digits in components separated by '/', with single \
         '.', one or two '_' or any number of '-' inside a component"
    )]
    Repository,
    /// Too long.
    #[error("a repository name has at most {REPOSITORY_NAME_LIMIT} characters")]
    RepositoryTooLong,
    /// Not of the grammar of tags.
    #[error(
        "a tag is 1 to {TAG_LIMIT} letters, digits, '_', '.' or '-', and starts with none of the last two"
    )]
    Tag,
    /// Not a DNS label.
    #[error("a tenant name is a DNS label: at most 63 lower-case letters, digits and '-' between them")]
    Tenant,
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_type! {
    /// A repository's name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*`, at most 255 bytes.
    RepositoryName
}
text_type! {
    /// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    TagName
}
text_type! {
    /// A tenant's name: a DNS label (RFC 1123).
    TenantName
}

/// Whether `component` is one path component of a repository name.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    // Between two letters or digits stands one separator: '.', '_', '__' or a run of '-'.
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && !alphanumeric(bytes[at]) {
            at += 1;
        }
        let separator = &bytes[start..at];
        let valid = matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-');
        if !valid {
            return false;
        }
        while at < bytes.len() && alphanumeric(bytes[at]) {
            at += 1;
        }
    }
    true
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > REPOSITORY_NAME_LIMIT {
            return Err(NameError::RepositoryTooLong);
        }
        if text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Repository)
        }
    }
}

impl FromStr for TagName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = (1..=TAG_LIMIT).contains(&text.len())
            && text
                .bytes()
                .enumerate()
                .all(|(at, b)| word(b) || (at > 0 && matches!(b, b'.' | b'-')));
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Tag)
        }
    }
}

impl FromStr for TenantName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Tenant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_collide_with_routes_are_ordinary_names() {
        for name in [
            "blobs",
            "a/blobs/uploads",
            "manifests/tags",
            "referrers/x",
            "a__b/c--d/e.f",
        ] {
            assert!(name.parse::<RepositoryName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for name in [
            "", "/", "a//b", "a/", "/a", "A", "a..b", "a___b", "a._b", "-a", "a-", "..", "a/../b", "ä", "a\0",
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name:?}");
        }
        assert_eq!(
            "a".repeat(256).parse::<RepositoryName>(),
            Err(NameError::RepositoryTooLong)
        );
        for tag in ["", ".a", "-a", "a/b", "a b", "ä"] {
            assert!(tag.parse::<TagName>().is_err(), "{tag:?}");
        }
        assert!("_A.b-c".parse::<TagName>().is_ok());
        for tenant in ["", "-a", "a-", "A", "a.b", "a_b"] {
            assert!(tenant.parse::<TenantName>().is_err(), "{tenant:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_of_the_spec_s_grammar_parses(
            name in r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}){0,3}"
        ) {
            prop_assert!(name.parse::<RepositoryName>().is_ok());
        }

        #[test]
        fn every_tag_of_the_spec_s_grammar_parses(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert!(tag.parse::<TagName>().is_ok());
        }

        #[test]
        fn nothing_that_parses_could_leave_its_place_in_a_path(name in "[a-z0-9._/-]{0,40}") {
            if name.parse::<RepositoryName>().is_ok() {
                prop_assert!(name.split('/').all(|c| !c.is_empty() && !c.starts_with('.')));
            }
        }
    }
}
