//! Where a replica is and what it is there for: a zone, a primary elsewhere, and which stores these go with.

use std::fmt;
use std::str::FromStr;

use super::values::{BlobsUrl, MetadataUrl, web_url};
use super::{Resolved, SettingsError};

/// Longest name of a zone, which is the value of a label, in bytes.
const NAME_LIMIT: usize = 63;

/// A zone as a cluster or a cloud calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > NAME_LIMIT || !text.bytes().all(allowed) {
            return Err("it is not 1 to 63 letters, digits, hyphens, underscores and dots");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a registry takes pushes, as people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryUrl(pub String);

impl FromStr for PrimaryUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = web_url(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it has a user, and clients are told it");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("it has more than a host and a port");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for PrimaryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refuses settings that contradict each other.
pub(super) fn check(resolved: &Resolved) -> Result<(), SettingsError> {
    let conflict = |text: &str| Err(SettingsError::Conflict(text.to_owned()));
    let has_bucket = resolved.get::<BlobsUrl>("blobs")?.0.starts_with("s3:");
    let has_regions = resolved.find::<String>("regions")?.is_some();
    if has_regions && !has_bucket {
        return conflict("--regions goes with --blobs s3://…: a region's bucket is a replica of that one");
    }
    let primary = resolved.find::<PrimaryUrl>("primary")?;
    if !resolved.get::<bool>("read-only")? {
        return match primary {
            Some(_) => conflict("--primary is set without --read-only: it says where pushes go instead"),
            None => Ok(()),
        };
    }
    if resolved.get::<MetadataUrl>("metadata")?.0.starts_with("sqlite:") {
        return conflict("--read-only goes with --metadata postgres://…: one process owns an SQLite file");
    }
    if !has_bucket {
        return conflict("--read-only goes with --blobs s3://…: one process owns a folder");
    }
    if resolved.find::<String>("manifests")?.is_some() {
        return conflict("--manifests is set with --read-only: apply them to the primary");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_the_value_of_a_label_and_a_primary_a_host() {
        assert_eq!("eu-central-1a".parse(), Ok(Name("eu-central-1a".into())));
        for bad in ["", "a b", "a/b", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        let primary = PrimaryUrl("https://registry.example.com:8443".into());
        assert_eq!("https://registry.example.com:8443/".parse(), Ok(primary));
        for bad in [
            "registry.example.com",
            "ftp://a",
            "http://u:p@a",
            "http://a/v2",
            "http://a?b",
        ] {
            assert!(bad.parse::<PrimaryUrl>().is_err(), "{bad}");
        }
    }
}
