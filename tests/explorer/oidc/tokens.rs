//! ID tokens that are not what was asked for.

use std::time::Duration;

use harness::{Issuer, Person, eventually};
use reqwest::Method;
use serde_json::json;

use super::{CLIENT, Court, alert, at_issuer, leave, query_of};

#[tokio::test]
async fn an_id_token_must_be_this_sign_in_s_and_this_client_s() {
    let court = Court::new().await;
    for claims in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "sub": null }),
        json!({ "azp": "another" }),
        json!({ "aud": [CLIENT, "another"] }),
    ] {
        let refused = court.sign_in_with(claims.clone()).await.expect(400);
        assert!(alert(&refused).contains("does not belong"), "{claims}");
    }
    court
        .sign_in_with(json!({ "aud": [CLIENT, "another"], "azp": CLIENT }))
        .await
        .expect(303);
}

#[tokio::test]
async fn an_id_token_that_no_rule_accepts_admits_nobody_and_does_not_say_why() {
    let court = Court::new().await;
    let rule = json!({
        "claims": { "email_verified": "true" }, "when": "claims.email.endsWith('@acme.test')", "maxAge": "10m",
    });
    court.trust(&[court.rule(rule)]).await;
    let mut told = Vec::new();
    for claims in [
        json!({ "email_verified": false }),
        json!({ "email_verified": true, "email": "jo@evil.test" }),
        json!({ "email_verified": true, "aud": "another" }),
        json!({ "email_verified": true, "iss": "http://another.test" }),
        json!({ "email_verified": true, "exp": 1_600_000_000 }),
        json!({ "email_verified": true, "iat": 1_600_000_000 }),
    ] {
        let refused = court.sign_in_with(claims).await.expect(403);
        told.push(alert(&refused));
    }

    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    assert!(
        told[0].contains(court.issuer_host()) && told[0].contains("does not admit"),
        "{told:?}"
    );
    eventually("the trail says why", Duration::from_secs(10), async || {
        let path = "audit?tenant=acme";
        let trail = court.house.admin.ask(Method::GET, path, None).await.text();
        (trail.contains("a claim differs") && trail.contains("denied")).then_some(())
    })
    .await;
    let admitted = court.sign_in_with(json!({ "email_verified": true })).await;
    admitted.expect(303);
}

#[tokio::test]
async fn an_id_token_of_another_s_key_is_nobody_s() {
    let court = Court::new().await;
    let forger = Issuer::start().await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    for forged in [true, false] {
        let mut person = court.house.guest("acme");
        let location = leave(&mut person, "/explorer/sign-in").await;
        let claims = json!({
            "iss": court.issuer.url(), "aud": CLIENT, "sub": "jo", "nonce": query_of(&location, "nonce"),
            "iat": now, "exp": now + 60,
        });
        let signer = if forged { &forger } else { &court.issuer };
        court.issuer.desk().expects(Person::Token(signer.sign(&claims)));
        let back = at_issuer(&location).await;

        let answer = person.get(&back).await;

        assert_eq!(answer.status, if forged { 403 } else { 303 }, "{answer:?}");
    }
    court.issuer.desk().expects(Person::Token("no token".into()));
    alert(&court.sign_in().await.1.expect(403));
}
