//! The values that settings take besides numbers: choices, names, URLs, lists.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Declares a choice: an enum, how each member is written, and its parser, which ignores case.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$member_doc])* $member),+ }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $(if text.eq_ignore_ascii_case($text) {
                    return Ok(Self::$member);
                })+
                Err(format!("it is none of {}", [$($text),+].join(", ")))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$member => $text),+ })
            }
        }
    };
}

choice! {
    /// Whether requests may need no credential.
    Open {
        /// While nothing is configured and everything is on loopback.
        Auto = "Auto",
        /// Never.
        Never = "Never",
    }
}

choice! {
    /// Which manifests may be pushed before what they name.
    Sparse {
        /// None: every child must be there.
        Never = "Never",
        /// Indexes.
        Indexes = "Indexes",
        /// All manifests.
        Always = "Always",
    }
}

choice! {
    /// When a blob GET is answered by a redirect to the object store.
    Redirect {
        /// For clients known to cope, where the store can presign.
        Auto = "Auto",
        /// Wherever the store can presign.
        Always = "Always",
        /// Never.
        Never = "Never",
    }
}

choice! {
    /// Which headers of trusted proxies are believed.
    ProxyHeaders {
        /// `X-Forwarded-For`, `-Host` and `-Proto`.
        XForwarded = "X-Forwarded",
        /// `Forwarded` (RFC 7239).
        Forwarded = "Forwarded",
    }
}

choice! {
    /// The scheme by which clients reach the registry.
    Scheme {
        /// Plain HTTP.
        Http = "http",
        /// HTTPS, ended here or in front of the registry.
        Https = "https",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

impl Scheme {
    /// The scheme of a listener with or without TLS.
    pub fn of_listener(tls: bool) -> Self {
        if tls { Self::Https } else { Self::Http }
    }
}

/// What the bare domain serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApexTenant {
    /// One tenant.
    Tenant(String),
    /// `/{tenant}/{repository}`.
    PathAddressed,
}

impl FromStr for ApexTenant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::PathAddressed),
            name if is_label(name) => Ok(Self::Tenant(name.to_owned())),
            _ => Err("a tenant's name is a DNS label: a-z, 0-9 and inner dashes, at most 63 characters"),
        }
    }
}

impl fmt::Display for ApexTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(name) => f.write_str(name),
            Self::PathAddressed => f.write_str("none"),
        }
    }
}

/// A price of stored bytes, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price(pub String);

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        berth_crds::price_micros(text).map(|_| Self(text.to_owned()))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A currency's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(pub String);

impl FromStr for Currency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        berth_crds::currency(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host's name in lower case, without scheme, port or final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

/// Where replicas reach each other. The brackets of an IPv6 address may be missing, as they are where a cluster's
/// variables are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (ip, port) = text.rsplit_once(':')?;
            Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
        };
        let address = text.parse().ok().or_else(parts);
        let address: SocketAddr = address.ok_or("it is no address with a port, like 10.244.1.7:5000")?;
        if address.ip().is_unspecified() {
            return Err("nobody is reached there: name one address of this replica".to_owned());
        }
        Ok(Self(address))
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HostName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err("it is not a host name (no scheme, no port, no path)");
        }
        Ok(Self(name))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Declares a URL whose scheme is one of a few; the rest is the store's to parse.
macro_rules! store_url {
    ($(#[$doc:meta])* $name:ident, $prefixes:expr, $error:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let known = |prefix: &str| text.len() > prefix.len() && text.starts_with(prefix);
                if $prefixes.into_iter().any(known) { Ok(Self(text.to_owned())) } else { Err($error) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

store_url!(
    /// Where the metadata lives.
    MetadataUrl,
    ["sqlite:", "postgres://", "postgresql://"],
    "it starts with none of sqlite:, postgres://, postgresql://"
);
store_url!(
    /// Where the blobs live.
    BlobsUrl,
    ["folder:", "s3://"],
    "it starts with none of folder:, s3://"
);

/// A `tracing` filter that parses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Without spaces around its parts, where tracing-subscriber 0.3.23 would cut names at wrong places, or panic.
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let text = parts.join(",");
        match tracing_subscriber::EnvFilter::try_new(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(format!("it is not a log filter ({error})")),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A URL by HTTP or HTTPS, with a host.
pub(super) fn web_url(text: &str) -> Result<url::Url, &'static str> {
    let url = url::Url::parse(text).map_err(|_| "it is no URL")?;
    match matches!(url.scheme(), "http" | "https") && url.host_str().is_some() {
        true => Ok(url),
        false => Err("it starts with neither http:// nor https:// and a host"),
    }
}

/// Where a collector of traces is: a URL that holds no secret, which is what headers are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl(pub String);

impl FromStr for CollectorUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = web_url(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it has a user; credentials come by OTEL_EXPORTER_OTLP_HEADERS");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it has a query; name the collector alone");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a whole, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let share: f64 = text.parse().map_err(|_| "it is no number")?;
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err("it is not between 0 and 1")
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Values separated by commas; empty ones are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: FromStr> FromStr for List<T>
where
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .map(|item| item.parse().map_err(|error| format!("`{item}`: {error}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{item}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_ignore_case_and_name_what_they_take() {
        assert_eq!("never".parse(), Ok(Open::Never));
        assert_eq!(Open::Auto.to_string(), "Auto");
        assert_eq!(
            "maybe".parse::<Open>(),
            Err("it is none of Auto, Never".to_owned())
        );
    }

    #[test]
    fn host_names_are_lowered_and_ports_and_schemes_refused() {
        assert_eq!(
            "Registry.Example.COM".parse(),
            Ok(HostName("registry.example.com".into()))
        );
        for bad in ["", "http://a", "a:5000", "a..b", "-a", "a/b", "*.a"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_peer_s_address_needs_no_brackets_and_is_one_where_somebody_is_reached() {
        for (text, expected) in [
            ("10.1.2.3:5000", "10.1.2.3:5000"),
            ("[fd00::1]:5000", "[fd00::1]:5000"),
            ("fd00::1:5000", "[fd00::1]:5000"),
        ] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), expected);
        }
        for bad in ["", "host:5000", "10.1.2.3", "0.0.0.0:5000", ":5000", "[::]:5000"] {
            assert!(bad.parse::<PeerAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_filter_may_have_spaces_around_its_parts() {
        let filter: LogFilter = " info ,\tberth_registry=debug".parse().unwrap();
        assert_eq!(filter.to_string(), "info,berth_registry=debug");
        assert!("\t\u{397}[ *B?{".parse::<LogFilter>().is_err());
    }

    #[test]
    fn an_apex_tenant_is_a_label_or_none() {
        assert_eq!("none".parse(), Ok(ApexTenant::PathAddressed));
        assert_eq!("acme".parse(), Ok(ApexTenant::Tenant("acme".into())));
        assert!("a.b".parse::<ApexTenant>().is_err());
    }

    #[test]
    fn lists_split_at_commas_and_name_the_bad_item() {
        assert_eq!(
            "a.b, c".parse(),
            Ok(List(vec![HostName("a.b".into()), HostName("c".into())]))
        );
        assert!(
            "a,b c"
                .parse::<List<HostName>>()
                .is_err_and(|error| error.contains("`b c`"))
        );
    }

    #[test]
    fn a_collector_is_an_http_url_without_credentials() {
        for (text, expected) in [
            ("http://otel:4318/", "http://otel:4318"),
            (
                "https://traces.example.com/otlp",
                "https://traces.example.com/otlp",
            ),
        ] {
            assert_eq!(text.parse(), Ok(CollectorUrl(expected.to_owned())));
        }
        for bad in [
            "otel:4317",
            "grpc://otel",
            "http://u:p@otel",
            "http://otel?key=1",
            "",
            "http://",
        ] {
            assert!(bad.parse::<CollectorUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_between_none_and_all() {
        assert_eq!("0.05".parse(), Ok(Share(0.05)));
        assert_eq!("1".parse(), Ok(Share(1.0)));
        for bad in ["-0.1", "1.1", "NaN", "5%", ""] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn store_urls_need_a_known_scheme_and_something_after_it() {
        assert!("sqlite:/var/lib/berth.db".parse::<MetadataUrl>().is_ok());
        assert!("mysql://x".parse::<MetadataUrl>().is_err());
        assert!("s3://".parse::<BlobsUrl>().is_err());
    }
}
