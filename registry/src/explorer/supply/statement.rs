//! What documents are wrapped in: in-toto statements (in-toto Attestation Framework, "Statement"), by themselves, in a
//! DSSE envelope, or in a Sigstore bundle around that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::UnreadableDocument;

/// Wrappings that are opened: a bundle, an envelope, a statement.
const DEPTH: usize = 3;

/// A document, out of its wrapping.
#[derive(Debug)]
pub struct Opened {
    /// What kind of predicate it is, if it was a statement's.
    pub predicate_type: Option<String>,
    /// What it is about, as the statement says.
    pub subjects: Vec<Subject>,
    /// The document itself.
    pub document: Vec<u8>,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subject {
    /// Its name, if it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Digests by algorithm.
    #[serde(default)]
    pub digest: std::collections::BTreeMap<String, String>,
}

/// Any of the wrappings, or none of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wrapping<'d> {
    #[serde(default)]
    predicate_type: Option<String>,
    #[serde(default, borrow)]
    predicate: Option<&'d RawValue>,
    #[serde(default, borrow)]
    subject: Option<&'d RawValue>,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default, borrow)]
    dsse_envelope: Option<&'d RawValue>,
}

/// Opens a document.
pub fn open(bytes: &[u8]) -> Result<Opened, UnreadableDocument> {
    let mut document = bytes.to_vec();
    for _ in 0..DEPTH {
        let inner = {
            let wrapping: Wrapping<'_> = serde_json::from_slice(&document)?;
            match wrapping {
                Wrapping {
                    dsse_envelope: Some(envelope),
                    ..
                } => envelope.get().as_bytes().to_vec(),
                Wrapping {
                    predicate_type: Some(kind),
                    predicate: Some(predicate),
                    subject,
                    ..
                } => {
                    // Whom it is about may be of any shape and hides nothing beside it.
                    let subjects = subject.and_then(|subject| serde_json::from_str(subject.get()).ok());
                    return Ok(Opened {
                        predicate_type: Some(kind),
                        subjects: subjects.unwrap_or_default(),
                        document: predicate.get().as_bytes().to_vec(),
                    });
                }
                Wrapping {
                    payload: Some(payload),
                    ..
                } => STANDARD
                    .decode(payload.trim())
                    .map_err(|error| UnreadableDocument::Malformed(format!("payload: {error}")))?,
                _ => break,
            }
        };
        document = inner;
    }
    Ok(Opened {
        predicate_type: None,
        subjects: Vec::new(),
        document,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = r#"{"_type":"x","predicateType":"p","subject":[{"name":"n","digest":{"sha256":"ab"}}],"predicate":{"a":1}}"#;

    #[test]
    fn statements_are_opened_however_they_are_wrapped() {
        let payload = STANDARD.encode(STATEMENT);
        let envelope = format!(
            r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[]}}"#
        );
        let bundle = format!(r#"{{"mediaType":"b","dsseEnvelope":{envelope}}}"#);
        for document in [STATEMENT, &envelope, &bundle] {
            let opened = open(document.as_bytes()).unwrap();
            assert_eq!(opened.predicate_type.as_deref(), Some("p"));
            assert_eq!(opened.document, br#"{"a":1}"#);
            assert_eq!(opened.subjects[0].name.as_deref(), Some("n"));
        }
    }

    #[test]
    fn what_is_wrapped_in_nothing_is_itself() {
        let opened = open(br#"{"spdxVersion":"SPDX-2.3"}"#).unwrap();
        assert_eq!(opened.predicate_type, None);
        assert_eq!(opened.document, br#"{"spdxVersion":"SPDX-2.3"}"#);
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let deep = "[".repeat(100_000);
        for document in ["", "7", "nonsense", r#"{"payload":"%%%"}"#, &deep, "\u{0}"] {
            assert!(open(document.as_bytes()).is_err(), "{document:.20}");
        }
        // An envelope in an envelope for ever is left as it is.
        let mut nested = STATEMENT.to_owned();
        for _ in 0..6 {
            nested = format!(r#"{{"payload":"{}"}}"#, STANDARD.encode(&nested));
        }
        assert_eq!(open(nested.as_bytes()).unwrap().predicate_type, None);
    }
}
