//! `waybill run`: what cron calls.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;

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
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
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
    let ids: Vec<_> = connections.iter().map(|connection| connection.id).collect();
    let ended = several(context, &lake, connections).await;
    let mut maintained = Vec::new();
    if let Some(maintain) = &job.maintain
        && !context.interrupt.is_cancelled()
    {
        let maintenance = Maintenance {
            target_bytes: maintain.target_file_mb * 1024 * 1024,
            vacuum_after: Some(chrono::Duration::days(maintain.vacuum_after_days.into())),
        };
        maintained = lake.maintain(&ids, maintenance).await?;
    }
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

/// How one of several runs ended; a connection that cannot run does not keep the others from running.
#[derive(Serialize)]
#[serde(untagged)]
enum Ended {
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
    fn exit(&self) -> Exit {
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
    if let Some(status) = connection.intent.status() {
        output::say(format_args!("the connection `{}` is {}: nothing is read", connection.name, status.as_str()));
        return Ended::Skipped { connection: connection.name, outcome: "skipped", exit_code: 0, status };
    }
    match one(context, lake, &connection, false).await {
        Ok(report) => Ended::Ran(Box::new(report)),
        Err(error) => {
            output::error(&error);
            Ended::Failed {
                connection: connection.name,
                outcome: Outcome::Failed,
                exit_code: error.code().exit_code(),
                error: Failure::from(&error),
            }
        }
    }
}

/// Runs one connection.
pub(super) async fn one(context: &Context, lake: &Lake, connection: &Connection, owed_only: bool) -> Result<Report> {
    let source = Arc::new(connection.source(context.clock.clone())?);
    let progress = Arc::new(Progress::default());
    let job = job_of(context, connection, owed_only, &progress);
    let run = Box::pin(run::run(job, source, lake));
    let report = progress::watch(context, &connection.name, progress, run).await?;
    say_error(&report);
    Ok(report)
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
