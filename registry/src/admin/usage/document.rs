//! Usage as JSON or CSV, written page by page.

use std::io;

use bytes::Bytes;
use http::HeaderValue;

use super::{Usage, csv};
use crate::admin::answer::Failure;

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One array.
    Json,
    /// A header and a record a row.
    Csv,
}

impl Form {
    /// The form that a query asks for, else the one that is accepted.
    pub(super) fn of(asked: Option<&str>, accept: Option<&HeaderValue>) -> Result<Self, Failure> {
        match asked {
            Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some(other) => Err(Failure::invalid(format!(
                "format {other:?} is not known: json or csv"
            ))),
            None => {
                let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
                let mut types = accept
                    .split(',')
                    .map(|part| part.split(';').next().unwrap_or_default().trim());
                // Of the two, the one that is named first.
                let known = types.find(|kind| matches!(*kind, "application/json" | "text/csv"));
                Ok(if known == Some("text/csv") {
                    Self::Csv
                } else {
                    Self::Json
                })
            }
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// An answer that is written page by page.
pub(super) struct Document {
    form: Form,
    /// Whether its beginning is written.
    begun: bool,
    /// Whether a row is.
    filled: bool,
}

impl Document {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            begun: false,
            filled: false,
        }
    }

    /// The next page; the first and the last one begin and end the whole.
    pub(super) fn page(&mut self, page: &[Usage], is_last: bool) -> Result<Bytes, io::Error> {
        let mut text = String::new();
        let is_first = !std::mem::replace(&mut self.begun, true);
        match self.form {
            Form::Csv => {
                if is_first {
                    csv::record(&mut text, &COLUMNS);
                }
                page.iter()
                    .for_each(|usage| csv::record(&mut text, &usage.fields()));
            }
            Form::Json => {
                text.push_str(if is_first { "[" } else { "" });
                for usage in page {
                    text.push_str(if std::mem::replace(&mut self.filled, true) {
                        ",\n"
                    } else {
                        ""
                    });
                    text.push_str(&serde_json::to_string(usage)?);
                }
                text.push_str(if is_last { "]\n" } else { "" });
            }
        }
        Ok(text.into())
    }
}

const COLUMNS: [&str; 13] = [
    "tenant",
    "repository",
    "bytes",
    "tags",
    "repositories",
    "month",
    "byteHours",
    "gibHours",
    "cost",
    "currency",
    "price",
    "storedBytes",
    "deleted",
];

impl Usage {
    /// In the order of [`COLUMNS`].
    fn fields(&self) -> [String; COLUMNS.len()] {
        [
            self.tenant.clone(),
            self.repository.clone().unwrap_or_default(),
            self.bytes.to_string(),
            self.tags.to_string(),
            self.repositories.to_string(),
            self.month.clone(),
            self.byte_hours.to_string(),
            self.gib_hours.clone(),
            self.cost.clone(),
            self.currency.clone(),
            self.price.clone(),
            self.stored_bytes
                .map(|bytes| bytes.to_string())
                .unwrap_or_default(),
            self.deleted.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(tenant: &str) -> Usage {
        Usage {
            tenant: tenant.to_owned(),
            repository: None,
            bytes: 1,
            tags: 2,
            repositories: 3,
            month: "2026-11".to_owned(),
            byte_hours: 4,
            gib_hours: "0.000".to_owned(),
            cost: "0.000000".to_owned(),
            currency: "USD".to_owned(),
            price: "0.20".to_owned(),
            stored_bytes: Some(5),
            deleted: false,
        }
    }

    fn text(form: Form, pages: &[Vec<Usage>]) -> String {
        let mut document = Document::new(form);
        let last = pages.len() - 1;
        let pages = pages.iter().enumerate();
        let chunks = pages.map(|(at, page)| document.page(page, at == last).unwrap());
        let bytes: Vec<u8> = chunks.flat_map(|chunk| chunk.to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn pages_together_are_one_document() {
        for pages in [
            vec![vec![]],
            vec![vec![usage("a")]],
            vec![vec![usage("a"), usage("b")], vec![usage("c")]],
            vec![vec![], vec![]],
            vec![vec![usage("a")], vec![], vec![usage("b")]],
            vec![vec![], vec![usage("a")], vec![]],
        ] {
            let rows: usize = pages.iter().map(Vec::len).sum();
            let json: Vec<serde_json::Value> = serde_json::from_str(&text(Form::Json, &pages)).unwrap();
            assert_eq!(json.len(), rows);
            assert_eq!(text(Form::Csv, &pages).lines().count(), rows + 1);
        }
    }

    #[test]
    fn columns_are_the_fields_of_the_json_document() {
        let full = Usage {
            repository: Some("team/app".to_owned()),
            deleted: true,
            ..usage("acme")
        };
        let json = serde_json::to_value(&full).unwrap();
        let names: Vec<&String> = json.as_object().unwrap().keys().collect();
        let mut columns = COLUMNS.to_vec();
        columns.sort_unstable();
        assert_eq!(names, columns);
        for (column, field) in COLUMNS.iter().zip(full.fields()) {
            assert_eq!(json[column].to_string().trim_matches('"'), field, "{column}");
        }
    }

    #[test]
    fn the_form_is_what_the_query_says_else_what_is_accepted() {
        let accept = |value: &'static str| HeaderValue::from_static(value);
        assert_eq!(Form::of(None, None).ok(), Some(Form::Json));
        for (accepted, expected) in [
            ("text/html, text/csv;q=0.9", Form::Csv),
            ("application/json, text/csv;q=0.5", Form::Json),
        ] {
            assert_eq!(
                Form::of(None, Some(&accept(accepted))).ok(),
                Some(expected),
                "{accepted}"
            );
        }
        assert_eq!(
            Form::of(Some("json"), Some(&accept("text/csv"))).ok(),
            Some(Form::Json)
        );
        assert_eq!(Form::of(None, Some(&accept("*/*"))).ok(), Some(Form::Json));
        assert!(Form::of(Some("xml"), None).is_err());
    }
}
