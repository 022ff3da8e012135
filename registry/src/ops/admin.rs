//! The admin listener: one question so far, behind the admin key.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::json_answer;

/// Fewest bytes of a key that is taken from a file.
const SHORTEST_KEY: usize = 16;

/// A tenant as the admin API lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// The id that its name never had before and will never have again.
    pub uid: String,
}

/// Lists every tenant; the error is in words.
pub type ListTenants =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<Tenant>, String>> + Send>> + Send + Sync>;

/// The admin key cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--admin-key-file {path}: {reason}", path = path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

/// The admin API's bearer key, kept only as its hash.
#[derive(Clone)]
pub struct AdminKey {
    hash: [u8; 32],
}

impl AdminKey {
    /// Reads the key's file, of which white space at the ends does not count. With `make`, an absent file
    /// is made, readable by its owner only, with 256 random bits.
    pub fn open(path: &Path, make: bool) -> Result<Self, KeyError> {
        let fail = |reason: String| KeyError {
            path: path.to_owned(),
            reason,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                make_key(path).map_err(|error| fail(format!("cannot be made: {error}")))?
            }
            Err(error) => {
                return Err(fail(format!(
                    "cannot be read ({error}); write a key into that file"
                )));
            }
        };
        let key = text.trim();
        if key.len() < SHORTEST_KEY {
            return Err(fail(format!(
                "holds fewer than {SHORTEST_KEY} characters; write a longer key into it"
            )));
        }
        Ok(Self {
            hash: Sha256::digest(key).into(),
        })
    }

    /// Whether the request bears the key. Hashes are compared, whole, so that time tells nothing of it.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let Some((scheme, key)) = given else { return false };
        let hash: [u8; 32] = Sha256::digest(key.trim()).into();
        let different = self.hash.iter().zip(hash).fold(0, |all, (a, b)| all | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") & (std::hint::black_box(different) == 0)
    }
}

/// Writes a new key beside its place and moves it there, so that a crash never leaves half a key. If
/// another process was faster, its key is the key.
fn make_key(path: &Path) -> io::Result<String> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let key = hex::encode(rand::random::<[u8; 32]>());
    let draft = path.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file
        .write_all(format!("{key}\n").as_bytes())
        .and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => fs::File::open(folder)?.sync_all().map(|()| key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

/// `GET /admin/v1/state`. Without the key everything is 401, so that paths cannot be told apart.
pub fn router(key: AdminKey, tenants: ListTenants) -> Router {
    Router::new()
        .route("/admin/v1/state", get(state))
        .fallback(async || error(StatusCode::NOT_FOUND, "there is no such path"))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here")
        })
        .layer(middleware::from_fn_with_state(key, authorise))
        .with_state(tenants)
}

async fn authorise(State(key): State<AdminKey>, request: Request, next: Next) -> Response {
    if key.admits(request.headers()) {
        return next.run(request).await;
    }
    let message = "send the admin key as Authorization: Bearer <key>";
    (
        [(header::WWW_AUTHENTICATE, "Bearer realm=\"berth-admin\"")],
        error(StatusCode::UNAUTHORIZED, message),
    )
        .into_response()
}

async fn state(State(tenants): State<ListTenants>) -> Response {
    match tenants().await {
        Ok(tenants) => {
            let state = json!({ "version": env!("CARGO_PKG_VERSION"), "tenants": tenants });
            json_answer(StatusCode::OK, &state)
        }
        Err(failure) => {
            tracing::error!(failure, "the tenants cannot be listed");
            error(
                StatusCode::SERVICE_UNAVAILABLE,
                "the metadata store does not answer; try again",
            )
        }
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    json_answer(status, &json!({ "error": message }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, authorization: Option<&str>) -> (StatusCode, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let key = AdminKey::open(&file, false).unwrap();
        let tenant = Tenant {
            name: "default".into(),
            uid: "7".into(),
        };
        let tenants: ListTenants = Arc::new(move || {
            let tenant = tenant.clone();
            Box::pin(async move { Ok(vec![tenant]) })
        });
        let mut request = http::Request::get(path);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = router(key, tenants)
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_state_lists_the_tenants_to_who_has_the_key() {
        let (status, body) = ask("/admin/v1/state", Some("Bearer 0123456789abcdef")).await;
        assert_eq!(status, StatusCode::OK);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["tenants"], json!([{ "name": "default", "uid": "7" }]));
    }

    #[tokio::test]
    async fn without_the_key_every_path_is_401_and_with_it_an_unknown_one_404() {
        for authorization in [
            None,
            Some("Bearer wrong"),
            Some("Basic 0123456789abcdef"),
            Some("0123456789abcdef"),
        ] {
            for path in ["/admin/v1/state", "/nothing"] {
                assert_eq!(ask(path, authorization).await.0, StatusCode::UNAUTHORIZED);
            }
        }
        assert_eq!(
            ask("/nothing", Some("bearer 0123456789abcdef")).await.0,
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys/admin");
        let first = AdminKey::open(&file, true).unwrap();
        let again = AdminKey::open(&file, true).unwrap();
        assert_eq!(first.hash, again.hash);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
    }

    #[test]
    fn an_absent_or_short_key_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        assert!(AdminKey::open(&file, false).is_err());
        fs::write(&file, "short").unwrap();
        assert!(AdminKey::open(&file, true).is_err_and(|error| error.to_string().contains("16")));
    }
}
