//! Rows of JSON objects in columns, and numbers of bytes.

use std::fmt;

use serde_json::Value;

use super::administer::plain;

/// A table with a heading.
pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    /// The fields of each object, under their columns.
    pub(super) fn of<const N: usize>(columns: [&str; N], fields: [&str; N], objects: &Value) -> Self {
        let mut rows = vec![columns.map(str::to_owned).to_vec()];
        let objects = objects.as_array().map(Vec::as_slice).unwrap_or_default();
        rows.extend(
            objects
                .iter()
                .map(|object| fields.map(|field| plain(&object[field])).to_vec()),
        );
        Self(rows)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.0
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number of bytes as people read it.
pub(super) fn bytes(number: u64) -> String {
    let units = [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match units.into_iter().find(|(_, unit)| number >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", number as f64 / unit as f64),
        None => format!("{number} B"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = json!([{ "a": "long name", "b": 7 }, { "a": null, "b": true }]);
        let table = Table::of(["A", "B"], ["a", "b"], &rows).to_string();
        assert_eq!(table, "A          B\nlong name  7\n-          true\n");
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
