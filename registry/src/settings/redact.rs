//! Taking secrets out of values that are shown.

/// What stands in for a secret.
const HIDDEN: &str = "REDACTED";

/// Query keys of store URLs whose values are secrets.
const SECRET_KEYS: [&str; 6] = [
    "password",
    "secret",
    "token",
    "access-key",
    "secret-key",
    "sslpassword",
];

/// The URL without passwords: neither the one before the host nor any in its query.
///
/// Works on text, because a URL that does not parse may hold a password all the same.
pub fn url(text: &str) -> String {
    let (front, query) = match text.split_once('?') {
        Some((front, query)) => (front, Some(query)),
        None => (text, None),
    };
    let mut shown = match front.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", without_password(rest)),
        None => front.to_owned(),
    };
    if let Some(query) = query {
        shown.push('?');
        shown.push_str(&query.split('&').map(pair).collect::<Vec<_>>().join("&"));
    }
    shown
}

/// `user:password@host/…` with the password hidden. The last `@` ends the user part: an unescaped one
/// may stand in a password, never in a host.
fn without_password(rest: &str) -> String {
    let Some((user, host)) = rest.rsplit_once('@') else {
        return rest.to_owned();
    };
    match user.split_once(':') {
        Some((name, _)) => format!("{name}:{HIDDEN}@{host}"),
        None => rest.to_owned(),
    }
}

fn pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if SECRET_KEYS.contains(&key.to_ascii_lowercase().as_str()) => {
            format!("{key}={HIDDEN}")
        }
        _ => pair.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_hidden_wherever_they_stand() {
        for (given, shown) in [
            (
                "postgres://berth:s3cr3t@db:5432/berth",
                "postgres://berth:REDACTED@db:5432/berth",
            ),
            (
                "postgres://berth:p@ss:w@db/berth?sslmode=require",
                "postgres://berth:REDACTED@db/berth?sslmode=require",
            ),
            (
                "postgres://db/berth?user=a&password=b",
                "postgres://db/berth?user=a&password=REDACTED",
            ),
            ("postgres://berth@db/berth", "postgres://berth@db/berth"),
            ("sqlite:/data/berth.db", "sqlite:/data/berth.db"),
            ("s3://bucket/prefix?region=eu", "s3://bucket/prefix?region=eu"),
        ] {
            assert_eq!(url(given), shown);
        }
    }
}
