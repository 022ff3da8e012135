//! Every setting, once: name, group, default, meaning.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::places::{Name, PrimaryUrl};
use super::resolve::Lookup;
use super::units::{Rate, Size, Span};
use super::values::{
    ApexTenant, BlobsUrl, CollectorUrl, Currency, HostName, List, LogFilter, LogFormat, MetadataUrl, Open,
    PeerAddress, Price, ProxyHeaders, Redirect, Scheme, Share, Sparse,
};
use crate::egress::AllowEntry;

/// The apex of an installation that was not given one.
pub(super) const DEFAULT_DOMAIN: &str = "localhost";

/// One setting.
pub struct Setting {
    /// The flag without its dashes; also the key of the file.
    pub name: &'static str,
    /// The heading it stands under in `--help`.
    pub group: &'static str,
    /// What the value is called in `--help`.
    pub value_name: &'static str,
    /// A value that parses, for error messages.
    pub example: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What holds when nobody says otherwise.
    pub default: Fallback,
    /// Whether it may be given several times.
    pub list: bool,
    /// Whether its value may hold a password.
    pub secret_url: bool,
    /// Parses the text and prints it back in its usual form, or says what is wrong.
    pub check: fn(&str) -> Result<String, String>,
}

/// Where a default comes from.
#[derive(Clone, Copy)]
pub enum Fallback {
    /// Nothing; the setting is absent.
    None,
    /// This text.
    Fixed(&'static str),
    /// It follows from other settings: how, for `--help`, and the rule.
    Derived(&'static str, fn(&Lookup<'_>) -> String),
}

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("BERTH_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

fn check<T>(text: &str) -> Result<String, String>
where
    T: FromStr + Display,
    T::Err: Display,
{
    text.parse::<T>()
        .map(|value| value.to_string())
        .map_err(|error| error.to_string())
}

fn check_path(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a path is not empty".to_owned())
    } else {
        Ok(super::shown(&PathBuf::from(text)))
    }
}

const fn setting(
    group: &'static str,
    name: &'static str,
    value_name: &'static str,
    example: &'static str,
    check: fn(&str) -> Result<String, String>,
    default: Fallback,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        group,
        value_name,
        example,
        help,
        default,
        list: false,
        secret_url: false,
        check,
    }
}

impl Setting {
    const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    const fn secret_url(mut self) -> Self {
        self.secret_url = true;
        self
    }
}

const LISTENERS: &str = "Listeners";
const STORES: &str = "Stores";
const REGIONS: &str = "Regions";
const NAMES: &str = "Names";
const ACCESS: &str = "Access";
const TRANSFERS: &str = "Uploads and downloads";
const LIFECYCLE: &str = "What is kept";
const LIMITS: &str = "Connections";
const LOGS: &str = "Logs";
const TRACES: &str = "Traces";

use Fallback::{Derived, Fixed};

/// Every setting, in the order in which it is shown.
#[rustfmt::skip]
pub static SETTINGS: [Setting; 58] = [
    setting(LISTENERS, "listen", "ADDRESS", "127.0.0.1:5000", check::<SocketAddr>, Fixed("127.0.0.1:5000"),
        "The OCI API: HTTP/1.1 and h2c, or TLS with --tls-cert and --tls-key"),
    setting(LISTENERS, "tls-cert", "FILE", "/etc/berth/tls.crt", check_path, Fallback::None,
        "PEM certificate chain of --listen; reloaded when it changes and on SIGHUP"),
    setting(LISTENERS, "tls-key", "FILE", "/etc/berth/tls.key", check_path, Fallback::None,
        "PEM private key of --listen"),
    setting(LISTENERS, "peer-address", "ADDRESS", "10.244.1.7:5000", check::<PeerAddress>, Fallback::None,
        "Where the other replicas reach --listen, to read what this one fetches for a cache while it arrives; without it, \
         or with TLS on --listen, they wait"),
    setting(LISTENERS, "admin-listen", "ADDRESS", "127.0.0.1:5001", check::<SocketAddr>, Fixed("127.0.0.1:5001"),
        "The admin API"),
    setting(LISTENERS, "admin-tls-cert", "FILE", "/etc/berth/admin.crt", check_path, Fallback::None,
        "PEM certificate chain of --admin-listen"),
    setting(LISTENERS, "admin-tls-key", "FILE", "/etc/berth/admin.key", check_path, Fallback::None,
        "PEM private key of --admin-listen"),
    setting(LISTENERS, "admin-key-file", "FILE", "/etc/berth/admin-key", check_path,
        Derived("<data>/keys/admin", |given| format!("{}/keys/admin", given.text("data"))),
        "The admin API's bearer keys, one a line, the first for clients; made on a first start when it is the default and absent"),
    setting(LISTENERS, "ops-listen", "ADDRESS", "127.0.0.1:5002", check::<SocketAddr>, Fixed("127.0.0.1:5002"),
        "/metrics, /livez and /readyz, plain HTTP"),
    setting(STORES, "data", "FOLDER", "/var/lib/berth", check_path, Fixed("./berth-data"),
        "Where the embedded defaults live; one running server at a time"),
    setting(STORES, "metadata", "URL", "postgres://berth@db/berth", check::<MetadataUrl>,
        Derived("sqlite:<data>/berth.db", |given| format!("sqlite:{}/berth.db", given.text("data"))),
        "Metadata store: sqlite:<file> or postgres://…").secret_url(),
    setting(STORES, "blobs", "URL", "s3://bucket/prefix?region=eu-central-1", check::<BlobsUrl>,
        Derived("folder:<data>/blobs", |given| format!("folder:{}/blobs", given.text("data"))),
        "Blob store: folder:<path> or s3://bucket/prefix?region=…&endpoint=…&path-style=true; \
         credentials by the AWS default chain").secret_url(),
    setting(STORES, "migrate", "BOOL", "true", check::<bool>, Fixed("true"),
        "Bring the metadata store's schema up to date at start; else `berth-registry migrate` does"),
    setting(STORES, "postgres-connections", "COUNT", "20", check::<NonZeroU32>, Fixed("20"),
        "Most connections to Postgres"),
    setting(STORES, "postgres-prepared", "BOOL", "true", check::<bool>, Fixed("true"),
        "Keep statements prepared on the Postgres server; false behind a transaction-pooling PgBouncer"),
    setting(REGIONS, "regions", "FILE", "/etc/berth/regions.yaml", check_path, Fallback::None,
        "A YAML file of buckets with the same objects as --blobs: blobs are read from the one that is nearest to the client"),
    setting(REGIONS, "zone", "NAME", "eu-central-1a", check::<Name>, Fallback::None,
        "Where this replica runs: the region of --regions with this zone is the nearest where nothing else decides"),
    setting(REGIONS, "read-only", "BOOL", "true", check::<bool>, Fixed("false"),
        "Serve pulls alone and write nothing: --metadata may be a hot standby, --blobs a replicated bucket"),
    setting(REGIONS, "primary", "URL", "https://registry.example.com", check::<PrimaryUrl>, Fallback::None,
        "With --read-only, where pushes are taken: named in the answer to whoever pushes here, and told what has been pulled here"),
    setting(REGIONS, "max-lag", "TIME", "30s", check::<Span>, Fixed("30s"),
        "With --read-only, how far the standby may be behind before /readyz warns"),
    setting(NAMES, "domain", "NAME", "registry.example.com", check::<HostName>, Fixed(DEFAULT_DOMAIN),
        "The apex; tenants live at {tenant}.<domain>"),
    setting(NAMES, "external-scheme", "SCHEME", "https", check::<Scheme>,
        Derived("http, https with TLS", |given| Scheme::of_listener(given.has("tls-cert")).to_string()),
        "Scheme of realms and absolute links: http or https"),
    setting(NAMES, "trusted-proxies", "CIDR", "10.0.0.0/8", check::<List<IpNet>>, Fallback::None,
        "Peers whose forwarded headers are believed; repeatable, or separated by commas").list(),
    setting(NAMES, "proxy-headers", "WHICH", "Forwarded", check::<ProxyHeaders>, Fixed("X-Forwarded"),
        "Which headers of --trusted-proxies are believed: X-Forwarded (-For, -Host and -Proto) or Forwarded (RFC 7239); \
         the others are ignored, since a client can have sent them"),
    setting(NAMES, "apex-tenant", "TENANT", "default", check::<ApexTenant>, Fallback::None,
        "The tenant that the bare domain serves: `default` on a first run, then as stored; \
         `none`: /{tenant}/{repository}"),
    setting(NAMES, "apex-hosts", "NAME", "berth.berth-system.svc", check::<List<HostName>>, Fallback::None,
        "Further names of the apex; repeatable, or separated by commas").list(),
    setting(ACCESS, "open", "WHEN", "Never", check::<Open>, Fixed("Auto"),
        "Auto: on loopback, while no tenant is configured, requests need no credential. Never"),
    setting(ACCESS, "keys", "FOLDER", "/etc/berth/keys", check_path,
        Derived("<data>/keys", |given| format!("{}/keys", given.text("data"))),
        "Signing and sealing keys, which all replicas share; made on a first start when it is the default and absent"),
    setting(ACCESS, "egress-allow", "TARGET", "10.0.0.0/8", check::<List<AllowEntry>>, Fallback::None,
        "Private hosts, *.domains, addresses or networks that keys of issuers, caches and webhooks may reach; \
         repeatable, or separated by commas").list(),
    setting(ACCESS, "audit-retention", "TIME", "2160h", check::<Span>, Fixed("2160h"),
        "How long audit records are kept"),
    setting(ACCESS, "manifests", "FOLDER", "/etc/berth/manifests", check_path, Fallback::None,
        "A folder of Tenant, Repository, RetentionPolicy and PullThroughCache documents in YAML, applied when \
         they change"),
    setting(ACCESS, "sparse", "WHAT", "Indexes", check::<Sparse>, Fixed("Never"),
        "For the apex tenant of a first run, accept manifests whose children are absent: \
         Never, Indexes, Always"),
    setting(ACCESS, "explorer", "BOOL", "false", check::<bool>, Fixed("true"),
        "Serve the pages for people at each tenant's host"),
    setting(TRANSFERS, "spool-size", "SIZE", "2GiB", check::<Size>, Fixed("2GiB"),
        "Most bytes in $TMPDIR (/tmp) of blobs that are being fetched for caches, for clients that come late or are slow; \
         used where the blobs are in a bucket"),
    setting(TRANSFERS, "upload-memory", "SIZE", "512MiB", check::<Size>, Fixed("512MiB"),
        "Memory that all upload buffers together may take; beyond it uploads wait"),
    setting(TRANSFERS, "redirect", "WHEN", "Auto", check::<Redirect>, Fixed("Auto"),
        "Answer blob GETs by a redirect to the object store: Auto (S3, clients known to cope), Always, Never"),
    setting(TRANSFERS, "max-manifest-size", "SIZE", "4MiB", check::<Size>, Fixed("4MiB"),
        "Largest manifest accepted"),
    setting(TRANSFERS, "max-open-uploads", "COUNT", "10000", check::<u64>, Fixed("10000"),
        "Most upload sessions that one tenant may have open"),
    setting(TRANSFERS, "upload-expiry", "TIME", "24h", check::<Span>, Fixed("24h"),
        "How long an upload session without activity lives"),
    setting(LIFECYCLE, "lease", "TIME", "24h", check::<Span>, Fixed("24h"),
        "How long what a client was told to be there stays, whatever becomes of its references; clients that skip an \
         upload rely on half of it"),
    setting(LIFECYCLE, "gc-delay", "TIME", "1h", check::<Span>, Fixed("1h"),
        "How long what has lost its last reference stays before it is collected, and its bytes before they are deleted"),
    setting(LIFECYCLE, "gc-rate", "COUNT", "1000", check::<NonZeroU32>, Fixed("500"),
        "Most manifests, blobs and objects that this replica collects a second"),
    setting(LIFECYCLE, "restore-window", "TIME", "24h", check::<Span>, Fixed("24h"),
        "How long deleted tags can be brought back where no retention policy says otherwise"),
    setting(LIFECYCLE, "webhook-retry", "TIME", "24h", check::<Span>, Fixed("24h"),
        "How long the delivery of an event to a webhook is tried, from its first try on, before it is given up"),
    setting(LIFECYCLE, "webhook-keep", "TIME", "168h", check::<Span>, Fixed("168h"),
        "How long events that were given up are kept, to be looked at and sent again"),
    setting(LIFECYCLE, "price", "AMOUNT", "0.20", check::<Price>, Fixed("0.20"),
        "Price of 10^9 bytes stored for a month of 730 hours, at most six decimals"),
    setting(LIFECYCLE, "currency", "CODE", "USD", check::<Currency>, Fixed("USD"),
        "Currency of --price: three capital letters (ISO 4217)"),
    setting(LIFECYCLE, "tenant-metrics", "BOOL", "true", check::<bool>, Fixed("false"),
        "Tell on /metrics, which asks nobody who they are, what each of the largest tenants stores"),
    setting(LIMITS, "max-connections", "COUNT", "16384", check::<NonZeroU32>, Fixed("16384"),
        "Most connections that --listen serves at once; further ones wait in the backlog"),
    setting(LIMITS, "header-timeout", "TIME", "10s", check::<Span>, Fixed("10s"),
        "How long a client may take for a TLS handshake, or from a request's first byte to the end of its headers"),
    setting(LIMITS, "idle-timeout", "TIME", "90s", check::<Span>, Fixed("90s"),
        "How long a connection may stay without a request, or without taking a byte of an answer"),
    setting(LIMITS, "body-timeout", "TIME", "30s", check::<Span>, Fixed("30s"),
        "How long a request's body may bring no byte"),
    setting(LIMITS, "min-rate", "RATE", "1KiB/s", check::<Rate>, Fixed("1KiB/s"),
        "Bytes a second that a request's body must bring, averaged over a minute of waiting for it; 0: no limit"),
    setting(LIMITS, "drain-timeout", "TIME", "300s", check::<Span>, Fixed("5m"),
        "How long requests in flight may go on after SIGTERM"),
    setting(LOGS, "log", "FILTER", "info,berth_registry=debug", check::<LogFilter>, Fixed("info"),
        "`tracing` filter; `access=off` silences the line per request"),
    setting(LOGS, "log-format", "FORMAT", "json", check::<LogFormat>, Fixed("auto"),
        "text, json, or auto: text on a terminal, JSON otherwise"),
    setting(TRACES, "otlp-endpoint", "URL", "http://otel-collector:4318", check::<CollectorUrl>, Fallback::None,
        "Collector of OpenTelemetry that gets traces by OTLP over HTTP, at <URL>/v1/traces; without it, and without \
         OTEL_EXPORTER_OTLP_ENDPOINT, nothing is traced"),
    setting(TRACES, "trace-sample", "SHARE", "0.05", check::<Share>, Fixed("0.05"),
        "Share of the requests that are traced where the client's traceparent says nothing of it: 0 to 1"),
];
