//! Helm charts: what a chart says about itself, and what is in it.
//!
//! A chart is an archive with one folder (media type `application/vnd.cncf.helm.chart.content.v1.tar+gzip`): its
//! `Chart.yaml` is read, a few texts are taken along, and of templates and sub-charts only the names. Nothing is
//! rendered.

mod bounded;
mod document;

use std::io::Read;

use serde::Serialize;

use super::limits::Limits;
use super::members::{Member, Members};
use super::meter::Meter;
use super::tree::Kind;
use super::unreadable::UnreadableArchive;

pub use self::bounded::Text;
pub use self::document::{Dependency, Document, Maintainer};

/// Bytes of `Chart.yaml`; a longer one is refused.
const DOCUMENT: u64 = 256 * 1024;
/// Bytes kept of `README.md` and of `values.yaml` each.
const FILE: u64 = 512 * 1024;
/// Names of templates kept.
const TEMPLATES: usize = 1000;
/// Names of sub-charts kept.
const SUBCHARTS: usize = 200;

/// A chart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chart {
    /// `Chart.yaml`.
    #[serde(flatten)]
    pub document: Document,
    /// `README.md`: Markdown by a stranger.
    pub readme: Option<File>,
    /// `values.yaml`, comments included.
    pub values: Option<File>,
    /// Whether there is a `values.schema.json`.
    pub has_schema: bool,
    /// Paths below `templates/` in their order, 1,000 at most.
    pub templates: Vec<String>,
    /// Names in `charts/` in their order, 200 at most: folders, or archives with their version.
    pub subcharts: Vec<String>,
}

/// A text file of a chart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// The first 512 KiB of it. What is not UTF-8 becomes U+FFFD.
    pub text: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Whether there is more of it than the text.
    pub is_cut: bool,
}

/// Reads a chart. Blocks for as long as reading takes; the whole archive must be readable within the limits.
pub fn read(reader: impl Read, limits: &Limits<'_>) -> Result<Chart, UnreadableArchive> {
    let meter = Meter::new(limits);
    let mut members = Members::open(reader, &meter)?;
    let mut parts = Parts::default();
    let mut entries: usize = 0;
    while let Some(member) = members.next()? {
        entries = entries.saturating_add(1);
        if entries > limits.entries {
            return Err(UnreadableArchive::Entries {
                limit: limits.entries,
            });
        }
        // Names are kept, so that long ones are not.
        if member.path.len() <= limits.path {
            parts.take(&member, &mut members)?;
        }
    }
    parts.chart()
}

/// What was found so far.
#[derive(Default)]
struct Parts {
    /// The folder that the chart is in: the first there is.
    top: Option<String>,
    document: Option<Vec<u8>>,
    chart: Chart,
}

impl Parts {
    fn take<R: Read>(
        &mut self,
        member: &Member,
        members: &mut Members<'_, R>,
    ) -> Result<(), UnreadableArchive> {
        let Some((top, path)) = member.path.split_once('/') else {
            return Ok(());
        };
        if self.top.get_or_insert_with(|| top.to_owned()) != top {
            return Ok(());
        }
        if let Some(name) = path.strip_prefix("charts/") {
            self.subchart(name);
        }
        if member.kind != Kind::File || member.is_sparse {
            return Ok(());
        }
        match path {
            "Chart.yaml" if member.size > DOCUMENT => {
                return Err(UnreadableArchive::LongChart { limit: DOCUMENT });
            }
            "Chart.yaml" => self.document = Some(members.content(DOCUMENT)?),
            "README.md" => self.chart.readme = Some(file(member, members)?),
            "values.yaml" => self.chart.values = Some(file(member, members)?),
            "values.schema.json" => self.chart.has_schema = true,
            path => self.template(path),
        }
        Ok(())
    }

    fn template(&mut self, path: &str) {
        let Some(path) = path.strip_prefix("templates/") else {
            return;
        };
        let templates = &mut self.chart.templates;
        if templates.len() < TEMPLATES && !templates.iter().any(|known| known == path) {
            templates.push(path.to_owned());
        }
    }

    fn subchart(&mut self, path: &str) {
        let name = path.split('/').next().unwrap_or(path);
        // Helm leaves out what begins so, and what is neither a folder nor an archive.
        let is_chart = name != path || name.strip_suffix(".tgz").is_some();
        let subcharts = &mut self.chart.subcharts;
        let is_wanted = is_chart && !name.starts_with(['.', '_']);
        if is_wanted && subcharts.len() < SUBCHARTS && !subcharts.iter().any(|known| known == name) {
            subcharts.push(name.to_owned());
        }
    }

    fn chart(self) -> Result<Chart, UnreadableArchive> {
        let document = self.document.ok_or(UnreadableArchive::NoChart)?;
        Ok(Chart {
            document: Document::read(&document)?,
            ..self.chart
        })
    }
}

fn file<R: Read>(member: &Member, members: &mut Members<'_, R>) -> Result<File, UnreadableArchive> {
    let bytes = members.content(FILE)?;
    Ok(File {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        size: member.size,
        is_cut: member.size > FILE,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::super::testing::{Archive, gzip};
    use super::bounded::{CHARACTERS, ELEMENTS};
    use super::*;

    fn of(archive: Archive) -> Result<Chart, UnreadableArchive> {
        read(&gzip(&archive.bytes())[..], &Limits::default())
    }

    fn document(text: &str) -> Result<Document, UnreadableArchive> {
        of(Archive::new().file("c/Chart.yaml", text.as_bytes())).map(|chart| chart.document)
    }

    #[test]
    fn a_chart_is_read_with_its_texts_and_names() {
        let yaml = "apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: 1.10\ntype: application\n\
            kubeVersion: '>=1.25'\nkeywords: [a, b]\nsources:\nmaintainers:\n- name: N\n  email: n@x\n\
            dependencies:\n- name: db\n  version: ^1\n  repository: oci://r\n  condition: db.enabled\n\
            deprecated: true\nannotations: {a/b: c}\nunknown: [1, {x: y}]\n";
        let archive = Archive::new()
            .file("web/Chart.yaml", yaml.as_bytes())
            .file("web/README.md", b"# Web")
            .file("web/values.yaml", b"a: 1 # one\n")
            .file("web/values.schema.json", b"{}")
            .file("web/templates/a.yaml", b"")
            .file("web/templates/tests/b.yaml", b"")
            .file("web/charts/db/Chart.yaml", b"name: db")
            .file("web/charts/db/templates/x.yaml", b"")
            .file("web/charts/cache-1.0.0.tgz", b"")
            .file("web/charts/README.md", b"")
            .file("other/Chart.yaml", b"name: other");
        let json = serde_json::to_value(of(archive).unwrap()).unwrap();
        assert_eq!(
            json,
            json!({
                "name": "web", "version": "1.2.3", "appVersion": "1.10", "type": "application",
                "description": null, "kubeVersion": ">=1.25", "home": null, "icon": null,
                "sources": [], "keywords": ["a", "b"], "deprecated": true, "annotations": {"a/b": "c"},
                "maintainers": [{"name": "N", "email": "n@x", "url": null}],
                "dependencies": [
                    {"name": "db", "version": "^1", "repository": "oci://r", "condition": "db.enabled"},
                ],
                "readme": {"text": "# Web", "size": 5, "isCut": false},
                "values": {"text": "a: 1 # one\n", "size": 11, "isCut": false},
                "hasSchema": true,
                "templates": ["a.yaml", "tests/b.yaml"],
                "subcharts": ["db", "cache-1.0.0.tgz"],
            })
        );
    }

    #[test]
    fn what_has_no_chart_yaml_in_its_first_folder_is_no_chart() {
        for path in ["Chart.yaml", "a/b/Chart.yaml", "a/chart.yaml"] {
            let refused = of(Archive::new().file(path, b"name: a"));
            assert!(matches!(refused, Err(UnreadableArchive::NoChart)), "{path}");
        }
    }

    #[test]
    fn long_files_are_cut_and_a_long_document_is_refused() {
        let long = vec![b'x'; 600 << 10];
        let archive = Archive::new().file("c/Chart.yaml", b"name: c");
        let readme = of(archive.file("c/README.md", &long)).unwrap().readme.unwrap();
        assert_eq!(
            (readme.text.len(), readme.size, readme.is_cut),
            (512 << 10, 600 << 10, true)
        );
        let refused = of(Archive::new().file("c/Chart.yaml", &long));
        assert!(matches!(refused, Err(UnreadableArchive::LongChart { .. })));
    }

    #[test]
    fn names_of_templates_and_subcharts_are_bounded() {
        let mut archive = Archive::new().file("c/Chart.yaml", b"name: c");
        for number in 0..1100 {
            archive = archive.file(&format!("c/templates/{number}"), b"");
            archive = archive.file(&format!("c/charts/{number}/Chart.yaml"), b"");
        }
        let chart = of(archive).unwrap();
        assert_eq!(
            (chart.templates.len(), chart.subcharts.len()),
            (TEMPLATES, SUBCHARTS)
        );
    }

    #[test]
    fn texts_and_lists_are_bounded() {
        let mut yaml = format!("name: {}\nannotations:\n", "ä".repeat(3000));
        for number in 0..300 {
            writeln!(yaml, "  k{number}: v").unwrap();
        }
        writeln!(yaml, "keywords: [{}]", "a,".repeat(300)).unwrap();
        let read = document(&yaml).unwrap();
        assert_eq!(read.name.chars().count(), CHARACTERS);
        assert_eq!(
            (read.keywords.len(), read.annotations.len()),
            (ELEMENTS, ELEMENTS)
        );
    }

    #[test]
    fn names_that_stand_for_names_many_times_over_are_refused_or_bounded() {
        let mut laughs = "name: x\na0: &a0 [l, l, l, l, l, l, l, l, l]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            let nine = vec![format!("*a{before}"); 9].join(", ");
            writeln!(laughs, "a{level}: &a{level} [{nine}]").unwrap();
        }
        let begun = Instant::now();
        let of_names = document(&(laughs.clone() + "keywords: *a11\n"));
        assert!(matches!(of_names, Err(UnreadableArchive::Chart(_))));
        let unknown = document(&(laughs + "else: *a11\n"));
        assert!(unknown.is_err() || unknown.is_ok_and(|read| *read.name == *"x"));
        // A long text a great many times.
        let long = "t".repeat(100_000);
        let list = "*t,".repeat(40_000);
        let read = document(&format!("name: &t {long}\nkeywords: [{list}]\n")).unwrap();
        assert_eq!(
            read.keywords.iter().map(|text| text.len()).sum::<usize>(),
            CHARACTERS * ELEMENTS
        );
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn deep_documents_are_refused_in_time() {
        let begun = Instant::now();
        for yaml in [
            "[".repeat(250_000),
            "{".repeat(250_000),
            "? ".repeat(100_000),
            format!("name: {}", "[".repeat(9999)),
            format!("name: x\nkeywords:\n{}", "- ".repeat(100_000)),
        ] {
            let refused = document(&yaml);
            assert!(matches!(refused, Err(UnreadableArchive::Chart(_))), "{refused:?}");
        }
        // What nobody asks for is passed over.
        let brackets = format!("name: x\nunknown: {}{}", "[".repeat(5000), "]".repeat(5000));
        let dashes = format!("name: x\nunknown:\n{}", "- ".repeat(100_000));
        for yaml in [brackets, dashes] {
            assert_eq!(&*document(&yaml).unwrap().name, "x");
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn documents_of_other_shapes_are_refused() {
        for yaml in [
            "",
            "- a",
            "version: 1.0.0",
            "name: [a]",
            "name: a\nkeywords: b",
            "name: \u{7}",
        ] {
            assert!(
                matches!(document(yaml), Err(UnreadableArchive::Chart(_))),
                "{yaml}"
            );
        }
        assert!(of(Archive::new().file("c/Chart.yaml", b"name: \xff")).is_err());
    }
}
