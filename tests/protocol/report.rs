//! What the OCI conformance suite reports.

use std::path::Path;

use serde_yaml::Value;

/// The counts and the rows of one run of the suite.
#[derive(Debug)]
pub struct Report {
    /// The rows of the API and data tables with their status.
    pub rows: Vec<(String, String)>,
    /// The cases that the suite ran and those of them that passed.
    pub cases: usize,
    /// Cases that failed, erred, were skipped or disabled, by name.
    pub not_passed: Vec<String>,
}

impl Report {
    /// Reads `results.yaml` and `junit.xml` from the folder that the suite wrote.
    ///
    /// # Panics
    /// If the suite wrote no report: it then exits with 0 as well.
    pub fn read(folder: &Path) -> Report {
        let results = read(&folder.join("results.yaml"));
        let results: Value = serde_yaml::from_str(&results).expect("results.yaml is YAML");
        let mut rows = Vec::new();
        for table in ["apis", "data"] {
            let table_rows = results[table].as_mapping().expect("results.yaml has the tables");
            for (row, status) in table_rows {
                let (row, status) = (
                    row.as_str().unwrap_or_default(),
                    status.as_str().unwrap_or_default(),
                );
                rows.push((format!("{table}: {row}"), status.to_owned()));
            }
        }
        let junit = read(&folder.join("junit.xml"));
        let (mut cases, mut not_passed) = (0, Vec::new());
        for case in junit.split("<testcase ").skip(1) {
            let attributes = case.split('>').next().unwrap_or_default();
            cases += 1;
            if attribute(attributes, "status") != "passed" {
                not_passed.push(format!(
                    "{} {}",
                    attribute(attributes, "status"),
                    attribute(attributes, "name")
                ));
            }
        }
        Report {
            rows,
            cases,
            not_passed,
        }
    }

    /// The rows that are not "Pass".
    pub fn rows_not_passed(&self) -> Vec<&(String, String)> {
        self.rows.iter().filter(|(_, status)| status != "Pass").collect()
    }
}

fn attribute<'a>(attributes: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let rest = attributes.split_once(start.as_str()).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("the suite wrote no {}: {e}", path.display()))
}
