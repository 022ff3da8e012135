//! Signing in by an issuer: a real one on the wire, which knows clients, codes and PKCE.
//!
//! [`Court`] is a house whose tenant `acme` offers an issuer; a visitor goes by the steps of a browser: [`leave`], the
//! issuer's page ([`at_issuer`]), and back to the path that it sends them to.

mod answers;
mod journey;
mod tokens;

use harness::http::{Answer, client, send};
use harness::{Berth, Issuer, Person};
use serde_json::{Value, json};
use url::Url;

use super::{House, Visitor, hidden};

/// The client's id at the issuer.
const CLIENT: &str = "berth-acme";
const CALLBACK: &str = "/explorer/sign-in/callback";

struct Court {
    house: House,
    issuer: Issuer,
}

impl Court {
    async fn new() -> Court {
        let house = House::of(Berth::builder().flag("--egress-allow", "127.0.0.1")).await;
        let issuer = Issuer::start().await;
        let redirect = format!("http://{}{CALLBACK}", house.host("acme"));
        issuer.desk().register(CLIENT, &redirect);
        let court = Court { house, issuer };
        court.trust(&[court.rule(json!({}))]).await;
        court
    }

    /// A rule that offers the issuer to whoever may pull everything, with changes.
    fn rule(&self, changes: Value) -> Value {
        let mut rule = json!({
            "kind": "Issuer", "issuer": self.issuer.url(), "audience": CLIENT,
            "signIn": { "title": "Sign in with Acme" },
            "grants": [{ "repositories": ["**"], "actions": ["pull"] }],
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            rule[name] = value.clone();
        }
        rule
    }

    async fn trust(&self, rules: &[Value]) {
        let spec = json!({ "trust": rules });
        self.house.admin.put_tenant("acme", spec).await;
    }

    /// The issuer as people and messages call it.
    fn issuer_host(&self) -> &str {
        self.issuer.url().split("://").nth(1).expect("a host")
    }

    /// All the way as the person that the issuer expects: the visitor, and the answer to coming back.
    async fn sign_in(&self) -> (Visitor, Answer) {
        let mut visitor = self.house.guest("acme");
        let location = leave(&mut visitor, "/explorer/sign-in").await;
        let back = at_issuer(&location).await;
        let answer = visitor.get(&back).await;
        (visitor, answer)
    }

    /// The same, with the ID token that these claims make.
    async fn sign_in_with(&self, claims: Value) -> Answer {
        self.issuer.desk().expects(Person::Known(claims));
        self.sign_in().await.1
    }
}

/// Sends the form of the first button on the page to sign in by, and keeps what comes of it.
async fn press(visitor: &mut Visitor, page: &str) -> Answer {
    let shown = visitor.get(page).await.expect(200);
    visitor.keep(&shown);
    let page = shown.text();
    let (_, rest) = page
        .split_once(r#"action="/explorer/sign-in/oidc"#)
        .expect("a button");
    let (query, rest) = rest.split_once('"').expect("an action");
    let (_, rest) = rest.split_once(r#"name="by" value=""#).expect("an offer");
    let by = rest.split('"').next().expect("an id");
    let fields = [("form", hidden(&page)), ("by", by.to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = visitor
        .post(&format!("/explorer/sign-in/oidc{query}"), &fields)
        .await;
    visitor.keep(&answer);
    answer
}

/// Leaves for the issuer.
async fn leave(visitor: &mut Visitor, page: &str) -> Url {
    let answer = press(visitor, page).await.expect(200);
    let refresh = answer.header("refresh");
    let location = refresh.strip_prefix("0; url=").expect("a refresh");
    Url::parse(location).expect("a URL")
}

/// What the issuer answers there: the path on the tenant's host that it sends the browser back to.
async fn at_issuer(location: &Url) -> String {
    let answer = send(client().get(location.as_str())).await.expect(302);
    let back = Url::parse(answer.header("location")).expect("a URL");
    format!("{}?{}", back.path(), back.query().expect("a query"))
}

/// Why nobody was signed in, as the page says it; what must hold whenever nobody was.
fn alert(answer: &Answer) -> String {
    let cookies = answer.headers.get_all("set-cookie").iter();
    for cookie in cookies.filter_map(|line| line.to_str().ok()) {
        assert!(!cookie.starts_with("__Host-berth-session="), "{cookie}");
    }
    let page = answer.text();
    let (_, rest) = page.split_once(r#"role="alert">"#).expect("an alert");
    rest.split('<').next().expect("words").to_owned()
}

fn query_of(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs().filter(|(key, _)| key == name);
    pairs
        .next()
        .map(|(_, value)| value.into_owned())
        .expect("a parameter")
}
