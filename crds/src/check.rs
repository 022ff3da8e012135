//! Rules that several kinds share, and how their breaches are told.

use std::fmt::Display;

/// Most problems told at once.
const LIMIT: usize = 50;

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{path}: {why}")]
pub struct Invalid {
    /// The field, like `spec.tokens[2].grants[0].repositories[1]`.
    pub path: String,
    /// What is wrong, and what to change.
    pub why: String,
}

/// Collects problems under the path of the field being looked at.
#[derive(Debug)]
pub struct Problems {
    path: String,
    found: Vec<Invalid>,
}

impl Problems {
    /// None yet; paths begin with `root`.
    pub fn new(root: &str) -> Self {
        Self {
            path: root.to_owned(),
            found: Vec::new(),
        }
    }

    /// All that were found.
    pub fn end(self) -> Result<(), Vec<Invalid>> {
        if self.found.is_empty() {
            Ok(())
        } else {
            Err(self.found)
        }
    }

    /// A problem of a field of what is being looked at.
    pub fn add(&mut self, field: impl Display, why: impl Into<String>) {
        if self.found.len() < LIMIT {
            let path = format!("{}.{field}", self.path);
            self.found.push(Invalid {
                path,
                why: why.into(),
            });
        }
    }

    /// Looks into a field.
    pub fn within(&mut self, field: impl Display, look: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push('.');
        self.path.push_str(&field.to_string());
        look(self);
        self.path.truncate(length);
    }

    /// Checks a field by a rule.
    pub fn check(&mut self, field: impl Display, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.add(field, why);
        }
    }

    /// Checks each entry of a list, and how many there are.
    pub fn each<T>(&mut self, field: &str, list: &[T], most: usize, rule: impl Fn(&T) -> Result<(), String>) {
        if list.len() > most {
            self.add(field, format!("has {} entries; the limit is {most}", list.len()));
        }
        for (at, entry) in list.iter().enumerate().take(most) {
            self.check(format_args!("{field}[{at}]"), rule(entry));
        }
    }

    /// Refuses entries that occur twice.
    pub fn unique<'a>(&mut self, field: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = std::collections::BTreeSet::new();
        for (at, name) in names.enumerate() {
            if !seen.insert(name) {
                self.add(format_args!("{field}[{at}]"), format!("{name:?} occurs twice"));
            }
        }
    }

    /// Checks a text's length in bytes.
    pub fn length(&mut self, field: &str, text: &str, most: usize) {
        if text.len() > most {
            self.add(field, format!("has {} bytes; the limit is {most}", text.len()));
        }
    }
}

/// A DNS label (RFC 1123): tenants, tokens, namespaces.
pub fn label(text: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    valid.then_some(()).ok_or_else(|| {
        format!("{text:?} is no DNS label: at most 63 lower-case letters, digits and '-' between them")
    })
}

/// A DNS name: labels separated by dots, at most 253 bytes. Names of most Kubernetes objects.
pub fn dns_name(text: &str) -> Result<(), String> {
    let valid = text.len() <= 253 && text.split('.').all(|part| label(part).is_ok());
    valid.then_some(()).ok_or_else(|| {
        format!("{text:?} is no DNS name: lower-case labels separated by dots, no port, no wildcard")
    })
}

/// A host of a tenant's own: a DNS name of at least two labels that is no IP address.
pub fn host(text: &str) -> Result<(), String> {
    dns_name(text)?;
    if !text.contains('.') {
        return Err(format!(
            "{text:?} is a single label; name a whole host, like registry.example.com"
        ));
    }
    if text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(format!("{text:?} is an address; name a host"));
    }
    Ok(())
}

fn component(text: &str, wildcards: bool) -> bool {
    let character = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'.' | b'_' | b'-')
            || (wildcards && matches!(b, b'*' | b'?'))
    };
    !text.is_empty() && text.bytes().all(character)
}

/// A repository's name (distribution-spec, "Pulling manifests"), at most 255 bytes.
pub fn repository_name(text: &str) -> Result<(), String> {
    let refused = || {
        format!(
            "{text:?} is no repository name: lower-case letters and digits in components separated by '/', with \
             single '.', one or two '_' or any number of '-' inside a component, at most 255 in all"
        )
    };
    if text.len() > 255 || !text.split('/').all(is_name_component) {
        return Err(refused());
    }
    Ok(())
}

fn is_name_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !component(text, false)
        || !bytes.first().copied().is_some_and(alphanumeric)
        || !bytes.last().copied().is_some_and(alphanumeric)
    {
        return false;
    }
    let mut separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators.all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

/// A glob over repository names.
pub fn repository_glob(text: &str) -> Result<(), String> {
    let part = |part: &str| component(part, true) && (part == "**" || !part.contains("**"));
    if text.len() > 255 || !text.split('/').all(part) {
        return Err(format!(
            "{text:?} is no glob over repositories: characters of names, '*' and '?' inside a component, '**' for \
             whole components, like team-a/**; at most 255 in all"
        ));
    }
    Ok(())
}

/// A glob over tags.
pub fn tag_glob(text: &str) -> Result<(), String> {
    let character = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'*' | b'?');
    if text.is_empty() || text.len() > 128 || !text.bytes().all(character) {
        return Err(format!(
            "{text:?} is no glob over tags: 1 to 128 letters, digits, '.', '_', '-', '*' and '?'"
        ));
    }
    Ok(())
}

/// An image of a registry: `<repository>:<tag>` or `<repository>@<digest>`.
pub fn image(text: &str) -> Result<(), String> {
    let refused = || format!("{text:?} is no image: write <repository>:<tag> or <repository>@<digest>");
    let hex = |text: &str, digits: usize| {
        text.len() == digits
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let (repository, is_named) = if let Some((repository, digest)) = text.split_once('@') {
        let is_digest = digest.strip_prefix("sha256:").is_some_and(|text| hex(text, 64))
            || digest.strip_prefix("sha512:").is_some_and(|text| hex(text, 128));
        (repository, is_digest)
    } else {
        let (repository, tag) = text.rsplit_once(':').ok_or_else(refused)?;
        (
            repository,
            tag_glob(tag).is_ok() && !tag.contains(['*', '?']) && !tag.starts_with(['.', '-']),
        )
    };
    if !is_named {
        return Err(refused());
    }
    repository_name(repository).map_err(|_| refused())
}

/// An `http` or `https` URL without user, query or fragment.
pub fn url(text: &str) -> Result<(), String> {
    let refused = || format!("{text:?} is no URL: write https://host[:port][/path]");
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or_else(refused)?;
    let host = rest.split('/').next().unwrap_or_default();
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || text.len() > 2048 || !visible || text.contains(['@', '?', '#', '\\']) {
        return Err(refused());
    }
    Ok(())
}

/// Five fields of cron: minute, hour, day of the month, month, day of the week; each `*`, numbers, ranges,
/// lists and steps.
pub fn cron(text: &str) -> Result<(), String> {
    const FIELDS: [(&str, u32, u32); 5] = [
        ("minute", 0, 59),
        ("hour", 0, 23),
        ("day of the month", 1, 31),
        ("month", 1, 12),
        ("day of the week", 0, 7),
    ];
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    if text.len() > 100 || fields.len() != FIELDS.len() {
        return Err(format!(
            "{text:?} is no schedule: five fields as in cron, like \"0 3 * * *\""
        ));
    }
    for (field, (name, least, most)) in fields.iter().zip(FIELDS) {
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| (least..=most).contains(n));
        let entry = |entry: &str| {
            let (range, step) = entry.split_once('/').unwrap_or((entry, "1"));
            let step = step
                .parse::<u32>()
                .is_ok_and(|step| (1..=most.max(1)).contains(&step));
            let range = match range.split_once('-') {
                _ if range == "*" => true,
                Some((from, to)) => {
                    matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to)
                }
                None => number(range).is_some(),
            };
            step && range
        };
        if !field.split(',').all(entry) {
            return Err(format!(
                "{field:?} is no {name}: '*', numbers {least} to {most}, ranges, lists, steps"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rule: fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_hosts() {
        table(
            label,
            &["a", "a-b", "0"],
            &["", "-a", "a-", "A", "a.b", &"a".repeat(64)],
        );
        table(
            host,
            &["registry.acme.com", "a.b"],
            &["localhost", "1.2.3.4", "a..b", "*.a.b", "a.b:5000", "A.b"],
        );
        table(
            repository_name,
            &["a", "a/b", "a.b__c--d/e"],
            &["", "/a", "a//b", "A", "a..b", "a___b", "-a", "a*"],
        );
    }

    #[test]
    fn globs_urls_and_schedules() {
        table(
            repository_glob,
            &["**", "a/**", "**/b", "a-?/*"],
            &["", "a**", "a//b", "A", "[a]"],
        );
        table(tag_glob, &["v*", "V1.?"], &["", "a/b", "é"]);
        table(
            image,
            &[
                "a:1",
                "library/alpine:3.20",
                "a/b:V_1.0-x",
                &format!("a@sha256:{}", "0".repeat(64)),
                &format!("a/b@sha512:{}", "f".repeat(128)),
            ],
            &[
                "",
                "a",
                "a:",
                ":1",
                "A:1",
                "a:-1",
                "a:.1",
                "a:v*",
                "a/:1",
                "host:5000/a",
                &format!("a:{}", "1".repeat(129)),
                "a@sha256:00",
                &format!("a@sha256:{}", "G".repeat(64)),
                &format!("a:1@sha256:{}", "0".repeat(64)),
                &format!("a@md5:{}", "0".repeat(32)),
            ],
        );
        table(
            url,
            &["https://a.b", "http://localhost:5000/x"],
            &[
                "",
                "ftp://a",
                "https://",
                "https://u:p@a",
                "https://a?b",
                "https://a b",
            ],
        );
        table(
            cron,
            &["0 * * * *", "*/5 1-3 1,15 * 7"],
            &[
                "",
                "0 * * *",
                "60 * * * *",
                "* * 0 * *",
                "*/0 * * * *",
                "5-1 * * * *",
                "a * * * *",
            ],
        );
    }

    #[test]
    fn problems_carry_their_paths_and_are_bounded() {
        let mut problems = Problems::new("spec");
        problems.within("tokens[0]", |problems| problems.add("name", "is wrong"));
        problems.each("hosts", &["x"; 9], 3, |_| Err("bad".to_owned()));
        problems.unique("names", ["a", "b", "a"].into_iter());
        let found = problems.end().unwrap_err();
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "spec.tokens[0].name",
                "spec.hosts",
                "spec.hosts[0]",
                "spec.hosts[1]",
                "spec.hosts[2]",
                "spec.names[2]"
            ]
        );
    }
}
