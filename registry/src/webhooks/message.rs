//! What a receiver gets: a CloudEvent in structured JSON mode, and headers that tell it apart and sign it. Pure.
//!
//! CloudEvents 1.0 (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>), its JSON format and its HTTP
//! binding. The signature has the form that a Receiver of the type `generic-hmac` of Flux's notification-controller takes:
//! `X-Signature: sha256=<HMAC of the body, in hex>`, see <https://fluxcd.io/flux/components/notification/receivers/>.

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::metadata::events::Delivery;
use crate::rfc3339;
use crate::settings::Scheme;
use crate::tenancy::names::{Names, Place};
use crate::tenancy::{Snapshot, Tenant};

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
const EVENT: HeaderName = HeaderName::from_static("x-berth-event");
const DELIVERY: HeaderName = HeaderName::from_static("x-berth-delivery");
const ATTEMPT: HeaderName = HeaderName::from_static("x-berth-attempt");

/// How the tenants' hosts are called from outside.
#[derive(Debug, Clone)]
pub struct Site {
    /// How clients reach them.
    pub scheme: Scheme,
    /// The bare domain, with a port where clients name one.
    pub apex: String,
    /// Which tenant the bare domain serves.
    pub names: Names,
}

impl Site {
    /// A tenant's host, with a port where clients name one.
    pub fn host(&self, snapshot: &Snapshot, tenant: &Tenant) -> String {
        match self.names.place(snapshot, &self.names.domain) {
            Some(Place::Tenant(served)) if served.id == tenant.id => self.apex.clone(),
            Some(Place::Tenant(_) | Place::Apex) | None => format!("{}.{}", tenant.name, self.apex),
        }
    }
}

/// A request's headers and body.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Message {
    /// An event of a tenant that is reached at `host`.
    pub(super) fn new(delivery: &Delivery, tenant: &Tenant, scheme: Scheme, host: &str) -> Self {
        let mut data: Map<String, Value> = serde_json::from_str(&delivery.data).unwrap_or_default();
        data.insert("tenant".into(), tenant.name.as_str().into());
        if data.contains_key("repository") {
            data.insert("reference".into(), format!("{host}/{}", delivery.subject).into());
        }
        let event = json!({
            "specversion": "1.0",
            "id": delivery.event,
            "source": format!("{scheme}://{host}"),
            "type": delivery.kind,
            "subject": delivery.subject,
            "time": rfc3339::write(delivery.at),
            "datacontenttype": "application/json",
            "data": data,
        });
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/cloudevents+json"),
        );
        let mut say = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        say(EVENT, &delivery.kind);
        say(DELIVERY, &delivery.event.to_string());
        say(ATTEMPT, &delivery.attempts.saturating_add(1).to_string());
        Self {
            headers,
            body: event.to_string().into(),
        }
    }

    /// The same, signed.
    pub(super) fn signed(mut self, token: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(&signature(token, &self.body)) {
            self.headers.insert(SIGNATURE, value);
        }
        self
    }
}

/// The value of the signature's header.
fn signature(token: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by `printf '%s' '{"text":"hello world"}' | openssl dgst -sha256 -hmac 'secret-token'`.
    #[test]
    fn the_signature_is_the_hash_function_and_the_hmac_of_the_body_in_hex() {
        assert_eq!(
            signature("secret-token", br#"{"text":"hello world"}"#),
            "sha256=86180d3c720bad164be253dcabdb2881dc8a4cf8fd5104a41a657b3ec55eae91"
        );
    }
}
