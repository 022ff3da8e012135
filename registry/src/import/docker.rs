//! The log-ins of Docker's configuration file, as `docker login` and its likes leave them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::upstream::Login;

/// What the file has for a registry.
pub enum Found {
    /// A log-in.
    Login(Login),
    /// It is left to a program of this name.
    Helper(String),
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
    if let Some(helper) = file.cred_helpers.get(host) {
        return Ok(Found::Helper(helper.clone()));
    }
    Ok(match (entry, file.creds_store) {
        (Some(_), Some(helper)) => Found::Helper(helper),
        _ => Found::Nothing,
    })
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
            Found::Helper(name) => format!("helper {name}"),
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
        assert_eq!(of(file, "r"), "helper desktop");
        assert_eq!(of(file, "e"), "helper ecr-login");
        assert_eq!(of(file, "other"), "");
        assert!(login(b"nonsense", "r").is_err());
        let damaged = r#"{"auths": {"r": {"auth": "%%%"}}}"#;
        assert_eq!(of(damaged, "r"), "");
    }
}
