//! The service account that a token says it is of. Nothing here is verified: that is the registry's work. What is read
//! decides only where the token may go, and what the login is called.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Longest token in bytes; the registry takes no longer one.
const TOKEN_LIMIT: usize = 16 * 1024;
/// The user name where the token does not say whose it is.
const NOBODY: &str = "x-token";

/// A token and what it says. It has no `Debug`: it holds the token.
pub struct Account<'r> {
    /// As the kubelet gave it.
    pub token: &'r str,
    /// For whom it was made.
    pub audiences: Vec<String>,
    /// `sa/<namespace>/<name>`. The registry decides nothing by it, but counts failed logins by it: one account that
    /// is not trusted does not lock out the others of its node.
    pub user: String,
}

/// A token that cannot be one of a service account.
#[derive(Debug, thiserror::Error)]
#[error(
    "the service-account token is no JWT of at most {TOKEN_LIMIT} bytes: the kubelet gets it from the API server, look at \
     its log"
)]
pub struct NoToken;

impl<'r> Account<'r> {
    /// Reads the claims.
    pub fn of(token: &'r str) -> Result<Self, NoToken> {
        let claims = claims(token).ok_or(NoToken)?;
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(several) => several
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        let account = &claims["kubernetes.io"];
        let parts = (
            plain(&account["namespace"]),
            plain(&account["serviceaccount"]["name"]),
        );
        let user = match parts {
            (Some(namespace), Some(name)) => format!("sa/{namespace}/{name}"),
            _ => NOBODY.to_owned(),
        };
        Ok(Self {
            token,
            audiences,
            user,
        })
    }

    /// Whether the token is for this host (lower case, without port): its audience, or a name below it.
    pub fn is_for(&self, host: &str) -> bool {
        let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let mut audiences = self.audiences.iter().filter(|audience| !audience.is_empty());
        audiences.any(|audience| host == audience || below(audience))
    }
}

fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let visible = token.len() <= TOKEN_LIMIT && token.bytes().all(|byte| byte.is_ascii_graphic());
    let claims = URL_SAFE_NO_PAD.decode(claims).ok().filter(|_| visible)?;
    serde_json::from_slice(&claims).ok().filter(Value::is_object)
}

/// A name as Kubernetes has them.
fn plain(value: &Value) -> Option<&str> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let name = value.as_str()?;
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(allowed)).then_some(name)
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    /// A token with these claims and no signature to speak of.
    pub fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn account(audience: Value) -> Value {
        json!({
            "aud": audience,
            "kubernetes.io": { "namespace": "build", "serviceaccount": { "name": "ci.runner" } },
        })
    }

    #[test]
    fn a_token_is_for_its_audience_and_the_names_below_it() {
        let token = token(&account(json!(["registry.example.com"])));
        let account = Account::of(&token).unwrap();
        assert_eq!(account.user, "sa/build/ci.runner");
        for host in ["registry.example.com", "acme.registry.example.com"] {
            assert!(account.is_for(host), "{host}");
        }
        for host in [
            "example.com",
            "evilregistry.example.com",
            "registry.example.com.evil.test",
            "com",
            "",
        ] {
            assert!(!account.is_for(host), "{host}");
        }
    }

    #[test]
    fn the_api_server_s_own_audience_and_none_are_for_no_host() {
        for audience in [
            json!(["https://kubernetes.default.svc"]),
            json!([""]),
            json!([]),
            json!(7),
            Value::Null,
        ] {
            let token = token(&account(audience));
            let account = Account::of(&token).unwrap();
            assert!(!account.is_for("kubernetes.default.svc") && !account.is_for("registry.example.com"));
        }
    }

    #[test]
    fn a_name_that_kubernetes_would_not_give_is_not_the_user() {
        for name in [json!("a:b"), json!("a\nb"), json!(""), json!(7), Value::Null] {
            let mut claims = account(json!("r.test"));
            claims["kubernetes.io"]["serviceaccount"]["name"] = name;
            let token = token(&claims);
            assert_eq!(Account::of(&token).unwrap().user, "x-token");
        }
        let other = token(&json!({ "aud": "r.test" }));
        assert_eq!(Account::of(&other).unwrap().user, "x-token");
    }

    #[test]
    fn what_is_no_jwt_is_refused_without_being_quoted() {
        let long = token(&json!({ "pad": "x".repeat(TOKEN_LIMIT) }));
        let list = token(&json!(["secret"]));
        for text in [
            "",
            "secret",
            "a.b",
            "a.secret.c",
            "a.b.c.d",
            &long,
            &list,
            "e30.e30.\n",
        ] {
            let told = Account::of(text).err().expect("a refusal").to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
