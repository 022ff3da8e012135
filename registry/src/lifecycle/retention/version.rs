//! Tags as semantic versions, and which of the versions are the newest.
//!
//! Written here because the crates that read versions want all three numbers and a `+`, which no tag can hold.

use std::collections::{BTreeMap, BTreeSet};

use berth_crds::KeepSemver;

/// What retention reads in a tag that is a version: patch levels and pre-releases share the fate of their minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second number; 0 if the tag has only one.
    pub minor: u64,
}

impl Version {
    /// Reads `1`, `v1.2`, `1.2.3`, `1.2.3-rc.1` or `1.2.3-rc.1_build.5`; anything else is no version.
    ///
    /// The numbers are as semantic versioning wants them: no leading zeros, nothing beyond 64 bits. What follows
    /// them decides nothing here and is read generously: a pre-release may have leading zeros, and of several `_`
    /// the first stands for `+` (<https://semver.org/#spec-item-2>, items 9 and 10).
    pub fn of_tag(tag: &str) -> Option<Self> {
        let text = tag.strip_prefix('v').unwrap_or(tag);
        let (text, build) = cut(text, '_');
        let (numbers, prerelease) = cut(text, '-');
        let in_prerelease = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let in_build = |b: u8| in_prerelease(b) || b == b'_';
        if !prerelease.is_none_or(|text| identifiers(text, in_prerelease))
            || !build.is_none_or(|text| identifiers(text, in_build))
        {
            return None;
        }
        let mut numbers = numbers.split('.').map(number);
        let major = numbers.next()??;
        let minor = numbers.next().unwrap_or(Some(0))?;
        let _patch = numbers.next().unwrap_or(Some(0))?;
        numbers.next().is_none().then_some(Self { major, minor })
    }
}

/// Where versions are among all tags in the order of their bytes: behind the first name and before the second of each
/// pair. `/` comes before the digits in ASCII, `:` after them.
pub const SPANS: [(&str, &str); 2] = [("/", ":"), ("v/", "v:")];

/// The text before the first `separator`, and the text after it if there is one.
fn cut(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    (digits && !leading_zero).then(|| text.parse().ok()).flatten()
}

fn identifiers(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(&allowed))
}

/// Of all versions seen so far, those that a `keepSemver` keeps, in whatever order they came.
///
/// Holds at most `major` majors and `minor` minors of each: a version that falls behind so many newer ones never
/// comes back.
#[derive(Debug, Clone)]
pub struct Newest {
    keep: KeepSemver,
    minors_by_major: BTreeMap<u64, BTreeSet<u64>>,
}

impl Newest {
    /// None seen yet.
    pub fn new(keep: KeepSemver) -> Self {
        Self {
            keep,
            minors_by_major: BTreeMap::new(),
        }
    }

    /// Takes a version into account.
    pub fn see(&mut self, version: Version) {
        let minors = self.minors_by_major.entry(version.major).or_default();
        if let Some(most) = self.keep.minor {
            minors.insert(version.minor);
            if minors.len() > most as usize {
                minors.pop_first();
            }
        }
        if self.minors_by_major.len() > self.keep.major as usize {
            self.minors_by_major.pop_first();
        }
    }

    /// Whether a version is among the newest of those seen.
    pub fn keeps(&self, version: Version) -> bool {
        self.minors_by_major
            .get(&version.major)
            .is_some_and(|minors| self.keep.minor.is_none() || minors.contains(&version.minor))
    }

    /// How many numbers are held: majors, and their minors.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.minors_by_major.values().map(|minors| 1 + minors.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(major: u64, minor: u64) -> Version {
        Version { major, minor }
    }

    fn newest(major: u32, minor: Option<u32>, seen: &[Version]) -> Newest {
        let mut newest = Newest::new(KeepSemver { major, minor });
        seen.iter().for_each(|version| newest.see(*version));
        newest
    }

    #[test]
    fn tags_that_are_versions_are_read() {
        for (tag, major, minor) in [
            ("0", 0, 0),
            ("1", 1, 0),
            ("v1", 1, 0),
            ("1.2", 1, 2),
            ("1.2.3", 1, 2),
            ("v1.2.3-rc.1", 1, 2),
            ("1.2.3-alpine3.19", 1, 2),
            ("1.2-slim", 1, 2),
            ("18-bookworm", 18, 0),
            ("1.2.3_build.5", 1, 2),
            ("1.2.3-rc.1_build.5", 1, 2),
            ("1.2.3_linux_amd64", 1, 2),
            ("1.2.3-0123456", 1, 2),
            ("1.2.3--", 1, 2),
            ("18446744073709551615.1", u64::MAX, 1),
        ] {
            assert_eq!(Version::of_tag(tag), Some(version(major, minor)), "{tag}");
            assert!(within(tag), "{tag}");
        }
    }

    fn within(tag: &str) -> bool {
        SPANS.iter().any(|(first, end)| tag > *first && tag < *end)
    }

    #[test]
    fn other_tags_are_no_versions() {
        for tag in [
            "",
            "v",
            "V1",
            "vv1",
            "latest",
            "1.",
            ".1",
            "1..2",
            "1.2.3.4",
            "01",
            "1.02",
            "1.2.03",
            "1.2.3-",
            "1.2.3_",
            "1.2.3-_b",
            "1.2.3-a..b",
            "1.2.3-a.",
            "1a",
            "1.x",
            "1.2.3rc1",
            "18446744073709551616",
            "1.2.18446744073709551616",
            "7e5f3a1",
            "-1",
            "+1",
        ] {
            assert_eq!(Version::of_tag(tag), None, "{tag}");
        }
    }

    #[test]
    fn only_the_newest_minors_of_the_newest_majors_are_kept() {
        let seen = [(1, 9), (3, 0), (2, 1), (2, 3), (2, 2), (3, 0)].map(|(a, b)| version(a, b));
        let two = newest(2, Some(2), &seen);
        let kept: Vec<bool> = seen.iter().map(|version| two.keeps(*version)).collect();
        assert_eq!(kept, [false, true, false, true, true, true]);
    }

    #[test]
    fn all_minors_of_a_kept_major_stay_if_no_number_is_given() {
        let one = newest(1, None, &[version(1, 5), version(2, 0), version(2, 7)]);
        assert!(one.keeps(version(2, 0)) && one.keeps(version(2, 7)));
        assert!(!one.keeps(version(1, 5)));
        assert_eq!(one.held(), 1);
    }

    #[test]
    fn memory_is_bounded_by_what_can_be_kept() {
        let mut newest = Newest::new(KeepSemver {
            major: 3,
            minor: Some(2),
        });
        for at in 0..100_000_u64 {
            newest.see(version(at % 317, at * 7919 % 1009));
            assert!(newest.held() <= 3 * (1 + 2));
        }
    }

    proptest! {
        #[test]
        fn reading_never_fails_and_a_prefix_changes_nothing(tag in "[0-9a-z._-]{0,20}") {
            let read = Version::of_tag(&tag);
            prop_assert!(read.is_none() || within(&tag));
            if !tag.starts_with('v') {
                prop_assert_eq!(Version::of_tag(&format!("v{tag}")), read);
            }
        }

        #[test]
        fn written_versions_are_read_again(
            numbers in prop::collection::vec(any::<u64>(), 1..4),
            v in "v?",
            prerelease in "(-[0-9A-Za-z-]{1,4}(\\.[0-9A-Za-z-]{1,4}){0,2})?",
            build in "(_[0-9A-Za-z-]{1,4}(\\.[0-9A-Za-z-]{1,4}){0,2})?",
        ) {
            let text: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let tag = format!("{v}{}{prerelease}{build}", text.join("."));
            let minor = numbers.get(1).copied().unwrap_or_default();
            prop_assert_eq!(Version::of_tag(&tag), Some(version(numbers[0], minor)), "{}", tag);
        }

        #[test]
        fn the_order_in_which_versions_come_does_not_matter(
            seen in prop::collection::vec((0..6_u64, 0..6_u64), 0..40).prop_shuffle(),
            major in 1..5_u32,
            minor in prop::option::of(1..4_u32),
        ) {
            let mut seen: Vec<Version> = seen.into_iter().map(|(a, b)| version(a, b)).collect();
            let one = newest(major, minor, &seen);
            seen.sort();
            let other = newest(major, minor, &seen);
            for version in &seen {
                prop_assert_eq!(one.keeps(*version), other.keeps(*version));
            }
        }
    }
}
