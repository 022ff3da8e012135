//! What a manifest says of the build that made it, as far as it is looked for by it.

use std::collections::BTreeMap;

/// What a build is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildKind {
    /// The id of a build.
    Build,
    /// The id of a commit.
    Commit,
    /// A branch, tag or version.
    Ref,
}

/// One thing that a build is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildKey {
    /// What it is.
    pub kind: BuildKind,
    /// 1 to [`VALUE_LIMIT`] bytes without control characters.
    pub value: String,
}

/// Longest value that is kept, in bytes.
pub const VALUE_LIMIT: usize = 256;

/// Annotations, and labels of an image, that say it: the keys of the image-spec ("Pre-Defined Annotation Keys"), and
/// Berth's own for what has none there.
const KEYS: [(&str, BuildKind); 4] = [
    ("berth.dev/build-id", BuildKind::Build),
    ("org.opencontainers.image.revision", BuildKind::Commit),
    ("berth.dev/ref", BuildKind::Ref),
    ("org.opencontainers.image.version", BuildKind::Ref),
];

impl BuildKey {
    /// A key, unless the value is none that anybody would look for.
    pub fn new(kind: BuildKind, value: &str) -> Option<Self> {
        let value = value.trim();
        let is_sound =
            !value.is_empty() && value.len() <= VALUE_LIMIT && !value.chars().any(char::is_control);
        is_sound.then(|| Self {
            kind,
            value: value.to_owned(),
        })
    }

    /// What annotations or labels say.
    pub fn of_annotations(annotations: &BTreeMap<String, String>) -> Vec<Self> {
        let keys = KEYS.iter();
        keys.filter_map(|(name, kind)| Self::new(*kind, annotations.get(*name)?))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_build_commit_and_ref() {
        let annotations = [
            ("berth.dev/build-id", "b-17"),
            ("org.opencontainers.image.revision", " 0a1b "),
            ("org.opencontainers.image.version", "v1.2"),
            ("other", "x"),
        ];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let keys = BuildKey::of_annotations(&annotations.into());
        let read: Vec<_> = keys.iter().map(|key| (key.kind, &*key.value)).collect();
        assert_eq!(
            read,
            [
                (BuildKind::Build, "b-17"),
                (BuildKind::Commit, "0a1b"),
                (BuildKind::Ref, "v1.2")
            ]
        );
    }

    #[test]
    fn what_nobody_looks_for_is_no_key() {
        for value in ["", "  ", "a\nb", "a\0", &"x".repeat(VALUE_LIMIT + 1)] {
            assert_eq!(BuildKey::new(BuildKind::Ref, value), None, "{value:?}");
        }
    }
}
