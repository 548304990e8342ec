//! `waybill run`: what cron calls.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;
use uuid::Uuid;

use super::exit::Exit;
use super::{Context, maintain, output, progress};
use crate::connection::{Connection, Registry};
use crate::error::{Code, Error, Result};
use crate::event::Status;
use crate::job::JobFile;
use crate::lake::{Lake, Maintained, Maintenance, Shard};
use crate::monitor::Progress;
use crate::run::{self, Failure, Job, Outcome, Report};

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true)),
    after_help = "Examples:\n  waybill --lake ./lake run --connection 'Contoso mail'\n  waybill --lake ./lake run --all --output json\n  waybill run --job jobs/hourly.toml --log-format json\n  waybill --lake ./lake run --connection 'Contoso mail' --shard 3/16\n\nExit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 done in part (something is owed, quarantined or lost);\n10 no lake there; 11 another run holds the connection; 12 not authorised; 130 interrupted (and nothing lost)."
)]
pub(super) struct Arguments {
    /// The connection to run, by display name or id
    #[arg(long, value_name = "NAME", group = "what")]
    connection: Option<String>,
    /// Run every connection of the lake
    #[arg(long, group = "what")]
    all: bool,
    /// Run what a job file says
    #[arg(long, value_name = "FILE", group = "what")]
    job: Option<PathBuf>,
    /// Only this shard of a connection that is split; without it all of them run, one after the other
    #[arg(long, value_name = "N/OF", conflicts_with = "shard_index")]
    shard: Option<Part>,
    /// The same, counted from 0, as Kubernetes counts
    #[arg(long, value_name = "INDEX/OF", value_parser = Part::counted_from_0)]
    shard_index: Option<Part>,
    /// How the summary is written
    #[arg(long, value_enum, default_value_t)]
    output: output::Report,
    /// Exit codes for which the process ends with 0, for schedulers that know only done and failed
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    success_exit: Vec<u8>,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let success = arguments.success_exit.clone();
    let exit = what(context, arguments).await?;
    Ok(if success.contains(&exit.0) { Exit::DONE } else { exit })
}

async fn what(context: &Context, arguments: Arguments) -> Result<Exit> {
    let part = arguments.shard.or(arguments.shard_index);
    if let Some(path) = &arguments.job {
        return job(context, JobFile::read(path)?, part, arguments.output).await;
    }
    let lake = context.lake()?;
    let registry = Registry::of(&lake);
    if let Some(name) = &arguments.connection {
        let connection = registry.get(name).await?;
        let ended = alone(context, &lake, &connection, part).await;
        if let [ended] = ended.as_slice() {
            match arguments.output {
                output::Report::Json => output::json(ended)?,
                output::Report::Table => ended.table()?,
            }
            return Ok(ended.exit());
        }
        return report(&ended, arguments.output);
    }
    lake.require().await?;
    let ended = several(context, &lake, registry.list().await?, part).await;
    report(&ended, arguments.output)
}

/// Says how several runs ended.
fn report(ended: &[Ended], format: output::Report) -> Result<Exit> {
    let exit = ended.iter().fold(Exit::DONE, |exit, ended| exit.worse(ended.exit()));
    match format {
        output::Report::Json => output::json(&serde_json::json!({ "exit_code": exit.0, "runs": ended }))?,
        output::Report::Table => ended.iter().try_for_each(Ended::table)?,
    }
    Ok(exit)
}

/// What a job did, as one JSON object.
#[derive(Serialize)]
struct JobReport<'a> {
    job: &'a str,
    exit_code: u8,
    runs: &'a [Ended],
    maintained: &'a [Maintained],
}

async fn job(context: &Context, job: JobFile, part: Option<Part>, format: output::Report) -> Result<Exit> {
    let (lake, connections) = opened(context, &job).await?;
    let states: Vec<_> = connections.iter().flat_map(Connection::state_ids).collect();
    let ended = several(context, &lake, connections, part).await;
    // Of several processes one keeps house.
    let maintained = match part {
        Some(Part { number: 2.., .. }) => Vec::new(),
        Some(Part { number: 0..=1, .. }) | None => maintained(context, &lake, &job, &states).await?,
    };
    let exit = ended.iter().fold(Exit::DONE, |exit, ended| exit.worse(ended.exit()));
    match format {
        output::Report::Json => {
            output::json(&JobReport { job: &job.name, exit_code: exit.0, runs: &ended, maintained: &maintained })?;
        }
        output::Report::Table => {
            ended.iter().try_for_each(Ended::table)?;
            maintain::table(&maintained)?;
        }
    }
    Ok(exit)
}

/// The lake and the connections of a job.
pub(super) async fn opened(context: &Context, job: &JobFile) -> Result<(Lake, Vec<Connection>)> {
    let lake = match &job.lake {
        Some(url) => Lake::at(url)?,
        None => context.lake()?,
    };
    lake.require().await?;
    let registry = Registry::of(&lake);
    let mut connections = Vec::new();
    match &job.connections {
        None => connections = registry.list().await?,
        Some(names) => {
            for name in names {
                connections.push(registry.get(name).await?);
            }
        }
    }
    Ok((lake, connections))
}

/// Maintains what a job says should be, unless a signal came.
pub(super) async fn maintained(
    context: &Context,
    lake: &Lake,
    job: &JobFile,
    states: &[Uuid],
) -> Result<Vec<Maintained>> {
    let Some(maintain) = job.maintain.as_ref().filter(|_| !context.interrupt.is_cancelled()) else {
        return Ok(Vec::new());
    };
    let maintenance = Maintenance {
        target_bytes: maintain.target_file_mb * 1024 * 1024,
        vacuum_after: Some(chrono::Duration::days(maintain.vacuum_after_days.into())),
    };
    lake.maintain(states, maintenance).await
}

/// How one of several runs ended; a connection that cannot run does not keep the others from running.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Ended {
    Ran(Box<Report>),
    Failed {
        connection: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        shard: Option<String>,
        outcome: Outcome,
        exit_code: u8,
        error: Failure,
    },
    /// An administrator paused or deauthorised it.
    Skipped {
        connection: String,
        outcome: &'static str,
        exit_code: u8,
        status: Status,
    },
}

impl Ended {
    /// What an administrator's order makes of a run, if there is one.
    pub(super) fn skipped(connection: &Connection) -> Option<Self> {
        let status = connection.intent.status()?;
        Some(Self::Skipped { connection: connection.name.clone(), outcome: "skipped", exit_code: 0, status })
    }

    /// What became of a run.
    pub(super) fn of(connection: &Connection, shard: Option<String>, run: Result<Report>) -> Self {
        match run {
            Ok(report) => Self::Ran(Box::new(report)),
            Err(error) => Self::Failed {
                connection: connection.name.clone(),
                shard,
                outcome: Outcome::Failed,
                exit_code: error.code().exit_code(),
                error: Failure::from(&error),
            },
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Ran(report) => Exit(report.exit_code),
            Self::Failed { exit_code, .. } | Self::Skipped { exit_code, .. } => Exit(*exit_code),
        }
    }

    fn table(&self) -> Result<()> {
        match self {
            Self::Ran(report) => {
                output::table(&[], report.lines().into_iter().map(|(name, value)| vec![name.to_owned(), value]))
            }
            Self::Failed { .. } | Self::Skipped { .. } => Ok(()),
        }
    }
}

async fn several(context: &Context, lake: &Lake, connections: Vec<Connection>, part: Option<Part>) -> Vec<Ended> {
    let mut ended = Vec::new();
    for connection in &connections {
        if context.interrupt.is_cancelled() {
            break;
        }
        ended.extend(alone(context, lake, connection, part).await);
    }
    ended
}

/// Runs one connection, or a part of it; whatever becomes of it is said to a person at once.
async fn alone(context: &Context, lake: &Lake, connection: &Connection, part: Option<Part>) -> Vec<Ended> {
    if let Some(skipped) = Ended::skipped(connection) {
        if let Ended::Skipped { status, .. } = &skipped {
            output::say(format_args!("the connection `{}` is {}: nothing is read", connection.name, status.as_str()));
        }
        return vec![skipped];
    }
    let shards = match part {
        None => connection.shards(),
        Some(part) => match part.of(connection) {
            Ok(shard) => vec![shard],
            Err(error) => {
                output::error(&error);
                return vec![Ended::of(connection, Some(part.to_string()), Err(error))];
            }
        },
    };
    let mut ended = Vec::new();
    for shard in shards {
        if !ended.is_empty() && context.interrupt.is_cancelled() {
            break;
        }
        let run = one(context, lake, connection, &shard, false).await;
        if let Err(error) = &run {
            output::error(error);
        }
        ended.push(Ended::of(connection, shard.name(), run));
    }
    ended
}

/// Runs one shard of a connection, and shows a person how it goes on.
pub(super) async fn one(
    context: &Context,
    lake: &Lake,
    connection: &Connection,
    shard: &Shard,
    owed_only: bool,
) -> Result<Report> {
    let progress = Arc::new(Progress::default());
    let run = Box::pin(quietly(context, lake, connection, shard, owed_only, Arc::clone(&progress)));
    let report = progress::watch(context, &title(connection, shard), progress, run).await?;
    say_error(&report);
    Ok(report)
}

/// What runs, for a person.
pub(super) fn title(connection: &Connection, shard: &Shard) -> String {
    match shard.name() {
        Some(shard) => format!("{}, shard {shard}", connection.name),
        None => connection.name.clone(),
    }
}

/// Runs one shard of a connection, and says nothing.
pub(super) async fn quietly(
    context: &Context,
    lake: &Lake,
    connection: &Connection,
    shard: &Shard,
    owed_only: bool,
    progress: Arc<Progress>,
) -> Result<Report> {
    let source = Arc::new(connection.source(context.clock.clone())?);
    run::run(job_of(context, connection, shard, owed_only, &progress), source, lake).await
}

/// The run of a shard of a connection.
pub(super) fn job_of(
    context: &Context,
    connection: &Connection,
    shard: &Shard,
    owed_only: bool,
    progress: &Arc<Progress>,
) -> Job {
    Job {
        connection_id: connection.id,
        connection_name: connection.name.clone(),
        tenant_id: connection.application.tenant_id,
        shard: shard.clone(),
        scope: connection.scope.clone(),
        since: connection.since,
        authorized: connection.authorized_at(),
        owed_only,
        clock: context.clock.clone(),
        interrupt: context.interrupt.clone(),
        progress: Arc::clone(progress),
    }
}

/// A shard as the command line names it, `3/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    number: u32,
    of: u32,
}

impl Part {
    /// Counted from 0.
    fn counted_from_0(text: &str) -> std::result::Result<Self, String> {
        Self::read(text, 0)
    }

    fn read(text: &str, first: u32) -> std::result::Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (first..first.saturating_add(of)).contains(&number) => {
                Ok(Self { number: number - first + 1, of })
            }
            _ => Err(format!("give which shard of how many, from `{first}/16` to `{}/16`", first + 15)),
        }
    }

    /// The shard of a connection that it names.
    fn of(self, connection: &Connection) -> Result<Shard> {
        let shards = connection.shards();
        let count = shards.len();
        let fits = usize::try_from(self.of) == Ok(count);
        shards.into_iter().nth(self.number as usize - 1).filter(|_| fits).ok_or_else(|| {
            let (name, of) = (&connection.name, self.of);
            let split = if count == 1 { "is not split".to_owned() } else { format!("is split into {count} shards") };
            Error::new(
                Code::Usage,
                format!(
                    "the connection `{name}` {split}, so there is no shard {self} of it; \
                     `waybill connection split '{name}' --shards {of}` makes {of}"
                ),
            )
        })
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::read(text, 1)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Says what ended a run before its time.
pub(super) fn say_error(report: &Report) {
    if let Some(error) = &report.error {
        output::say(format_args!("error: {}", error.message));
        output::say(format_args!("hint: {}", error.hint.unwrap_or_default()));
    }
}
