//! Signing in and out.

use harness::eventually;
use harness::http::send;
use reqwest::Method;
use std::time::Duration;

use super::{House, hidden};

#[tokio::test]
async fn a_browser_is_led_from_the_host_to_the_list_and_from_there_to_the_form() {
    let house = House::new().await;
    let guest = house.guest("acme");

    assert_eq!(guest.get("/").await.expect(303).header("location"), "/explorer/");
    assert_eq!(
        guest.get("/explorer/").await.expect(303).header("location"),
        "/explorer/sign-in"
    );
    let deep = guest.get("/explorer/r/app?sort=name").await.expect(303);
    assert_eq!(
        deep.header("location"),
        "/explorer/sign-in?to=%2Fexplorer%2Fr%2Fapp%3Fsort%3Dname"
    );
    guest.get("/explorer/api/").await.expect(401);
}

#[tokio::test]
async fn a_token_begins_a_session_that_lasts_until_signing_out() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let mut person = house.guest("acme");

    let begun = person.sign_in(&token).await.expect(303);
    assert_eq!(begun.header("location"), "/explorer/");
    let cookies: Vec<_> = begun.headers.get_all("set-cookie").iter().collect();
    let session = cookies
        .iter()
        .filter_map(|line| line.to_str().ok())
        .find(|line| line.starts_with("__Host-berth-session="))
        .expect("a session");
    for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=3600"] {
        assert!(session.contains(part), "{session}");
    }
    assert!(
        !session.contains(&token) && !session.contains("Domain"),
        "{session}"
    );
    person.keep(&begun);
    let page = person.get("/explorer/").await.expect(200).text();
    assert!(page.contains("token:test"), "{page}");

    let ended = person
        .post("/explorer/sign-out", &[("form", &hidden(&page))])
        .await
        .expect(303);
    person.keep(&ended);
    person.get("/explorer/").await.expect(303);
}

#[tokio::test]
async fn a_session_is_nothing_to_the_registry_itself() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let person = house.person("acme", &token).await;

    for path in ["/v2/", "/v2/_catalog", "/v2/app/tags/list"] {
        let answer = person.get(path).await;
        assert!(answer.status == 401, "{path}: {}", answer.status);
    }
    // Nor is it a password.
    let cookie = person.headers["cookie"].to_str().expect("text").to_owned();
    let session = cookie.split_once('=').expect("a cookie").1.to_owned();
    house.program("acme", &session).get("/v2/").await.expect(401);
}

#[tokio::test]
async fn wrong_tokens_are_told_from_the_form_and_those_of_others_in_the_same_words() {
    let house = House::new().await;
    let foreign = house.token("other").await;
    let mut told = Vec::new();

    for wrong in ["nonsense", &foreign, &format!("{foreign}x")] {
        let mut guest = house.guest("acme");
        let page = guest.sign_in(wrong).await.expect(401).text();
        assert!(
            page.contains(r#"role="alert""#) && !page.contains(wrong),
            "{page}"
        );
        let (_, rest) = page.split_once(r#"role="alert">"#).expect("an alert");
        told.push(rest.split('<').next().expect("words").to_owned());
    }

    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
}

#[tokio::test]
async fn a_form_that_no_page_of_the_host_has_sent_is_refused() {
    let house = House::new().await;
    let token = house.token("acme").await;

    // 1. To sign in: without the page's secret, or with another's.
    let guest = house.guest("acme");
    guest
        .post("/explorer/sign-in", &[("token", &token)])
        .await
        .expect(403);
    let others = guest.get("/explorer/sign-in").await.expect(200).text();
    let fields = [("form", hidden(&others)), ("token", token.clone())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    guest.post("/explorer/sign-in", &fields).await.expect(403);

    // 2. To sign out.
    let person = house.person("acme", &token).await;
    person.post("/explorer/sign-out", &[]).await.expect(403);
    person
        .post("/explorer/sign-out", &[("form", "x")])
        .await
        .expect(403);
    let page = person.get("/explorer/").await.expect(200).text();
    let mut elsewhere = house.guest("acme");
    elsewhere.headers = person.headers.clone();
    elsewhere
        .headers
        .insert("sec-fetch-site", "cross-site".parse().expect("a value"));
    elsewhere
        .post("/explorer/sign-out", &[("form", &hidden(&page))])
        .await
        .expect(403);
    person.get("/explorer/").await.expect(200);
    // A browser brings no session along from elsewhere: then nothing is ended.
    let strange = house
        .guest("acme")
        .post("/explorer/sign-out", &[])
        .await
        .expect(303);
    assert_eq!(strange.headers.get("set-cookie"), None);
    person
        .ask(Method::GET, "/explorer/sign-out", None)
        .await
        .expect(405);
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let person = house.person("acme", &token).await;
    person.get("/explorer/").await.expect(200);

    let path = format!("tenants/acme/tokens/{}", harness::Admin::id_of(&token));
    let gone = house.admin.ask(Method::DELETE, &path, None).await;
    assert!(gone.status.is_success(), "{gone:?}");

    eventually("the session has ended", Duration::from_secs(5), async || {
        (person.get("/explorer/").await.status == 303).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_of_one_tenant_or_an_altered_one_is_nobody() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let person = house.person("acme", &token).await;

    let mut elsewhere = house.guest("other");
    elsewhere.headers = person.headers.clone();
    elsewhere.get("/explorer/").await.expect(303);

    let mut altered = house.guest("acme");
    let cookie = person.headers["cookie"].to_str().expect("text").to_owned();
    // Not the last one, some of whose bits say nothing.
    let (begin, end) = cookie.split_at(cookie.len() - 20);
    let other = if end.starts_with('A') { 'B' } else { 'A' };
    let cookie = format!("{begin}{other}{}", &end[1..]);
    altered.headers.insert("cookie", cookie.parse().expect("a value"));
    altered.get("/explorer/").await.expect(303);
}

#[tokio::test]
async fn a_confined_token_begins_no_session() {
    let house = House::new().await;
    let token = house.token("acme").await;
    let asked = house
        .program("acme", &token)
        .get("/v2/token?service=x&scope=repository:app:pull&access_type=confined")
        .await
        .expect(200)
        .json();
    let access = asked["confined_token"].as_str().expect("a token").to_owned();

    let mut guest = house.guest("acme");
    let refused = guest.sign_in(&access).await.expect(403);

    assert!(refused.text().contains("role=\"alert\""));
    let cookies = refused.headers.get_all("set-cookie").iter();
    let cookies: Vec<_> = cookies.filter_map(|line| line.to_str().ok()).collect();
    assert!(
        !cookies.iter().any(|line| line.contains("session")),
        "{cookies:?}"
    );
}

#[tokio::test]
async fn an_open_registry_shows_everything_without_signing_in() {
    let berth = harness::Berth::start(harness::Backend::Embedded).await;
    let image = harness::Image::new(1, 1000);
    image
        .push(&harness::http::Repository::new(&berth.url(""), "team/app"), "v1")
        .await;

    let page = send(harness::http::client().get(berth.url("/explorer/")))
        .await
        .expect(200)
        .text();

    assert!(
        page.contains("/explorer/r/team/app") && page.contains(">open<"),
        "{page}"
    );
}
