//! What the types' schemas say besides their types: patterns, and rules over several fields in CEL.
//!
//! An API server enforces these before an object is stored, so that `kubectl apply` answers at once; `validate`
//! says the same, and more, for objects that no API server has seen. Patterns have no look-around (RE2).

use schemars::Schema;
use serde_json::{Value, json};

/// A DNS label (RFC 1123).
pub(crate) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Labels separated by dots.
pub(crate) const DNS_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// At least two labels.
pub(crate) const HOST: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$";
/// A registry: host, or host and port.
pub(crate) const REGISTRY: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$";
/// A repository's name (distribution-spec, "Pulling manifests").
pub(crate) const REPOSITORY: &str =
    r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$";
/// A repository's name, or nothing.
pub(crate) const PREFIX: &str =
    r"^([a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*)?$";
/// One component of a repository's name.
pub(crate) const COMPONENT: &str = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$";
/// A glob over repositories.
pub(crate) const REPOSITORY_GLOB: &str = r"^[a-z0-9._*?-]+(/[a-z0-9._*?-]+)*$";
/// A glob over tags.
pub(crate) const TAG_GLOB: &str = r"^[A-Za-z0-9._*?-]+$";
/// An image: repository with tag or digest.
pub(crate) const IMAGE: &str = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha(256|512):[a-f0-9]{64,128})$";
/// An `http` or `https` URL without user, query or fragment.
pub(crate) const URL: &str = r"^https?://[^/@?#\\\s]+(/[^@?#\\\s]*)?$";
/// One line of text.
pub(crate) const LINE: &str = r"^[^\x00-\x1f\x7f]+$";
/// A scope (RFC 6749, section 3.3).
pub(crate) const SCOPE: &str = r"^[!#-\[\]-~]+$";
/// The five fields of cron.
pub(crate) const CRON: &str = r"^\s*([0-9*,/-]+\s+){4}[0-9*,/-]+\s*$";

/// 0 to 1000000, with at most 6 decimals.
pub(crate) const PRICE: &str = r"^((0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?|1000000(\.0{1,6})?)$";
/// The letters of a currency (ISO 4217).
pub(crate) const CURRENCY: &str = "^[A-Z]{3}$";

/// Unknown fields are refused when a spec is read; a structural schema says so by pruning, not by this keyword.
pub(crate) fn open(schema: &mut Schema) {
    schema.remove("additionalProperties");
}

/// Rules of a type (`x-kubernetes-validations`): the expression, and what to say where it is false.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules
        .iter()
        .map(|(rule, message)| json!({ "rule": rule, "message": message }))
        .collect()
}

/// The one rule of a field that cannot be changed.
pub(crate) fn immutable() -> Value {
    rules(&[(
        "self == oldSelf",
        "cannot be changed; delete the object and make another",
    )])
}

/// The rules of rotation, of what has `rotateEvery` and perhaps `expiresAfter`.
pub(crate) fn rotation(expires: bool) -> Value {
    let mut all = vec![(
        "!has(self.rotateEvery) || duration(self.rotateEvery) >= duration('1m')",
        "rotateEvery is too often: at least 1m",
    )];
    if expires {
        all.push((
            "!has(self.rotateEvery) || !has(self.expiresAfter) || \
             duration(self.rotateEvery) < duration(self.expiresAfter)",
            "rotateEvery must be shorter than expiresAfter, or tokens expire before they are replaced",
        ));
    }
    rules(&all)
}
