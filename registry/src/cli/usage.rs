//! `usage`: what tenants store, have stored in a month, and pay.

use std::io::Write as _;

use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Method;
use serde_json::{Value, json};

use super::administer::{leaf, plain, query, show};
use super::client::Client;
use super::table::{Table, bytes};
use super::{Ended, Output};
use crate::lifecycle::metering::read_month;
use crate::settings::Settings;

/// Its name on the command line.
pub(super) const NAME: &str = "usage";

/// Its arguments.
pub(super) fn command() -> Command {
    let month = |text: &str| read_month(text).map(|_| text.to_owned());
    leaf(
        NAME,
        "What tenants store, have stored in a month, and pay",
        "  berth-registry usage\n  berth-registry usage --tenant acme --repositories\n  \
           berth-registry usage --month 2026-11 -o csv",
    )
    .mut_arg("output", |output| output.value_parser(["text", "json", "csv"]))
    .arg(
        Arg::new("tenant")
            .long("tenant")
            .value_name("TENANT")
            .help("Of this tenant alone"),
    )
    .arg(
        Arg::new("month")
            .long("month")
            .value_name("MONTH")
            .value_parser(month)
            .help("Like 2026-11, in UTC; the current one if absent"),
    )
    .arg(
        Arg::new("repositories")
            .long("repositories")
            .action(ArgAction::SetTrue)
            .help("Each repository too"),
    )
}

/// Does what the matches say.
pub(super) async fn run(settings: &Settings, matches: &ArgMatches, output: Output) -> Ended {
    let is_csv = matches
        .get_one::<String>("output")
        .is_some_and(|form| form == "csv");
    let with_repositories = matches.get_flag("repositories");
    let mut path = format!("/admin/v1/usage?repositories={with_repositories}");
    for name in ["tenant", "month"] {
        if let Some(value) = matches.get_one::<String>(name) {
            path.push_str(&format!("&{name}={}", query(value)));
        }
    }
    let client = Client::open(settings).await?;
    if is_csv {
        let rows = client
            .fetch(Method::GET, &format!("{path}&format=csv"), None)
            .await?;
        std::io::stdout().write_all(&rows)?;
        return Ok(());
    }
    let usage = client.ask(Method::GET, &path, None).await?;
    show(output, &usage, |usage| text(usage, with_repositories))
}

fn text(usage: &Value, with_repositories: bool) -> String {
    let mut usages: Vec<&Value> = usage.as_array().into_iter().flatten().collect();
    // A tenant's own row stays before those of its repositories.
    usages.sort_by_key(|usage| {
        (
            plain(&usage["tenant"]),
            usage["repository"].as_str().map(str::to_owned),
        )
    });
    let rows: Vec<Value> = usages.into_iter().map(row).collect();
    let rows = rows.into();
    if with_repositories {
        let columns = ["TENANT", "REPOSITORY", "BYTES", "TAGS", "GIB-HOURS", "COST"];
        Table::of(
            columns,
            ["tenant", "repository", "bytes", "tags", "gibHours", "cost"],
            &rows,
        )
        .to_string()
    } else {
        let columns = ["TENANT", "BYTES", "REPOSITORIES", "TAGS", "GIB-HOURS", "COST"];
        Table::of(
            columns,
            ["tenant", "bytes", "repositories", "tags", "gibHours", "cost"],
            &rows,
        )
        .to_string()
    }
}

fn row(usage: &Value) -> Value {
    let mut tenant = plain(&usage["tenant"]);
    if usage["deleted"] == true {
        tenant.push_str(" (deleted)");
    }
    json!({
        "tenant": tenant,
        "repository": usage["repository"],
        "bytes": bytes(usage["bytes"].as_u64().unwrap_or_default()),
        "tags": usage["tags"],
        "repositories": usage["repositories"],
        "gibHours": usage["gibHours"],
        "cost": format!("{} {}", plain(&usage["cost"]), plain(&usage["currency"])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_name_and_say_what_is_gone() {
        let usage = |tenant: &str, repository: Option<&str>, deleted: bool| {
            json!({ "tenant": tenant, "repository": repository, "bytes": 2048, "tags": 1, "repositories": 1,
                    "gibHours": "1.500", "cost": "0.012300", "currency": "EUR", "deleted": deleted })
        };
        let usages = json!([
            usage("zeta", None, false),
            usage("zeta", Some("a"), false),
            usage("acme", None, true)
        ]);
        assert_eq!(
            text(&usages, true),
            "TENANT          REPOSITORY  BYTES    TAGS  GIB-HOURS  COST\n\
             acme (deleted)  -           2.0 KiB  1     1.500      0.012300 EUR\n\
             zeta            -           2.0 KiB  1     1.500      0.012300 EUR\n\
             zeta            a           2.0 KiB  1     1.500      0.012300 EUR\n"
        );
    }
}
