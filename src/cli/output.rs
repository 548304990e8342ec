//! stdout is data, stderr is talk.

#![expect(clippy::print_stderr, reason = "the one file that prints")]

use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::error::{Code, Error, Result, ResultExt};

/// How a command reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Report {
    /// For a person.
    #[default]
    Table,
    /// One JSON object.
    Json,
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

/// Writes data as it is.
pub(super) fn bytes(data: &[u8]) -> Result<()> {
    to_stdout(io::stdout().lock().write_all(data))
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

/// An empty table, without lines.
pub(super) fn new_table() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table
}

/// A text as a table shows it. The text of a mail is a stranger's: what would command a terminal, or turn the direction of
/// its letters around, must not reach it.
pub(super) fn shown(text: &str) -> String {
    let is_hostile = |letter: char| {
        letter.is_control() && letter != '\n' || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_hostile, "\u{fffd}")
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

/// Whether a person watches stdout.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Makes sure that what was written is out, for a command that goes on running.
pub(super) fn flush() -> Result<()> {
    to_stdout(io::stdout().flush())
}
