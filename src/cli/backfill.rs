//! `waybill backfill`: a past interval, from the feed or from an exported audit log.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::exit::Exit;
use super::{Context, output, progress, run, times};
use crate::connection::{Connection, Intent, Registry};
use crate::error::{Code, Error, Result};
use crate::lake::{Lake, Shard};
use crate::limits;
use crate::monitor::Progress;
use crate::run::{Estimate, Past, Report, backfill, estimate};
use crate::source::microsoft365::{Exported, Microsoft365};
use crate::source::{Source, Window};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake backfill --connection 'Contoso mail' --from 5d --to 3d --dry-run\n  waybill --lake ./lake backfill --connection 'Contoso mail' --from 2026-08-01 --to 2026-08-31 --export AUDIT.csv\n\nExit codes: those of `waybill run`."
)]
pub(super) struct Arguments {
    /// The connection, by display name or id
    #[arg(long, value_name = "NAME")]
    connection: String,
    /// Start of the interval; of the time at which the feed made content available, or with --export of the time of sending
    #[arg(long, value_name = "TIME", required_unless_present = "export")]
    from: Option<String>,
    /// End of the interval; a day includes it
    #[arg(long, value_name = "TIME", required_unless_present = "export")]
    to: Option<String>,
    /// An exported audit log, CSV or JSON, in place of the feed; may be given several times
    #[arg(long, value_name = "FILE")]
    export: Vec<PathBuf>,
    /// Say what it would cost; ask for no message and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How the summary is written
    #[arg(long, value_enum, default_value_t)]
    output: output::Report,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let past = past(context, &arguments)?;
    let lake = context.lake()?;
    let connection = Registry::of(&lake).get(&arguments.connection).await?;
    // A paused connection may be filled, as somebody asks for it by name; a tenant that took its right back may not.
    if connection.intent == Intent::Deauthorize {
        let message = format!("the connection `{}` is deauthorised", connection.name);
        return Err(Error::new(Code::ConnectionDeauthorized, message));
    }
    if arguments.dry_run {
        let service = Arc::new(connection.source(context.clock.clone())?);
        return match past {
            // Nothing may be changed by a dry run, the feed least of all.
            Past::Feed(_) if !service.check_feed().await? => {
                let message = "the audit subscription is off, so the feed holds nothing of a past interval";
                Err(Error::new(Code::SubscriptionDisabled, message))
            }
            Past::Feed(_) => tell(context, &lake, &connection, &arguments, past, service).await,
            Past::Export { .. } => {
                let exported = Arc::new(exported(&connection, &arguments, past, service)?);
                Box::pin(tell(context, &lake, &connection, &arguments, past, exported)).await
            }
        };
    }
    let mut reports = Vec::new();
    for shard in connection.shards() {
        let service = Arc::new(connection.source(context.clock.clone())?);
        reports.push(match past {
            Past::Feed(_) => Box::pin(fill(context, &lake, &connection, &shard, past, service)).await?,
            Past::Export { .. } => {
                let exported = Arc::new(exported(&connection, &arguments, past, service)?);
                Box::pin(fill(context, &lake, &connection, &shard, past, exported)).await?
            }
        });
    }
    let exit = reports.iter().fold(Exit::DONE, |exit, report| exit.worse(Exit(report.exit_code)));
    match (arguments.output, reports.as_slice()) {
        (output::Report::Json, [report]) => output::json(report)?,
        (output::Report::Json, reports) => {
            output::json(&serde_json::json!({ "exit_code": exit.0, "runs": reports }))?;
        }
        (output::Report::Table, reports) => reports.iter().try_for_each(|report| table(report.lines()))?,
    }
    Ok(exit)
}

/// The exported files as a source.
fn exported(
    connection: &Connection,
    arguments: &Arguments,
    past: Past,
    service: Arc<Microsoft365>,
) -> Result<Exported<Microsoft365>> {
    let (from, to) = match past {
        Past::Export { from, to } => (from, to),
        Past::Feed(window) => (Some(window.start()), Some(window.end())),
    };
    Exported::open(service, connection.application.tenant_id, &arguments.export, from, to)
}

/// What was asked for.
fn past(context: &Context, arguments: &Arguments) -> Result<Past> {
    let from = arguments.from.as_deref().map(|text| times::parse(text, &context.clock)).transpose()?;
    let to = arguments.to.as_deref().map(|text| times::parse_end(text, &context.clock)).transpose()?;
    if let (Some(from), Some(to)) = (from, to)
        && Window::new(from, to).is_none()
    {
        return Err(Error::new(Code::Usage, "`--from` must be before `--to`"));
    }
    if !arguments.export.is_empty() {
        return Ok(Past::Export { from, to });
    }
    let window = from.zip(to).and_then(|(from, to)| Window::new(from, to));
    let window = window.ok_or_else(|| Error::new(Code::Usage, "give the interval with `--from` and `--to`"))?;
    if window.start() >= context.clock.now() {
        return Err(Error::new(Code::Usage, "the interval has not begun yet"));
    }
    Ok(Past::Feed(window))
}

/// Says what it would cost.
async fn tell<S: Source>(
    context: &Context,
    lake: &Lake,
    connection: &Connection,
    arguments: &Arguments,
    past: Past,
    source: Arc<S>,
) -> Result<Exit> {
    let progress = Arc::new(Progress::default());
    let shards = connection.shards();
    let job = run::job_of(context, connection, &shards[0], false, &progress);
    let estimate = Box::pin(estimate(job, &shards, past, source, lake));
    let estimate = progress::watch(context, &connection.name, progress, estimate).await?;
    say_estimate(&estimate, arguments.output)?;
    Ok(Exit::DONE)
}

/// Fills the interval for a shard's mailboxes.
async fn fill<S: Source>(
    context: &Context,
    lake: &Lake,
    connection: &Connection,
    shard: &Shard,
    past: Past,
    source: Arc<S>,
) -> Result<Report> {
    let progress = Arc::new(Progress::default());
    let job = run::job_of(context, connection, shard, false, &progress);
    let filled = Box::pin(backfill(job, past, source, lake));
    let report = progress::watch(context, &run::title(connection, shard), progress, filled).await?;
    run::say_error(&report);
    say_forgotten(&report);
    Ok(report)
}

/// Says what to do about what the feed no longer holds.
fn say_forgotten(report: &Report) {
    if report.error.is_none() && report.failures.contains_key(Code::GapTooOld.as_str()) {
        let days = limits::FEED_MEMORY.num_days() + 1;
        output::say(format_args!("part of the interval is older than the {days} days that the feed keeps"));
        output::say(format_args!("hint: {}", Code::GapTooOld.hint().unwrap_or_default()));
    }
}

fn say_estimate(estimate: &Estimate, format: output::Report) -> Result<()> {
    match format {
        output::Report::Json => output::json(estimate),
        output::Report::Table => table(estimate.lines()),
    }
}

fn table(lines: Vec<(&'static str, String)>) -> Result<()> {
    output::table(&[], lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]))
}
