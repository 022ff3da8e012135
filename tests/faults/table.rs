//! The table of faults in the documents names tests that are there.

use std::path::{Path, PathBuf};

/// Rows that the table has at least.
const ROWS: usize = 30;

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The source that a path of modules leads to, with as many of its last modules inside the file as need be.
fn source(modules: &[&str]) -> Option<String> {
    for root in ["tests", "registry/src", "operator/src"] {
        for outer in (1..=modules.len()).rev() {
            let path = checkout(root).join(modules[..outer].join("/"));
            for file in [path.with_extension("rs"), path.join("mod.rs")] {
                if let Ok(text) = std::fs::read_to_string(file) {
                    return Some(text);
                }
            }
        }
    }
    None
}

#[test]
fn every_fault_names_tests_that_exist() {
    let text = std::fs::read_to_string(checkout("docs/faults.md")).expect("the table");
    let rows = text.lines().filter(|line| line.starts_with("| ")).filter(|line| {
        let is_head = line.starts_with("| fault |") || line.starts_with("| ---");
        !is_head
    });
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [fault, _, tests] = cells[..] else {
            panic!("three cells: {row}");
        };
        count += 1;
        let names: Vec<&str> = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.contains("::"))
            .collect();
        assert!(!names.is_empty(), "{fault}: no test");
        for name in names {
            let mut modules: Vec<&str> = name.split("::").collect();
            let test = modules.pop().expect("a name");
            let source = source(&modules).unwrap_or_else(|| panic!("{fault}: no module of {name}"));
            assert!(source.contains(&format!("fn {test}(")), "{fault}: no {name}");
        }
    }
    assert!(count >= ROWS, "{count} rows");
}
