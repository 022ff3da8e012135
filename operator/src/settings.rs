//! What the operator is told by flags and variables (`BERTH_OPERATOR_…`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_crds::Span;
use clap::{Parser, ValueEnum};

/// Makes a registry, the edge and the Secrets of a cluster what its custom resources say.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "berth-operator",
    version,
    after_help = "On nodes: berth-operator node-mirrors --help"
)]
pub struct Settings {
    /// Base of the registry's admin API, like https://berth-admin.berth.svc:5001.
    #[arg(long, env = "BERTH_OPERATOR_REGISTRY_URL")]
    pub registry_url: String,
    /// Secret in the operator's own namespace with the installation's keys, which the registry's pods mount. It is
    /// made if it is absent, and rotated unless somebody else made it.
    #[arg(
        long,
        env = "BERTH_OPERATOR_KEYS_SECRET",
        conflicts_with = "registry_key_file",
        required_unless_present = "registry_key_file"
    )]
    pub keys_secret: Option<String>,
    /// Service of the admin API, whose names are in its certificate.
    #[arg(long, env = "BERTH_OPERATOR_ADMIN_SERVICE", default_value = "berth-admin")]
    pub admin_service: String,
    /// Between two rotations of the keys; 0: only when the Secret is annotated with berth.dev/rotate=now.
    #[arg(long, env = "BERTH_OPERATOR_KEY_ROTATION", default_value = "2160h", value_parser = span_or_zero)]
    pub key_rotation: Duration,
    /// How long old and new keys are both taken. At least 10m.
    #[arg(long, env = "BERTH_OPERATOR_KEY_OVERLAP", default_value = "24h", value_parser = overlap)]
    pub key_overlap: Duration,
    /// Without --keys-secret: PEM file with the certificates that sign the admin API's own; the system's if absent.
    #[arg(long, env = "BERTH_OPERATOR_REGISTRY_CA_FILE", conflicts_with = "keys_secret")]
    pub registry_ca_file: Option<PathBuf>,
    /// Without --keys-secret: file with the admin key; read anew for each request.
    #[arg(long, env = "BERTH_OPERATOR_REGISTRY_KEY_FILE")]
    pub registry_key_file: Option<PathBuf>,
    /// The apex: tenants live at {tenant}.<domain>.
    #[arg(long, env = "BERTH_OPERATOR_DOMAIN")]
    pub domain: String,
    /// Port of the tenants' hosts as clients write it, where it is not that of the scheme.
    #[arg(long, env = "BERTH_OPERATOR_EXTERNAL_PORT")]
    pub external_port: Option<u16>,
    /// The operator's own namespace: its Lease and the routes are there, and no tenant's Secret ever is.
    #[arg(long, env = "BERTH_OPERATOR_NAMESPACE")]
    pub namespace: String,
    /// Namespaces to look at, separated by commas; all if empty.
    #[arg(long, env = "BERTH_OPERATOR_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Labels of the Tenants of this installation, where a cluster has several; all Tenants if absent.
    #[arg(long, env = "BERTH_OPERATOR_TENANT_SELECTOR")]
    pub tenant_selector: Option<String>,
    /// How tenants' hosts reach the registry.
    #[arg(long, env = "BERTH_OPERATOR_EXPOSURE", value_enum, default_value_t = Exposure::None)]
    pub exposure: Exposure,
    /// Name of the Gateway that routes attach to.
    #[arg(long, env = "BERTH_OPERATOR_GATEWAY", default_value = "berth")]
    pub gateway: String,
    /// Namespace of the Gateway; the operator's own if absent.
    #[arg(long, env = "BERTH_OPERATOR_GATEWAY_NAMESPACE")]
    pub gateway_namespace: Option<String>,
    /// Listener of the Gateway that routes attach to; all if absent.
    #[arg(long, env = "BERTH_OPERATOR_GATEWAY_SECTION")]
    pub gateway_section: Option<String>,
    /// Class of Ingresses; the cluster's default if absent.
    #[arg(long, env = "BERTH_OPERATOR_INGRESS_CLASS")]
    pub ingress_class: Option<String>,
    /// Secret with a certificate for all tenants' hosts, for Ingresses.
    #[arg(long, env = "BERTH_OPERATOR_INGRESS_TLS_SECRET")]
    pub ingress_tls_secret: Option<String>,
    /// An annotation of every route, as key=value; may be repeated.
    #[arg(long = "route-annotation", env = "BERTH_OPERATOR_ROUTE_ANNOTATIONS", value_delimiter = '\n', value_parser = pair)]
    pub route_annotations: Vec<(String, String)>,
    /// Service of the registry, in the operator's namespace.
    #[arg(long, env = "BERTH_OPERATOR_SERVICE", default_value = "berth")]
    pub service: String,
    /// Port of that Service.
    #[arg(long, env = "BERTH_OPERATOR_SERVICE_PORT", default_value_t = 80)]
    pub service_port: u16,
    /// How long a replaced token stays valid if its successor is not seen in use. At least 10m.
    #[arg(long, env = "BERTH_OPERATOR_TOKEN_GRACE", default_value = "24h", value_parser = grace)]
    pub token_grace: Duration,
    /// How often every object is looked at again without a cause.
    #[arg(long, env = "BERTH_OPERATOR_RESYNC", default_value = "10m", value_parser = span)]
    pub resync: Duration,
    /// Most objects of a kind that are worked on at a time.
    #[arg(long, env = "BERTH_OPERATOR_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Where /metrics, /livez and /readyz are.
    #[arg(long, env = "BERTH_OPERATOR_OPS_LISTEN", default_value = "127.0.0.1:5003")]
    pub ops_listen: SocketAddr,
    /// Name of the Lease that the leader holds.
    #[arg(long, env = "BERTH_OPERATOR_LEASE", default_value = "berth-operator")]
    pub lease: String,
    /// How long a leader that is not heard of is waited for.
    #[arg(long, env = "BERTH_OPERATOR_LEASE_DURATION", default_value = "15s", value_parser = span)]
    pub lease_duration: Duration,
    /// What is logged, as a filter of `tracing`.
    #[arg(long, env = "BERTH_OPERATOR_LOG", default_value = "info")]
    pub log: String,
}

/// How tenants' hosts reach the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Exposure {
    /// An HTTPRoute each.
    Gateway,
    /// An Ingress each.
    Ingress,
    /// By what others made, like a route for *.<domain>.
    None,
}

impl Settings {
    /// Whether the operator looks at a namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|name| name == namespace)
    }

    /// Whether Secrets of tenants may never be in a namespace: the cluster's own and the operator's.
    pub fn is_reserved(&self, namespace: &str) -> bool {
        namespace == self.namespace || namespace.starts_with("kube-")
    }

    /// The tenant's host, without a port.
    pub fn host(&self, tenant: &str) -> String {
        format!("{tenant}.{}", self.domain)
    }

    /// A host as clients write it.
    pub fn with_port(&self, host: &str) -> String {
        match self.external_port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// A length of time.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse()?;
    Ok(span.duration())
}

fn span_or_zero(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    span(text)
}

fn grace(text: &str) -> Result<Duration, String> {
    let grace = span(text)?;
    // A node may have taken the old one just before, and pull with it for a while.
    if grace < Duration::from_secs(600) {
        return Err("at least 10m: pulls under way still use the old token".to_owned());
    }
    Ok(grace)
}

fn overlap(text: &str) -> Result<Duration, String> {
    let overlap = span(text)?;
    // Nodes bring a changed Secret into running pods within minutes.
    if overlap < Duration::from_secs(600) {
        return Err("at least 10m: pods see a changed Secret minutes later".to_owned());
    }
    Ok(overlap)
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not key=value"))
}
