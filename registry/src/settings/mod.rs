//! Settings: what an operator can choose, and how a choice is found.
//!
//! [`table`] lists every setting once: its name, group, default and meaning. A setting is a flag, a
//! `BERTH_…` variable and a key of the YAML file, in that order of precedence; [`resolve`] finds the
//! effective text of each and where it came from, and [`Settings`] is the same, typed. [`print`] shows
//! them with secrets redacted. Nothing here touches the network or the stores; the only file read is the
//! one that `--config` names.
//!
//! What must hold: no value reaches the rest of the program unparsed, and every error names the setting,
//! where its value came from, and what to write instead.

mod file;
mod nearest;
mod places;
pub mod print;
pub mod redact;
pub mod resolve;
pub mod table;
pub mod units;
pub mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::egress::AllowEntry;
use crate::tenancy::Names;
use crate::tenancy::names::Apex;

pub use resolve::{Resolved, Source};
pub use values::{ApexTenant, LogFormat, Open, ProxyHeaders, Redirect, Scheme, Sparse};
use values::{
    BlobsUrl, CollectorUrl, Currency, HostName, List, LogFilter, MetadataUrl, PeerAddress, Price, Share,
};

use places::{Name, PrimaryUrl};
use units::{Rate, Size, Span};

/// Why the settings could not be used. Always the user's to correct: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value that does not parse.
    #[error("{setting} ({source_name}) is `{value}`: {reason}; write for example {example}")]
    BadValue {
        /// The flag's name, with dashes.
        setting: String,
        /// Where the value came from.
        source_name: String,
        /// The value, redacted if it may hold a secret.
        value: String,
        /// Why it was refused.
        reason: String,
        /// A value that would be taken.
        example: &'static str,
    },
    /// Two settings that cannot go together.
    #[error("{0}")]
    Conflict(String),
    /// The `--config` file cannot be read or is not a YAML mapping.
    #[error("--config {path}: {reason}", path = path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The `--config` file has a key that no setting has.
    #[error("--config {path}: there is no setting `{key}`{hint}", path = path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: String,
        /// The nearest key, as a sentence, or empty.
        hint: String,
    },
}

/// The certificate and key files of one TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// For how long a URL of an object is valid that clients are sent to.
pub const URL_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// What a client was told to be there, whatever becomes of its references.
    pub lease: Duration,
    /// What has lost its last reference, until it is reviewed.
    pub review: Duration,
    /// An object that no blob refers to, so that no URL or stream that was handed out breaks.
    pub object: Duration,
    /// An object of a tenant whose downloads are always redirected.
    pub url: Duration,
    /// What can be brought back, where no policy says otherwise.
    pub restore: Duration,
}

impl Delays {
    /// A lease that ends sooner than this is extended before the answer.
    pub fn lease_least(&self) -> Duration {
        self.lease / 2
    }
}

/// Every setting of the registry, parsed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the OCI API listens.
    pub listen: SocketAddr,
    /// TLS of the OCI API's listener.
    pub tls: Option<TlsFiles>,
    /// Most bytes of blobs that arrive, on disk.
    pub spool_size: u64,
    /// Where other replicas reach the OCI API's listener.
    pub peer_address: Option<SocketAddr>,
    /// Where the admin API listens.
    pub admin_listen: SocketAddr,
    /// TLS of the admin API's listener.
    pub admin_tls: Option<TlsFiles>,
    /// File with the admin API's bearer key.
    pub admin_key_file: PathBuf,
    /// Where metrics and probes are served.
    pub ops_listen: SocketAddr,
    /// The folder of the embedded defaults.
    pub data: PathBuf,
    /// `sqlite:<file>` or `postgres://…`; may hold a password.
    pub metadata: String,
    /// `folder:<path>` or `s3://…`.
    pub blobs: String,
    /// Whether `serve` brings the metadata store's schema up to date.
    pub migrate: bool,
    /// Most connections to Postgres.
    pub postgres_connections: u32,
    /// Whether statements are prepared on the Postgres server.
    pub postgres_prepared: bool,
    /// The file that names buckets nearer to some clients.
    pub regions: Option<PathBuf>,
    /// Where this replica runs.
    pub zone: Option<String>,
    /// Whether pulls alone are served, and nothing is written.
    pub read_only: bool,
    /// Where pushes are taken instead.
    pub primary: Option<String>,
    /// How far the standby may be behind before readiness warns.
    pub max_lag: Duration,
    /// The apex; tenants live at `{tenant}.<domain>`.
    pub domain: String,
    /// Scheme of realms and absolute links.
    pub external_scheme: Scheme,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which of their headers.
    pub proxy_headers: ProxyHeaders,
    /// What the bare domain serves; `None`: what the store says, `default` on a first run.
    pub apex_tenant: Option<ApexTenant>,
    /// Further names of the apex, lower case.
    pub apex_hosts: Vec<String>,
    /// Whether requests without a credential may be served at all.
    pub open: Open,
    /// Folder of the signing and sealing keys.
    pub keys: PathBuf,
    /// Private targets that may be reached.
    pub egress_allow: Vec<AllowEntry>,
    /// How long audit records are kept.
    pub audit_retention: Duration,
    /// Folder of resources in YAML.
    pub manifests: Option<PathBuf>,
    /// For the apex tenant of a first run: accept manifests whose children are absent.
    pub sparse: Sparse,
    /// Bytes that all upload buffers together may take.
    pub upload_memory: u64,
    /// When blob GETs are answered by a redirect.
    pub redirect: Redirect,
    /// Largest manifest accepted, in bytes.
    pub max_manifest_size: u64,
    /// Most upload sessions that one tenant may have open.
    pub max_open_uploads: u64,
    /// How long an upload session without activity lives.
    pub upload_expiry: Duration,
    /// How long things are kept.
    pub delays: Delays,
    /// Most candidates collected a second.
    pub gc_rate: u32,
    /// For how long the delivery of an event is tried.
    pub webhook_retry: Duration,
    /// For how long events that were given up are kept.
    pub webhook_keep: Duration,
    /// Price of 10⁹ bytes and a month of 730 hours, as text.
    pub price: String,
    /// Its currency.
    pub currency: String,
    /// Whether the metrics tell what each tenant stores.
    pub tenant_metrics: bool,
    /// Whether the pages for people are served.
    pub explorer: bool,
    /// Most connections served at once by the OCI API's listener.
    pub max_connections: usize,
    /// How long a client may take to send a request's headers.
    pub header_timeout: Duration,
    /// How long a connection may stay without a request, or without taking a byte of an answer.
    pub idle_timeout: Duration,
    /// How long a request's body may bring no byte.
    pub body_timeout: Duration,
    /// Bytes a second that a request's body must bring on average over a minute of waiting for it.
    pub min_rate: u64,
    /// How long requests in flight may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// `tracing` filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where traces go; `None`: what the environment says of it.
    pub otlp_endpoint: Option<String>,
    /// Part of the requests without a parent that are traced, 0 to 1.
    pub trace_sample: f64,
}

impl Settings {
    /// Types what [`resolve`] found.
    pub fn new(resolved: &Resolved) -> Result<Self, SettingsError> {
        places::check(resolved)?;
        let review = resolved.get::<Span>("gc-delay")?.0;
        let redirect = resolved.get("redirect")?;
        let blobs = resolved.get::<BlobsUrl>("blobs")?.0;
        Ok(Self {
            delays: Delays {
                lease: resolved.get::<Span>("lease")?.0,
                review,
                // A URL may have been handed out just now.
                object: match (redirect, blobs.starts_with("s3:")) {
                    (Redirect::Never, _) | (_, false) => review,
                    (Redirect::Auto | Redirect::Always, true) => review.max(2 * URL_LIFETIME),
                },
                url: if blobs.starts_with("s3:") {
                    2 * URL_LIFETIME
                } else {
                    review
                },
                restore: resolved.get::<Span>("restore-window")?.0,
            },
            webhook_retry: resolved.get::<Span>("webhook-retry")?.0,
            webhook_keep: resolved.get::<Span>("webhook-keep")?.0,
            gc_rate: resolved.get::<std::num::NonZeroU32>("gc-rate")?.get(),
            price: resolved.get::<Price>("price")?.0,
            currency: resolved.get::<Currency>("currency")?.0,
            tenant_metrics: resolved.get("tenant-metrics")?,
            explorer: resolved.get("explorer")?,
            listen: resolved.get("listen")?,
            tls: tls_files(resolved, "tls-cert", "tls-key")?,
            spool_size: resolved.get::<Size>("spool-size")?.0,
            peer_address: resolved
                .find::<PeerAddress>("peer-address")?
                .map(|address| address.0),
            admin_listen: resolved.get("admin-listen")?,
            admin_tls: tls_files(resolved, "admin-tls-cert", "admin-tls-key")?,
            admin_key_file: resolved.get("admin-key-file")?,
            ops_listen: resolved.get("ops-listen")?,
            data: resolved.get("data")?,
            metadata: resolved.get::<MetadataUrl>("metadata")?.0,
            blobs,
            // A standby takes no migration, and its primary's schema is its own.
            migrate: resolved.get("migrate")? && !resolved.get::<bool>("read-only")?,
            postgres_connections: resolved
                .get::<std::num::NonZeroU32>("postgres-connections")?
                .get(),
            postgres_prepared: resolved.get("postgres-prepared")?,
            regions: resolved.find("regions")?,
            zone: resolved.find::<Name>("zone")?.map(|zone| zone.0),
            read_only: resolved.get("read-only")?,
            primary: resolved.find::<PrimaryUrl>("primary")?.map(|primary| primary.0),
            max_lag: resolved.get::<Span>("max-lag")?.0,
            domain: resolved.get::<HostName>("domain")?.0,
            external_scheme: resolved.get("external-scheme")?,
            trusted_proxies: resolved
                .find::<List<IpNet>>("trusted-proxies")?
                .unwrap_or_default()
                .0,
            proxy_headers: resolved.get("proxy-headers")?,
            apex_tenant: resolved.find("apex-tenant")?,
            apex_hosts: host_names(resolved.find::<List<HostName>>("apex-hosts")?),
            open: resolved.get("open")?,
            keys: resolved.get("keys")?,
            egress_allow: resolved
                .find::<List<AllowEntry>>("egress-allow")?
                .unwrap_or_default()
                .0,
            audit_retention: resolved.get::<Span>("audit-retention")?.0,
            manifests: resolved.find("manifests")?,
            sparse: resolved.get("sparse")?,
            upload_memory: resolved.get::<Size>("upload-memory")?.0,
            redirect,
            max_manifest_size: resolved.get::<Size>("max-manifest-size")?.0,
            max_open_uploads: resolved.get("max-open-uploads")?,
            upload_expiry: resolved.get::<Span>("upload-expiry")?.0,
            max_connections: resolved.get::<std::num::NonZeroU32>("max-connections")?.get() as usize,
            header_timeout: resolved.get::<Span>("header-timeout")?.0,
            idle_timeout: resolved.get::<Span>("idle-timeout")?.0,
            body_timeout: resolved.get::<Span>("body-timeout")?.0,
            min_rate: resolved.get::<Rate>("min-rate")?.0,
            drain_timeout: resolved.get::<Span>("drain-timeout")?.0,
            log: resolved.get::<LogFilter>("log")?.0,
            log_format: resolved.get("log-format")?,
            otlp_endpoint: resolved
                .find::<CollectorUrl>("otlp-endpoint")?
                .map(|endpoint| endpoint.0),
            trace_sample: resolved.get::<Share>("trace-sample")?.0,
        })
    }

    /// Whether the configuration allows serving requests without a credential: `--open Auto`, every
    /// listener on loopback, and nothing that says the registry is reached from elsewhere. Each request
    /// must pass its own test besides (peer, Host, forwarded headers).
    pub fn may_be_open(&self) -> bool {
        let local = |address: &SocketAddr| is_loopback(address.ip());
        self.open == Open::Auto
            && [self.listen, self.admin_listen, self.ops_listen]
                .iter()
                .all(local)
            && self.domain == table::DEFAULT_DOMAIN
            && self.external_scheme == Scheme::of_listener(self.tls.is_some())
    }

    /// Whether this process keeps its metadata or blobs below the data folder, and so must be alone in it.
    pub fn holds_data_folder(&self) -> bool {
        self.metadata.starts_with("sqlite:") || self.blobs.starts_with("folder:")
    }

    /// Whether the keys are those that lie in the data folder, made on a first start.
    pub fn keys_in_data(&self) -> bool {
        self.keys.starts_with(&self.data)
    }

    /// How hosts are read.
    pub fn names(&self) -> Names {
        Names {
            domain: self.domain.to_ascii_lowercase(),
            apex_hosts: self.apex_hosts.clone(),
            apex: match &self.apex_tenant {
                None => Apex::First,
                Some(ApexTenant::Tenant(name)) => Apex::Tenant(name.clone()),
                Some(ApexTenant::PathAddressed) => Apex::Paths,
            },
        }
    }

    /// Whether the admin key is the one that lies in the data folder, made on a first start.
    pub fn admin_key_in_data(&self) -> bool {
        self.admin_key_file.starts_with(&self.data)
    }
}

/// Loopback, also written as an IPv6 address that maps an IPv4 one.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn host_names(list: Option<List<HostName>>) -> Vec<String> {
    list.unwrap_or_default()
        .0
        .into_iter()
        .map(|name| name.0)
        .collect()
}

fn tls_files(
    resolved: &Resolved,
    certificate: &'static str,
    key: &'static str,
) -> Result<Option<TlsFiles>, SettingsError> {
    let given = (resolved.find(certificate)?, resolved.find(key)?);
    match given {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (Some(_), None) => Err(lonely(certificate, key)),
        (None, Some(_)) => Err(lonely(key, certificate)),
    }
}

fn lonely(given: &str, missing: &str) -> SettingsError {
    SettingsError::Conflict(format!(
        "--{given} is set without --{missing}: TLS needs both; set --{missing} too"
    ))
}

/// The path as a setting shows it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
