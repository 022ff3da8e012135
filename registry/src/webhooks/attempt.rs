//! One POST.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use percent_encoding::percent_decode_str;
use serde_json::Map;
use url::Url;
use uuid::Uuid;

use super::Webhooks;
use super::message::Message;
use crate::metadata::Time;
use crate::metadata::configuration::{ObjectKind, secret_place};
use crate::metadata::events::{Delivery, Kind};
use crate::tenancy::webhooks::Webhook;
use crate::tenancy::{Snapshot, Tenant};

/// How long a receiver may take, from the look-up of its name to its status.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read of an answer, for messages.
const ANSWER_LIMIT: usize = 2048;
/// Characters of an answer that are told.
const ANSWER_TOLD: usize = 200;

/// What came of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// 2xx.
    Taken {
        /// Which.
        status: u16,
    },
    /// Another status.
    Refused {
        /// Which.
        status: u16,
        /// The status and the beginning of the answer.
        why: String,
        /// For how long the receiver wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    Unreached {
        /// Why.
        why: String,
    },
}

impl Webhooks {
    /// Sends an event once.
    pub(super) async fn send(
        &self,
        snapshot: &Snapshot,
        tenant: &Tenant,
        webhook: &Webhook,
        delivery: &Delivery,
    ) -> Answered {
        let host = self.site.host(snapshot, tenant);
        let mut message = Message::new(delivery, tenant, self.site.scheme, &host);
        if let Some(sealed) = &webhook.secret {
            let place = secret_place(tenant.name.as_str(), ObjectKind::Tenant, "");
            match self.keys.open_sealed(&sealed.0, &place) {
                Ok(token) => message = message.signed(&token),
                Err(error) => {
                    return Answered::Unreached {
                        why: format!("its secret cannot be read: {error}"),
                    };
                }
            }
        }
        let Message { headers, body } = message;
        let answer = self
            .client
            .send(&webhook.url, headers, body, ANSWER_LIMIT, TIMEOUT)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return Answered::Unreached {
                    why: error.to_string(),
                };
            }
        };
        let status = answer.status.as_u16();
        if answer.status.is_success() {
            return Answered::Taken { status };
        }
        let seconds = answer
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        Answered::Refused {
            status,
            why: told(status, &answer.body, &webhook.url),
            retry_after: seconds
                .and_then(|seconds| seconds.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }

    /// Sends an event that tells of nothing, now and once.
    pub async fn test(&self, tenant: &Arc<Tenant>, webhook: &Webhook) -> (Uuid, Answered) {
        let now = Time::now();
        let delivery = Delivery {
            seq: 0,
            event: Uuid::new_v4(),
            kind: Kind::Test.text().to_owned(),
            subject: "test".to_owned(),
            at: now,
            data: serde_json::Value::Object(Map::new()).to_string(),
            attempts: 0,
            since: now,
        };
        let snapshot = self.directory.now();
        let answered = self.send(&snapshot, tenant, webhook, &delivery).await;
        (delivery.event, answered)
    }
}

/// The host of a webhook, by which logs name it.
pub(super) fn host(url: &str) -> String {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str);
    host.unwrap_or("?").to_owned()
}

/// What is said of a webhook without its path and query, which may be what lets somebody in: receivers repeat them in what
/// they answer.
pub fn without_path(text: &str, url: &str) -> String {
    let Ok(url) = Url::parse(url) else {
        return text.to_owned();
    };
    let path = Some(url.path()).filter(|path| path.len() > 1);
    // As it was sent, and as a receiver may have read it.
    let read = path.map(|path| percent_decode_str(path).decode_utf8_lossy());
    let mut text = text.replace(url.as_str(), "…");
    for secret in path
        .into_iter()
        .chain(read.as_deref())
        .chain(url.query())
        .filter(|part| !part.is_empty())
    {
        text = text.replace(secret, "…");
    }
    text
}

/// A status, and the beginning of what came with it if that can be read, without what is secret in the URL.
fn told(status: u16, body: &[u8], url: &str) -> String {
    // Before it is cut: the beginning of a path would be left otherwise.
    let text = without_path(&String::from_utf8_lossy(body), url);
    let text: String = text
        .chars()
        .take(ANSWER_TOLD)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match text.trim() {
        "" => format!("the receiver answered {status}"),
        text => format!("the receiver answered {status}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_path_nor_query_of_a_webhook_is_told() {
        let url = "https://hooks.example:8443/services/T0/B1?key=k";
        assert_eq!(host(url), "hooks.example");
        assert_eq!(
            without_path(
                "404: Cannot POST /services/T0/B1?key=k of https://hooks.example:8443/services/T0/B1?key=k",
                url
            ),
            "404: Cannot POST …?… of …"
        );
        let plain = "the receiver answered 503: /";
        assert_eq!(without_path(plain, "https://hooks.example/"), plain);
        assert_eq!(without_path(plain, "no URL"), plain);
    }

    #[test]
    fn an_answer_is_told_by_its_status_and_a_line_of_its_beginning() {
        let url = "https://hooks.example/services/T0/B1";
        assert_eq!(told(503, b"", url), "the receiver answered 503");
        assert_eq!(
            told(400, b"bad\r\nbody\x1b\n", url),
            "the receiver answered 400: bad  body"
        );
        assert!(told(500, &[b'x'; 2048], url).len() < 250);
        assert!(told(500, &[0xff, 0xfe], url).starts_with("the receiver answered 500"));
        let cut = format!("{}/services/T0/B1", "x".repeat(ANSWER_TOLD - 10));
        assert!(!told(404, cut.as_bytes(), url).contains("/services"));
    }
}
