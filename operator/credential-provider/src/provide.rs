//! From a request of the kubelet to its response.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use url::Url;

use crate::account::{Account, NoToken};
use crate::exchange::{ExchangeError, Exchanged, exchange};
use crate::image::{Image, NoImage};
use crate::protocol::{Request, Response};
use crate::settings::Settings;

/// Longest wait for everything. The kubelet kills a provider after a minute.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a connection, its name looked up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time in the kubelet's cache.
const CACHE_LIMIT: Duration = Duration::from_secs(300);

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    /// The image is none.
    #[error(transparent)]
    Image(#[from] NoImage),
    /// The image is one of Docker Hub.
    #[error("the image {0} is one of Docker Hub: let `matchImages` name the hosts of Berth alone")]
    DockerHub(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// The token is for others.
    #[error(
        "the service-account token has the audience {audiences:?} and is not sent to {host}: set \
         `serviceAccountTokenAudience` to the registry's domain ({host} is that domain or a name below it), or name a \
         tenant's own domain by --host={host}"
    )]
    Audience {
        /// The image's.
        host: String,
        /// The token's.
        audiences: Vec<String>,
    },
    /// The authorities' file.
    #[error("--ca-file {}: {why}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is nothing to verify a registry by.
    #[error(
        "no HTTPS client can be made: {0}; name a file of trusted certificates by --ca-file, or by the variable \
         SSL_CERT_FILE in `env` of the kubelet's CredentialProviderConfig"
    )]
    Roots(String),
    /// The registry gives none.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It took too long.
    #[error("{0} did not answer within {LIMIT:?}; the next attempt to pull asks again")]
    Late(String),
}

/// Answers a request.
pub async fn provide(settings: &Settings, request: &Request) -> Result<Response, ProvideError> {
    let image: Image = request.image.parse()?;
    if image.is_of_docker_hub() {
        return Err(ProvideError::DockerHub(image.key()));
    }
    let account = Account::of(&request.token)?;
    let is_plain = listed(&settings.plain_http, &image.authority);
    let origin = image.origin(if is_plain { "http" } else { "https" })?;
    let host = origin.host_str().unwrap_or_default();
    if !account.is_for(host) && !listed(&settings.hosts, host) {
        return Err(ProvideError::Audience {
            host: host.to_owned(),
            audiences: account.audiences,
        });
    }
    let http = client(settings, is_plain)?;
    let exchanged = within(&origin, exchange(&http, &origin, &image, &account)).await?;
    Ok(match exchanged {
        Exchanged::NotNeeded => Response::nothing(Duration::ZERO),
        Exchanged::Password { token, life } => {
            let (key, kept) = (image.key(), kept(life));
            Response::login(&key, account.user, token, kept)
        }
    })
}

fn listed(hosts: &[String], host: &str) -> bool {
    hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host))
}

/// How long the kubelet may keep a password: a pull that begins at the end of it still has half of the password's life.
fn kept(life: Duration) -> Duration {
    (life / 2).min(CACHE_LIMIT)
}

async fn within(
    origin: &Url,
    exchange: impl Future<Output = Result<Exchanged, ExchangeError>>,
) -> Result<Exchanged, ProvideError> {
    match tokio::time::timeout(LIMIT, exchange).await {
        Ok(exchanged) => Ok(exchanged?),
        Err(_) => Err(ProvideError::Late(origin.to_string())),
    }
}

/// Follows no redirect, which would take a token along. Proxies of the kubelet's environment are used, as it means them.
fn client(settings: &Settings, is_plain: bool) -> Result<Client, ProvideError> {
    let builder = Client::builder()
        .user_agent(concat!("berth-credential-provider/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT);
    let builder = match &settings.ca_file {
        // Plain HTTP goes without authorities, where a node has none.
        _ if is_plain => builder.tls_certs_only([]),
        Some(path) => builder.tls_certs_merge(authorities(path)?),
        None => builder,
    };
    builder.build().map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        ProvideError::Roots(source.unwrap_or_else(|| error.to_string()))
    })
}

fn authorities(path: &std::path::Path) -> Result<Vec<Certificate>, ProvideError> {
    let failed = |why: String| ProvideError::CaFile {
        path: path.to_owned(),
        why,
    };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("holds no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::account::tests::token;

    async fn refusal(settings: &Settings, image: &str, audience: &str) -> String {
        let request = Request {
            image: image.to_owned(),
            token: token(&json!({ "aud": [audience] })),
        };
        let error = provide(settings, &request)
            .await
            .err()
            .expect("a refusal")
            .to_string();
        assert!(!error.contains(&request.token));
        error
    }

    #[tokio::test]
    async fn a_token_for_another_audience_is_not_sent() {
        let settings = Settings::default();
        for image in ["evil.test/app", "registry.test.evil.test/app", "test/app:v1"] {
            let told = refusal(&settings, image, "registry.test").await;
            assert!(
                told.contains("is not sent to") || told.contains("Docker Hub"),
                "{told}"
            );
        }
        let told = refusal(
            &settings,
            "acme.registry.test/app",
            "https://kubernetes.default.svc",
        )
        .await;
        assert!(told.contains("serviceAccountTokenAudience"), "{told}");
    }

    #[tokio::test]
    async fn an_image_of_docker_hub_is_never_asked_for() {
        let listed = Settings {
            hosts: vec!["docker.io".to_owned()],
            ..Settings::default()
        };
        for image in ["alpine", "team/app", "docker.io/team/app"] {
            let told = refusal(&listed, image, "docker.io").await;
            assert!(told.contains("matchImages"), "{told}");
        }
    }

    #[tokio::test]
    async fn a_file_of_authorities_that_cannot_be_used_is_named() {
        for (file, why) in [
            ("/nonexistent", "No such file"),
            ("/dev/null", "holds no certificate"),
        ] {
            let settings = Settings {
                ca_file: Some(file.into()),
                ..Settings::default()
            };
            let told = refusal(&settings, "registry.test/app", "registry.test").await;
            assert!(told.contains(file) && told.contains(why), "{told}");
        }
    }

    #[test]
    fn the_kubelet_keeps_a_password_for_less_than_half_of_its_life() {
        for (life, kept_for) in [(3600, 300), (600, 300), (200, 100), (1, 0), (0, 0)] {
            assert_eq!(kept(Duration::from_secs(life)).as_secs(), kept_for, "{life}");
        }
        assert!(LIMIT < Duration::from_secs(60), "the kubelet's own limit");
    }
}
