//! The class of a path, as metrics name it: few, whatever clients ask for.

/// What kind of thing a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`.
    Ping,
    /// A blob by digest.
    Blob,
    /// An upload session, or starting one.
    Upload,
    /// A manifest by tag or digest.
    Manifest,
    /// A list of tags.
    Tags,
    /// A list of referrers.
    Referrers,
    /// The list of repositories.
    Catalog,
    /// The admin API.
    Admin,
    /// Anything else.
    Other,
}

impl Route {
    /// Number of classes.
    pub(super) const COUNT: usize = 9;

    /// Classifies by the path's end, because a repository's name may hold any of the words. Only for
    /// counting: what the request means is decided by the routes.
    pub fn of(path: &str) -> Self {
        let path = path.as_bytes();
        if path.starts_with(b"/admin/") {
            return Self::Admin;
        }
        let Some(rest) = path.strip_prefix(b"/v2") else {
            return Self::Other;
        };
        if matches!(rest, b"" | b"/") {
            return Self::Ping;
        }
        if rest == b"/_catalog" {
            return Self::Catalog;
        }
        let trimmed = rest.strip_suffix(b"/").unwrap_or(rest);
        let mut ends = trimmed.rsplit(|byte| *byte == b'/');
        let last = ends.next().unwrap_or_default();
        match (ends.next().unwrap_or_default(), last) {
            (b"uploads", _) | (b"blobs", b"uploads") => Self::Upload,
            (b"blobs", _) => Self::Blob,
            (b"manifests", _) => Self::Manifest,
            (b"tags", b"list") => Self::Tags,
            (b"referrers", _) => Self::Referrers,
            _ => Self::Other,
        }
    }

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Manifest => "manifest",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Admin => "admin",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_classified_by_their_ends() {
        for (path, route) in [
            ("/v2/", Route::Ping),
            ("/v2", Route::Ping),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/a/b/manifests/latest", Route::Manifest),
            ("/v2/manifests/tags/list", Route::Tags),
            ("/v2/a/blobs/sha256:00", Route::Blob),
            ("/v2/a/blobs/uploads/", Route::Upload),
            ("/v2/a/blobs/uploads", Route::Upload),
            ("/v2/a/blobs/uploads/0190", Route::Upload),
            ("/v2/a/referrers/sha256:00", Route::Referrers),
            ("/admin/v1/state", Route::Admin),
            ("/v2/a", Route::Other),
            ("/", Route::Other),
            ("*", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
}
