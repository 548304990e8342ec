//! `waybill connection`: who is monitored.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::exit::Exit;
use super::scope::{self, ScopeArguments};
use super::{Context, authorize, orders, output, times};
use crate::connection::{Connection, Intent, Layout, Order, Registry, Service, display_name};
use crate::doctor::{self, Owed, Standing};
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::schema::TableName;
use crate::search::Search;
use crate::secret::SecretPlace;
use crate::source::microsoft365::{Cloud, Credential, Overrides};
use crate::source::{Application, Scope};

/// Changes that `show` lists; the table `changes` has them all.
const HISTORY_SHOWN: usize = 10;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a connection; begins the lake when there is none
    Add(Box<Add>),
    /// All connections
    List(Reporting),
    /// One connection, where it stands and what it owes
    Show(Named),
    /// Try whether it works: the same as `waybill doctor --connection NAME`
    Check(Named),
    /// List whom the connection monitors now
    Scope(scope::Members),
    /// Monitor other people from now on; what was recorded stays
    Rescope(Rescope),
    /// Let an administrator of the tenant consent, once, in a browser
    Authorize(authorize::Authorize),
    /// The fewest permissions that work, and why; as JSON, for the application's manifest
    Permissions(authorize::Permissions),
    /// Divide its mailboxes into shards, so that several machines can run it at once
    Split(Split),
    /// Leave it alone until it is resumed
    Pause(Named),
    /// Read it again, from where the last run stopped
    Resume(Named),
    /// Stop reading the tenant until it is authorised anew; what was recorded stays searchable
    Deauthorize(Named),
    /// Remove a connection; what it recorded stays
    Remove(Named),
}

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("credential").required(true)),
    group(ArgGroup::new("who").required(true)),
    after_help = "Example:\n  WAYBILL_SECRET=… waybill --lake ./lake connection add --name 'Contoso mail' --tenant 11111111-… --client-id 22222222-… \\\n      --client-secret-env WAYBILL_SECRET --scope all"
)]
pub(super) struct Add {
    /// Display name, unique in the lake
    #[arg(long)]
    name: String,
    /// The tenant's id
    #[arg(long, value_name = "ID")]
    tenant: Uuid,
    /// The application's (client) id
    #[arg(long, value_name = "ID")]
    client_id: Uuid,
    /// Environment variable that holds the client secret
    #[arg(long, value_name = "VAR", group = "credential")]
    client_secret_env: Option<String>,
    /// File that holds the client secret
    #[arg(long, value_name = "FILE", group = "credential")]
    client_secret_file: Option<PathBuf>,
    /// File that holds the certificate and its private key, PEM
    #[arg(long, value_name = "FILE", group = "credential")]
    certificate: Option<PathBuf>,
    /// Token of the platform (Kubernetes, GitHub …), in the file that AZURE_FEDERATED_TOKEN_FILE names
    #[arg(long, group = "credential")]
    workload_identity: bool,
    /// Identity of the Azure machine on which Waybill runs
    #[arg(long, group = "credential")]
    managed_identity: bool,
    #[command(flatten)]
    scope: ScopeArguments,
    /// Monitor what the audit log brings from this time on (the feed holds 7 days)
    #[arg(long, value_name = "TIME", default_value = "now")]
    since: String,
    /// Show whom the scope means, and save nothing
    #[arg(long)]
    dry_run: bool,
    /// The cloud in which the tenant lives: worldwide, gcc, gcc_high, dod, china_21vianet
    #[arg(long, value_name = "CLOUD", default_value = "worldwide")]
    cloud: Cloud,
    /// Another endpoint than the cloud's: `login=URL`, `graph=URL`, `activity=URL` (https, or http on loopback)
    #[arg(long = "endpoint", value_name = "NAME=URL")]
    endpoints: Vec<String>,
    #[command(flatten)]
    reporting: Reporting,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Display name or id
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) reporting: Reporting,
}

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("who").required(true)),
    after_help = "Example:\n  waybill --lake ./lake connection rescope 'Contoso mail' --users people.csv"
)]
pub(super) struct Rescope {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    scope: ScopeArguments,
    /// Show whom the scope means, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  waybill --lake ./lake connection split 'Contoso mail' --shards 16\n\nThen one process for each shard: waybill run --connection 'Contoso mail' --shard 1/16, and so on to 16/16.\n`waybill run` without --shard takes all shards, one after the other. `--shards 1` joins them again."
)]
pub(super) struct Split {
    #[command(flatten)]
    named: Named,
    /// How many shards; 1 joins them
    #[arg(long, value_name = "N")]
    shards: u32,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Reporting {
    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: output::Report,
}

pub(super) async fn main(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Add(arguments) => add(context, *arguments).await,
        Command::List(arguments) => list(context, arguments).await,
        Command::Show(arguments) => show(context, arguments).await,
        Command::Check(arguments) => {
            Box::pin(super::doctor::connection(context, &arguments.name, arguments.reporting.output)).await
        }
        Command::Scope(arguments) => scope::members(context, arguments).await,
        Command::Rescope(arguments) => rescope(context, arguments).await,
        Command::Authorize(arguments) => authorize::authorize(context, arguments).await,
        Command::Permissions(arguments) => authorize::permissions(arguments),
        Command::Split(Split { named, shards }) => orders::change(context, named, Order::Split(shards)).await,
        Command::Pause(arguments) => orders::change(context, arguments, Order::Pause).await,
        Command::Resume(arguments) => orders::change(context, arguments, Order::Resume).await,
        Command::Deauthorize(arguments) => orders::change(context, arguments, Order::Deauthorize).await,
        Command::Remove(arguments) => remove(context, arguments).await,
    }
}

async fn add(context: &Context, arguments: Add) -> Result<Exit> {
    let lake = context.lake()?;
    let given = arguments.scope.read()?;
    let connection = arguments.connection(context, given.scope.clone())?;
    // Read once now, so that a missing secret or a wrong endpoint is found before a night run finds it.
    connection.source(context.clock.clone())?;
    if let Credential::Secret(place) | Credential::Certificate(place) = &connection.credential {
        place.read()?;
    }
    let registry = Registry::of(&lake);
    // Said before the directory is asked, which may take a minute; `add` makes sure of it.
    if registry.list().await?.iter().any(|other| other.name.to_lowercase() == connection.name.to_lowercase()) {
        let message = format!("the display name `{}` is taken", connection.name);
        return Err(Error::new(Code::ConnectionConflict, message));
    }
    let resolved = scope::resolve(context, &connection, &given, arguments.dry_run).await?;
    if !arguments.dry_run {
        registry.add(&connection, &context.who()).await?;
    }
    match arguments.reporting.output {
        output::Report::Json => output::json(&Added { shown: Shown::from(&connection), scope_resolved: resolved })?,
        output::Report::Table => output::table(&[], Shown::from(&connection).lines())?,
    }
    Ok(Exit::DONE)
}

/// A connection that was added, with whom its scope means.
#[derive(Serialize)]
struct Added<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    scope_resolved: scope::Resolved,
}

impl Add {
    fn connection(&self, context: &Context, scope: Scope) -> Result<Connection> {
        let mut endpoints = Overrides::default();
        for text in &self.endpoints {
            let (name, url) = text
                .split_once('=')
                .ok_or_else(|| Error::new(Code::Usage, format!("`--endpoint {text}` is not of the form NAME=URL")))?;
            endpoints.set(name, url)?;
        }
        Ok(Connection {
            id: Uuid::new_v4(),
            name: display_name(&self.name)?,
            service: Service::Microsoft365,
            application: Application { tenant_id: self.tenant, client_id: self.client_id },
            credential: self.credential()?,
            cloud: self.cloud,
            endpoints,
            scope,
            since: times::parse(&self.since, &context.clock)?,
            created: context.clock.now(),
            intent: Intent::Monitor,
            layout: Layout::default(),
            authorized: None,
            revision: 0,
            unrecorded: Vec::new(),
        })
    }

    fn credential(&self) -> Result<Credential> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).or_error(Code::Configuration, format!("cannot use the path `{}`", path.display()))
        };
        Ok(if let Some(name) = &self.client_secret_env {
            Credential::Secret(SecretPlace::Env(name.clone()))
        } else if let Some(path) = &self.client_secret_file {
            Credential::Secret(SecretPlace::File(absolute(path)?))
        } else if let Some(path) = &self.certificate {
            Credential::Certificate(SecretPlace::File(absolute(path)?))
        } else if self.workload_identity {
            Credential::WorkloadIdentity { token_file: None }
        } else {
            Credential::ManagedIdentity
        })
    }
}

async fn rescope(context: &Context, arguments: Rescope) -> Result<Exit> {
    let lake = context.lake()?;
    let given = arguments.scope.read()?;
    let connection = Registry::of(&lake).get(&arguments.named.name).await?;
    scope::resolve(context, &connection, &given, arguments.dry_run).await?;
    if arguments.dry_run {
        return Ok(Exit::DONE);
    }
    orders::change(context, arguments.named, Order::Rescope(given.scope)).await
}

/// A connection as reports show it: everything but long lists.
#[derive(Serialize)]
struct Shown<'a> {
    id: Uuid,
    name: &'a str,
    service: &'static str,
    tenant_id: Uuid,
    client_id: Uuid,
    credential: String,
    cloud: Cloud,
    endpoints: &'a Overrides,
    scope: &'static str,
    scope_entries: Option<usize>,
    shards: u32,
    since: crate::clock::Time,
    created: crate::clock::Time,
}

impl<'a> From<&'a Connection> for Shown<'a> {
    fn from(connection: &'a Connection) -> Self {
        Self {
            id: connection.id,
            name: &connection.name,
            service: connection.service.as_str(),
            tenant_id: connection.application.tenant_id,
            client_id: connection.application.client_id,
            credential: describe(&connection.credential),
            cloud: connection.cloud,
            endpoints: &connection.endpoints,
            scope: connection.scope.kind(),
            scope_entries: match &connection.scope {
                Scope::All => None,
                Scope::Users(entries) | Scope::Groups(entries) => Some(entries.len()),
            },
            shards: connection.layout.shards,
            since: connection.since,
            created: connection.created,
        }
    }
}

impl Shown<'_> {
    fn lines(&self) -> Vec<Vec<String>> {
        let scope = self.scope_entries.map_or_else(|| self.scope.to_owned(), |n| format!("{n} {}", self.scope));
        let mut lines = vec![
            ("name", self.name.to_owned()),
            ("id", self.id.to_string()),
            ("service", self.service.to_owned()),
            ("tenant", self.tenant_id.to_string()),
            ("client id", self.client_id.to_string()),
            ("credential", self.credential.clone()),
            ("cloud", self.cloud.to_string()),
            ("scope", scope),
        ];
        if self.shards > 1 {
            lines.push(("shards", self.shards.to_string()));
        }
        lines.extend([("since", time(self.since)), ("created", time(self.created))]);
        lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
    }
}

pub(super) fn report(connection: &Connection, reporting: Reporting) -> Result<()> {
    let shown = Shown::from(connection);
    match reporting.output {
        output::Report::Json => output::json(&shown),
        output::Report::Table => output::table(&[], shown.lines()),
    }
}

async fn list(context: &Context, reporting: Reporting) -> Result<Exit> {
    let lake = context.lake()?;
    lake.require().await?;
    let connections = Registry::of(&lake).list().await?;
    let mut standings = Vec::new();
    for connection in &connections {
        standings.push(doctor::standing(&lake, connection, context.clock.now()).await?);
    }
    let rows = connections.iter().zip(&standings);
    match reporting.output {
        output::Report::Json => {
            let shown: Vec<_> =
                rows.map(|(connection, standing)| Listed { shown: connection.into(), standing }).collect();
            output::json(&shown)?;
        }
        output::Report::Table => output::table(
            &["name", "service", "scope", "status", "last run", "lag", "finding"],
            rows.map(|(connection, standing)| {
                let finding = standing.finding.as_ref();
                vec![
                    connection.name.clone(),
                    connection.service.as_str().to_owned(),
                    connection.scope.kind().to_owned(),
                    standing.status.as_str().to_owned(),
                    standing.last_run.map_or_else(|| "never".to_owned(), time),
                    standing.lag_seconds.map(|seconds| format!("{} min", seconds / 60)).unwrap_or_default(),
                    finding.map(|finding| format!("{}: {}", finding.code, finding.message)).unwrap_or_default(),
                ]
            }),
        )?,
    }
    Ok(Exit::DONE)
}

/// A connection in a list, with where it stands.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    standing: &'a Standing,
}

async fn show(context: &Context, arguments: Named) -> Result<Exit> {
    let lake = context.lake()?;
    let connection = Registry::of(&lake).get(&arguments.name).await?;
    let standing = doctor::standing(&lake, &connection, context.clock.now()).await?;
    let id = connection.id.to_string();
    let history = Search::open(&lake)
        .await?
        .rows(TableName::Changes, &[("connection_id", &id)], "changed_at", HISTORY_SHOWN)
        .await?;
    let shown = Shown::from(&connection);
    match arguments.reporting.output {
        output::Report::Json => {
            output::json(&serde_json::json!({ "connection": shown, "standing": standing, "history": history }))?
        }
        output::Report::Table => {
            let mut lines = shown.lines();
            let mut line = |name: &str, value: String| lines.push(vec![name.to_owned(), value]);
            line("status", standing.status.as_str().to_owned());
            if let Some(finding) = &standing.finding {
                line("finding", format!("{}: {}", finding.code, finding.message));
                line("what to do", finding.hint.unwrap_or_default().to_owned());
            }
            line("last run", standing.last_run.map_or_else(|| "never".to_owned(), time));
            line("read up to", standing.read_up_to.map_or_else(|| "never run".to_owned(), time));
            line("owed", owed(standing.owed));
            output::table(&[], lines)?;
            if !standing.shards.is_empty() {
                output::line("\nShards")?;
                output::table(
                    &["shard", "status", "last run", "read up to", "owed", "finding"],
                    standing.shards.iter().zip(1..).map(|(shard, number)| {
                        vec![
                            format!("{number}/{}", standing.shards.len()),
                            shard.status.as_str().to_owned(),
                            shard.last_run.map_or_else(|| "never".to_owned(), time),
                            shard.read_up_to.map_or_else(|| "never run".to_owned(), time),
                            owed(shard.owed),
                            shard.finding.as_ref().map(|finding| finding.code.to_owned()).unwrap_or_default(),
                        ]
                    }),
                )?;
            }
            output::line("\nHistory, the newest first")?;
            output::table(
                &["when", "who", "what", "status", "detail"],
                history.iter().map(|change| {
                    ["changed_at", "actor", "action", "status", "detail"]
                        .map(|name| change.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned())
                        .into()
                }),
            )?;
        }
    }
    Ok(Exit::DONE)
}

async fn remove(context: &Context, arguments: Named) -> Result<Exit> {
    let lake = context.lake()?;
    let connection = Registry::of(&lake).remove(&arguments.name, &context.who(), context.clock.now()).await?;
    report(&connection, arguments.reporting)?;
    Ok(Exit::DONE)
}

fn time(time: crate::clock::Time) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn owed(owed: Owed) -> String {
    let Owed { blobs, messages, hashes } = owed;
    format!("{blobs} blobs, {messages} messages, {hashes} hashes")
}

/// Where the proof of the application's identity is kept, for a person.
fn describe(credential: &Credential) -> String {
    match credential {
        Credential::Secret(place) => format!("client secret in {place}"),
        Credential::Certificate(place) => format!("certificate in {place}"),
        Credential::WorkloadIdentity { .. } => "workload identity".to_owned(),
        Credential::ManagedIdentity => "managed identity".to_owned(),
    }
}
