//! Which page a path means.
//!
//! `/-/` stands between a repository's name and what is asked of it: no part of a name is a lone dash, so that every
//! path can be read in one way. `/explorer/api/` has the same pages as JSON.

use percent_encoding::percent_decode_str;

use crate::domain::{RepositoryName, TagName};
use crate::metadata::Reference;

/// Where the pages are.
pub const ROOT: &str = "/explorer/";
const API: &str = "api/";

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A page.
    Html,
    /// Its content.
    Json,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// The host itself.
    Front,
    /// A file that pages refer to.
    Asset(String),
    /// The form of a token, and where it is sent to.
    SignIn,
    /// Where the button of an issuer is sent to.
    SignInByIssuer,
    /// Where an issuer sends people back to.
    Callback,
    /// The end of a session.
    SignOut,
    /// The list of repositories.
    Repositories,
    /// A repository with its tags.
    Repository(RepositoryName),
    /// What a tag or digest stands for.
    Manifest(RepositoryName, Reference),
}

/// The page of a path; `None` if there is none.
pub fn read(path: &str) -> (Form, Option<Page>) {
    if path == "/" {
        return (Form::Html, Some(Page::Front));
    }
    let Some(rest) = path.strip_prefix(ROOT) else {
        let is_root = path == ROOT.trim_end_matches('/');
        return (Form::Html, is_root.then_some(Page::Front));
    };
    let (form, rest) = match rest.strip_prefix(API) {
        Some(rest) => (Form::Json, rest),
        None if rest == API.trim_end_matches('/') => (Form::Json, ""),
        None => (Form::Html, rest),
    };
    (form, page(form, rest))
}

fn page(form: Form, rest: &str) -> Option<Page> {
    match rest {
        "" => return Some(Page::Repositories),
        "sign-in" if form == Form::Html => return Some(Page::SignIn),
        "sign-in/oidc" if form == Form::Html => return Some(Page::SignInByIssuer),
        "sign-in/callback" if form == Form::Html => return Some(Page::Callback),
        "sign-out" if form == Form::Html => return Some(Page::SignOut),
        _ => {}
    }
    if let Some(name) = rest.strip_prefix("assets/") {
        return (form == Form::Html).then(|| Page::Asset(name.to_owned()));
    }
    let rest = percent_decode_str(rest.strip_prefix("r/")?).decode_utf8().ok()?;
    let (name, asked) = match rest.split_once("/-/") {
        Some((name, asked)) => (name, Some(asked)),
        None => (&*rest, None),
    };
    let name: RepositoryName = name.parse().ok()?;
    let Some(asked) = asked else {
        return Some(Page::Repository(name));
    };
    let reference = match asked.split_once('/')? {
        ("tags", tag) => Reference::Tag(tag.parse::<TagName>().ok()?),
        ("manifests", digest) => Reference::Digest(digest.parse().ok()?),
        _ => return None,
    };
    Some(Page::Manifest(name, reference))
}

/// The path of a repository's page.
pub fn of_repository(name: &str) -> String {
    format!("{ROOT}r/{name}")
}

/// The path of a tag's page.
pub fn of_tag(name: &str, tag: &str) -> String {
    format!("{ROOT}r/{name}/-/tags/{tag}")
}

/// The path of a manifest's page.
pub fn of_manifest(name: &str, digest: &str) -> String {
    format!("{ROOT}r/{name}/-/manifests/{digest}")
}

/// The same page as JSON.
pub fn as_json(path_and_query: &str) -> Option<String> {
    let rest = path_and_query.strip_prefix(ROOT)?;
    Some(format!("{ROOT}{API}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn each_path_means_one_page() {
        let html = |page| (Form::Html, Some(page));
        let tag = Reference::Tag("v1.2".parse().unwrap());
        let digest = Reference::Digest(DIGEST.parse().unwrap());
        for (path, expected) in [
            ("/", html(Page::Front)),
            ("/explorer", html(Page::Front)),
            ("/explorer/", html(Page::Repositories)),
            ("/explorer/api/", (Form::Json, Some(Page::Repositories))),
            ("/explorer/sign-in", html(Page::SignIn)),
            ("/explorer/sign-in/oidc", html(Page::SignInByIssuer)),
            ("/explorer/sign-in/callback", html(Page::Callback)),
            ("/explorer/r/team/app", html(Page::Repository(name("team/app")))),
            ("/explorer/r/api", html(Page::Repository(name("api")))),
            (
                "/explorer/api/r/app/-/tags/v1.2",
                (Form::Json, Some(Page::Manifest(name("app"), tag))),
            ),
            (
                &format!("/explorer/r/app/-/manifests/{DIGEST}"),
                html(Page::Manifest(name("app"), digest.clone())),
            ),
            (
                &format!("/explorer/r/app/-/manifests/{}", DIGEST.replace(':', "%3A")),
                html(Page::Manifest(name("app"), digest)),
            ),
        ] {
            assert_eq!(read(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_page_is_none() {
        for path in [
            "/explorers",
            "/explorer/x",
            "/explorer/r/",
            "/explorer/r/UPPER",
            "/explorer/r/app/-/tags/",
            "/explorer/r/app/-/tags/a%20b",
            "/explorer/r/app/-/manifests/v1",
            "/explorer/r/app/-/other/v1",
            "/explorer/r/%ff",
            "/explorer/api/sign-in",
            "/explorer/api/sign-in/callback",
            "/explorer/sign-in/other",
            "/explorer/r/<script>",
        ] {
            assert_eq!(read(path).1, None, "{path}");
        }
    }
}
