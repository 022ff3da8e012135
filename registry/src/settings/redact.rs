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
    if let Some(shown) = with_a_question_mark_in_its_password(text) {
        return shown;
    }
    let (front, query) = match text.split_once('?') {
        Some((front, query)) => (front, Some(query)),
        None => (text, None),
    };
    let front = match front.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", without_password(rest)),
        None => front.to_owned(),
    };
    match query {
        Some(query) => format!("{front}?{}", pairs(query)),
        None => front,
    }
}

/// A URL whose password may hold an unescaped `?`: behind a `:` an `@` comes after the first `?`. That may be a value of
/// the query instead; then more is hidden than need be.
fn with_a_question_mark_in_its_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (front, query) = rest.split_once('?')?;
    let (name, _) = front.split_once(':')?;
    let (before, host) = query.rsplit_once('@')?;
    let hidden = format!("{scheme}://{name}:{HIDDEN}");
    // Unless the `@` belongs to a secret that stands in the query.
    let last = before.rsplit('&').next().unwrap_or_default();
    if last.split_once('=').is_some_and(|(key, _)| is_secret(key)) {
        return Some(hidden);
    }
    Some(match host.split_once('?') {
        Some((host, query)) => format!("{hidden}@{host}?{}", pairs(query)),
        None => format!("{hidden}@{host}"),
    })
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

fn is_secret(key: &str) -> bool {
    SECRET_KEYS.contains(&key.to_ascii_lowercase().as_str())
}

fn pairs(query: &str) -> String {
    query.split('&').map(pair).collect::<Vec<_>>().join("&")
}

fn pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if is_secret(key) => format!("{key}={HIDDEN}"),
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
            (
                "postgres://berth:pa?ss@db/berth?sslmode=require",
                "postgres://berth:REDACTED@db/berth?sslmode=require",
            ),
            (
                "postgres://berth:p@a?s&s@db/berth?password=b",
                "postgres://berth:REDACTED@db/berth?password=REDACTED",
            ),
            (
                "postgres://db:5432/berth?user=a&password=b@c",
                "postgres://db:REDACTED",
            ),
            (
                "postgres://db/berth?user=a&password=b@c",
                "postgres://db/berth?user=a&password=REDACTED",
            ),
            ("sqlite:/data/berth.db", "sqlite:/data/berth.db"),
            ("s3://bucket/prefix?region=eu", "s3://bucket/prefix?region=eu"),
        ] {
            assert_eq!(url(given), shown);
        }
    }
}
