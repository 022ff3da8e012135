//! The files of a release: the same every time, what their sums say, and complete about what is in the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use harness::content::sha256;
use harness::program;
use serde_json::Value;

use super::{checkout, read};

const PROGRAMS: [&str; 3] = ["berth-registry", "berth-operator", "berth-credential-provider"];

fn tool(arguments: &[&str]) -> Output {
    Command::new(checkout("tests/tools/release"))
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "1767225600")
        .output()
        .expect("the tool runs")
}

/// A trial of a release with small programs under the names of ours.
fn trial(folder: &Path) {
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).expect("a folder");
    for (name, small) in PROGRAMS.iter().zip(["true", "cat", "ls"]) {
        std::fs::copy(program(small), programs.join(name)).expect("a program");
    }
    let (programs, output) = (programs.display().to_string(), folder.join("release"));
    let output = output.display().to_string();
    let made = tool(&["--trial", "--programs", &programs, "--output", &output]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn document(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&read(&folder.join("release").join(name))).expect("JSON")
}

#[test]
fn a_release_s_files_are_the_same_every_time_and_what_their_sums_say() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    for folder in [&one, &two] {
        trial(folder.path());
    }
    let sums = read(&one.path().join("release/SHA256SUMS"));
    assert_eq!(sums, read(&two.path().join("release/SHA256SUMS")));
    let version = env!("CARGO_PKG_VERSION");
    let named: Vec<&str> = sums
        .lines()
        .filter_map(|line| Some(line.split_once("  ")?.1))
        .collect();
    assert_eq!(
        named,
        [
            format!("berth-{version}.tar").as_str(),
            &format!("berth-{version}.tgz"),
            "berth-crds.yaml",
            "image.digest",
            "provenance.json",
            "sbom.cdx.json",
        ]
    );
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("a sum and a name");
        let content = std::fs::read(one.path().join("release").join(name)).expect("a file");
        assert_eq!(sha256(&content), format!("sha256:{sum}"), "{name}");
    }
    let digest = read(&one.path().join("release/image.digest"));
    let blob = digest.trim().replacen(':', "/", 1);
    assert!(one.path().join("release/image/blobs").join(blob).is_file());

    // How it came to be: from this commit, and with programs that somebody gave.
    let provenance = document(one.path(), "provenance.json");
    let from = &provenance["buildDefinition"]["resolvedDependencies"];
    let commit = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(checkout("."))
        .output()
        .expect("git runs");
    let commit = String::from_utf8(commit.stdout).expect("text");
    assert_eq!(from[0]["digest"]["gitCommit"], commit.trim());
    let given = std::fs::read(one.path().join("programs/berth-registry")).expect("a program");
    assert_eq!(
        format!("sha256:{}", from[2]["digest"]["sha256"].as_str().expect("a sum")),
        sha256(&given)
    );
    // A folder with something in it is left alone.
    let output = one.path().join("release").display().to_string();
    assert!(!tool(&["--trial", "--output", &output]).status.success());
    assert_eq!(read(&one.path().join("release/SHA256SUMS")), sums);
}

/// Packages of `Cargo.lock`, as `name@version`, with the sums of their archives.
fn locked() -> BTreeMap<String, String> {
    let lock = read(&checkout("Cargo.lock"));
    let packages = lock.split("[[package]]").skip(1);
    let value = |package: &str, key: &str| {
        let line = package
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.and_then(|line| line.strip_suffix('"')).map(str::to_owned)
    };
    packages
        .map(|package| {
            let id =
                [value(package, "name"), value(package, "version")].map(|part| part.expect("it has one"));
            (id.join("@"), value(package, "checksum").unwrap_or_default())
        })
        .collect()
}

#[test]
fn what_the_programs_are_made_of_is_told_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    trial(folder.path());
    let told = document(folder.path(), "sbom.cdx.json");
    assert_eq!(
        (&told["bomFormat"], &told["specVersion"]),
        (&"CycloneDX".into(), &"1.6".into())
    );
    let (locked, mut refs, mut names) = (locked(), BTreeSet::from(["berth"]), BTreeSet::new());
    for component in told["components"].as_array().expect("components") {
        let text = |key: &str| component[key].as_str().expect("a text");
        let (name, sum) = (text("name"), &component["hashes"][0]["content"]);
        assert!(refs.insert(text("bom-ref")), "{name} is there twice");
        names.insert(name);
        assert!(
            component["licenses"][0]["expression"].is_string(),
            "{name} has no licence"
        );
        match PROGRAMS.contains(&name) {
            true => {
                let given = std::fs::read(folder.path().join("programs").join(name)).expect("a program");
                assert_eq!(format!("sha256:{}", sum.as_str().expect("a sum")), sha256(&given));
            }
            // Crates of this repository have no archive, and no sum.
            false => assert_eq!(
                sum.as_str().unwrap_or_default(),
                locked[&format!("{name}@{}", text("version"))],
                "{name}"
            ),
        }
    }
    for name in PROGRAMS
        .iter()
        .chain(&["tokio", "axum", "kube", "rustls", "libsqlite3-sys", "aws-lc-sys"])
    {
        assert!(names.contains(name), "{name} is missing");
    }
    // What builds, derives or tests is in no program.
    for name in ["cc", "cmake", "serde_derive", "tempfile", "berth-tests"] {
        assert!(!names.contains(name), "{name}");
    }
    for entry in told["dependencies"].as_array().expect("dependencies") {
        let depends = entry["dependsOn"].as_array().expect("a list").iter();
        for name in depends.chain([&entry["ref"]]) {
            assert!(
                refs.contains(name.as_str().expect("a text")),
                "{name} is no component"
            );
        }
    }
}

#[test]
fn what_is_no_release_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("release").display().to_string();
    let refused = tool(&["--programs", "/usr/bin", "--output", &output]);
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("--programs is for trials"), "{told}");
    assert!(!Path::new(&output).exists());
}
