//! Globs over repository names and tags.
//!
//! `*` and `?` match within one component of a name, `**`, a component of its own, any number of components.
//! Written here because the glob crates differ in just these points (whether `a/**` matches `a`, whether `*`
//! crosses a slash), and the meaning decides about access.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::{REPOSITORY_NAME_LIMIT, TAG_LIMIT};

/// Why a text is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Empty or too long.
    #[error("a glob has 1 to {0} characters")]
    Length(usize),
    /// A character that no name has.
    #[error("{0:?} occurs in no name; a glob holds characters of names, '*' and '?'")]
    Character(char),
    /// `**` beside other characters, or an empty component.
    #[error("'**' stands for whole components: write 'team/**', '**/cache' or '**'")]
    DoubleStar,
    /// Two slashes in a row, or one at an end.
    #[error("a glob has no empty component: remove the superfluous '/'")]
    EmptyComponent,
}

/// A glob over repository names, like `team-a/**`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryGlob(String);

/// A glob over tags, like `v*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagGlob(String);

macro_rules! text_glob {
    ($name:ident) => {
        impl $name {
            /// The glob as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = GlobError;

            fn try_from(text: String) -> Result<Self, GlobError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(glob: $name) -> Self {
                glob.0
            }
        }
    };
}

text_glob!(RepositoryGlob);
text_glob!(TagGlob);

impl FromStr for RepositoryGlob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() || text.len() > REPOSITORY_NAME_LIMIT {
            return Err(GlobError::Length(REPOSITORY_NAME_LIMIT));
        }
        let allowed = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/' | '*' | '?')
        };
        if let Some(other) = text.chars().find(|&c| !allowed(c)) {
            return Err(GlobError::Character(other));
        }
        for component in text.split('/') {
            if component.is_empty() {
                return Err(GlobError::EmptyComponent);
            }
            if component.contains("**") && component != "**" {
                return Err(GlobError::DoubleStar);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for TagGlob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() || text.len() > TAG_LIMIT {
            return Err(GlobError::Length(TAG_LIMIT));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?');
        match text.chars().find(|&c| !allowed(c)) {
            Some(other) => Err(GlobError::Character(other)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl RepositoryGlob {
    /// The glob that matches every name.
    pub fn everything() -> Self {
        Self("**".to_owned())
    }

    /// Whether it matches every name.
    pub fn is_everything(&self) -> bool {
        self.0 == "**"
    }

    /// Whether `name` matches. Takes time in the product of the lengths at most.
    pub fn matches(&self, name: &str) -> bool {
        let mut glob: Vec<&str> = self.0.split('/').collect();
        if glob.last() == Some(&"**") {
            // `team-a/**` matches what lies below `team-a`, not `team-a` itself.
            glob.insert(glob.len() - 1, "*");
        }
        let name: Vec<&str> = name.split('/').collect();
        // As for one component below, with components for characters and `**` for `*`.
        wildcard(
            &glob,
            &name,
            |part| *part == "**",
            |part, text| component_matches(part, text),
        )
    }

    /// The text before the first wildcard: every match begins with it.
    pub fn literal_prefix(&self) -> &str {
        let end = self.0.find(['*', '?']).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

impl TagGlob {
    /// Whether `tag` matches.
    pub fn matches(&self, tag: &str) -> bool {
        component_matches(&self.0, tag)
    }
}

fn component_matches(glob: &str, text: &str) -> bool {
    wildcard(
        glob.as_bytes(),
        text.as_bytes(),
        |c| *c == b'*',
        |c, t| *c == b'?' || c == t,
    )
}

/// Matches by going back to the latest star only, which is enough: an earlier one could take no more than what
/// the latest can.
fn wildcard<G, T>(glob: &[G], text: &[T], star: impl Fn(&G) -> bool, one: impl Fn(&G, &T) -> bool) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if g < glob.len() && star(&glob[g]) {
            back = Some((g + 1, t));
            g += 1;
        } else if g < glob.len() && one(&glob[g], &text[t]) {
            (g, t) = (g + 1, t + 1);
        } else if let Some((after, taken)) = back {
            back = Some((after, taken + 1));
            (g, t) = (after, taken + 1);
        } else {
            return false;
        }
    }
    glob[g..].iter().all(star)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the documentation says, and nothing clever.
    fn model(glob: &[&str], name: &[&str]) -> bool {
        match glob {
            [] => name.is_empty(),
            ["**"] => !name.is_empty(),
            ["**", rest @ ..] => (0..=name.len()).any(|taken| model(rest, &name[taken..])),
            [first, rest @ ..] => match name {
                [] => false,
                [part, others @ ..] => {
                    model_component(first.as_bytes(), part.as_bytes()) && model(rest, others)
                }
            },
        }
    }

    fn model_component(glob: &[u8], text: &[u8]) -> bool {
        match glob {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|taken| model_component(rest, &text[taken..])),
            [first, rest @ ..] => match text {
                [] => false,
                [character, others @ ..] => {
                    (*first == b'?' || first == character) && model_component(rest, others)
                }
            },
        }
    }

    #[test]
    fn a_table_of_matches() {
        let cases = [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("team-a/**", "team-a/x", true),
            ("team-a/**", "team-a/x/y", true),
            ("team-a/**", "team-a", false),
            ("team-a/**", "team-ab/x", false),
            ("**/cache", "cache", true),
            ("**/cache", "a/b/cache", true),
            ("**/cache", "a/cache/b", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("app-?", "app-1", true),
            ("app-?", "app-", false),
            ("a*c/d", "abc/d", true),
            ("a*c/d", "ab/c/d", false),
        ];
        for (glob, name, expected) in cases {
            let parsed: RepositoryGlob = glob.parse().unwrap();
            assert_eq!(parsed.matches(name), expected, "{glob} on {name}");
        }
        assert_eq!(
            "team-a/**".parse::<RepositoryGlob>().unwrap().literal_prefix(),
            "team-a/"
        );
        assert!(RepositoryGlob::everything().is_everything());
    }

    #[test]
    fn what_is_no_glob_is_refused() {
        for text in [
            "", "a//b", "/a", "a/", "a**", "**a/b", "A", "a b", "a\n", "[a]", "{a,b}",
        ] {
            assert!(text.parse::<RepositoryGlob>().is_err(), "{text:?}");
        }
        for text in ["", "a/b", "[ab]", "v\u{0}"] {
            assert!(text.parse::<TagGlob>().is_err(), "{text:?}");
        }
        assert!("V1.*-rc?".parse::<TagGlob>().unwrap().matches("V1.2-rc3"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let glob: TagGlob = "*a".repeat(60).parse().unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(127))));
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_model(
            glob in "(\\*\\*|[ab*?]{1,3})(/(\\*\\*|[ab*?]{1,3})){0,4}",
            name in "[ab]{1,3}(/[ab]{1,3}){0,5}",
        ) {
            let Ok(parsed) = glob.parse::<RepositoryGlob>() else { return Ok(()) };
            let (g, n): (Vec<&str>, Vec<&str>) = (glob.split('/').collect(), name.split('/').collect());
            prop_assert_eq!(parsed.matches(&name), model(&g, &n), "{} on {}", glob, name);
            if parsed.matches(&name) {
                prop_assert!(name.starts_with(parsed.literal_prefix()));
            }
        }
    }
}
