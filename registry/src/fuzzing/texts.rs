//! Short texts: names, patterns, settings.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use berth_crds::{Quantity, currency, price_micros};

use super::text;
use crate::blobs::ObjectKey;
use crate::domain::glob::{RepositoryGlob, TagGlob};
use crate::domain::{Digest, MediaType, RepositoryName, TagName, TenantName};
use crate::egress::AllowEntry;
use crate::import::Address;
use crate::lifecycle::metering::read_month;
use crate::lifecycle::retention::schedule::Schedule;
use crate::lifecycle::retention::version::Version;
use crate::metadata::Time;
use crate::rfc3339;
use crate::settings::units::{Rate, Size, Span};
use crate::settings::values::{CollectorUrl, HostName, LogFilter, PeerAddress, Price};

/// What is accepted is written as it was read.
fn same<T: FromStr + Display>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string(), text);
    }
}

/// What is accepted is accepted again as it is written, and means the same.
fn stable<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string().parse().ok(), Some(read), "{text}");
    }
}

/// Names of things.
pub(super) fn names(bytes: &[u8]) {
    if let Some(digest) = Digest::from_bytes(bytes) {
        assert_eq!(digest.to_string().parse().ok(), Some(digest));
    }
    let Some(text) = text(bytes) else { return };
    same::<Digest>(text);
    same::<RepositoryName>(text);
    same::<TagName>(text);
    same::<TenantName>(text);
    let _ = MediaType::parse(text);
    if let Some(key) = ObjectKey::of_path(text) {
        assert!(text.ends_with(&key.path()));
    }
    if let Some(version) = Version::of_tag(text) {
        let other = Version::of_tag("v1.10.0-rc.1");
        let _ = other.map(|other| version.cmp(&other));
    }
}

/// A pattern, a line feed, a name.
pub(super) fn globs(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, "a/b"));
    if let Ok(glob) = pattern.parse::<RepositoryGlob>() {
        let prefix = glob.literal_prefix();
        assert!(
            !glob.matches(name) || name.starts_with(prefix),
            "{pattern} {name}"
        );
        assert!(!glob.is_everything() || glob.matches("any/name"));
        same::<RepositoryGlob>(pattern);
    }
    if let Ok(glob) = pattern.parse::<TagGlob>() {
        let _ = glob.matches(name);
        same::<TagGlob>(pattern);
    }
}

/// Settings, quantities, times, addresses.
pub(super) fn values(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    stable::<Size>(text);
    stable::<Rate>(text);
    stable::<Span>(text);
    let _ = text.parse::<Quantity>().map(|quantity| quantity.bytes());
    let _ = text.parse::<berth_crds::Span>().map(|span| span.duration());
    let _ = (text.parse::<Price>(), price_micros(text), currency(text));
    let _ = (text.parse::<PeerAddress>(), text.parse::<HostName>());
    let _ = (text.parse::<LogFilter>(), text.parse::<CollectorUrl>());
    let _ = (text.parse::<AllowEntry>(), text.parse::<Address>());
    let _ = read_month(text);
    if let Ok(time) = rfc3339::read(text) {
        let written = rfc3339::write(time);
        assert_eq!(rfc3339::read(&written).ok(), Some(time), "{written}");
    }
    if let Ok(schedule) = text.parse::<Schedule>() {
        let now = Time(1_767_225_600_000_000);
        let next = schedule.next(now);
        assert!(next.is_none_or(|next| next > now), "{text}");
    }
}
