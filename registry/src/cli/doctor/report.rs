//! What was found, and how it is shown.

use std::fmt::Write as _;

use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Not looked at, and why.
    Skipped,
    /// It works, and should be seen to.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// Which part of the installation.
    pub(super) part: &'static str,
    /// What was looked at.
    pub(super) check: String,
    pub(super) status: Status,
    /// What was seen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) detail: String,
    /// The command or setting that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// All that was found, in the order in which it was looked for.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    part: &'static str,
    /// Whether each is shown as it is found.
    shown: bool,
}

impl Report {
    /// With `shown` each finding is printed at once.
    pub(super) fn new(shown: bool) -> Self {
        Self {
            shown,
            ..Self::default()
        }
    }

    /// What follows is about another part.
    pub(super) fn begin(&mut self, part: &'static str) {
        self.part = part;
        if self.shown {
            println!("{part}");
        }
    }

    pub(super) fn ok(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check.into(), Status::Ok, detail.into(), None);
    }

    pub(super) fn skipped(&mut self, check: impl Into<String>, why: impl Into<String>) {
        self.add(check.into(), Status::Skipped, why.into(), None);
    }

    pub(super) fn warning(
        &mut self,
        check: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check.into(), Status::Warning, detail.into(), Some(remedy.into()));
    }

    pub(super) fn failed(
        &mut self,
        check: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check.into(), Status::Failed, detail.into(), Some(remedy.into()));
    }

    fn add(&mut self, check: String, status: Status, detail: String, remedy: Option<String>) {
        let finding = Finding {
            part: self.part,
            check,
            status,
            detail,
            remedy,
        };
        if self.shown {
            print!("{}", text(&finding));
        }
        self.findings.push(finding);
    }

    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(super) fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|one| one.status == status).count()
    }
}

fn text(finding: &Finding) -> String {
    let mark = match finding.status {
        Status::Ok => "ok     ",
        Status::Skipped => "skipped",
        Status::Warning => "WARNING",
        Status::Failed => "FAILED ",
    };
    let mut text = format!("  {mark}  {}", finding.check);
    // Writing to a String cannot fail.
    if !finding.detail.is_empty() {
        let _ = write!(text, ": {}", finding.detail);
    }
    text.push('\n');
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "           -> {remedy}");
    }
    text
}
