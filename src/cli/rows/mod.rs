//! Rows on their way out: a question, a format and a place, joined by [`deliver`].
//!
//! ```text
//!   question ─▶ Asked (on the runtime's threads) ─▶ batches ─▶ Encoder ─▶ Sink: stdout, a pager, a file
//! ```
//!
//! Nothing is gathered but a block of a table, whose widths need it. Whoever stops listening cancels the query.

mod ask;
mod encode;
mod file;
mod pager;
mod sink;
mod table;

use std::time::Instant;

use clap::ValueEnum;

use self::ask::{Asked, Event};
use self::encode::Encoder;
pub(super) use self::file::{OutputFile, private_file};
pub(super) use self::pager::{Pager, Screen};
pub(super) use self::sink::Sink;
use super::{Context, output, progress};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::search::Answer;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For a person.
    #[default]
    Table,
    /// Comma-separated, with a header; lists are joined by `; `.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A Parquet file, compressed.
    Parquet,
    /// A stream of Arrow's IPC format.
    Arrow,
}

impl Format {
    /// Whether it is nothing for a terminal, and holds the rows of one statement only.
    pub(super) fn is_binary(self) -> bool {
        match self {
            Self::Table | Self::Csv | Self::Json | Self::Ndjson => false,
            Self::Parquet | Self::Arrow => true,
        }
    }

    /// The word for it on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }
}

/// How rows look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// The format.
    pub(super) format: Format,
    /// Whether a table has a line for each value instead of one for each row.
    pub(super) expanded: bool,
}

impl From<Format> for Style {
    fn from(format: Format) -> Self {
        Self { format, expanded: false }
    }
}

/// Asks, and writes the rows as they come; the number of them. `stop` ends it early, with `interrupted`.
///
/// # Errors
/// What the question fails with; `io` when the rows cannot be written.
pub(super) async fn deliver(
    context: &Context,
    question: impl Future<Output = Result<Answer>> + Send + 'static,
    style: Style,
    sink: &mut Sink,
    stop: impl Future<Output = ()>,
) -> Result<u64> {
    let began = Instant::now();
    let mut asked = Asked::begin(question);
    let mut progress = progress::Query::new(context);
    let mut tick = tokio::time::interval_at(
        tokio::time::Instant::now() + limits::QUERY_SHOWN_AFTER,
        std::time::Duration::from_millis(200),
    );
    tokio::pin!(stop);
    let (mut encoder, mut gauge, mut rows): (Option<Encoder>, _, u64) = (None, None, 0);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => {
                asked.stop().await;
                return Err(Error::new(Code::Interrupted, "the query was cancelled"));
            }
            event = asked.next() => match event? {
                None => break,
                Some(Event::Begun(schema, of)) => {
                    gauge = Some(of);
                    encoder = Some(Encoder::new(style, &schema, sink)?);
                }
                Some(Event::Rows(batch)) => {
                    rows += batch.num_rows() as u64;
                    progress.clear();
                    if let Some(encoder) = &mut encoder {
                        encoder.write(&batch, sink)?;
                    }
                }
            },
            _ = tick.tick() => if !sink.is_on_screen() {
                progress.show(began.elapsed(), rows, gauge.as_ref().map(crate::search::Gauge::scanned));
            },
        }
    }
    progress.clear();
    if let Some(encoder) = encoder {
        encoder.finish(sink)?;
    }
    Ok(rows)
}

/// Asks one question, and writes its rows to a file or to standard output.
///
/// # Errors
/// `usage` when the format is nothing for a terminal; otherwise like [`deliver`].
pub(super) async fn once(
    context: &Context,
    question: impl Future<Output = Result<Answer>> + Send + 'static,
    format: Format,
    file: Option<&std::path::Path>,
) -> Result<()> {
    let mut sink = open(format, file)?;
    let rows = deliver(context, question, format.into(), &mut sink, context.interrupt.cancelled()).await?;
    close(sink, format, rows)
}

/// The place for rows of this format.
///
/// # Errors
/// `usage` when the format is nothing for a terminal, or the place is none for a file; `io`.
pub(super) fn open(format: Format, file: Option<&std::path::Path>) -> Result<Sink> {
    match file {
        Some(path) => Ok(Sink::File(OutputFile::create(path)?)),
        None if format.is_binary() && output::is_terminal() => Err(Error::new(
            Code::Usage,
            format!("{} is nothing for a terminal: give `--output-file FILE`, or a pipe", format.name()),
        )),
        None => Ok(Sink::stdout()),
    }
}

/// All rows are out: makes the file whole, and tells a person how many there were.
///
/// # Errors
/// `io`.
pub(super) fn close(sink: Sink, format: Format, rows: u64) -> Result<()> {
    let path = sink.path();
    sink.finish()?;
    match path {
        Some(path) => output::say(format_args!("{} in `{}`", count(rows), path.display())),
        None if format == Format::Table => output::say(count(rows)),
        None => {}
    }
    Ok(())
}

/// So many rows, in words.
pub(super) fn count(rows: u64) -> String {
    format!("{rows} {}", if rows == 1 { "row" } else { "rows" })
}
