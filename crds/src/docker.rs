//! A docker configuration (`.dockerconfigjson`), as far as it holds a login for one registry.
//!
//! Entries are found by the registry's host, in any form in which `docker login` and `kubectl create secret` write it.
//! What must hold: no message has a part of the configuration in it, since any part may be a password.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// The key of a Secret that holds one.
pub(crate) const KEY: &str = ".dockerconfigjson";

/// Names of Docker Hub. Its login is written as `https://index.docker.io/v1/`.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Some programs leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
struct Configuration {
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

/// User name and password for the registry at `url`.
pub(crate) fn login(configuration: &str, url: &str) -> Result<(String, String), String> {
    let Configuration { auths } = serde_json::from_str(configuration)
        .map_err(|_| "is no docker configuration: {\"auths\": {...}}".to_owned())?;
    let wanted = host(url);
    let is_wanted = |name: &str| is_whole(name) && host(name) == wanted;
    let mut found = auths.into_iter().filter(|(name, _)| is_wanted(name)).peekable();
    if found.peek().is_none() {
        return Err(format!("has no login for {wanted}"));
    }
    // A name may stand there more than once, and docker leaves empty entries behind.
    found.find_map(|(_, entry)| entry.login()).ok_or_else(|| {
        format!("has no user name and password for {wanted}: neither auth nor username and password")
    })
}

impl Entry {
    /// `auth` goes before the others, as docker reads them.
    fn login(self) -> Option<(String, String)> {
        let (user, password) = if self.auth.is_empty() {
            (self.username, self.password)
        } else {
            let decoded = String::from_utf8(BASE64.decode(self.auth.trim()).ok()?).ok()?;
            let (user, password) = decoded.split_once(':')?;
            // docker pads some with zero bytes.
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        (!user.is_empty() && !password.is_empty()).then_some((user, password))
    }
}

/// Whether an entry is for a whole registry, and not for what lies below a path of it.
fn is_whole(name: &str) -> bool {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    let path = name.split_once('/').map_or("", |(_, path)| path);
    matches!(path.trim_matches('/'), "" | "v1" | "v2")
}

/// The host, with its port if that is not the scheme's, of a URL or of what stands for one.
fn host(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let (rest, port) = match text.split_once("://") {
        Some(("http", rest)) => (rest, ":80"),
        Some((_, rest)) => (rest, ":443"),
        None => (text.as_str(), ":443"),
    };
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.strip_suffix(port).unwrap_or(host);
    if HUB.contains(&host) { HUB[0] } else { host }.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(auths: Value, url: &str) -> Result<(String, String), String> {
        login(&json!({ "auths": auths }).to_string(), url)
    }

    fn is_ann(auths: Value, url: &str) -> bool {
        of(auths, url) == Ok(("ann".to_owned(), "s:ecret".to_owned()))
    }

    #[test]
    fn a_login_is_found_by_the_host_however_it_is_written() {
        let entry = json!({ "username": "ann", "password": "s:ecret" });
        let pairs = [
            ("https://index.docker.io/v1/", "https://registry-1.docker.io"),
            ("docker.io", "https://registry-1.docker.io"),
            ("registry-1.docker.io", "https://docker.io"),
            ("ghcr.io", "https://ghcr.io"),
            ("https://GHCR.io/v2/", "https://ghcr.io:443"),
            ("ghcr.io:443", "https://ghcr.io"),
            ("localhost:5000", "http://localhost:5000"),
            ("http://a.example", "http://a.example:80"),
        ];
        for (name, url) in pairs {
            assert!(
                is_ann(json!({ name: entry, "other.example": {} }), url),
                "{name} for {url}"
            );
        }
        for (name, url) in [
            (
                "https://index.docker.io/v1/access-token",
                "https://registry-1.docker.io",
            ),
            ("a.example/team", "https://a.example"),
            ("docker.io.example", "https://registry-1.docker.io"),
            ("a.example:5000", "https://a.example"),
            ("a.example", "https://a.example:5000"),
            ("example", "https://a.example"),
        ] {
            let told = of(json!({ name: entry }), url).expect_err(name);
            assert!(told.starts_with("has no login for"), "{told}");
        }
    }

    #[test]
    fn of_several_names_of_one_registry_the_one_with_a_login_counts() {
        let entry = json!({ "username": "ann", "password": "s:ecret" });
        let auths = json!({ "docker.io": {}, "https://index.docker.io/v1/": entry });
        assert!(is_ann(auths, "https://registry-1.docker.io"));
    }

    #[test]
    fn auth_goes_before_user_name_and_password_with_or_without_padding() {
        let url = "https://a.example";
        for auth in [
            "YW5uOnM6ZWNyZXQ=",
            "YW5uOnM6ZWNyZXQ",
            "YW5uOnM6ZWNyZXQ=\n",
            "YW5uOnM6ZWNyZXQAAA==",
        ] {
            let entry = json!({ "auth": auth, "username": "bob", "password": "x" });
            assert!(is_ann(json!({ "a.example": entry }), url), "{auth:?}");
        }
    }

    #[test]
    fn what_is_no_login_is_refused_and_not_repeated() {
        let url = "https://a.example";
        let entries = [
            json!({}),
            json!({ "auth": "c2VjcmV0" }),
            json!({ "auth": "secret!" }),
            json!({ "auth": "OnNlY3JldA==" }),
            json!({ "username": "secret" }),
            json!({ "username": "", "password": "secret" }),
            json!({ "identitytoken": "secret" }),
        ];
        for entry in entries {
            let told = of(json!({ "a.example": entry }), url).expect_err("no login");
            assert!(told.contains("a.example") && !told.contains("secret"), "{told}");
        }
        for text in ["secret", "{\"auths\": \"secret\"}", "[\"secret\"]", "{}", ""] {
            let told = login(text, url).expect_err(text);
            assert!(
                told.contains("no docker configuration") && !told.contains("secret"),
                "{told}"
            );
        }
    }
}
