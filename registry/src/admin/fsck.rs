//! `/admin/v1/fsck`: the check of the stores is started, watched and stopped here.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use super::answer::{Answer, Body, Failure};
use crate::audit::{Event, Outcome};
use crate::lifecycle::fsck::{Checked, End, Finding, Options, Progress, Standing, StartError};
use crate::rfc3339;

/// What becomes of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Phase {
    /// There was none yet.
    Never,
    /// It is under way.
    Running,
    /// It was cut off, and is taken up again by a replica within a minute, or by starting it again.
    Interrupted,
    /// It has seen everything.
    Done,
    /// Somebody stopped it.
    Stopped,
    /// It met something in the metadata store that cannot be read.
    Failed,
}

/// The newest check of the stores.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What becomes of it.
    state: Phase,
    #[serde(flatten)]
    run: Option<Details>,
}

/// Where a check stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// What was asked for.
    options: Options,
    /// When it began (RFC 3339).
    started_at: String,
    /// When it ended (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Which process works on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// What is being looked at.
    phase: &'static str,
    /// How many of that have been looked at; of contents, bytes.
    done: u64,
    /// About how many there are.
    total: Option<u64>,
    /// How much of the whole check is done, from 0 to 100.
    percent: Option<f64>,
    /// What has been looked at in all.
    checked: Checked,
    /// Blobs that manifests name and that are absent, as their tenants or manifests allow.
    absent: u64,
    /// How much is wrong.
    found: u64,
    /// How much of that has been taken care of.
    repaired: u64,
    /// How much has not.
    remaining: u64,
    /// What is wrong, the first 1,000.
    findings: Vec<Finding>,
    /// Why it waits, or why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    /// What to know about the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Starts a check, or goes on with one that was interrupted.
pub async fn start(
    State(admin): State<Admin>,
    Body(options): Body<Options>,
) -> Result<(StatusCode, Json<Check>), Failure> {
    if options.rate == Some(0) {
        return Err(Failure::invalid(
            "rate: at least one byte a second, or none at all",
        ));
    }
    let standing = admin.fsck.start(options).await.map_err(|error| match error {
        StartError::Running { .. } => Failure::new(StatusCode::CONFLICT, "Running", error.to_string()),
        StartError::Metadata(error) => error.into(),
    })?;
    record(
        &admin,
        "fsck.start",
        format!(
            "rehash {}, repair {}, forget lost {}",
            options.rehash, options.repair, options.forget_lost
        ),
    );
    Ok((StatusCode::ACCEPTED, Json(shown(Some(standing)))))
}

/// The newest check.
pub async fn show(State(admin): State<Admin>) -> Answer<Check> {
    Ok(Json(shown(admin.fsck.standing().await?)))
}

/// Stops the check that is under way.
pub async fn stop(State(admin): State<Admin>) -> Answer<Check> {
    let standing = admin.fsck.stop().await?;
    if standing
        .as_ref()
        .is_some_and(|standing| standing.run.end == Some(End::Stopped))
    {
        record(&admin, "fsck.stop", String::new());
    }
    Ok(Json(shown(standing)))
}

fn record(admin: &Admin, action: &'static str, detail: String) {
    admin.identity.audit().add(Event {
        tenant: (0, String::new()),
        actor: "admin".to_owned(),
        action,
        object: "fsck".to_owned(),
        outcome: Outcome::Done,
        detail,
        address: None,
    });
}

fn shown(standing: Option<Standing>) -> Check {
    let Some(Standing { run, worker }) = standing else {
        return Check {
            state: Phase::Never,
            run: None,
        };
    };
    let state = match (run.end, &worker) {
        (Some(End::Done), _) => Phase::Done,
        (Some(End::Stopped), _) => Phase::Stopped,
        (Some(End::Failed), _) => Phase::Failed,
        (None, Some(_)) => Phase::Running,
        (None, None) => Phase::Interrupted,
    };
    let Progress { done, total, percent } = run.progress();
    let details = Details {
        options: run.options,
        started_at: rfc3339::write(run.started_at()),
        ended_at: run.ended_at().map(rfc3339::write),
        worker,
        phase: run.step.text(),
        done,
        total,
        percent: percent.map(|percent| (percent * 10.0).round() / 10.0),
        checked: run.checked,
        absent: run.absent,
        found: run.found,
        repaired: run.repaired,
        remaining: run.remaining(),
        findings: run.findings,
        trouble: run.trouble,
        warning: run.warning,
    };
    Check {
        state,
        run: Some(details),
    }
}
