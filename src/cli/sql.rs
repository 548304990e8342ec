//! `waybill sql`: ask the lake, in statements or in an interactive shell.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::exit::Exit;
use super::{Context, Memory, output, rows, shell};
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;
use crate::search::script::{self, Piece, PieceKind};
use crate::search::{QueryMemory, Search, Surface};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake sql\n  waybill --lake ./lake sql 'SELECT sender, file_name, recipients FROM file_events ORDER BY observed_at DESC LIMIT 10'\n  waybill --lake ./lake sql --file questions.sql --format json\n  waybill --lake ./lake sql --format parquet --output-file events.parquet 'SELECT * FROM file_events'\n  echo 'SELECT count(*) FROM file_events' | waybill --lake ./lake sql --format csv\n\nOn a terminal and without a statement it is a shell: `\\?` lists its commands, `\\d` the tables.\nSeveral statements are separated by `;` and end at the first that fails. `SHOW TABLES` and `DESCRIBE file_events` work everywhere."
)]
pub(super) struct Arguments {
    /// Statements; without them, standard input, or a shell on a terminal
    statement: Option<String>,
    /// Read the statements from a file
    #[arg(long, short, value_name = "FILE", conflicts_with = "statement")]
    file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t)]
    format: rows::Format,
    /// Write the rows to a file, which appears when it is whole
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// In the shell, let long answers scroll by instead of showing them in a pager
    #[arg(long)]
    no_pager: bool,
    #[command(flatten)]
    memory: Memory,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let text = match (arguments.statement, arguments.file) {
        (Some(statement), _) => statement,
        (None, Some(path)) => read(&path)?,
        (None, None) if std::io::stdin().is_terminal() && output::is_terminal() => {
            let settings = shell::Settings {
                style: arguments.format.into(),
                output_file: arguments.output_file,
                has_pager: !arguments.no_pager,
                memory: arguments.memory.or(QueryMemory::alone()),
            };
            return shell::main(context, settings).await;
        }
        (None, None) => limited(std::io::stdin(), "standard input")?,
    };
    let pieces = statements(&text)?;
    if arguments.format.is_binary() && pieces.len() > 1 {
        let (format, count) = (arguments.format.name(), pieces.len());
        return Err(Error::new(
            Code::Usage,
            format!("{format} holds the rows of one statement, and there are {count}"),
        ));
    }
    // What cannot be written is said before anything is asked.
    let sink = rows::open(arguments.format, arguments.output_file.as_deref())?;
    let engine = context.engine(arguments.memory.or(QueryMemory::alone()))?;
    let search = Arc::new(engine.search(&context.asker(Surface::Shell)).await?);
    let answered = answer(context, &search, (&text, &pieces), arguments.format, sink).await;
    context.recorded(&engine).await;
    answered.map(|()| Exit::DONE)
}

/// Answers all statements, over the tables as they were at the first.
async fn answer(
    context: &Context,
    search: &Arc<Search>,
    (text, pieces): (&str, &[Piece]),
    format: rows::Format,
    mut sink: rows::Sink,
) -> Result<()> {
    let mut total = 0;
    for (number, piece) in (1..).zip(pieces) {
        let statement = text[piece.bytes.clone()].to_owned();
        let search = Arc::clone(search);
        let question = async move { search.sql(&statement).await };
        let stop = context.interrupt.cancelled();
        let count = rows::deliver(context, question, format.into(), &mut sink, stop).await;
        let count = count.map_err(|error| match pieces.len() {
            1 => error,
            _ => error.context(format_args!("statement {number}, line {}", piece.line)),
        })?;
        total += count;
        if pieces.len() > 1 && format == rows::Format::Table && sink.path().is_none() {
            output::say(rows::count(count));
        }
    }
    match (pieces.len(), sink.path()) {
        (1, _) | (_, Some(_)) => rows::close(sink, format, total),
        _ => sink.finish(),
    }
}

/// The statements of a script, of which there must be one.
fn statements(text: &str) -> Result<Vec<Piece>> {
    let pieces = script::pieces(text);
    if let Some(command) = pieces.iter().find(|piece| piece.kind == PieceKind::Command) {
        let (command, line) = (&text[command.bytes.clone()], command.line);
        return Err(Error::new(Code::Usage, format!("`{command}` in line {line} is for the interactive shell")));
    }
    if pieces.is_empty() {
        return Err(Error::new(Code::Usage, "there is no statement to run"));
    }
    Ok(pieces)
}

/// A file of statements.
///
/// # Errors
/// `io`; `usage` when it is too long.
pub(super) fn read(path: &Path) -> Result<String> {
    let place = format!("`{}`", path.display());
    limited(std::fs::File::open(path).or_error(Code::Io, format!("cannot read {place}"))?, &place)
}

fn limited(from: impl std::io::Read, place: &str) -> Result<String> {
    let mut text = String::new();
    from.take(limits::SCRIPT_BYTES + 1).read_to_string(&mut text).or_error(Code::Io, format!("cannot read {place}"))?;
    if text.len() as u64 > limits::SCRIPT_BYTES {
        return Err(Error::new(
            Code::Usage,
            format!("{place} has more than {} bytes of statements", limits::SCRIPT_BYTES),
        ));
    }
    Ok(text)
}
