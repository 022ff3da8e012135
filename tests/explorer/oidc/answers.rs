//! What comes back from an issuer, or from somebody who would like to be one.

use harness::Person;
use reqwest::Method;

use super::{CALLBACK, Court, alert, at_issuer, leave, press};

#[tokio::test]
async fn an_answer_counts_only_in_the_browser_that_began() {
    let court = Court::new().await;
    let mut person = court.house.guest("acme");
    let location = leave(&mut person, "/explorer/sign-in").await;
    let back = at_issuer(&location).await;

    // 1. Another browser, without a cookie, or with one of a sign-in of its own.
    let nobody = court.house.guest("acme");
    let refused = nobody.get(&back).await.expect(400);
    assert!(
        alert(&refused).contains("not begun in this browser"),
        "{refused:?}"
    );
    let mut other = court.house.guest("acme");
    leave(&mut other, "/explorer/sign-in").await;
    alert(&other.get(&back).await.expect(400));

    // 2. The cookie at another tenant, whose rule is the same.
    let rule = court.rule(serde_json::json!({}));
    let spec = serde_json::json!({ "trust": [rule] });
    court.house.admin.put_tenant("other", spec).await;
    let mut elsewhere = court.house.guest("other");
    elsewhere.headers = person.headers.clone();
    alert(&elsewhere.get(&back).await.expect(400));

    // 3. A changed cookie.
    let mut altered = court.house.guest("acme");
    let cookie = person.headers["cookie"].to_str().expect("text");
    let cookie = cookie.replace("__Host-berth-sign-in=v1.", "__Host-berth-sign-in=v1.0");
    altered.headers.insert("cookie", cookie.parse().expect("a value"));
    alert(&altered.get(&back).await.expect(400));

    // 4. Another state, no state, an error that comes from nowhere: none of them ends what goes on.
    let state = super::query_of(&location, "state");
    for wrong in [
        back.replace(&state, "x"),
        back.replace(&format!("state={state}"), "state="),
        format!("{back}&state={state}"),
        format!("{CALLBACK}?error=access_denied&error_description=Call+me&state=x"),
        CALLBACK.to_owned(),
    ] {
        let refused = person.get(&wrong).await.expect(400);
        assert!(!alert(&refused).contains("Call me"), "{wrong}");
        person.keep(&refused);
    }
    person.ask(Method::HEAD, &back, None).await.expect(405);
    person.post(&back, &[]).await.expect(405);

    // 5. The right one.
    let begun = person.get(&back).await.expect(303);

    // 6. Once more with the same cookie: the code has been used.
    let refused = person.get(&back).await.expect(403);
    assert!(alert(&refused).contains("used before"), "{refused:?}");
    person.keep(&begun);
    alert(&person.get(&back).await.expect(400));
}

#[tokio::test]
async fn a_code_of_another_sign_in_is_good_for_nothing() {
    let court = Court::new().await;
    let (mut attacker, mut victim) = (court.house.guest("acme"), court.house.guest("acme"));
    let theirs = at_issuer(&leave(&mut attacker, "/explorer/sign-in").await).await;
    let own = at_issuer(&leave(&mut victim, "/explorer/sign-in").await).await;
    let code = |path: &str| {
        let url = url::Url::parse(&format!("http://x{path}")).expect("a URL");
        super::query_of(&url, "code")
    };

    let refused = victim
        .get(&own.replace(&code(&own), &code(&theirs)))
        .await
        .expect(403);

    assert!(alert(&refused).contains("verifier"), "{refused:?}");
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_none() {
    let court = Court::new().await;
    for change in ["&iss=http%3A%2F%2Fevil.test", ""] {
        let mut person = court.house.guest("acme");
        let back = at_issuer(&leave(&mut person, "/explorer/sign-in").await).await;
        let (before, rest) = back.split_once("&iss=").expect("an issuer");
        let after = rest.split_once('&').map_or("", |(_, after)| after);
        let path = format!("{before}{change}&{after}");

        let refused = person.get(&path).await.expect(400);

        assert!(alert(&refused).contains("does not belong"), "{path}");
    }
}

#[tokio::test]
async fn what_the_issuer_says_against_it_is_told_as_text() {
    let court = Court::new().await;
    let desk = court.issuer.desk();
    desk.expects(Person::Declined("access_denied", "<script>Not today</script>"));

    let (_, refused) = court.sign_in().await;

    let page = refused.expect(403).text();
    assert!(
        page.contains("&lt;script&gt;Not today&lt;/script&gt; (access_denied)"),
        "{page}"
    );
    assert!(
        page.contains(court.issuer_host()) && !page.contains("<script>Not"),
        "{page}"
    );
}

#[tokio::test]
async fn an_issuer_that_is_down_is_told_in_words() {
    let court = Court::new().await;
    let mut on_the_way = court.house.guest("acme");
    let back = at_issuer(&leave(&mut on_the_way, "/explorer/sign-in").await).await;
    let mut late = court.house.guest("acme");
    let host = court.issuer_host().to_owned();
    let rule = court.rule(serde_json::json!({}));
    let Court { house, issuer } = court;
    drop(issuer);

    // 1. When they come back.
    let refused = on_the_way.get(&back).await.expect(503);
    let why = alert(&refused);
    assert!(why.contains(&host) && why.contains("Try again"), "{why}");

    // 2. Before they leave, at an issuer that has never been up: again and again, and without asking it each time.
    let mut elsewhere = rule;
    elsewhere["issuer"] = serde_json::json!("http://127.0.0.1:1");
    let spec = serde_json::json!({ "trust": [elsewhere] });
    house.admin.put_tenant("acme", spec).await;
    for _ in 0..3 {
        let refused = press(&mut late, "/explorer/sign-in").await.expect(503);
        assert!(alert(&refused).contains("127.0.0.1:1"), "{refused:?}");
    }

    // 3. A token is as good as ever.
    let token = house.token("acme").await;
    house.person("acme", &token).await;
}

#[tokio::test]
async fn an_issuer_inside_is_not_reached_unless_the_installation_allows_it() {
    let court = Court::new().await;
    let rule = court.rule(serde_json::json!({ "issuer": "https://169.254.169.254" }));
    court.trust(&[rule]).await;

    let mut visitor = court.house.guest("acme");
    let refused = press(&mut visitor, "/explorer/sign-in").await.expect(503);

    assert!(alert(&refused).contains("169.254.169.254"));
}

#[tokio::test]
async fn leaving_takes_a_form_of_the_page() {
    let court = Court::new().await;
    let mut visitor = court.house.guest("acme");
    let page = visitor.get("/explorer/sign-in").await.expect(200);
    visitor.keep(&page);
    let form = super::hidden(&page.text());
    let path = "/explorer/sign-in/oidc";

    visitor.ask(Method::GET, path, None).await.expect(405);
    let refused = visitor.post(path, &[("by", "x")]).await.expect(403);
    alert(&refused);
    let unknown = visitor
        .post(path, &[("form", &form), ("by", "x")])
        .await
        .expect(404);
    assert!(alert(&unknown).contains("not offered"));
    visitor.get("/explorer/api/sign-in/oidc").await.expect(404);
}

#[tokio::test]
async fn those_who_fail_again_and_again_must_wait() {
    let court = Court::new().await;
    let desk = court.issuer.desk();
    desk.expects(Person::Declined("access_denied", "no"));
    for _ in 0..10 {
        court.sign_in().await.1.expect(403);
    }
    let waiting = court.sign_in().await.1.expect(429);
    assert!(!waiting.header("retry-after").is_empty());
}
