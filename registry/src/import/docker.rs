//! The log-ins of Docker's configuration file, as `docker login` and its likes leave them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::upstream::Login;

/// Docker Hub, and what Docker calls it.
const HUB: &str = "index.docker.io";
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What the file has for a registry.
pub enum Found {
    /// A log-in.
    Login(Login),
    /// It is left to a program.
    Helper {
        /// The program's name.
        name: String,
        /// What the registry is called there.
        registry: String,
    },
    /// Nothing.
    Nothing,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Looks a registry up by its host, and port if it has one.
pub fn login(file: &[u8], host: &str) -> Result<Found, serde_json::Error> {
    let file: File = serde_json::from_slice(file)?;
    let entry = file.auths.iter().find(|(key, _)| bare(key) == host);
    if let Some(login) = entry.and_then(|(_, entry)| entry.login()) {
        return Ok(Found::Login(login));
    }
    // Programs look for just the name that Docker has stored it by.
    let registry = match (entry, host) {
        (Some((key, _)), _) => key.clone(),
        (None, HUB) => HUB_KEY.to_owned(),
        (None, host) => host.to_owned(),
    };
    let helper = file.cred_helpers.iter().find(|(key, _)| bare(key) == host);
    let name = helper.map(|(_, name)| name.clone());
    let name = name.or(file.creds_store.filter(|_| entry.is_some()));
    Ok(name.map_or(Found::Nothing, |name| Found::Helper { name, registry }))
}

/// Keys are hosts, or URLs of the first or second version of the API.
fn bare(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split('/').next().unwrap_or(key)
}

impl Entry {
    fn login(&self) -> Option<Login> {
        // Where there is one, the password beside it is empty.
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Some(Login::Identity(token.clone()));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            return Some(Login::Password {
                username: username.to_owned(),
                // Some programs pad it.
                password: password.trim_end_matches('\0').to_owned(),
            });
        }
        Some(Login::Password {
            username: self.username.clone()?,
            password: self.password.clone()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, host: &str) -> String {
        match login(file.as_bytes(), host).unwrap() {
            Found::Login(Login::Password { username, password }) => format!("{username}:{password}"),
            Found::Login(Login::Identity(token)) => format!("token {token}"),
            Found::Helper { name, registry } => format!("helper {name} {registry}"),
            Found::Nothing => String::new(),
        }
    }

    #[test]
    fn log_ins_are_found_by_host_in_every_form_of_the_key() {
        // "user:pass:word" in base64.
        for key in [
            "r.example.com:5000",
            "https://r.example.com:5000",
            "http://r.example.com:5000/v2/",
        ] {
            let file = format!(r#"{{"auths": {{"{key}": {{"auth": "dXNlcjpwYXNzOndvcmQ="}}}}}}"#);
            assert_eq!(of(&file, "r.example.com:5000"), "user:pass:word", "{key}");
            assert_eq!(of(&file, "r.example.com"), "");
        }
        let plain = r#"{"auths": {"r": {"username": "u", "password": "p"}}, "credsStore": "desktop"}"#;
        assert_eq!(of(plain, "r"), "u:p");
        // As some registries are signed in to: "00000000-0000-0000-0000-000000000000:" in base64.
        let identity = r#"{"auths": {"r": {
            "auth": "MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==", "identitytoken": "abc"
        }}}"#;
        assert_eq!(of(identity, "r"), "token abc");
    }

    #[test]
    fn what_a_program_keeps_is_told_by_the_programs_name() {
        let file = r#"{"auths": {"r": {}}, "credsStore": "desktop", "credHelpers": {"e": "ecr-login"}}"#;
        assert_eq!(of(file, "r"), "helper desktop r");
        assert_eq!(of(file, "e"), "helper ecr-login e");
        let hub = r#"{"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "pass"}"#;
        assert_eq!(
            of(hub, "index.docker.io"),
            "helper pass https://index.docker.io/v1/"
        );
        let hub = r#"{"credHelpers": {"https://index.docker.io/v1/": "pass"}}"#;
        assert_eq!(
            of(hub, "index.docker.io"),
            "helper pass https://index.docker.io/v1/"
        );
        assert_eq!(of(file, "other"), "");
        assert!(login(b"nonsense", "r").is_err());
        let damaged = r#"{"auths": {"r": {"auth": "%%%"}}}"#;
        assert_eq!(of(damaged, "r"), "");
    }
}
