//! The way of a client: name, address, TLS, and whether it is this registry that answers, and knows itself by that name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, WWW_AUTHENTICATE};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use url::Url;

use super::super::client::reachable;
use super::super::web::{self, Answered, WebError};
use super::report::Report;
use crate::settings::Settings;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
const DAY: u64 = 86_400;
/// Days within which a certificate is to be renewed: what renews by itself does so a month before.
const RENEWED: [u64; 3] = [3, 7, 14];

/// What is asked for.
pub(super) struct Asked<'a> {
    /// Hosts besides the apex.
    pub(super) hosts: Vec<String>,
    /// Where they are, whatever their names stand for.
    pub(super) at: Option<SocketAddr>,
    pub(super) roots: &'a Arc<RootCertStore>,
}

pub(super) async fn look(report: &mut Report, settings: &Settings, asked: Asked<'_>) {
    let mut hosts = vec![settings.domain.clone()];
    for host in asked.hosts {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    for host in hosts {
        let Some((url, at)) = place(settings, &host, asked.at) else {
            report.failed(
                host,
                "it is no host",
                "write a host's name, with a port if it has one",
            );
            continue;
        };
        let answered =
            tokio::time::timeout(PATIENCE, web::get(&url, HeaderMap::new(), at, asked.roots)).await;
        match answered {
            Ok(Ok(answered)) => judged(report, &url, asked.roots, &answered),
            Ok(Err(error)) => unreached(report, &url, &error),
            Err(_) => report.failed(
                url.to_string(),
                format!("no answer within {} s", PATIENCE.as_secs()),
                "check that the network between clients and the edge lets them through",
            ),
        }
    }
}

/// The root of the API at a host, and where it is asked.
fn place(settings: &Settings, host: &str, at: Option<SocketAddr>) -> Option<(Url, Option<SocketAddr>)> {
    let mut url = Url::parse(&format!("{}://{host}/v2/", settings.external_scheme)).ok()?;
    // On a machine of one's own nothing stands before the listener, and no name is needed.
    let is_local = settings.domain == "localhost" || settings.domain.ends_with(".localhost");
    let below = host == settings.domain || host.ends_with(&format!(".{}", settings.domain));
    if is_local && below && at.is_none() {
        url.set_port(Some(settings.listen.port())).ok()?;
        return Some((url, Some(reachable(settings.listen))));
    }
    Some((url, at))
}

fn unreached(report: &mut Report, url: &Url, error: &WebError) {
    let host = url.host_str().unwrap_or_default();
    let remedy = match error {
        WebError::Name(_) => format!(
            "make a DNS record for {host} that leads to the edge, or one for all hosts below the domain"
        ),
        WebError::Connect { .. } => {
            "start the registry or the edge that should listen there, and open its port".to_owned()
        }
        WebError::Tls(_) => format!(
            "give the edge a certificate for {host} by an authority that clients trust, with the whole chain; name a \
             private authority by --ca-file"
        ),
        WebError::Address(_) | WebError::Exchange(_) => "check what listens there".to_owned(),
    };
    report.failed(url.to_string(), error.to_string(), remedy);
}

fn judged(report: &mut Report, url: &Url, roots: &Arc<RootCertStore>, answered: &Answered) {
    let host = url.host_str().unwrap_or_default();
    let challenge = answered.parts.headers.get(WWW_AUTHENTICATE);
    let challenge = challenge
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let is_registry = answered
        .parts
        .headers
        .contains_key("docker-distribution-api-version");
    match answered.parts.status {
        StatusCode::OK | StatusCode::UNAUTHORIZED if is_registry => {
            realm(report, url, challenge, answered.peer);
        }
        StatusCode::NOT_FOUND if is_registry => report.failed(
            url.to_string(),
            "the registry answers, and knows no tenant of this host",
            format!(
                "have the edge pass the Host header on unchanged, or claim {host} by a Tenant: its name before --domain, \
                 spec.hosts, or --apex-hosts"
            ),
        ),
        status => report.failed(
            url.to_string(),
            format!("{} answers {status}, and is no Berth", answered.peer),
            "let the edge's route for this host lead to the registry's Service, /v2/ and everything else",
        ),
    }
    if !answered.chain.is_empty() {
        lasts(report, host, roots, &answered.chain);
    }
}

/// Clients ask for a token where the challenge says: that must be this very place.
fn realm(report: &mut Report, url: &Url, challenge: &str, peer: SocketAddr) {
    let realm = challenge
        .split("realm=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let Some(realm) = realm else {
        return report.ok(
            url.to_string(),
            format!("{peer} answers without asking for a credential"),
        );
    };
    let same = Url::parse(realm).is_ok_and(|realm| {
        (realm.scheme(), realm.host_str(), realm.port_or_known_default())
            == (url.scheme(), url.host_str(), url.port_or_known_default())
    });
    match same {
        true => report.ok(url.to_string(), format!("{peer} answers, with tokens at {realm}")),
        false => report.failed(
            url.to_string(),
            format!("clients are sent to {realm} for a token"),
            "set --external-scheme, or name the edge's addresses by --trusted-proxies and have it send \
             X-Forwarded-Proto and X-Forwarded-Host",
        ),
    }
}

/// How long the certificate will be good, judged as a client will then.
fn lasts(report: &mut Report, host: &str, roots: &Arc<RootCertStore>, chain: &[CertificateDer<'static>]) {
    let check = format!("certificate of {host}");
    let (Some((own, above)), Ok(name)) = (chain.split_first(), ServerName::try_from(host.to_owned())) else {
        return;
    };
    let Ok(verifier) = WebPkiServerVerifier::builder(roots.clone()).build() else {
        return;
    };
    let now = UnixTime::now().as_secs();
    for days in RENEWED {
        let then = UnixTime::since_unix_epoch(Duration::from_secs(now + days * DAY));
        if verifier.verify_server_cert(own, above, &name, &[], then).is_err() {
            return report.warning(
                check,
                format!("it is no longer good in {days} days"),
                "renew it; a cert-manager Certificate that is Ready does that by itself",
            );
        }
    }
    report.ok(
        check,
        format!("good for {} days and more", RENEWED[RENEWED.len() - 1]),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_must_lead_back_to_where_it_was_given() {
        let url = Url::parse("https://acme.registry.test/v2/").unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 1], 443));
        for (challenge, failed) in [
            (
                r#"Bearer realm="https://acme.registry.test/token",service="x""#,
                0,
            ),
            (r#"Bearer realm="https://acme.registry.test:443/token""#, 0),
            (r#"Bearer realm="http://acme.registry.test/token""#, 1),
            (r#"Bearer realm="https://berth.svc:5000/token""#, 1),
            ("", 0),
        ] {
            let mut report = Report::new(false);
            realm(&mut report, &url, challenge, peer);
            assert_eq!(
                report.count(super::super::report::Status::Failed),
                failed,
                "{challenge}"
            );
        }
    }
}
