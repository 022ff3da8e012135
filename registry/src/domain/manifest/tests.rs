use proptest::prelude::*;

use super::*;
use crate::domain::Algorithm;
use crate::domain::media_type::{DOCKER_LIST, OCI_INDEX, OCI_MANIFEST};

fn descriptor(media_type: &str, content: &str) -> String {
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#,
        content.len()
    )
}

fn image(extra: &str) -> String {
    let (config, layer) = (
        descriptor("application/x.config", "c"),
        descriptor("application/x.layer", "l"),
    );
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer},{layer}]{extra}}}"#)
}

fn read(text: &str, content_type: &str) -> Result<Manifest, ManifestError> {
    Manifest::read(text.as_bytes(), Some(content_type))
}

#[test]
fn an_image_names_its_blobs_once_and_takes_its_artifact_type_from_the_config() {
    let manifest = read(&image(""), OCI_MANIFEST).unwrap();
    assert_eq!(manifest.blobs.len(), 2);
    assert!(manifest.blobs.iter().all(|blob| blob.required));
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/x.config"));
}

#[test]
fn documents_that_two_readers_could_read_in_two_ways_are_refused() {
    let both = image(r#","manifests":[]"#);
    let twice = image(r#","layers":[]"#);
    let folded = image(r#","Layers":[]"#);
    let unicode = image(",\"\u{17f}ubject\":null");
    let trailing = format!("{}{{}}", image(""));
    let in_descriptor = image("").replace(r#""digest""#, r#""Digest":"x","digest""#);
    for text in [both, twice, folded, unicode, trailing, in_descriptor] {
        assert!(
            matches!(read(&text, OCI_MANIFEST), Err(ManifestError::Invalid(_))),
            "{text}"
        );
    }
    assert!(
        read(&format!("{} \n", image("")), OCI_MANIFEST).is_ok(),
        "white space is content"
    );
}

#[test]
fn shapes_that_do_not_fit_the_type_are_refused() {
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(read(index, OCI_INDEX).is_ok());
    assert!(read(index, DOCKER_LIST).is_ok());
    assert!(read(index, OCI_MANIFEST).is_err());
    assert!(read(&image(""), OCI_INDEX).is_err());
    for text in [
        "",
        "[]",
        "null",
        "7",
        r#"{"schemaVersion":2}"#,
        r#"{"schemaVersion":1,"manifests":[]}"#,
        "{\"schemaVersion\":NaN}",
    ] {
        assert!(read(text, OCI_INDEX).is_err(), "{text}");
    }
    let negative = image("").replace(r#""size":1"#, r#""size":-1"#);
    let huge = image("").replace(r#""size":1"#, r#""size":1e99"#);
    assert!(read(&negative, OCI_MANIFEST).is_err());
    assert!(read(&huge, OCI_MANIFEST).is_err());
}

#[test]
fn content_type_and_media_type_must_agree_and_one_must_be_there() {
    let typed = image(&format!(r#","mediaType":"{OCI_MANIFEST}""#));
    assert!(Manifest::read(typed.as_bytes(), None).is_ok());
    assert_eq!(
        Manifest::read(image("").as_bytes(), None),
        Err(ManifestError::NoMediaType)
    );
    assert!(matches!(
        read(&typed, OCI_INDEX),
        Err(ManifestError::MediaTypeMismatch { .. })
    ));
    assert!(matches!(
        read(&typed, "text/plain"),
        Err(ManifestError::Unsupported(_))
    ));
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    assert_eq!(read(&typed, schema1), Err(ManifestError::Schema1));
}

#[test]
fn subjects_and_artifact_types_that_no_column_or_header_can_hold_are_refused() {
    for more in [
        r#","artifactType":"a\u0000b""#,
        r#","artifactType":"a\nb""#,
        r#","subject":{"mediaType":"x","digest":"sha256:a\u0000","size":3}"#,
        r#","subject":{"mediaType":"x","digest":"no digest","size":3}"#,
    ] {
        assert!(
            matches!(read(&image(more), OCI_MANIFEST), Err(ManifestError::Invalid(_))),
            "{more}"
        );
    }
}

#[test]
fn foreign_layers_and_subjects_may_be_absent_and_of_unknown_algorithms() {
    let foreign = r#"{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"blake9:abc","size":3}"#;
    let config = descriptor("application/x.config", "c");
    let subject = r#"{"mediaType":"x","digest":"blake9:abc","size":3}"#;
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{foreign}],"subject":{subject}}}"#);
    let manifest = read(&text, OCI_MANIFEST).unwrap();
    assert_eq!(manifest.blobs.len(), 1);
    assert_eq!(manifest.subject.as_deref(), Some("blake9:abc"));
    let as_layer = text.replace("nondistributable.", "");
    assert!(read(&as_layer, OCI_MANIFEST).is_err());
}

#[test]
fn a_manifest_bomb_is_refused() {
    let child = descriptor(OCI_MANIFEST, "c");
    let children = vec![child; DESCRIPTOR_LIMIT + 1].join(",");
    assert!(
        read(
            &format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#),
            OCI_INDEX
        )
        .is_err()
    );
    let deep = format!(
        r#"{{"schemaVersion":2,"manifests":[],"x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(read(&deep, OCI_INDEX).is_err());
}

#[test]
fn a_referrer_keeps_its_annotations_and_type() {
    let text = image(r#","annotations":{"a":"<b>"},"artifactType":"application/x.sig""#);
    let manifest = read(&text, OCI_MANIFEST).unwrap();
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    let listed: serde_json::Value =
        serde_json::from_str(&manifest.referrer_descriptor(digest, text.len())).unwrap();
    assert_eq!(listed["annotations"]["a"], "<b>");
    assert_eq!(listed["artifactType"], "application/x.sig");
    assert_eq!(listed["size"], text.len());
}

proptest! {
    #[test]
    fn no_document_panics(bytes: Vec<u8>, cut in 0usize..400) {
        let _ = Manifest::read(&bytes, Some(OCI_MANIFEST));
        let text = image(r#","annotations":{"a":"b"}"#);
        let _ = Manifest::read(&text.as_bytes()[..cut.min(text.len())], Some(OCI_MANIFEST));
    }
}
