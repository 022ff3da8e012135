//! `token`, `tenant`, `repository` and `apply`: the admin API from the command line, and what all commands share that
//! ask it.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::table::Table;
use super::{Ended, Output};
use crate::admin::manifests::{self, Document};
use crate::settings::{Settings, resolve};

/// Settings that say which server is meant; the others are not shown in help.
const SHOWN: [&str; 5] = ["config", "data", "metadata", "admin-listen", "admin-key-file"];

/// Names of the subcommands of this module.
pub(super) const NAMES: [&str; 4] = ["apply", "repository", "tenant", "token"];

pub(super) fn leaf(name: &'static str, about: &'static str, examples: &'static str) -> Command {
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FORMAT")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("Form of the output");
    let shown = |arg: Arg| {
        let hidden = !SHOWN.contains(&arg.get_id().as_str());
        arg.hide(hidden)
    };
    resolve::arguments(Command::new(name).about(about))
        .mut_args(shown)
        .arg(output)
        .after_help(format!("Examples:\n{examples}"))
}

pub(super) fn tenant_flag() -> Arg {
    Arg::new("tenant")
        .long("tenant")
        .value_name("TENANT")
        .default_value("default")
        .help("The tenant")
}

pub(super) fn positional(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).help(help)
}

/// The subcommands.
pub(super) fn commands() -> [Command; 4] {
    [token(), tenant(), repository(), apply()]
}

fn token() -> Command {
    let create = leaf(
        "create",
        "Make a token; it is shown this once",
        "  berth-registry token create ci\n  \
           berth-registry token create ci --tenant acme --repository 'team-a/**' --action pull,push --expires-after 720h\n  \
           berth-registry token create reader --tenant acme --action pull -o json",
    )
    .arg(positional("name", "Name of the token: a DNS label"))
    .arg(tenant_flag())
    .arg(
        Arg::new("repository")
            .long("repository")
            .value_name("GLOB")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .help("Repositories it is for; repeatable. All if absent"),
    )
    .arg(
        Arg::new("action")
            .long("action")
            .value_name("ACTION")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .value_parser(PossibleValuesParser::new(["pull", "push", "delete", "metadata"]))
            .help("What it may do; repeatable. pull and push if absent"),
    )
    .arg(
        Arg::new("kind")
            .long("kind")
            .value_name("KIND")
            .value_parser(PossibleValuesParser::new(["user", "organization", "project"]))
            .help("What it stands for: organization without --repository, project with it"),
    )
    .arg(Arg::new("description").long("description").value_name("TEXT").help("For people"))
    .arg(
        Arg::new("expires-after")
            .long("expires-after")
            .value_name("TIME")
            .help("Its lifetime, like 720h; it does not end if absent"),
    );
    let list = leaf(
        "list",
        "List tokens, without their secrets",
        "  berth-registry token list --tenant acme",
    )
    .arg(tenant_flag());
    let revoke = leaf(
        "revoke",
        "Revoke a token: it is refused within a second",
        "  berth-registry token revoke 12PbuPeMvUP3 --tenant acme",
    )
    .arg(positional("id", "Its id, as `token list` shows it"))
    .arg(tenant_flag());
    let rotate = leaf(
        "rotate",
        "Replace a token by a new one; the old one stays valid for a while",
        "  berth-registry token rotate 12PbuPeMvUP3 --tenant acme --overlap 1h",
    )
    .arg(positional("id", "Its id, as `token list` shows it"))
    .arg(tenant_flag())
    .arg(
        Arg::new("overlap")
            .long("overlap")
            .value_name("TIME")
            .help("For how long the old token stays valid; 24h if absent"),
    );
    group(
        "token",
        "Tokens: make, list, replace, revoke",
        [create, list, rotate, revoke],
    )
}

fn tenant() -> Command {
    let list = leaf("list", "List tenants", "  berth-registry tenant list");
    let show = leaf(
        "show",
        "Show a tenant",
        "  berth-registry tenant show acme -o json",
    )
    .arg(positional("name", "Its name"));
    let suspend = leaf(
        "suspend",
        "Refuse a tenant's pushes and pulls, or take them up again",
        "  berth-registry tenant suspend acme --reason 'unpaid since May'\n  berth-registry tenant suspend acme --resume",
    )
    .arg(positional("name", "Its name"))
    .arg(Arg::new("reason").long("reason").value_name("TEXT").help("Told to those who are refused"))
    .arg(Arg::new("resume").long("resume").action(ArgAction::SetTrue).help("Take pushes and pulls up again"));
    group("tenant", "Tenants: list, show, suspend", [list, show, suspend])
}

fn repository() -> Command {
    let list = leaf(
        "list",
        "List the repositories that exist in a tenant",
        "  berth-registry repository list --tenant acme",
    )
    .arg(tenant_flag());
    let show = leaf(
        "show",
        "Show a repository",
        "  berth-registry repository show team-a/api --tenant acme",
    )
    .arg(positional("name", "Its name or an alias"))
    .arg(tenant_flag());
    group("repository", "Repositories: list, show", [list, show])
}

fn apply() -> Command {
    leaf(
        "apply",
        "Apply Tenant, Repository, RetentionPolicy and PullThroughCache documents, all or none",
        "  berth-registry apply -f tenant.yaml\n  berth-registry apply -f manifests/ --dry-run",
    )
    .arg(
        Arg::new("file")
            .short('f')
            .long("file")
            .value_name("PATH")
            .required(true)
            .action(ArgAction::Append)
            .help("A YAML file, or a folder of them; repeatable"),
    )
    .arg(
        Arg::new("dry-run")
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .help("Only check"),
    )
}

/// A command of which something is always done.
pub(super) fn group<const N: usize>(
    name: &'static str,
    about: &'static str,
    leaves: [Command; N],
) -> Command {
    Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(leaves)
}

/// Does what the matches of a leaf say. `path` is its name, with its group's.
pub(super) async fn run(settings: &Settings, path: &[&str], matches: &ArgMatches, output: Output) -> Ended {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let tenant = || tenant_path(matches);
    let name = || segment(&text("name").unwrap_or_default());
    let id = || segment(&text("id").unwrap_or_default());
    let documents = match path {
        ["apply"] => read(
            matches
                .get_many::<String>("file")
                .into_iter()
                .flatten()
                .map(Path::new),
        )?,
        _ => Vec::new(),
    };
    if path == ["apply"] && matches.get_flag("dry-run") {
        return show(output, &json!({ "valid": documents.len() }), |_| {
            format!("{} documents are valid\n", documents.len())
        });
    }
    let client = Client::open(settings).await?;
    match path {
        ["token", "create"] => {
            let made = client
                .ask(
                    Method::POST,
                    &format!("{}/tokens", tenant()),
                    Some(&new_token(matches)),
                )
                .await?;
            show(output, &made, made_token)
        }
        ["token", "rotate"] => {
            let body = match text("overlap") {
                Some(overlap) => json!({ "overlap": overlap }),
                None => json!({}),
            };
            let path = format!("{}/tokens/{}/rotate", tenant(), id());
            show(
                output,
                &client.ask(Method::POST, &path, Some(&body)).await?,
                made_token,
            )
        }
        ["token", "list"] => {
            let tokens = pages(&client, &format!("{}/tokens", tenant()), "tokens").await?;
            show(output, &tokens, |tokens| {
                let columns = ["ID", "NAME", "KIND", "EXPIRES", "LAST USED", "GRANTS"];
                let fields = ["id", "name", "kind", "expiresAt", "lastUsedAt", "grants"];
                Table::of(columns, fields, tokens).to_string()
            })
        }
        ["token", "revoke"] => {
            let gone = client
                .ask(Method::DELETE, &format!("{}/tokens/{}", tenant(), id()), None)
                .await?;
            show(output, &gone, |gone| {
                format!("revoked {} ({})\n", plain(&gone["id"]), plain(&gone["name"]))
            })
        }
        ["tenant", "list"] => {
            let tenants = client.ask(Method::GET, "/admin/v1/tenants", None).await?;
            show(output, &tenants, |tenants| {
                let columns = ["NAME", "GENERATION", "SERVED", "UID"];
                Table::of(
                    columns,
                    ["tenant", "generation", "programmed", "tenantUid"],
                    tenants,
                )
                .to_string()
            })
        }
        ["tenant", "show"] => {
            let shown = client
                .ask(Method::GET, &format!("/admin/v1/tenants/{}", name()), None)
                .await?;
            show(output, &shown, yaml)
        }
        ["tenant", "suspend"] => suspend(&client, &name(), matches, output).await,
        ["repository", "list"] => {
            let found = pages(&client, &format!("{}/catalog", tenant()), "repositories").await?;
            show(output, &found, |found| {
                let columns = ["NAME", "TAGS", "BYTES", "VISIBILITY", "DECLARED"];
                Table::of(
                    columns,
                    ["name", "tags", "bytes", "visibility", "declared"],
                    found,
                )
                .to_string()
            })
        }
        ["repository", "show"] => {
            let name = text("name").unwrap_or_default();
            let path = format!(
                "{}/catalog/{}",
                tenant(),
                name.split('/').map(segment).collect::<Vec<_>>().join("/")
            );
            show(output, &client.ask(Method::GET, &path, None).await?, yaml)
        }
        _ => {
            let applied = client
                .ask(Method::POST, "/admin/v1/apply", Some(&body(&documents)))
                .await?;
            show(output, &applied, |applied| {
                format!(
                    "{} documents applied, {} changed (version {})\n",
                    documents.len(),
                    plain(&applied["changed"]),
                    plain(&applied["version"])
                )
            })
        }
    }
}

/// Where the tenant of `--tenant` is.
pub(super) fn tenant_path(matches: &ArgMatches) -> String {
    let name = matches.get_one::<String>("tenant").map_or("", String::as_str);
    format!("/admin/v1/tenants/{}", segment(name))
}

pub(super) fn segment(text: &str) -> String {
    // What is no name names nothing, also when it is empty.
    let text = if text.is_empty() { "-" } else { text };
    utf8_percent_encode(text, NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
        .replace("%2E", ".")
        .replace("%5F", "_")
}

fn new_token(matches: &ArgMatches) -> Value {
    let list = |name: &str| -> Vec<String> {
        matches
            .get_many::<String>(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    };
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let (mut repositories, mut actions) = (list("repository"), list("action"));
    let kind = text("kind").unwrap_or_else(|| {
        let all = repositories.is_empty();
        if all { "organization" } else { "project" }.to_owned()
    });
    if repositories.is_empty() {
        repositories.push("**".to_owned());
    }
    if actions.is_empty() {
        actions = vec!["pull".to_owned(), "push".to_owned()];
    }
    let mut token = Map::new();
    token.insert("name".into(), text("name").into());
    token.insert("kind".into(), kind.into());
    token.insert(
        "grants".into(),
        json!([{ "repositories": repositories, "actions": actions }]),
    );
    for (field, flag) in [("description", "description"), ("expiresAfter", "expires-after")] {
        if let Some(value) = text(flag) {
            token.insert(field.into(), value.into());
        }
    }
    token.into()
}

fn made_token(made: &Value) -> String {
    format!(
        "{}\n\nIt is not shown again. Log in with any user name and the token as the password:\n\n    \
         docker login -u x-token <registry>\n",
        plain(&made["token"])
    )
}

/// All pages of a list; `path` may have a query.
pub(super) async fn pages(client: &Client, path: &str, field: &str) -> Result<Value, Box<dyn Error>> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.ask(Method::GET, &format!("{path}{cursor}"), None).await?;
        if let Some(Value::Array(entries)) = page.get_mut(field).map(Value::take) {
            all.extend(entries);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("{separator}after={}", query(next)),
            None => return Ok(all.into()),
        }
    }
}

/// A value of a query.
pub(super) fn query(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn suspend(client: &Client, name: &str, matches: &ArgMatches, output: Output) -> Ended {
    let path = format!("/admin/v1/tenants/{name}");
    let shown = client.ask(Method::GET, &path, None).await?;
    let resume = matches.get_flag("resume");
    let mut spec = shown["spec"].clone();
    if spec["webhooks"]
        .as_array()
        .is_some_and(|webhooks| webhooks.iter().any(|webhook| webhook["secret"].is_string()))
    {
        return Err(
            "this tenant has webhooks with secrets, which cannot be read back: set suspend where it is \
                    configured from"
                .into(),
        );
    }
    spec["suspend"] = (!resume).into();
    spec["suspendReason"] = match matches.get_one::<String>("reason") {
        Some(reason) if !resume => reason.clone().into(),
        _ => Value::Null,
    };
    let body = json!({ "uid": shown["uid"], "generation": shown["generation"], "spec": spec });
    client.ask(Method::PUT, &path, Some(&body)).await?;
    let done = json!({ "tenant": shown["tenant"], "suspended": !resume });
    show(output, &done, |done| {
        let what = if resume {
            "takes pushes and pulls again"
        } else {
            "is suspended"
        };
        format!("{} {what}\n", plain(&done["tenant"]))
    })
}

/// The documents of files and folders.
fn read<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Vec<Document>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(manifests::files(path)?);
        } else {
            files.push(path.to_owned());
        }
    }
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match manifests::read(&file) {
            Ok(found) => documents.extend(found),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() {
        documents.sort_by_key(|document| document.wanted.kind);
        return Ok(documents);
    }
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(lines.join("\n").into())
}

fn body(documents: &[Document]) -> Value {
    let objects: Vec<Value> = documents
        .iter()
        .map(|document| document.wanted.to_json())
        .collect();
    json!({ "objects": objects })
}

pub(super) fn show(output: Output, value: &Value, text: impl FnOnce(&Value) -> String) -> Ended {
    let shown = match output {
        Output::Text => text(value),
        Output::Json => format!("{value:#}\n"),
    };
    std::io::stdout().write_all(shown.as_bytes())?;
    Ok(())
}

pub(super) fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// A value as people write it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(grants) if grants.iter().all(|grant| grant.get("repositories").is_some()) => {
            let list = |value: &Value| -> String {
                let entries = value.as_array().map(Vec::as_slice).unwrap_or_default();
                entries.iter().map(plain).collect::<Vec<_>>().join(",")
            };
            let grants = grants
                .iter()
                .map(|grant| format!("{}: {}", list(&grant["repositories"]), list(&grant["actions"])));
            grants.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}
