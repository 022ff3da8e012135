//! Tags that stand for another manifest by their name: `sha256-<hex>`, the referrers of clients that know no
//! referrers API (distribution-spec, "Referrers Tag Schema"), and `sha256-<hex>.sig`, `.att`, `.sbom` of cosign.

use super::{Algorithm, Digest};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The manifest for which a tag of this name stands.
pub fn subject(tag: &str) -> Option<Digest> {
    let (algorithm, rest) = tag.split_once('-')?;
    // Most tags are told apart by this, before any text is made.
    ALGORITHMS.iter().find(|known| known.name() == algorithm)?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    format!("{algorithm}:{hex}").parse().ok()
}

/// The tags that stand for a manifest: one name, and all names from the second (included) up to the third.
pub fn tags(subject: &Digest) -> [String; 3] {
    let name = subject.to_string().replace(':', "-");
    // '/' follows '.' in ASCII.
    [name.clone(), format!("{name}."), format!("{name}/")]
}

/// The spans of names among which all such tags are, as pairs of a first name and of one behind the last.
pub fn spans() -> [(String, String); 2] {
    // '.' follows '-' in ASCII.
    ALGORITHMS.map(|algorithm| (format!("{}-", algorithm.name()), format!("{}.", algorithm.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_signatures_and_of_referrers_stand_for_their_subject() {
        let subject_digest = Digest::of(Algorithm::Sha256, b"image");
        let [exact, from, to] = tags(&subject_digest);
        for name in [
            exact.clone(),
            format!("{exact}.sig"),
            format!("{exact}.att"),
            format!("{exact}.a.b"),
        ] {
            assert_eq!(subject(&name), Some(subject_digest), "{name}");
            assert!(name == exact || (name >= from && name < to), "{name}");
            let within = |(first, behind): &(String, String)| name >= *first && name < *behind;
            assert!(spans().iter().any(within), "{name}");
        }
        for name in [
            "v1",
            "sha256-",
            "sha256-12",
            "latest.sig",
            &format!("{exact}0"),
            &exact.to_uppercase(),
        ] {
            assert_eq!(subject(name), None, "{name}");
        }
        let other = format!("{exact}-x");
        assert!(other != exact && !(other >= from && other < to));
    }
}
