//! Secrets that hand tokens over: how they are written, and how they are read again.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_crds::token::{Token, TokenId};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;

use super::credential::{Credential, Purpose};
use super::predecessor::{self, Predecessor};
use crate::{MANAGED_BY, MANAGER, TENANT};

/// Public part of the token.
pub const TOKEN_ID: &str = "berth.dev/token-id";
/// When it was issued (RFC 3339), for people: what counts is when the registry says that it was made.
pub const ISSUED: &str = "berth.dev/issued-at";
/// The predecessors that may still be valid.
pub const PREVIOUS: &str = "berth.dev/previous-token-id";
/// Service accounts whose imagePullSecrets name the Secret, separated by commas.
pub const ACCOUNTS: &str = "berth.dev/service-accounts";
/// Asks for a new token; the old one ends after a while.
pub const ROTATE: &str = "berth.dev/rotate";
/// Asks for a new token; the old one ends at once.
pub const REVOKE: &str = "berth.dev/revoke";
/// pull or organization.
pub const PURPOSE: &str = "berth.dev/credential";

/// As many as a Tenant may name.
const ACCOUNTS_LIMIT: usize = 32;
const TYPE: &str = "kubernetes.io/dockerconfigjson";
const DOCKER: &str = ".dockerconfigjson";
/// What clients send as user name; the registry does not look at it.
const USER: &str = "x-token";

/// What a Secret of ours holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// The token, if it is readable.
    pub token: Option<Token>,
    /// Its id, as the annotation has it, if that is one.
    pub id: Option<TokenId>,
    /// Its predecessors, the newest first.
    pub previous: Vec<Predecessor>,
    /// Someone asks for a new token.
    pub rotation_requested: bool,
    /// Someone asks for a new token, and for the end of the old one.
    pub revoke_requested: bool,
    /// Service accounts that name the Secret.
    pub accounts: Vec<String>,
    data: BTreeMap<String, Vec<u8>>,
    labels: BTreeMap<String, String>,
}

impl Contents {
    /// Ids of all tokens that it names: its own, and those of the predecessors.
    pub fn ids(&self) -> Vec<TokenId> {
        let previous = self.previous.iter().map(|predecessor| &predecessor.id);
        self.id.iter().chain(previous).cloned().collect()
    }

    /// Whether it is what the credential wants with this token.
    pub fn is_for(&self, wanted: &Credential, token: &Token) -> bool {
        self.data == data(wanted, token)
            && labels(wanted, self.labels.get(TENANT).map_or("", String::as_str))
                .iter()
                .all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// Whether a Secret was made for this tenant by the operator.
pub fn is_ours(secret: &Secret, tenant: &str) -> bool {
    let labels = secret.metadata.labels.as_ref();
    let label = |key| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    label(MANAGED_BY) == Some(MANAGER) && label(TENANT) == Some(tenant)
}

/// Whether a Secret is this object's, so that it may be deleted.
pub fn is_owned(secret: &Secret, uid: &str) -> bool {
    secret.owner_references().iter().any(|owner| owner.uid == uid)
}

/// What the registry's record of a token says that it is for.
pub fn description(namespace: &str, name: &str) -> String {
    format!("Secret {namespace}/{name}")
}

/// Reads a Secret. Whoever may write it has a say in all of it: what is no token's id is passed over, and ids are those of
/// tokens that the registry's records need not give to this Secret.
pub fn read(secret: &Secret) -> Contents {
    let annotations = secret.metadata.annotations.clone().unwrap_or_default();
    let annotation = |key: &str| annotations.get(key).filter(|text| !text.is_empty()).cloned();
    let data: BTreeMap<String, Vec<u8>> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    let id: Option<TokenId> = annotation(TOKEN_ID).and_then(|text| text.parse().ok());
    let issued: Option<Timestamp> = annotation(ISSUED).and_then(|text| text.parse().ok());
    let previous = annotation(PREVIOUS).unwrap_or_default();
    Contents {
        token: token(&data),
        previous: predecessor::parse(&previous, id.as_ref(), issued.unwrap_or(Timestamp::UNIX_EPOCH)),
        id,
        rotation_requested: annotations.contains_key(ROTATE),
        revoke_requested: annotations.contains_key(REVOKE),
        accounts: annotation(ACCOUNTS)
            .map(|names| names.split(',').take(ACCOUNTS_LIMIT).map(str::to_owned).collect())
            .unwrap_or_default(),
        data,
        labels: secret.metadata.labels.clone().unwrap_or_default(),
    }
}

fn token(data: &BTreeMap<String, Vec<u8>>) -> Option<Token> {
    let docker: serde_json::Value = serde_json::from_slice(data.get(DOCKER)?).ok()?;
    let auths = docker.get("auths")?.as_object()?;
    let password = auths.values().next()?.get("password")?.as_str()?;
    Token::parse(password).ok()
}

/// Everything but the contents that a Secret of ours says.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<'a> {
    /// Name of the tenant.
    pub tenant: &'a str,
    /// The tenant.
    pub owner: &'a OwnerReference,
    /// The token's predecessors, the newest first.
    pub previous: &'a [Predecessor],
    /// When the token was issued.
    pub issued: Timestamp,
    /// A request for a new token stands.
    pub rotation_requested: bool,
    /// Service accounts that name the Secret.
    pub accounts: &'a [String],
    /// The version that it replaces; a new Secret if absent.
    pub replaces: Option<String>,
}

/// The Secret that hands a token over.
pub fn write(wanted: &Credential, token: &Token, written: Written<'_>) -> Secret {
    let mut annotations = BTreeMap::from([
        (TOKEN_ID.to_owned(), token.id().to_string()),
        (ISSUED.to_owned(), written.issued.to_string()),
    ]);
    if !written.previous.is_empty() {
        annotations.insert(PREVIOUS.to_owned(), predecessor::format(written.previous));
    }
    if written.rotation_requested {
        annotations.insert(ROTATE.to_owned(), "now".to_owned());
    }
    if !written.accounts.is_empty() {
        annotations.insert(ACCOUNTS.to_owned(), written.accounts.join(","));
    }
    let data = data(wanted, token);
    Secret {
        metadata: ObjectMeta {
            name: Some(wanted.secret.clone()),
            namespace: Some(wanted.namespace.clone()),
            labels: Some(labels(wanted, written.tenant)),
            annotations: Some(annotations),
            owner_references: Some(vec![written.owner.clone()]),
            resource_version: written.replaces,
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key, ByteString(value)))
                .collect(),
        ),
        ..Secret::default()
    }
}

fn labels(wanted: &Credential, tenant: &str) -> BTreeMap<String, String> {
    let purpose = match wanted.purpose {
        Purpose::Pull => "pull",
        Purpose::Organization => "organization",
    };
    [(MANAGED_BY, MANAGER), (TENANT, tenant), (PURPOSE, purpose)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn data(wanted: &Credential, token: &Token) -> BTreeMap<String, Vec<u8>> {
    let password = token.reveal();
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let login = json!({ "username": USER, "password": password, "auth": auth });
    let auths: serde_json::Map<String, serde_json::Value> = wanted
        .hosts
        .iter()
        .map(|host| (host.clone(), login.clone()))
        .collect();
    let mut data = BTreeMap::from([(
        DOCKER.to_owned(),
        json!({ "auths": auths }).to_string().into_bytes(),
    )]);
    if wanted.purpose == Purpose::Organization {
        let host = wanted.hosts.first().cloned().unwrap_or_default();
        let keys = [
            ("username", USER.to_owned()),
            ("token", password.to_owned()),
            ("registry", host),
        ];
        data.extend(keys.map(|(key, value)| (key.to_owned(), value.into_bytes())));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(purpose: Purpose) -> Credential {
        Credential {
            purpose,
            name: "ci".to_owned(),
            namespace: "apps".to_owned(),
            secret: "berth-ci".to_owned(),
            grants: Vec::new(),
            expires_after: None,
            rotate_every: None,
            hosts: vec!["acme.registry.test".to_owned(), "registry.acme.com".to_owned()],
        }
    }

    fn written<'a>(owner: &'a OwnerReference, previous: &'a [Predecessor]) -> Written<'a> {
        Written {
            tenant: "acme",
            owner,
            previous,
            issued: Timestamp::from_second(1000).unwrap(),
            rotation_requested: false,
            accounts: &[],
            replaces: None,
        }
    }

    #[test]
    fn a_secret_is_read_as_it_was_written() {
        let (owner, token) = (OwnerReference::default(), Token::generate());
        let previous = [("previous0001", 1000), ("previous0000", 990)].map(|(id, second)| Predecessor {
            id: id.parse().unwrap(),
            replaced: Timestamp::from_second(second).unwrap(),
        });
        for purpose in [Purpose::Pull, Purpose::Organization] {
            let wanted = credential(purpose);
            let secret = write(&wanted, &token, written(&owner, &previous));
            assert!(is_ours(&secret, "acme") && !is_ours(&secret, "other"));
            let contents = read(&secret);
            assert_eq!(contents.token.as_ref(), Some(&token));
            assert_eq!(contents.id.as_ref(), Some(token.id()));
            assert_eq!(contents.previous, previous);
            assert!(!contents.rotation_requested);
            assert!(contents.is_for(&wanted, &token));
            let moved = Credential {
                hosts: vec!["else".to_owned()],
                ..wanted
            };
            assert!(!contents.is_for(&moved, &token));
        }
    }

    #[test]
    fn an_annotation_that_is_no_id_names_no_token() {
        let wanted = credential(Purpose::Pull);
        for text in [
            "../../victim?erase=true#",
            "..",
            "",
            "aaaaaaaaaaa/",
            "aaaaaaaaaaaaa",
        ] {
            let mut secret = write(
                &wanted,
                &Token::generate(),
                written(&OwnerReference::default(), &[]),
            );
            let annotations = secret.metadata.annotations.get_or_insert_default();
            annotations.insert(TOKEN_ID.to_owned(), text.to_owned());
            annotations.insert(PREVIOUS.to_owned(), text.to_owned());
            assert_eq!(read(&secret).ids(), [], "{text}");
        }
    }

    #[test]
    fn no_more_accounts_are_read_than_a_tenant_may_name() {
        let names: Vec<String> = (0..1000).map(|number| format!("account-{number}")).collect();
        let owner = OwnerReference::default();
        let many = Written {
            accounts: &names,
            ..written(&owner, &[])
        };
        let secret = write(&credential(Purpose::Pull), &Token::generate(), many);
        assert_eq!(read(&secret).accounts, names[..ACCOUNTS_LIMIT]);
    }

    #[test]
    fn a_secret_is_the_object_s_that_it_names_as_its_owner() {
        let owner = OwnerReference {
            uid: "one".to_owned(),
            ..OwnerReference::default()
        };
        let secret = write(
            &credential(Purpose::Pull),
            &Token::generate(),
            written(&owner, &[]),
        );
        assert!(is_owned(&secret, "one") && !is_owned(&secret, "other"));
        assert!(!is_owned(&Secret::default(), "one"));
    }

    #[test]
    fn a_request_that_waits_is_written_again() {
        let (wanted, token, owner) = (
            credential(Purpose::Pull),
            Token::generate(),
            OwnerReference::default(),
        );
        let waiting = Written {
            rotation_requested: true,
            ..written(&owner, &[])
        };
        assert!(read(&write(&wanted, &token, waiting)).rotation_requested);
    }

    #[test]
    fn a_docker_configuration_has_every_host() {
        let secret = write(
            &credential(Purpose::Organization),
            &Token::generate(),
            written(&OwnerReference::default(), &[]),
        );
        let data = secret.data.unwrap();
        let docker: serde_json::Value = serde_json::from_slice(&data[DOCKER].0).unwrap();
        assert_eq!(docker["auths"].as_object().unwrap().len(), 2);
        assert_eq!(docker["auths"]["acme.registry.test"]["username"], "x-token");
        assert_eq!(data["registry"].0, b"acme.registry.test");
        assert_eq!(secret.type_.as_deref(), Some(TYPE));
    }
}
