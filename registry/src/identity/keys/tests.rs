use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const TYP: &str = "berth-access+jwt";
const NOW: i64 = 1_800_000_000;

fn ring() -> (tempfile::TempDir, KeyRing) {
    let folder = tempfile::tempdir().unwrap();
    let ring = KeyRing::open(&folder.path().join("keys"), true).unwrap();
    (folder, ring)
}

fn claims() -> Value {
    json!({ "aud": "tenant-a", "exp": NOW + 300, "nbf": NOW, "iat": NOW, "sub": "x" })
}

fn verify(ring: &KeyRing, token: &str) -> Result<Value, TokenRefused> {
    ring.verify(token, TYP, "tenant-a", NOW)
}

/// A token with this header and these claims, and the signature of another.
fn forged(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

#[test]
fn a_token_is_accepted_for_its_use_tenant_and_time_alone() {
    let (_folder, ring) = ring();
    let token = ring.sign(None, TYP, &claims()).unwrap();
    assert_eq!(verify(&ring, &token).unwrap()["sub"], "x");
    let refused =
        |typ: &str, audience: &str, now: i64| ring.verify::<Value>(&token, typ, audience, now).unwrap_err();
    assert_eq!(refused("berth-refresh+jwt", "tenant-a", NOW), TokenRefused::Use);
    assert_eq!(refused(TYP, "tenant-b", NOW), TokenRefused::Audience);
    assert_eq!(refused(TYP, "tenant-a", NOW + 305), TokenRefused::Expired);
    assert_eq!(refused(TYP, "tenant-a", NOW - 6), TokenRefused::Expired);
    assert!(ring.verify::<Value>(&token, TYP, "tenant-a", NOW + 304).is_ok());
    let without = |claim: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        verify(&ring, &ring.sign(None, TYP, &claims).unwrap())
    };
    assert!(without("aud").is_err() && without("exp").is_err());
}

#[test]
fn no_other_key_or_algorithm_is_accepted() {
    let (folder, ring) = ring();
    let (_other_folder, other) = self::ring();
    let id = ring.signing_ids().remove(0);
    let theirs = other.sign(None, TYP, &claims()).unwrap();
    assert_eq!(verify(&ring, &theirs), Err(TokenRefused::Key));
    let signature = theirs.rsplit('.').next().unwrap();
    for header in [
        json!({ "alg": "EdDSA", "typ": TYP, "kid": id }),
        json!({ "alg": "EdDSA", "typ": TYP }),
        json!({ "alg": "none", "typ": TYP, "kid": id }),
        json!({ "alg": "HS256", "typ": TYP, "kid": id }),
        json!({ "alg": "RS256", "typ": TYP, "kid": id }),
        json!({ "alg": "EdDSA", "typ": TYP, "kid": "../signing-0.pem" }),
        json!({ "alg": "EdDSA", "typ": TYP, "kid": id, "jku": "https://example.com" }),
        json!({ "alg": "EdDSA", "typ": TYP, "kid": id, "jwk": {
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" } }),
    ] {
        for signature in [signature, ""] {
            assert!(
                verify(&ring, &forged(&header, &claims(), signature)).is_err(),
                "{header}"
            );
        }
    }
    // The public key as the secret of an HMAC.
    let pem = std::fs::read(folder.path().join("keys/signing-0.pem")).unwrap();
    for secret in [pem.as_slice(), id.as_bytes()] {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        (header.typ, header.kid) = (Some(TYP.into()), Some(id.clone()));
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        assert!(verify(&ring, &token).is_err());
    }
}

#[test]
fn a_changed_or_endless_token_is_refused() {
    let (_folder, ring) = ring();
    let token = ring.sign(None, TYP, &claims()).unwrap();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let same_bits = at == token.len() - 1;
        assert!(verify(&ring, &changed).is_err() || same_bits, "at {at}");
    }
    for text in ["", ".", "..", "a.b.c", &format!("{token}{}", "A".repeat(9000))] {
        assert!(verify(&ring, text).is_err());
    }
}

#[test]
fn a_new_key_signs_once_every_replica_knows_it() {
    let (folder, ring) = ring();
    let keys = folder.path().join("keys");
    let old = ring.signing_ids();
    let before = ring.sign(None, TYP, &claims()).unwrap();
    std::fs::write(keys.join("signing-1.pem"), signing::generate().unwrap()).unwrap();
    ring.reload().unwrap();
    let both = ring.signing_ids();
    assert_eq!((both.len(), &both[0]), (2, &old[0]));
    let kid = |known: &[String]| {
        let known: HashSet<String> = known.iter().cloned().collect();
        let token = ring.sign(Some(&known), TYP, &claims()).unwrap();
        assert!(verify(&ring, &token).is_ok());
        jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
    };
    assert_eq!(kid(&old), old[0]);
    assert_eq!(kid(&both), both[1]);
    assert_eq!(kid(&[]), old[0]);
    assert!(verify(&ring, &before).is_ok());
    std::fs::remove_file(keys.join("signing-0.pem")).unwrap();
    ring.reload().unwrap();
    assert_eq!(verify(&ring, &before), Err(TokenRefused::Key));
}

#[test]
fn a_folder_that_cannot_be_read_leaves_the_keys_in_use() {
    let (folder, ring) = ring();
    let keys = folder.path().join("keys");
    let token = ring.sign(None, TYP, &claims()).unwrap();
    std::fs::write(keys.join("signing-1.pem"), "no key").unwrap();
    assert!(matches!(ring.reload(), Err(KeysError::Key { .. })));
    assert!(verify(&ring, &token).is_ok());
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(
        KeyRing::open(empty.path(), false),
        Err(KeysError::Missing { kind: "signing", .. })
    ));
}

#[test]
fn a_sealed_secret_opens_in_its_place_alone() {
    let (folder, ring) = ring();
    let sealed = ring.seal("hunter2", "7/caches/hub").unwrap();
    assert!(!sealed.contains("hunter2"));
    assert_ne!(sealed, ring.seal("hunter2", "7/caches/hub").unwrap());
    assert_eq!(
        ring.open_sealed(&sealed, "7/caches/hub").as_deref(),
        Ok("hunter2")
    );
    assert_eq!(ring.open_sealed(&sealed, "8/caches/hub"), Err(SealError::Damaged));
    for text in [
        "",
        "v1",
        "v1.x",
        &sealed[..sealed.len() - 4],
        &sealed.replace("v1.", "v2."),
    ] {
        assert!(ring.open_sealed(text, "7/caches/hub").is_err(), "{text}");
    }
    let keys = folder.path().join("keys");
    std::fs::write(keys.join("sealing-1.key"), sealing::generate().unwrap()).unwrap();
    ring.reload().unwrap();
    assert_eq!(
        ring.open_sealed(&sealed, "7/caches/hub").as_deref(),
        Ok("hunter2")
    );
    std::fs::remove_file(keys.join("sealing-0.key")).unwrap();
    ring.reload().unwrap();
    assert!(matches!(
        ring.open_sealed(&sealed, "7/caches/hub"),
        Err(SealError::KeyGone(_))
    ));
}
