//! `waybill sql`: ask the lake.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::{Context, output};
use crate::error::{Code, Error, Result, ResultExt};
use crate::search::Surface;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake sql 'SELECT sender, file_name, recipients FROM file_events ORDER BY observed_at DESC LIMIT 10'\n  waybill --lake ./lake sql --format json --file question.sql\n  echo 'SELECT count(*) FROM file_events' | waybill --lake ./lake sql --format csv\n\nTables: file_events, runs, gaps, quarantine. `SHOW TABLES` and `DESCRIBE file_events` work."
)]
pub(super) struct Arguments {
    /// One query; without it, standard input
    statement: Option<String>,
    /// Read the query from a file
    #[arg(long, short, value_name = "FILE", conflicts_with = "statement")]
    file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t)]
    format: output::Rows,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let statement = match (arguments.statement, arguments.file) {
        (Some(statement), _) => statement,
        (None, Some(path)) => {
            std::fs::read_to_string(&path).or_error(Code::Io, format!("cannot read `{}`", path.display()))?
        }
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).or_error(Code::Io, "cannot read standard input")?;
            text
        }
    };
    if statement.trim().is_empty() {
        return Err(Error::new(Code::Usage, "there is no statement to run"));
    }
    let engine = context.engine()?;
    let search = engine.search(&context.asker(Surface::Shell)).await?;
    let answered = async { output::rows(search.sql(&statement).await?, arguments.format).await }.await;
    context.recorded(&engine).await;
    answered
}
