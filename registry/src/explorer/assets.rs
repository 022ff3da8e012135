//! The files that pages refer to: in the program itself, at names that change with their content.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method};
use sha2::{Digest as _, Sha256};

use super::answer::Failure;

/// A file of pages.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const STYLE: Asset = Asset {
    name: "explorer.css",
    kind: "text/css; charset=utf-8",
    text: include_str!("assets/explorer.css"),
};
const SCRIPT: Asset = Asset {
    name: "explorer.js",
    kind: "text/javascript; charset=utf-8",
    text: include_str!("assets/explorer.js"),
};
const ICON: Asset = Asset {
    name: "icon.svg",
    kind: "image/svg+xml",
    text: include_str!("assets/icon.svg"),
};

static PATHS: LazyLock<[String; 3]> = LazyLock::new(|| [STYLE, SCRIPT, ICON].map(|asset| path(&asset)));

fn path(asset: &Asset) -> String {
    let hash = hex::encode(&Sha256::digest(asset.text)[..8]);
    format!("/explorer/assets/{hash}/{}", asset.name)
}

/// Where the style is.
pub fn style() -> &'static str {
    &PATHS[0]
}

/// Where the script is.
pub fn script() -> &'static str {
    &PATHS[1]
}

/// Where the icon is.
pub fn icon() -> &'static str {
    &PATHS[2]
}

/// An asset, which whoever has it may keep: another release has other names.
pub fn get(name: &str, method: &Method) -> Result<Response, Failure> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Failure::Method("GET, HEAD"));
    }
    let wanted = |(asset, path): &(Asset, &String)| {
        let (hash, last) = name.split_once('/').unwrap_or_default();
        last == asset.name && path.contains(hash) && hash.len() == 16
    };
    let mut assets = [STYLE, SCRIPT, ICON].into_iter().zip(&*PATHS);
    let (asset, _) = assets
        .find(wanted)
        .ok_or_else(|| Failure::absent("there is no such file"))?;
    let mut response = Response::new(Body::from(asset.text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, kept);
    Ok(response)
}
