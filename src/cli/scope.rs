//! Whose mailboxes: the options that say it, whom they mean, and the list of those whom a connection monitors.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::exit::Exit;
use super::{Context, output};
use crate::connection::preview::{Preview, preview};
use crate::connection::scope_csv::{self, ScopeCsv};
use crate::connection::{Connection, Registry};
use crate::error::{Code, Error, Result, ResultExt};
use crate::run::Failure;
use crate::source::{Member, Scope, ScopeFinding, Source as _};

/// How long a person waits to see whom a scope means; a directory of 100,000 users is read in about a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whose mailboxes.
#[derive(Debug, Args)]
pub(super) struct ScopeArguments {
    /// Whose mailboxes: `all`
    #[arg(long, value_name = "all", value_parser = ["all"], group = "who")]
    scope: Option<String>,
    /// CSV of users to monitor: addresses, user principal names or object ids
    #[arg(long, value_name = "FILE", group = "who")]
    users: Option<PathBuf>,
    /// CSV of groups whose members to monitor, nested groups included
    #[arg(long, value_name = "FILE", group = "who")]
    groups: Option<PathBuf>,
}

/// A scope as the options give it, with the file that it came from.
pub(super) struct Given {
    pub(super) scope: Scope,
    csv: Option<ScopeCsv>,
}

impl ScopeArguments {
    pub(super) fn read(&self) -> Result<Given> {
        let (path, scope): (_, fn(Vec<String>) -> Scope) = match (&self.users, &self.groups) {
            (Some(path), _) => (path, Scope::Users),
            (None, Some(path)) => (path, Scope::Groups),
            (None, None) => return Ok(Given { scope: Scope::All, csv: None }),
        };
        let doing = format!("cannot read the scope `{}`", path.display());
        let bytes = std::fs::read(path).or_error(Code::Configuration, &doing)?;
        let csv = scope_csv::read(&bytes).map_err(|error| error.context(doing))?;
        Ok(Given { scope: scope(csv.entries.clone()), csv: Some(csv) })
    }
}

/// What became of the question whom a scope means.
#[derive(Debug, Serialize)]
pub(super) struct Resolved {
    #[serde(flatten)]
    preview: Preview,
    /// Why the tenant could not be asked.
    error: Option<Failure>,
}

/// Says whom a scope means before it is saved. A tenant that cannot be asked yet is no hindrance: consent comes later.
///
/// # Errors
/// `configuration` when the scope means nobody at all and is to be saved.
pub(super) async fn resolve(
    context: &Context,
    connection: &Connection,
    given: &Given,
    is_trial: bool,
) -> Result<Resolved> {
    let asked = async { preview(&connection.source(context.clock.clone())?, &given.scope, given.csv.as_ref()).await };
    let asked = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        Err(Error::new(Code::ServiceUnavailable, "the directory did not answer within two minutes"))
    });
    let resolved = match asked {
        Ok(preview) => Resolved { preview, error: None },
        Err(error) => {
            let findings = given.csv.as_ref().map(|csv| csv.findings.clone()).unwrap_or_default();
            Resolved {
                preview: Preview { people: None, sample: Vec::new(), findings },
                error: Some(Failure::from(&error)),
            }
        }
    };
    let Resolved { preview, error } = &resolved;
    for finding in &preview.findings {
        output::say(format_args!("warning: {finding}"));
    }
    if let Some(Failure { code, message, .. }) = error {
        output::say(format_args!("warning: `{code}`: whom the scope means cannot be asked yet: {message}"));
    }
    if let Some(people) = preview.people {
        let names: Vec<&str> = preview.sample.iter().map(|member| member.address.as_str()).collect();
        let colon = if people > 0 { ": " } else { "" };
        let more = if people > names.len() { ", …" } else { "" };
        output::say(format_args!("The scope means {people} people{colon}{}{more}", names.join(", ")));
        if people == 0 && !is_trial {
            return Err(Error::new(Code::Configuration, "the scope means nobody, so nothing would be monitored"));
        }
    }
    Ok(resolved)
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  waybill --lake ./lake connection scope 'Contoso mail' --output csv > monitored.csv"
)]
pub(super) struct Members {
    /// Display name or id
    #[arg(value_name = "NAME")]
    name: String,
    /// How the people are written
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// How people are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a person.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

/// Whom a connection monitors, as JSON.
#[derive(Serialize)]
struct Listed<'a> {
    people: Option<usize>,
    members: &'a [Member],
    findings: &'a [ScopeFinding],
}

/// Lists whom a connection monitors now.
pub(super) async fn members(context: &Context, arguments: Members) -> Result<Exit> {
    let lake = context.lake()?;
    let connection = Registry::of(&lake).get(&arguments.name).await?;
    let resolved = connection.source(context.clock.clone())?.resolve_scope(&connection.scope).await?;
    for finding in &resolved.findings {
        output::say(format_args!("warning: {finding}"));
    }
    let members = resolved.members().unwrap_or_default();
    if resolved.people().is_none() {
        output::say("The scope is `all`: everybody is monitored.");
    }
    match arguments.output {
        Format::Json => {
            output::json(&Listed { people: resolved.people(), members, findings: &resolved.findings })?;
        }
        Format::Csv => output::line(scope_csv::write(members).trim_end())?,
        Format::Table if resolved.people().is_none() => {}
        Format::Table => output::table(
            &["address", "mail", "name", "object id"],
            members.iter().map(|member| {
                // People choose their display names, and a control character must not reach the terminal.
                let shown = |text: &str| text.replace(char::is_control, "\u{fffd}");
                let optional = |text: &Option<String>| shown(text.as_deref().unwrap_or_default());
                vec![shown(&member.address), optional(&member.mail), optional(&member.name), shown(&member.object_id)]
            }),
        )?,
    }
    Ok(Exit::DONE)
}
