//! `waybill run`: what cron calls.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;
use uuid::Uuid;

use super::exit::Exit;
use super::{Context, maintain, output, progress};
use crate::connection::{Connection, Registry};
use crate::error::Result;
use crate::event::Status;
use crate::job::JobFile;
use crate::lake::{Lake, Maintained, Maintenance};
use crate::monitor::Progress;
use crate::run::{self, Failure, Job, Outcome, Report};

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true)),
    after_help = "Examples:\n  waybill --lake ./lake run --connection 'Contoso mail'\n  waybill --lake ./lake run --all --output json\n  waybill run --job jobs/hourly.toml --log-format json\n\nExit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 done in part (something is owed, quarantined or lost);\n10 no lake there; 11 another run holds the connection; 12 not authorised; 130 interrupted (and nothing lost)."
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
    if let Some(path) = &arguments.job {
        return job(context, JobFile::read(path)?, arguments.output).await;
    }
    let lake = context.lake()?;
    let registry = Registry::of(&lake);
    if let Some(name) = &arguments.connection {
        let connection = registry.get(name).await?;
        let ended = alone(context, &lake, connection).await;
        match arguments.output {
            output::Report::Json => output::json(&ended)?,
            output::Report::Table => ended.table()?,
        }
        return Ok(ended.exit());
    }
    lake.require().await?;
    let ended = several(context, &lake, registry.list().await?).await;
    let exit = ended.iter().fold(Exit::DONE, |exit, ended| exit.worse(ended.exit()));
    match arguments.output {
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

async fn job(context: &Context, job: JobFile, format: output::Report) -> Result<Exit> {
    let (lake, connections) = opened(context, &job).await?;
    let ids: Vec<_> = connections.iter().map(|connection| connection.id).collect();
    let ended = several(context, &lake, connections).await;
    let maintained = maintained(context, &lake, &job, &ids).await?;
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
    connections: &[Uuid],
) -> Result<Vec<Maintained>> {
    let Some(maintain) = job.maintain.as_ref().filter(|_| !context.interrupt.is_cancelled()) else {
        return Ok(Vec::new());
    };
    let maintenance = Maintenance {
        target_bytes: maintain.target_file_mb * 1024 * 1024,
        vacuum_after: Some(chrono::Duration::days(maintain.vacuum_after_days.into())),
    };
    lake.maintain(connections, maintenance).await
}

/// How one of several runs ended; a connection that cannot run does not keep the others from running.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Ended {
    Ran(Box<Report>),
    Failed {
        connection: String,
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
    pub(super) fn of(connection: &Connection, run: Result<Report>) -> Self {
        match run {
            Ok(report) => Self::Ran(Box::new(report)),
            Err(error) => Self::Failed {
                connection: connection.name.clone(),
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

async fn several(context: &Context, lake: &Lake, connections: Vec<Connection>) -> Vec<Ended> {
    let mut ended = Vec::new();
    for connection in connections {
        if context.interrupt.is_cancelled() {
            break;
        }
        ended.push(alone(context, lake, connection).await);
    }
    ended
}

/// Runs one connection; whatever becomes of it is said to a person at once.
async fn alone(context: &Context, lake: &Lake, connection: Connection) -> Ended {
    if let Some(skipped) = Ended::skipped(&connection) {
        if let Ended::Skipped { status, .. } = &skipped {
            output::say(format_args!("the connection `{}` is {}: nothing is read", connection.name, status.as_str()));
        }
        return skipped;
    }
    let run = one(context, lake, &connection, false).await;
    if let Err(error) = &run {
        output::error(error);
    }
    Ended::of(&connection, run)
}

/// Runs one connection, and shows a person how it goes on.
pub(super) async fn one(context: &Context, lake: &Lake, connection: &Connection, owed_only: bool) -> Result<Report> {
    let progress = Arc::new(Progress::default());
    let run = Box::pin(quietly(context, lake, connection, owed_only, Arc::clone(&progress)));
    let report = progress::watch(context, &connection.name, progress, run).await?;
    say_error(&report);
    Ok(report)
}

/// Runs one connection, and says nothing.
pub(super) async fn quietly(
    context: &Context,
    lake: &Lake,
    connection: &Connection,
    owed_only: bool,
    progress: Arc<Progress>,
) -> Result<Report> {
    let source = Arc::new(connection.source(context.clock.clone())?);
    run::run(job_of(context, connection, owed_only, &progress), source, lake).await
}

/// The run of a connection.
pub(super) fn job_of(context: &Context, connection: &Connection, owed_only: bool, progress: &Arc<Progress>) -> Job {
    Job {
        connection_id: connection.id,
        connection_name: connection.name.clone(),
        tenant_id: connection.application.tenant_id,
        scope: connection.scope.clone(),
        since: connection.since,
        authorized: connection.authorized_at(),
        owed_only,
        clock: context.clock.clone(),
        interrupt: context.interrupt.clone(),
        progress: Arc::clone(progress),
    }
}

/// Says what ended a run before its time.
pub(super) fn say_error(report: &Report) {
    if let Some(error) = &report.error {
        output::say(format_args!("error: {}", error.message));
        output::say(format_args!("hint: {}", error.hint.unwrap_or_default()));
    }
}
