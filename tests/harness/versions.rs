//! A bucket that keeps old versions of its objects, and what its owner does with them by S3's own API.

use aws_lc_rs::hmac;
use k8s_openapi::jiff;
use reqwest::Method;

use crate::content::sha256;
use crate::environment::setting;
use crate::http::{Answer, client, send};
use crate::own_server::OwnServer;

const REGION: &str = "us-east-1";

/// An S3 server of a test's own with such a bucket.
#[derive(Debug)]
pub struct Versions {
    server: OwnServer,
}

/// What stands in the place of an object that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMarker {
    /// The object's key.
    pub key: String,
    /// The marker's own version.
    pub version: String,
    /// When it was made: RFC 3339, UTC.
    pub made: String,
}

impl Versions {
    /// A server with an empty bucket whose versioning is on.
    ///
    /// # Panics
    /// If it cannot be turned on.
    pub async fn start() -> Versions {
        let bucket = Versions {
            server: OwnServer::s3_that_can_keep_versions(),
        };
        let on = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                  <Status>Enabled</Status></VersioningConfiguration>";
        bucket.ask(Method::PUT, "", "versioning=", on).await.expect(200);
        bucket
    }

    /// The server.
    pub fn server(&self) -> &OwnServer {
        &self.server
    }

    /// Puts an object (PutObject).
    pub async fn put(&self, key: &str, content: &str) {
        self.ask(Method::PUT, &format!("/{key}"), "", content)
            .await
            .expect(200);
    }

    /// Deletes an object, which leaves a marker (DeleteObject).
    pub async fn delete(&self, key: &str) {
        self.ask(Method::DELETE, &format!("/{key}"), "", "")
            .await
            .expect(204);
    }

    /// Removes a marker: the object is there again (DeleteObject with a version).
    pub async fn remove(&self, marker: &DeleteMarker) {
        let query = format!("versionId={}", marker.version);
        self.ask(Method::DELETE, &format!("/{}", marker.key), &query, "")
            .await
            .expect(204);
    }

    /// The markers of all objects that are deleted now (ListObjectVersions).
    ///
    /// # Panics
    /// If the list is none.
    pub async fn delete_markers(&self) -> Vec<DeleteMarker> {
        let (mut markers, mut from) = (Vec::new(), String::new());
        loop {
            let answer = self.ask(Method::GET, "", &format!("{from}versions="), "").await;
            let page = answer.expect(200).text();
            let found = page.split("<DeleteMarker>").skip(1).map(|marker| {
                let marker = marker.split("</DeleteMarker>").next().unwrap_or_default();
                (field(marker, "IsLatest") == "true").then(|| DeleteMarker {
                    key: field(marker, "Key"),
                    version: field(marker, "VersionId"),
                    made: made(&field(marker, "VersionId")),
                })
            });
            markers.extend(found.flatten());
            if field(&page, "IsTruncated") != "true" {
                return markers;
            }
            let key = field(&page, "NextKeyMarker").replace('/', "%2F");
            let next = format!(
                "key-marker={key}&version-id-marker={}&",
                field(&page, "NextVersionIdMarker")
            );
            assert_ne!(next, from, "the list goes on");
            from = next;
        }
    }

    /// A request under the server's credentials (AWS Signature Version 4). `query` is in the order of its names.
    async fn ask(&self, method: Method, path: &str, query: &str, body: &str) -> Answer {
        let (host, path) = (self.server.address(), format!("/bucket{path}"));
        let hash = digest(body);
        let date = time();
        let day = &date[..8];
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{date}\n\n{SIGNED}\n{hash}"
        );
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", digest(&canonical));
        let mut key = format!("AWS4{}", setting("AWS_SECRET_ACCESS_KEY")).into_bytes();
        for part in [day, REGION, "s3", "aws4_request", &to_sign] {
            let hmac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes());
            key = hmac.as_ref().to_vec();
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={}",
            setting("AWS_ACCESS_KEY_ID"),
            hex::encode(key)
        );
        let request = client()
            .request(method, format!("http://{host}{path}?{query}"))
            .header("x-amz-content-sha256", hash)
            .header("x-amz-date", date)
            .header("authorization", authorization)
            .body(body.to_owned());
        send(request).await
    }
}

const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";

fn digest(text: &str) -> String {
    sha256(text.as_bytes()).trim_start_matches("sha256:").to_owned()
}

/// The first element of this name in some XML; the empty string if there is none.
fn field(xml: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let value = xml
        .split_once(&open)
        .and_then(|(_, rest)| rest.split_once(&close));
    value.map(|(value, _)| value.to_owned()).unwrap_or_default()
}

/// When a version was made. This server's `LastModified` of a marker is that of the object that it hides; its ids are
/// ULIDs, which begin with the time in milliseconds, ten digits of Crockford's base 32.
fn made(version: &str) -> String {
    const DIGITS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let value = |digit: char| DIGITS.find(digit).and_then(|value| i64::try_from(value).ok());
    let digits = version.chars().take(10);
    let milliseconds = digits.fold(0, |sum, digit| sum * 32 + value(digit).expect("a ULID"));
    let time = jiff::Timestamp::from_millisecond(milliseconds).expect("a time");
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The time as signatures have it, `20261127T140300Z`.
fn time() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}
