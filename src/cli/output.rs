//! stdout is data, stderr is talk.

#![expect(clippy::print_stderr, reason = "the one file that prints")]

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::exit::Exit;
use crate::error::{Code, Error, Result, ResultExt};
use crate::search::Answer;

/// How a command reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Report {
    /// For a person.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Rows {
    /// For a person.
    #[default]
    Table,
    /// Comma-separated, with a header; lists are joined by `; `.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
}

/// Says what failed and what to do next.
pub(super) fn error(error: &Error) {
    eprintln!("error: {error}");
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
    tracing::debug!(code = %error.code(), cause = ?std::error::Error::source(error), "failed");
}

/// Says something to a person.
pub(super) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Writes a JSON object.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).or_error(Code::Internal, "cannot write the report as JSON")?;
    line(&text)
}

/// Writes a line of data.
pub(super) fn line(text: &str) -> Result<()> {
    to_stdout(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes a table of names and values, or of rows under a header.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
    let mut table = new_table();
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    line(&table.to_string())
}

/// Writes an answer's rows as they come; a table is gathered first.
pub(super) async fn rows(mut answer: Answer, format: Rows) -> Result<Exit> {
    let stdout = io::stdout();
    match format {
        Rows::Table => {
            let mut table = new_table();
            table.set_header(answer.schema().fields().iter().map(|field| field.name().clone()));
            let mut count = 0;
            while let Some(batch) = answer.next().await? {
                count += batch.num_rows();
                add_rows(&mut table, &batch)?;
            }
            line(&table.to_string())?;
            say(format_args!("{count} {}", if count == 1 { "row" } else { "rows" }));
        }
        Rows::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(stdout.lock());
            // A header even when there is no row.
            write(writer.write(&flat(&RecordBatch::new_empty(Arc::clone(answer.schema())))?))?;
            while let Some(batch) = answer.next().await? {
                write(writer.write(&flat(&batch)?))?;
            }
        }
        Rows::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::JsonArray>(stdout.lock());
            while let Some(batch) = answer.next().await? {
                write(writer.write(&batch))?;
            }
            write(writer.finish())?;
            to_stdout(writeln!(io::stdout().lock()))?;
        }
        Rows::Ndjson => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(stdout.lock());
            while let Some(batch) = answer.next().await? {
                write(writer.write(&batch))?;
            }
            write(writer.finish())?;
        }
    }
    Ok(Exit::DONE)
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    table
}

fn add_rows(table: &mut Table, batch: &RecordBatch) -> Result<()> {
    let options = FormatOptions::default();
    let shown = |error| Error::new(Code::Internal, format!("cannot show a value: {error}"));
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(shown)?;
    for row in 0..batch.num_rows() {
        // Text of a mail is hostile: a control character must not reach the terminal.
        let is_hostile = |letter: char| letter.is_control() && letter != '\n';
        let cells = columns.iter().map(|column| column.value(row).to_string().replace(is_hostile, "\u{fffd}"));
        table.add_row(cells.collect::<Vec<_>>());
    }
    Ok(())
}

/// A batch whose lists are texts, since CSV has no lists.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !matches!(field.data_type(), DataType::List(_)) {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let joined: Result<StringArray> = (0..column.len())
            .map(|row| {
                column.is_valid(row).then(|| column.as_list::<i32>().value(row)).map(|list| join(&list)).transpose()
            })
            .collect();
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        columns.push(Arc::new(joined?));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).or_error(Code::Internal, "cannot write a list as text")
}

fn join(list: &ArrayRef) -> Result<String> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(list.as_ref(), &options).or_error(Code::Internal, "cannot show a list")?;
    let elements: Vec<String> = (0..list.len()).map(|index| formatter.value(index).to_string()).collect();
    Ok(elements.join("; "))
}

fn write(written: std::result::Result<(), arrow::error::ArrowError>) -> Result<()> {
    match written {
        Err(arrow::error::ArrowError::IoError(_, error)) => to_stdout(Err(error)),
        Err(error) => Err(Error::new(Code::Internal, format!("cannot write a row: {error}"))),
        Ok(()) => Ok(()),
    }
}

fn to_stdout(written: io::Result<()>) -> Result<()> {
    written.or_error(Code::Io, "cannot write to standard output")
}

/// Whether a failure is only that nobody reads our output any more.
pub(super) fn is_broken_pipe(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a person watches stderr.
pub(super) fn is_person() -> bool {
    io::stderr().is_terminal()
}

/// Makes sure that what was written is out, for a command that goes on running.
pub(super) fn flush() -> Result<()> {
    to_stdout(io::stdout().flush())
}
