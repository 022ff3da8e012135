//! What strangers send, as functions of arbitrary bytes: clients, upstreams, issuers, layers, whoever writes a manifest.
//!
//! Each target reads its bytes by one family of parsers and asserts what must hold of whatever they accept: it lies within the
//! limits, and reads the same again as it is written. It must neither panic nor take long, whatever comes. `fuzz/main.rs`
//! drives the targets by coverage; [`tests`] runs them on every file of its corpus and on mutations of these.

mod contents;
mod requests;
mod texts;

#[cfg(test)]
mod tests;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The folder of its corpus.
    pub name: &'static str,
    /// Reads some bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    Target {
        name: "manifest",
        run: contents::manifest,
    },
    Target {
        name: "archive",
        run: contents::archive,
    },
    Target {
        name: "documents",
        run: contents::documents,
    },
    Target {
        name: "midstates",
        run: contents::midstates,
    },
    Target {
        name: "resources",
        run: contents::resources,
    },
    Target {
        name: "paths",
        run: requests::paths,
    },
    Target {
        name: "ranges",
        run: requests::ranges,
    },
    Target {
        name: "headers",
        run: requests::headers,
    },
    Target {
        name: "tokens",
        run: requests::tokens,
    },
    Target {
        name: "names",
        run: texts::names,
    },
    Target {
        name: "globs",
        run: texts::globs,
    },
    Target {
        name: "values",
        run: texts::values,
    },
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// The first byte, which chooses, and the rest.
fn chosen(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first() {
        Some((first, rest)) => (usize::from(*first), rest),
        None => (0, bytes),
    }
}

/// The text that bytes are, if they are one.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
