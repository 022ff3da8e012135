//! What the kubelet writes and reads: `CredentialProviderRequest` and `CredentialProviderResponse` of the API
//! `credentialprovider.kubelet.k8s.io/v1` (`k8s.io/kubelet/pkg/apis/credentialprovider/v1`).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The one version that is spoken: older ones know no service accounts.
const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
const REQUEST: &str = "CredentialProviderRequest";
const RESPONSE: &str = "CredentialProviderResponse";
/// Longest request in bytes; annotations of a service account have at most 256 KiB together.
const REQUEST_LIMIT: u64 = 1024 * 1024;

/// What the kubelet asks. It has no `Debug`: it holds a token.
pub struct Request {
    /// The image, usually without tag and digest.
    pub image: String,
    /// The token of the pod's service account.
    pub token: String,
}

/// Why a request cannot be answered. No message holds a part of the request but its version.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// It cannot be read.
    #[error("the request cannot be read from standard input: {0}")]
    Input(#[from] io::Error),
    /// It is too long.
    #[error("the request has more than {REQUEST_LIMIT} bytes")]
    TooLong,
    /// It is no JSON object.
    #[error(
        "the request on standard input is no {REQUEST} of {API_VERSION} (line {line}, column {column}); the kubelet \
         writes one, see `apiVersion` in its CredentialProviderConfig"
    )]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A field is of another type.
    #[error("the request's field {0} is no text; the kubelet writes one")]
    NoText(&'static str),
    /// It is of another version or kind.
    #[error(
        "the request is a {kind} of {version}, and not a {REQUEST} of {API_VERSION}: set `apiVersion: {API_VERSION}` of \
         this provider in the kubelet's CredentialProviderConfig"
    )]
    Other {
        /// As told, shortened.
        version: String,
        /// As told, shortened.
        kind: String,
    },
    /// There is no token.
    #[error(
        "the kubelet gave no service-account token: set `tokenAttributes` of this provider in its CredentialProviderConfig, \
         with the registry's domain as `serviceAccountTokenAudience` and `requireServiceAccount: true` (Kubernetes 1.34 or \
         newer)"
    )]
    NoToken,
}

impl Request {
    /// Reads a request to the end of the input, and at most [`REQUEST_LIMIT`] bytes of it. Fields that are not known
    /// are those of a newer kubelet, and left alone.
    pub fn read(input: impl Read) -> Result<Self, ProtocolError> {
        let mut text = Vec::new();
        input.take(REQUEST_LIMIT + 1).read_to_end(&mut text)?;
        if text.len() as u64 > REQUEST_LIMIT {
            return Err(ProtocolError::TooLong);
        }
        // The parser's own words may quote what is wrong, and so a token: only the place is told.
        let mut fields: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| ProtocolError::Malformed {
                line: error.line(),
                column: error.column(),
            })?;
        let mut field = |name: &'static str| match fields.remove(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(ProtocolError::NoText(name)),
        };
        let (version, kind) = (field("apiVersion")?, field("kind")?);
        if version != API_VERSION || kind != REQUEST {
            return Err(ProtocolError::Other {
                version: shown(&version),
                kind: shown(&kind),
            });
        }
        let (image, token) = (field("image")?, field("serviceAccountToken")?);
        if token.is_empty() {
            return Err(ProtocolError::NoToken);
        }
        Ok(Self { image, token })
    }
}

/// A version or kind, which is short and plain if it is one.
fn shown(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'-');
    if text.is_empty() || text.len() > 80 || !text.bytes().all(plain) {
        return "(unknown)".to_owned();
    }
    text.to_owned()
}

/// What the kubelet is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    api_version: &'static str,
    kind: &'static str,
    /// The password is for one repository, and so is its place in the kubelet's cache.
    cache_key_type: &'static str,
    #[serde(serialize_with = "seconds")]
    cache_duration: Duration,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auth: BTreeMap<String, Login>,
}

#[derive(Serialize)]
struct Login {
    username: String,
    password: String,
}

impl Response {
    /// A login for images below `image`, as the kubelet called it, to be kept for `cache`.
    pub fn login(image: &str, username: String, password: String, cache: Duration) -> Self {
        let login = Login { username, password };
        Self {
            auth: BTreeMap::from([(image.to_owned(), login)]),
            ..Self::nothing(cache)
        }
    }

    /// No login is needed. Zero keeps this out of the kubelet's cache.
    pub fn nothing(cache: Duration) -> Self {
        Self {
            api_version: API_VERSION,
            kind: RESPONSE,
            cache_key_type: "Image",
            cache_duration: cache,
            auth: BTreeMap::new(),
        }
    }
}

/// As `metav1.Duration` reads it.
fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{}s", duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": REQUEST, "image": "acme.registry.test/app",
            "serviceAccountToken": "a.b.c", "serviceAccountAnnotations": { "x": "y" },
        })
    }

    fn read(text: &str) -> Result<Request, String> {
        Request::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        read(text).err().expect("a refusal")
    }

    #[test]
    fn a_request_gives_image_and_token_and_may_have_further_fields() {
        let mut newer = request();
        newer["podName"] = json!("web-0");
        for request in [request(), newer] {
            let read = read(&request.to_string()).expect("a request");
            assert_eq!(
                (read.image.as_str(), read.token.as_str()),
                ("acme.registry.test/app", "a.b.c")
            );
        }
    }

    #[test]
    fn another_version_or_kind_is_refused_and_the_message_says_what_to_set() {
        for (field, value) in [
            ("apiVersion", json!("credentialprovider.kubelet.k8s.io/v1beta1")),
            ("apiVersion", json!("")),
            ("kind", json!("CredentialProviderResponse")),
            ("kind", json!("Pod\n\u{1b}[0m")),
        ] {
            let mut other = request();
            other[field] = value;
            let told = refusal(&other.to_string());
            assert!(
                told.contains("set `apiVersion: credentialprovider.kubelet.k8s.io/v1`"),
                "{told}"
            );
            assert!(!told.contains(char::is_control), "{told}");
        }
        assert!(refusal("{}").contains("(unknown)"));
    }

    #[test]
    fn a_request_without_a_token_is_refused_and_the_message_says_what_to_set() {
        let mut none = request();
        for token in [json!(""), Value::Null] {
            none["serviceAccountToken"] = token;
            if none["serviceAccountToken"].is_null() {
                none.as_object_mut()
                    .expect("an object")
                    .remove("serviceAccountToken");
            }
            let told = refusal(&none.to_string());
            assert!(told.contains("tokenAttributes"), "{told}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_without_being_quoted() {
        for text in [
            "",
            "secret",
            "\"secret\"",
            "[\"secret\"]",
            "{\"apiVersion\": \"secret",
        ] {
            let told = refusal(text);
            assert!(told.contains("line") && !told.contains("secret"), "{told}");
        }
        for (field, value) in [
            ("image", json!(7)),
            ("serviceAccountToken", json!({ "secret": 1 })),
        ] {
            let mut other = request();
            other[field] = value;
            let told = refusal(&other.to_string());
            assert!(told.contains(field) && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn no_more_is_read_than_the_limit() {
        let mut longest = request();
        longest["pad"] = json!("");
        let rest = REQUEST_LIMIT as usize - longest.to_string().len();
        longest["pad"] = "x".repeat(rest).into();
        assert!(read(&longest.to_string()).is_ok());
        longest["pad"] = "x".repeat(rest + 1).into();
        assert!(refusal(&longest.to_string()).contains("more than"));
        // Without an end.
        assert!(matches!(
            Request::read(io::repeat(b' ')),
            Err(ProtocolError::TooLong)
        ));
    }

    #[test]
    fn a_response_is_what_the_kubelet_decodes_strictly() {
        let login = Response::login("h.test/app", "sa/a/b".into(), "p".into(), Duration::from_secs(90));
        let login = serde_json::to_value(login).expect("JSON");
        assert_eq!(
            login,
            json!({
                "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
                "cacheKeyType": "Image", "cacheDuration": "90s",
                "auth": { "h.test/app": { "username": "sa/a/b", "password": "p" } },
            })
        );
        let nothing = serde_json::to_value(Response::nothing(Duration::ZERO)).expect("JSON");
        assert_eq!(
            (&nothing["cacheDuration"], nothing.get("auth")),
            (&json!("0s"), None)
        );
    }
}
