use super::*;
use serde_json::{Value, json};

fn spdx(packages: &Value) -> Vec<u8> {
    let document = json!({
        "spdxVersion": "SPDX-2.3", "name": "app", "packages": packages,
        "creationInfo": { "created": "2026-01-02T03:04:05Z", "creators": ["Tool: syft-1.2"] },
    });
    document.to_string().into_bytes()
}

fn cyclonedx(components: &Value) -> Vec<u8> {
    json!({ "bomFormat": "CycloneDX", "specVersion": "1.5", "components": components })
        .to_string()
        .into_bytes()
}

fn told_of(sbom: &Sbom) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let packages = sbom.packages.iter();
    packages
        .map(|package| {
            (
                &*package.name,
                package.version.as_deref(),
                package.kind.as_deref(),
            )
        })
        .collect()
}

#[test]
fn packages_of_spdx_are_read() {
    let packages = json!([
        { "name": "zlib", "versionInfo": "1.3", "licenseConcluded": "NOASSERTION", "licenseDeclared": "Zlib",
          "supplier": "Organization: Z",
          "externalRefs": [{ "referenceType": "cpe23Type", "referenceLocator": "x" },
            { "referenceType": "purl", "referenceLocator": "pkg:deb/debian/zlib@1.3" }] },
        { "name": "bash" }, { "name": "zlib", "versionInfo": "1.3" }, { "versionInfo": "nameless" }, { "name": "bash" },
    ]);
    let sbom = read(&spdx(&packages)).unwrap();
    assert_eq!((&*sbom.format, sbom.listed), ("SPDX 2.3", 5));
    assert_eq!(
        told_of(&sbom),
        [
            ("bash", None, None),
            ("zlib", Some("1.3"), None),
            ("zlib", Some("1.3"), Some("deb"))
        ]
    );
    assert_eq!(sbom.packages[2].licenses.as_deref(), Some("Zlib"));
    assert_eq!(sbom.tools, ["Tool: syft-1.2"]);
    // As BuildKit attaches it.
    let document: Value = serde_json::from_slice(&spdx(&packages)).unwrap();
    let statement =
        json!({ "predicateType": "https://spdx.dev/Document", "subject": [], "predicate": document });
    assert_eq!(read(statement.to_string().as_bytes()).unwrap(), sbom);
}

#[test]
fn packages_of_cyclonedx_are_read_wherever_they_lie() {
    let document = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6",
        "metadata": { "timestamp": "2026", "tools": { "components": [{ "name": "trivy", "version": "9" }] }, "component": { "name": "app" } },
        "components": [
            { "type": "library", "name": "core", "group": "@babel", "version": "7", "purl": "pkg:npm/%40babel/core@7",
              "licenses": [{ "license": { "id": "MIT" } }, { "expression": "A OR B" }],
              "components": [{ "type": "library", "name": "inner", "components": [{ "type": "file", "name": "innermost" }] }] },
            { "type": "application", "name": "" },
        ],
    });
    let sbom = read(document.to_string().as_bytes()).unwrap();
    assert_eq!(
        (&*sbom.format, sbom.name.as_deref(), &*sbom.tools),
        ("CycloneDX 1.6", Some("app"), &["trivy 9".to_owned()][..])
    );
    assert_eq!(
        told_of(&sbom),
        [
            ("@babel/core", Some("7"), Some("npm")),
            ("inner", None, Some("library")),
            ("innermost", None, Some("file")),
        ]
    );
    assert_eq!(sbom.packages[0].licenses.as_deref(), Some("MIT, A OR B"));
    let old =
        json!({ "bomFormat": "CycloneDX", "specVersion": "1.2", "metadata": { "tools": [{ "name": "t" }] } });
    assert_eq!(read(old.to_string().as_bytes()).unwrap().tools, ["t"]);
}

#[test]
fn packages_are_found_by_any_of_their_texts() {
    let packages = json!([{ "name": "OpenSSL", "versionInfo": "3.0", "licenseDeclared": "Apache-2.0" }]);
    let sbom = read(&spdx(&packages)).unwrap();
    for wanted in ["openssl", "3.0", "apache"] {
        assert!(sbom.packages[0].holds(wanted), "{wanted}");
    }
    assert!(!sbom.packages[0].holds("bash"));
}

#[test]
fn what_is_listed_very_often_is_bounded() {
    let many: Vec<Value> = (0..MOST + 500)
        .map(|n| json!({ "name": format!("p{n}") }))
        .collect();
    let sbom = read(&spdx(&json!(many))).unwrap();
    assert_eq!((sbom.packages.len(), sbom.listed), (MOST, MOST + 500));
    let sbom = read(&cyclonedx(&json!([{ "name": "outer", "components": many }]))).unwrap();
    assert_eq!((sbom.packages.len(), sbom.listed), (MOST, MOST + 501));
    let empty = format!(
        r#"{{"spdxVersion":"SPDX-2.3","packages":[{}{{}}]}}"#,
        "{},".repeat(1_000_000)
    );
    let sbom = read(empty.as_bytes()).unwrap();
    assert_eq!((sbom.packages.len(), sbom.listed), (0, 1_000_001));
}

#[test]
fn what_is_deep_or_of_another_shape_is_an_error_and_no_crash() {
    let deep = format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"1.5","components":{}{}}}"#,
        r#"[{"name":"a","components":"#.repeat(10_000),
        "1".to_owned() + &"}]".repeat(10_000)
    );
    assert!(read(deep.as_bytes()).is_err());
    for document in [
        spdx(&json!({ "a": 1 })),
        spdx(&json!([7])),
        cyclonedx(&json!("x")),
        b"".to_vec(),
        b"\xff".to_vec(),
    ] {
        assert!(read(&document).is_err(), "{}", String::from_utf8_lossy(&document));
    }
    // Markup is text.
    let sbom = read(&spdx(&json!([{ "name": "<script>alert(1)</script>" }]))).unwrap();
    assert_eq!(sbom.packages[0].name, "<script>alert(1)</script>");
}

#[test]
fn formats_that_are_not_read_are_named() {
    for (document, named) in [
        (json!({ "spdxVersion": "SPDX-1.2" }), "SPDX-1.2"),
        (
            json!({ "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": [] }),
            "SPDX 3",
        ),
        (
            json!({ "bomFormat": "CycloneDX", "specVersion": "2.0" }),
            "CycloneDX 2.0",
        ),
        (json!({ "bomFormat": "Other" }), "Other"),
        (json!({}), "no known format"),
    ] {
        let error = read(document.to_string().as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains(named) && error.contains("CycloneDX 1.2 to 1.6"),
            "{error}"
        );
    }
}

#[test]
fn two_are_compared_by_kind_name_and_versions() {
    let sbom = |packages: Value| read(&spdx(&packages)).unwrap();
    let from = sbom(
        json!([{ "name": "a", "versionInfo": "1" }, { "name": "b", "versionInfo": "1" }, { "name": "c" }]),
    );
    let to = sbom(json!([
        { "name": "a", "versionInfo": "1" }, { "name": "b", "versionInfo": "1" }, { "name": "b", "versionInfo": "2" },
        { "name": "d", "versionInfo": "4" },
    ]));
    let difference = difference(&from, &to);
    assert_eq!(difference.same, 1);
    let told: Vec<_> = difference
        .packages
        .iter()
        .map(|p| (&*p.name, p.from.join(" "), p.to.join(" ")))
        .collect();
    let expected = [("b", "1", "1 2"), ("c", "unknown", ""), ("d", "", "4")];
    let expected = expected.map(|(name, from, to)| (name, from.to_owned(), to.to_owned()));
    assert_eq!(told, expected);
}
