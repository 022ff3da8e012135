//! The way there and back, and the session that comes of it.

use std::time::Duration;

use harness::{Browser, eventually};
use reqwest::Method;
use serde_json::json;

use super::{CALLBACK, CLIENT, Court, at_issuer, leave, query_of};

#[tokio::test]
async fn a_person_signs_in_by_the_issuer_and_sees_the_list() {
    let court = Court::new().await;
    let token = court.house.token("acme").await;
    let repository = court.house.repository("acme", &token, "team/app").await;
    harness::Image::new(1, 1000).push(&repository, "v1").await;
    let mut person = court.house.guest("acme");

    // 1. The way there: everything that a public client with PKCE says, and no secret of it in the open.
    let page = person.get("/explorer/sign-in").await.expect(200).text();
    assert!(page.contains(">Sign in with Acme</button>"), "{page}");
    let location = leave(&mut person, "/explorer/sign-in?to=%2Fexplorer%2F%3Fq%3Dapp").await;
    assert!(location.as_str().starts_with(court.issuer.url()), "{location}");
    let redirect = format!("http://{}{CALLBACK}", court.house.host("acme"));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", &redirect),
        ("scope", "openid profile email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(query_of(&location, name), value, "{name}");
    }
    let cookie = person.headers["cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("__Host-berth-sign-in=v1."), "{cookie}");
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(query_of(&location, name).len(), 43, "{name}");
        assert!(!cookie.contains(&query_of(&location, name)), "{name}");
    }

    // 2. The way back: a session, and nothing left of the journey.
    let back = at_issuer(&location).await;
    let begun = person.get(&back).await.expect(303);
    assert_eq!(begun.header("location"), "/explorer/?q=app");
    let cookies: Vec<_> = begun.headers.get_all("set-cookie").iter().collect();
    let cookies: Vec<_> = cookies.iter().filter_map(|line| line.to_str().ok()).collect();
    let session = cookies
        .iter()
        .find(|line| line.starts_with("__Host-berth-session="));
    let session = session.expect("a session");
    for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=3600"] {
        assert!(session.contains(part), "{session}");
    }
    assert!(
        cookies
            .iter()
            .any(|line| line.starts_with("__Host-berth-sign-in=;") && line.contains("Max-Age=0")),
        "{cookies:?}"
    );

    // 3. The session shows what the rule grants, and is nothing to the registry itself.
    person.keep(&begun);
    let list = person.get("/explorer/?q=app").await.expect(200).text();
    let label = format!("oidc:{}:jo", court.issuer_host());
    assert!(
        list.contains("/explorer/r/team/app") && list.contains(&label),
        "{list}"
    );
    for path in [
        "/v2/",
        "/v2/_catalog",
        "/v2/team/app/tags/list",
        "/v2/token?service=x",
    ] {
        let answer = person.get(path).await;
        let shown = answer.text();
        assert!(answer.status == 401 || !shown.contains("team"), "{path}: {shown}");
    }

    // 4. The audit trail knows who it was.
    let record = eventually("the record", Duration::from_secs(10), async || {
        let path = "audit?tenant=acme";
        let trail = court.house.admin.ask(Method::GET, path, None).await.text();
        (trail.contains(&label) && trail.contains("jo@acme.test")).then_some(trail)
    })
    .await;
    assert!(record.contains("login"), "{record}");
}

#[tokio::test]
async fn a_session_lasts_as_long_as_its_rule_says() {
    let court = Court::new().await;
    court
        .trust(&[court.rule(json!({ "signIn": { "session": "10m" } }))])
        .await;

    let (mut person, begun) = court.sign_in().await;

    let begun = begun.expect(303);
    let cookies: Vec<_> = begun.headers.get_all("set-cookie").iter().collect();
    assert!(
        cookies
            .iter()
            .any(|line| line.to_str().is_ok_and(|line| line.contains("Max-Age=600"))),
        "{cookies:?}"
    );
    // It is in its last half hour from its first minute: what renews it does not make it longer.
    person.keep(&begun);
    let page = person.get("/explorer/").await.expect(200);
    let renewed = page.header("set-cookie");
    let (_, life) = renewed.split_once("Max-Age=").expect("a lifetime");
    assert!(life.parse::<u32>().is_ok_and(|life| life <= 600), "{renewed}");
}

#[tokio::test]
async fn a_session_ends_with_its_rule() {
    let court = Court::new().await;
    let (mut person, begun) = court.sign_in().await;
    person.keep(&begun.expect(303));
    person.get("/explorer/").await.expect(200);
    let ended = async |why: &str| {
        eventually(why, Duration::from_secs(5), async || {
            (person.get("/explorer/").await.status == 303).then_some(())
        })
        .await;
    };

    // Other grants are other rights from then on, and no end.
    let others = json!([{ "repositories": ["other"], "actions": ["pull"] }]);
    court.trust(&[court.rule(json!({ "grants": others }))]).await;
    person.get("/explorer/").await.expect(200);
    court
        .trust(&[court.rule(json!({ "claims": { "email": "else@acme.test" } }))])
        .await;
    ended("a changed rule ends it").await;
    court.trust(&[court.rule(json!({}))]).await;
    eventually("the rule is back", Duration::from_secs(5), async || {
        (person.get("/explorer/").await.status == 200).then_some(())
    })
    .await;
    court.trust(&[]).await;
    ended("a removed rule ends it").await;
    let page = person.get("/explorer/sign-in").await.expect(200).text();
    assert!(!page.contains("sign-in/oidc"), "{page}");
}

#[tokio::test]
async fn groups_are_rules_behind_one_button() {
    let court = Court::new().await;
    let group = |name: &str, repositories: &str| {
        court.rule(json!({
            "claims": { "groups": name },
            "grants": [{ "repositories": [repositories], "actions": ["pull"] }],
        }))
    };
    // What jobs are trusted for is offered to nobody.
    let mut of_jobs = court.rule(json!({ "audience": "jobs" }));
    of_jobs.as_object_mut().expect("an object").remove("signIn");
    court
        .trust(&[of_jobs, group("readers", "docs/**"), group("owners", "**")])
        .await;
    let token = court.house.token("acme").await;
    for name in ["docs/app", "secret/app"] {
        let repository = court.house.repository("acme", &token, name).await;
        harness::Image::new(1, 1000).push(&repository, "v1").await;
    }
    let page = court.house.guest("acme").get("/explorer/sign-in").await.text();
    assert_eq!(page.matches(r#"name="by""#).count(), 1, "{page}");

    for (groups, sees) in [(json!(["readers"]), 1), (json!(["owners", "x"]), 2)] {
        let claims = json!({ "groups": groups });
        court.issuer.desk().expects(harness::Person::Known(claims));
        let (mut person, begun) = court.sign_in().await;
        person.keep(&begun.expect(303));
        let list = person.get("/explorer/").await.expect(200).text();
        assert_eq!(list.matches(r#"href="/explorer/r/"#).count(), sees, "{list}");
    }
}

#[tokio::test]
async fn coming_back_leads_to_pages_of_the_explorer_and_nowhere_else() {
    let court = Court::new().await;
    let long = format!("/explorer/?q={}", "a".repeat(3000));
    for to in [
        "https://evil.test/",
        "//evil.test/",
        "/v2/",
        "/explorer/\\evil",
        &long,
    ] {
        let mut visitor = court.house.guest("acme");
        let to: String = url::form_urlencoded::byte_serialize(to.as_bytes()).collect();
        let location = leave(&mut visitor, &format!("/explorer/sign-in?to={to}")).await;
        let back = at_issuer(&location).await;

        let begun = visitor.get(&format!("{back}&to={to}")).await.expect(303);

        assert_eq!(begun.header("location"), "/explorer/", "{to}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_browser_goes_there_and_back_with_and_without_script() {
    let court = Court::new().await;

    let outcome = Browser::new()
        .variable("BASE_URL", &format!("http://{}", court.house.host("acme")))
        .variable("BUTTON", "Sign in with Acme")
        .variable("PERSON", &format!("oidc:{}:jo", court.issuer_host()))
        .run("oidc")
        .await;

    assert!(!outcome.steps.is_empty(), "{outcome:?}");
}
