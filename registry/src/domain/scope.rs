//! Scopes of the token endpoint (distribution's token specification): `repository:app:pull,push`.

use std::collections::BTreeMap;

use super::grant::{Action, Actions};

/// Most resources of one request.
pub const SCOPE_LIMIT: usize = 50;
/// Most bytes of all scopes of one request.
pub const SCOPE_BYTES: usize = 16 * 1024;

/// What a scope is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A repository as the client names it; not yet checked.
    Repository(String),
    /// The list of repositories.
    Catalog,
}

/// A resource and what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// On what.
    pub resource: Resource,
    /// What.
    pub actions: Actions,
}

/// Too much is asked for at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a request names at most {SCOPE_LIMIT} resources in {SCOPE_BYTES} bytes of scope; ask for fewer at once"
)]
pub struct TooManyScopes;

/// Reads all scopes: each value may hold several, separated by spaces. Types that are not known, and actions
/// that are not, ask for nothing. What is named twice is asked for once, with all its actions.
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<Scope>, TooManyScopes> {
    let mut bytes = 0;
    let mut found: BTreeMap<Resource, Actions> = BTreeMap::new();
    for value in values {
        bytes += value.len();
        if bytes > SCOPE_BYTES {
            return Err(TooManyScopes);
        }
        for (resource, actions) in value.split_ascii_whitespace().filter_map(one) {
            let known = found.entry(resource).or_default();
            *known = known.union(actions);
            if found.len() > SCOPE_LIMIT {
                return Err(TooManyScopes);
            }
        }
    }
    let scope = |(resource, actions)| Scope { resource, actions };
    Ok(found.into_iter().map(scope).collect())
}

/// `type[(class)]:name:actions`; the name may hold a port, so it ends at the last colon.
fn one(text: &str) -> Option<(Resource, Actions)> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
    let resource = match (kind, name) {
        (_, "") => return None,
        ("repository", name) => Resource::Repository(name.to_owned()),
        ("registry", "catalog") => Resource::Catalog,
        _ => return None,
    };
    let mut asked = Actions::none();
    for action in actions.split(',') {
        match action {
            "*" => asked = Actions::all(),
            text => Action::ALL
                .into_iter()
                .filter(|action| action.text() == text)
                .for_each(|action| asked.insert(action)),
        }
    }
    Some((resource, asked))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let scopes = parse([text]).unwrap();
        let show = |scope: &Scope| match &scope.resource {
            Resource::Repository(name) => format!("{name}={}", scope.actions),
            Resource::Catalog => format!("catalog={}", scope.actions),
        };
        scopes.iter().map(show).collect()
    }

    #[test]
    fn a_table_of_scopes() {
        let cases: [(&str, &[&str]); 12] = [
            ("repository:app:pull", &["app=pull"]),
            ("repository:a/b:push,pull", &["a/b=pull,push"]),
            ("repository(plugin):app:pull", &["app=pull"]),
            ("repository:localhost:5000/app:pull", &["localhost:5000/app=pull"]),
            ("repository:app:*", &["app=pull,push,delete,metadata"]),
            ("repository:app:pull repository:app:push", &["app=pull,push"]),
            ("registry:catalog:*", &["catalog=pull,push,delete,metadata"]),
            ("registry:other:*", &[]),
            ("plugin:app:pull", &[]),
            ("repository::pull", &[]),
            ("repository:app", &[]),
            ("repository:app:admin", &["app="]),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(parse([]), Ok(Vec::new()));
        assert_eq!(parse(["", "  "]), Ok(Vec::new()));
    }

    #[test]
    fn too_many_scopes_are_refused() {
        let many: Vec<String> = (0..=SCOPE_LIMIT)
            .map(|n| format!("repository:a{n}:pull"))
            .collect();
        assert_eq!(parse(many.iter().map(String::as_str)), Err(TooManyScopes));
        assert!(parse(many[1..].iter().map(String::as_str)).is_ok());
        assert_eq!(parse([" ".repeat(SCOPE_BYTES + 1).as_str()]), Err(TooManyScopes));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = parse([text.as_str()]);
        }

        #[test]
        fn what_is_written_is_read_again(
            name in "[a-z0-9]{1,9}(:[0-9]{1,5})?(/[a-z0-9._-]{1,9}){0,3}",
            actions in prop::collection::vec(prop::sample::select(&Action::ALL[..]), 1..4),
        ) {
            let actions: Actions = actions.into_iter().collect();
            let text = format!("repository:{name}:{actions}");
            let expected = Scope { resource: Resource::Repository(name), actions };
            prop_assert_eq!(parse([text.as_str()]), Ok(vec![expected]));
        }
    }
}
