//! The metadata store by itself.

use std::time::Duration;

use super::report::Report;
use crate::metadata::survey::{self, Survey};
use crate::settings::{Settings, redact};

/// The oldest Postgres that is tested.
const OLDEST: i64 = 130_000;
/// From here on a round trip is felt in every push.
const SLOW: Duration = Duration::from_millis(10);
/// From here on two clocks disagree: leases are counted in seconds.
const APART: i64 = 5_000_000;

pub(super) async fn look(report: &mut Report, settings: &Settings, thorough: bool) {
    let shown = redact::url(&settings.metadata);
    if let Some(path) = settings.metadata.strip_prefix("sqlite:")
        && !std::path::Path::new(path).exists()
    {
        return report.skipped(shown, "the first start makes it");
    }
    match survey::survey(&settings.metadata, thorough).await {
        Ok(survey) => told(report, settings, &shown, &survey),
        Err(error) => report.failed(
            shown,
            error.to_string(),
            "check host, port, user, password and TLS (sslmode=) of --metadata, and that the network lets this \
             machine through",
        ),
    }
}

fn told(report: &mut Report, settings: &Settings, shown: &str, survey: &Survey) {
    let is_postgres = survey.product.starts_with("PostgreSQL");
    match is_postgres && survey.version < OLDEST {
        true => report.warning(
            shown,
            format!("{} is older than what is tested", survey.product),
            "use PostgreSQL 13 or newer",
        ),
        false => report.ok(shown, survey.product.clone()),
    }
    schema(report, settings, survey);
    if survey.read_only && !settings.read_only {
        report.failed(
            "writes",
            "the database takes none: it is a standby, or was made read-only",
            "let --metadata name the primary (target_session_attrs does not decide here), end \
             default_transaction_read_only, or set --read-only",
        );
    }
    for line in &survey.damage {
        report.failed(
            "integrity",
            line.clone(),
            "the file is damaged: stop the server, restore the last backup, and run fsck",
        );
    }
    if !is_postgres {
        return;
    }
    let told = format!("{:.1} ms", survey.round_trip.as_secs_f64() * 1e3);
    match survey.round_trip >= SLOW {
        true => report.warning(
            "round trip",
            told,
            "each push takes several: run the registry in the database's zone, or let --metadata name the pooler \
             nearest to it",
        ),
        false => report.ok("round trip", told),
    }
    if let Some((theirs, ours)) = survey.clocks {
        let apart = theirs.0 - ours.0;
        let told = format!(
            "the database's is {:+.1} s from this machine's",
            apart as f64 / 1e6
        );
        match apart.abs() >= APART {
            true => report.failed(
                "clock",
                told,
                "have both follow NTP: leases and expiries are times",
            ),
            false => report.ok("clock", told),
        }
    }
    durability(report, survey);
    connections(report, settings, survey);
}

fn schema(report: &mut Report, settings: &Settings, survey: &Survey) {
    let pending = survey.pending.join(", ");
    match (survey.pending.is_empty(), survey.newer) {
        (true, 0) => report.ok("schema", "up to date"),
        (true, newer) => report.ok(
            "schema",
            format!("up to date, with {newer} migrations of a newer release"),
        ),
        (false, _) if settings.migrate => {
            report.warning(
                "schema",
                format!("to be applied: {pending}"),
                "the next start applies them",
            );
        }
        (false, _) => report.failed(
            "schema",
            format!("to be applied: {pending}"),
            "run `berth-registry migrate`; with --migrate false no start does it",
        ),
    }
}

/// A push is acknowledged once it is durable, as far as the database keeps its word.
fn durability(report: &mut Report, survey: &Survey) {
    let is = |name: &str, value: &str| survey.setting(name) == Some(value);
    let mut fine = true;
    for name in ["fsync", "full_page_writes"] {
        if is(name, "off") {
            fine = false;
            report.failed(
                name,
                "off: a crash of the database may lose pushes that were acknowledged, and the database with them",
                format!("set {name} = on in postgresql.conf"),
            );
        }
    }
    if is("synchronous_commit", "off") {
        fine = false;
        report.failed(
            "synchronous_commit",
            "off: a crash loses the pushes of the last moments although they were acknowledged",
            "set synchronous_commit = on for this database or role",
        );
    }
    if is("autovacuum", "off") {
        fine = false;
        report.warning("autovacuum", "off: tables only grow", "set autovacuum = on");
    }
    let isolation = survey.setting("default_transaction_isolation");
    if isolation.is_some_and(|isolation| isolation != "read committed") {
        report.warning(
            "default_transaction_isolation",
            isolation.unwrap_or_default(),
            "set it to read committed, for which the statements are written; others abort transactions that could \
             have waited",
        );
    }
    if survey
        .setting("server_encoding")
        .is_some_and(|encoding| encoding != "UTF8")
    {
        fine = false;
        report.failed(
            "server_encoding",
            survey.setting("server_encoding").unwrap_or_default(),
            "use a database in UTF8",
        );
    }
    if fine {
        report.ok(
            "durability",
            "fsync, full_page_writes and synchronous_commit are on",
        );
    }
}

fn connections(report: &mut Report, settings: &Settings, survey: &Survey) {
    let Some(limit) = survey
        .setting("max_connections")
        .and_then(|text| text.parse::<u64>().ok())
    else {
        return;
    };
    let each = u64::from(settings.postgres_connections) + 1;
    // What the server keeps for others is not known; a pooler in front shows the database's own limit.
    let replicas = limit.saturating_sub(10) / each;
    let told = format!("max_connections {limit}, of which each replica takes up to {each}");
    match replicas {
        0 | 1 => report.warning(
            "connections",
            told,
            "raise max_connections, lower --postgres-connections, or put a pooler between (--postgres-prepared false \
             for one that pools transactions)",
        ),
        replicas => report.ok("connections", format!("{told}: enough for {replicas} replicas")),
    }
}
