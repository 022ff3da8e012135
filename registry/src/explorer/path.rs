//! Which page a path means.
//!
//! `/-/` stands between a repository's name and what is asked of it: no part of a name is a lone dash, so that every
//! path can be read in one way. `/explorer/api/` has the same pages as JSON.

use percent_encoding::percent_decode_str;

use crate::domain::{Digest, RepositoryName, TagName};
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
    /// What the tenant stores and what that costs.
    Usage,
    /// Images by their build: by this id, or whatever the query says.
    Builds(Option<String>),
    /// A repository with its tags.
    Repository(RepositoryName),
    /// What a tag or digest stands for.
    Manifest(RepositoryName, Reference),
    /// More about a repository.
    Of(RepositoryName, Part),
}

/// A part of what is told about a repository, or is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Tags that were deleted and can come back.
    Deleted,
    /// What it stored over time.
    Usage,
    /// What became of a tag.
    History(TagName),
    /// Why a tag stays or goes.
    Retention(TagName),
    /// What would go with a tag or manifest, and its deletion.
    Delete(Reference),
    /// Brings a tag back.
    Restore,
    /// Puts a tag to a manifest.
    Retag,
    /// Two tags or manifests side by side.
    Difference,
    /// The files in a layer.
    Files(Digest),
    /// The packages that a document lists.
    Packages(Digest),
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
        "usage" => return Some(Page::Usage),
        "builds" => return Some(Page::Builds(None)),
        "sign-in" if form == Form::Html => return Some(Page::SignIn),
        "sign-in/oidc" if form == Form::Html => return Some(Page::SignInByIssuer),
        "sign-in/callback" if form == Form::Html => return Some(Page::Callback),
        "sign-out" if form == Form::Html => return Some(Page::SignOut),
        _ => {}
    }
    if let Some(name) = rest.strip_prefix("assets/") {
        return (form == Form::Html).then(|| Page::Asset(name.to_owned()));
    }
    if let Some(id) = rest.strip_prefix("builds/") {
        let id = percent_decode_str(id).decode_utf8().ok()?;
        return Some(Page::Builds(Some(id.into_owned())));
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
    if let Some(reference) = reference(asked) {
        return Some(Page::Manifest(name, reference));
    }
    Some(Page::Of(name, part(form, asked)?))
}

fn reference(text: &str) -> Option<Reference> {
    match text.split_once('/')? {
        ("tags", tag) => Some(Reference::Tag(tag.parse::<TagName>().ok()?)),
        ("manifests", digest) => Some(Reference::Digest(digest.parse().ok()?)),
        _ => None,
    }
}

fn part(form: Form, asked: &str) -> Option<Part> {
    match asked {
        "deleted" => return Some(Part::Deleted),
        "usage" => return Some(Part::Usage),
        "difference" => return Some(Part::Difference),
        "restore" if form == Form::Html => return Some(Part::Restore),
        "retag" if form == Form::Html => return Some(Part::Retag),
        _ => {}
    }
    Some(match asked.split_once('/')? {
        ("history", tag) => Part::History(tag.parse().ok()?),
        ("retention", tag) => Part::Retention(tag.parse().ok()?),
        ("delete", what) => Part::Delete(reference(what)?),
        ("files", digest) => Part::Files(digest.parse().ok()?),
        ("packages", digest) => Part::Packages(digest.parse().ok()?),
        _ => return None,
    })
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

/// The path of what is told about a repository, or is done with it.
pub fn of_part(name: &str, part: &str) -> String {
    format!("{ROOT}r/{name}/-/{part}")
}

/// A path with a query; parameters that are empty are left out.
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let set = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(set)
        .finish();
    match query.as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    }
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
            ("/explorer/usage", html(Page::Usage)),
            ("/explorer/builds", html(Page::Builds(None))),
            (
                "/explorer/api/builds/https:%2F%2Fci%2F7",
                (Form::Json, Some(Page::Builds(Some("https://ci/7".into())))),
            ),
            (
                "/explorer/r/a/-/deleted",
                html(Page::Of(name("a"), Part::Deleted)),
            ),
            (
                "/explorer/api/r/a/-/usage",
                (Form::Json, Some(Page::Of(name("a"), Part::Usage))),
            ),
            (
                "/explorer/r/a/-/delete/tags/v1.2",
                html(Page::Of(
                    name("a"),
                    Part::Delete(Reference::Tag("v1.2".parse().unwrap())),
                )),
            ),
            (
                "/explorer/r/a/-/history/v1",
                html(Page::Of(name("a"), Part::History("v1".parse().unwrap()))),
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
            "/explorer/r/app/-/files/v1",
            "/explorer/r/app/-/delete/v1",
            "/explorer/api/r/app/-/restore",
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
