//! What the README promises to whoever has a clone and Rust.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What `cargo run` needs to know for the README's first command. The command itself would build for minutes.
#[test]
fn the_readme_s_first_command_names_a_package_with_one_program_to_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let command = readme
        .lines()
        .find_map(|line| line.strip_prefix("cargo run --release -p "));
    let (package, arguments) = command
        .and_then(|rest| rest.split_once(" -- "))
        .expect("a command");
    assert_eq!(arguments, "serve");

    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(&root)
        .output()
        .expect("cargo runs");
    let told: Value = serde_json::from_slice(&output.stdout).expect("what cargo knows");
    let packages = told["packages"].as_array().expect("packages");
    let named = packages
        .iter()
        .find(|found| found["name"] == package)
        .expect("the package");
    let programs = named["targets"].as_array().into_iter().flatten();
    let programs = programs.filter(|target| target["kind"][0] == "bin");
    assert!(
        named["default_run"] == package || programs.count() == 1,
        "cargo cannot tell which program of {package} is meant"
    );
}
