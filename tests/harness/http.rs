//! A plain HTTP client and the requests that many suites make.

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::content::sha256;

/// Both kube and the operator link reqwest without a provider of TLS; whoever makes a client first installs one.
pub fn provide_tls() {
    // Fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client that follows no redirect, uses no proxy and decodes no body: it shows what was sent.
pub fn client() -> Client {
    provide_tls();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("an HTTP client")
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value as text; the empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The beginning of the body, for messages: as text if it is text, else its length.
    fn excerpt(&self) -> String {
        match std::str::from_utf8(&self.body) {
            Ok(text) => text.chars().take(2000).collect(),
            Err(_) => format!("of {} bytes, not text", self.body.len()),
        }
    }

    /// The code of the first error of an OCI error body; the empty string if there is none.
    pub fn error_code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer itself, if it has this status.
    ///
    /// # Panics
    /// If it has another: the message shows the whole answer.
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(
            self.status.as_u16(),
            status,
            "headers {:?}, body {}",
            self.headers,
            self.excerpt()
        );
        self
    }
}

/// Sends a request and reads the whole answer.
///
/// # Panics
/// If there is no answer.
pub async fn send(request: RequestBuilder) -> Answer {
    read(
        request
            .send()
            .await
            .unwrap_or_else(|e| panic!("no answer: {e:?}")),
    )
    .await
}

/// Sends a request and reads the whole answer; `None` if there is none, or if it breaks off.
pub async fn attempt(request: RequestBuilder) -> Option<Answer> {
    try_read(request.send().await.ok()?).await.ok()
}

async fn read(response: Response) -> Answer {
    try_read(response)
        .await
        .unwrap_or_else(|e| panic!("the body broke off: {e:?}"))
}

async fn try_read(response: Response) -> Result<Answer, reqwest::Error> {
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

/// One repository of a registry, addressed over HTTP.
#[derive(Debug, Clone)]
pub struct Repository {
    client: Client,
    base: String,
    name: String,
}

impl Repository {
    /// The repository with this name of the registry at `base` (`http://host:port`).
    pub fn new(base: &str, name: &str) -> Repository {
        Repository {
            client: client(),
            base: base.trim_end_matches('/').to_owned(),
            name: name.to_owned(),
        }
    }

    /// The same repository over HTTP/2 without TLS, as a client that knows of it would speak.
    pub fn over_http2(&self) -> Repository {
        provide_tls();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http2_prior_knowledge()
            .build();
        Repository {
            client: client.expect("an HTTP/2 client"),
            ..self.clone()
        }
    }

    /// Another repository of the same registry.
    pub fn sibling(&self, name: &str) -> Repository {
        Repository {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request for a path below `/v2/<name>/`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}/v2/{}/{path}", self.base, self.name))
    }

    /// A request for a `Location` that the registry gave, which may be relative.
    pub fn at(&self, method: Method, location: &str) -> RequestBuilder {
        let url = if location.starts_with('/') {
            format!("{}{location}", self.base)
        } else {
            location.to_owned()
        };
        self.client.request(method, url)
    }

    /// GETs a path below the repository.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// GETs a manifest as clients do, naming every type that it can be.
    pub async fn get_manifest(&self, reference: &str) -> Answer {
        let accept = [
            "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ];
        let request = self.request(Method::GET, &format!("manifests/{reference}"));
        send(request.header(ACCEPT, accept.join(", "))).await
    }

    /// HEADs a path below the repository.
    pub async fn head(&self, path: &str) -> Answer {
        send(self.request(Method::HEAD, path)).await
    }

    /// DELETEs a path below the repository.
    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Opens an upload session and returns its location.
    ///
    /// # Panics
    /// If the answer is not 202 with a `Location`.
    pub async fn start_upload(&self) -> String {
        let answer = send(self.request(Method::POST, "blobs/uploads/"))
            .await
            .expect(202);
        let location = answer.header(LOCATION.as_str()).to_owned();
        assert!(!location.is_empty(), "no Location: {:?}", answer.headers);
        location
    }

    /// Pushes a blob by POST and PUT, and returns its sha256 digest.
    ///
    /// # Panics
    /// If the registry does not take it.
    pub async fn push_blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let location = self.start_upload().await;
        let url = with_query(&location, &format!("digest={digest}"));
        send(self.at(Method::PUT, &url).body(bytes.to_vec()))
            .await
            .expect(201);
        digest
    }

    /// Appends to an upload session, with `Content-Range` if one is given.
    pub async fn patch(
        &self,
        location: &str,
        range: Option<&str>,
        chunk: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.at(Method::PATCH, location);
        if let Some(range) = range {
            request = request.header("Content-Range", range);
        }
        send(request.body(chunk)).await
    }

    /// Closes an upload session with these last bytes.
    pub async fn close(&self, location: &str, digest: &str, rest: impl Into<reqwest::Body>) -> Answer {
        let url = with_query(location, &format!("digest={digest}"));
        send(self.at(Method::PUT, &url).body(rest)).await
    }

    /// Where an upload session stands, as its `Range` says; the empty string if there is no such session.
    pub async fn progress(&self, location: &str) -> String {
        let answer = send(self.at(Method::GET, location)).await;
        match answer.status {
            StatusCode::NOT_FOUND => String::new(),
            _ => answer.expect(204).header("range").to_owned(),
        }
    }

    /// GETs a blob and compares it byte for byte.
    ///
    /// # Panics
    /// If it is not there or differs.
    pub async fn assert_blob(&self, digest: &str, bytes: &[u8]) {
        let answer = self.get(&format!("blobs/{digest}")).await.expect(200);
        assert!(answer.body == bytes, "blob {digest} has other bytes");
    }

    /// PUTs a manifest under a tag or digest.
    pub async fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Answer {
        let request = self.request(Method::PUT, &format!("manifests/{reference}"));
        send(request.header(CONTENT_TYPE, media_type).body(bytes.to_vec())).await
    }
}

/// A location with a further query parameter.
pub fn with_query(location: &str, parameter: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{parameter}")
}

/// A body of these pieces without a declared length: chunked encoding in HTTP/1.1.
pub fn streamed(pieces: Vec<Vec<u8>>) -> reqwest::Body {
    let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

/// Writes `request` as it is to a new connection and returns everything that comes back until the
/// server closes: for requests that no client library would send. Ask for `Connection: close`.
///
/// # Panics
/// If the address refuses the connection.
pub async fn raw(address: &str, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}
