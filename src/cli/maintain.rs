//! `waybill maintain`: housekeeping of a lake.

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::{Context, output, run, times};
use crate::connection::{Connection, Intent, Registry};
use crate::error::{Code, Error, Result};
use crate::lake::{Maintained, Maintenance};
use crate::limits;
use crate::run::{Failure, Report, standing};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  waybill --lake ./lake maintain --output json")]
pub(super) struct Arguments {
    /// Merge small files up to about this many megabytes
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    target_file_mb: u64,
    /// Delete files that nothing has named for this long
    #[arg(long, value_name = "SPAN", default_value = "7d")]
    vacuum_after: String,
    /// Do not try owed hashes and messages again
    #[arg(long)]
    no_retry: bool,
    /// How the summary is written
    #[arg(long, value_enum, default_value_t)]
    output: output::Report,
}

/// What maintenance did, as one JSON object.
#[derive(Serialize)]
struct Summary {
    retried: Vec<Report>,
    failures: Vec<Failure>,
    tables: Vec<Maintained>,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let lake = context.lake()?;
    lake.require().await?;
    let vacuum_after = times::span(&arguments.vacuum_after).ok_or_else(|| {
        Error::new(Code::Usage, format!("`{}` is not a span of time, like `7d` or `12h`", arguments.vacuum_after))
    })?;
    if vacuum_after < limits::VACUUM_AFTER_MIN {
        let message =
            "`--vacuum-after` must be 1h at least: a run or a query that goes on may still need younger files";
        return Err(Error::new(Code::Usage, message));
    }
    let connections = Registry::of(&lake).list().await?;
    let mut summary = Summary { retried: Vec::new(), failures: Vec::new(), tables: Vec::new() };
    let mut exit = Exit::DONE;
    let retried = connections.iter().filter(|connection| !arguments.no_retry && connection.intent == Intent::Monitor);
    for connection in retried {
        for shard in connection.shards() {
            let stands = standing(&lake, &shard).await?;
            if stands.is_none_or(|(_, state)| state.owed.count() == 0) {
                continue;
            }
            match run::one(context, &lake, connection, &shard, true).await {
                Ok(report) => {
                    exit = exit.worse(Exit(report.exit_code));
                    summary.retried.push(report);
                }
                Err(error) => {
                    exit = exit.worse(Exit::from(&error));
                    summary.failures.push(Failure::from(&error));
                }
            }
        }
    }
    let states: Vec<_> = connections.iter().flat_map(Connection::state_ids).collect();
    let maintenance =
        Maintenance { target_bytes: arguments.target_file_mb * 1024 * 1024, vacuum_after: Some(vacuum_after) };
    summary.tables = lake.maintain(&states, maintenance).await?;
    match arguments.output {
        output::Report::Json => output::json(&summary)?,
        output::Report::Table => table(&summary.tables)?,
    }
    Ok(exit)
}

/// Shows what was done to each table.
pub(super) fn table(maintained: &[Maintained]) -> Result<()> {
    if maintained.is_empty() {
        return Ok(());
    }
    output::table(
        &["table", "files before", "files after", "postponed", "log entries removed", "files deleted"],
        maintained.iter().map(|table| {
            [
                table.files_before,
                table.files_after,
                table.merges_postponed,
                table.log_entries_removed,
                table.files_deleted,
            ]
            .iter()
            .fold(vec![table.table.to_owned()], |mut row, count| {
                row.push(count.to_string());
                row
            })
        }),
    )
}
