//! The interactive shell of `waybill sql`: reads, asks, shows, until the person leaves.
//!
//! ```text
//!   reader (rustyline, on a thread of its own) ─▶ pieces ─▶ command.rs: a command  ─▶ here
//!      │ complete.rs, history.rs                        └▶ a statement ─▶ rows::deliver ─▶ screen, pager, file
//! ```
//!
//! Ctrl-C ends the query or the line, never the shell; Ctrl-D and `\q` end the shell. Each statement sees the tables at
//! their newest version, and each is recorded. What is shown by `\d` and its kind reads no data and is not recorded.

mod command;
mod complete;
mod describe;
mod edit;
mod history;
mod reader;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use self::command::Command;
use self::complete::Vocabulary;
use self::reader::{Read, Reader};
use super::exit::Exit;
use super::{Context, output, rows, sql};
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;
use crate::search::script::{self, PieceKind};
use crate::search::{Engine, QueryMemory, Search, Surface};

/// What was asked for on the command line.
pub(super) struct Settings {
    /// How rows look at first.
    pub(super) style: rows::Style,
    /// Where they go at first.
    pub(super) output_file: Option<PathBuf>,
    /// Whether long answers are shown in a pager.
    pub(super) has_pager: bool,
    /// What a query may take.
    pub(super) memory: QueryMemory,
}

/// Runs the shell until the person leaves it.
///
/// # Errors
/// `no-lake`, `lake-unavailable`, `lake-damaged`; `io` when there is no terminal to read from.
pub(super) async fn main(context: &Context, settings: Settings) -> Result<Exit> {
    let engine = context.engine(settings.memory)?;
    // There is nothing to talk about without a lake.
    let search = engine.search(&context.asker(Surface::Shell)).await?;
    let vocabulary = Arc::new(OnceLock::new());
    let filled = Arc::clone(&vocabulary);
    // Opening every table takes a moment on a distant storage; the prompt does not wait for it.
    tokio::spawn(async move {
        match Vocabulary::of(&search).await {
            Ok(words) => drop(filled.set(words)),
            Err(error) => tracing::debug!(code = %error.code(), %error, "no names for completion"),
        }
    });
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let mut terminate = terminate.or_error(Code::Internal, "cannot listen for signals")?;
    let mut shell = Shell {
        context,
        engine,
        style: settings.style,
        has_timing: false,
        has_pager: settings.has_pager,
        file: None,
        screen: rows::Screen { columns: 80, lines: 24 },
        last: String::new(),
        next: String::new(),
    };
    shell.send_to(settings.output_file.as_deref())?;
    output::say(format_args!(
        "waybill {}, lake {}\n\\? lists the commands, \\d the tables, \\q leaves; a statement ends with `;`",
        env!("CARGO_PKG_VERSION"),
        context.lake()?.url()
    ));
    let reader = Reader::start(vocabulary)?;
    let ended = tokio::select! {
        ended = shell.talk(&reader) => ended,
        _ = terminate.recv() => {
            reader::restore_terminal();
            Err(Error::new(Code::Interrupted, "the shell was asked to end"))
        }
    };
    let closed = shell.send_to(None);
    context.recorded(&shell.engine).await;
    ended.and(closed).map(|()| Exit::DONE)
}

/// Whether the shell goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Leave,
}

/// What a person set, and where they are.
struct Shell<'a> {
    context: &'a Context,
    engine: Engine,
    style: rows::Style,
    has_timing: bool,
    has_pager: bool,
    /// Where answers go instead of the screen, and the rows in it.
    file: Option<(rows::OutputFile, u64)>,
    screen: rows::Screen,
    /// The last statement, for `\e`.
    last: String,
    /// What the next line begins with.
    next: String,
}

impl Shell<'_> {
    async fn talk(&mut self, reader: &Reader) -> Result<()> {
        loop {
            match reader.read(std::mem::take(&mut self.next)).await? {
                Read::End => return Ok(()),
                Read::Interrupted => {}
                Read::Text(text, screen) => {
                    self.screen = screen.unwrap_or(self.screen);
                    match self.act(&text, 0).await {
                        Ok(Next::Leave) => return Ok(()),
                        Ok(Next::Continue) => {}
                        Err(error) => say_error(&error),
                    }
                }
            }
        }
    }

    /// Does what a text says, until something fails; `depth` counts the files that it is in.
    async fn act(&mut self, text: &str, depth: usize) -> Result<Next> {
        if reader::is_farewell(text) {
            return Ok(Next::Leave);
        }
        if text.trim().eq_ignore_ascii_case("help") {
            self.show(&command::help()).await?;
            return Ok(Next::Continue);
        }
        for piece in script::pieces(text) {
            let part = &text[piece.bytes.clone()];
            let next = match piece.kind {
                PieceKind::Statement | PieceKind::Open => self.ask(part).await.map(|()| Next::Continue),
                PieceKind::Command => Box::pin(self.command(command::parse(part)?, depth)).await,
            };
            let next = next.map_err(|error| match depth {
                0 => error,
                _ => error.context(format_args!("line {}", piece.line)),
            })?;
            if next == Next::Leave {
                return Ok(next);
            }
        }
        Ok(Next::Continue)
    }

    async fn command(&mut self, command: Command, depth: usize) -> Result<Next> {
        match command {
            Command::Describe { name, is_long } => {
                let search = self.search().await?;
                let width = self.screen.columns;
                self.show(&describe::relation(&search, name.as_deref(), is_long, width).await?).await?;
            }
            Command::Relations { views, is_long } => {
                let search = self.search().await?;
                self.show(&describe::relations(&search, Some(views), is_long, self.screen.columns).await?).await?;
            }
            Command::Functions { name, is_long } => {
                let search = self.search().await?;
                self.show(&describe::functions(&search, name.as_deref(), is_long, self.screen.columns)).await?;
            }
            Command::Lake => {
                let text = describe::lake(self.context.lake()?.url().as_str(), &self.context.who());
                self.show(&text).await?;
            }
            Command::Timing(to) => {
                self.has_timing = to.unwrap_or(!self.has_timing);
                output::say(format_args!("timing is {}", on_or_off(self.has_timing)));
            }
            Command::Expanded(to) => {
                self.style.expanded = to.unwrap_or(!self.style.expanded);
                output::say(format_args!("expanded display is {}", on_or_off(self.style.expanded)));
            }
            Command::Pager(to) => {
                self.has_pager = to.unwrap_or(!self.has_pager);
                output::say(format_args!("the pager is {}", on_or_off(self.has_pager)));
            }
            Command::Format(Some(format)) => {
                if let Some((file, rows)) = &self.file
                    && format.is_binary()
                    && *rows > 0
                {
                    return Err(Error::new(
                        Code::Usage,
                        format!("`{}` has other rows; end it with `\\o` first", file.path().display()),
                    ));
                }
                self.style.format = format;
                output::say(format_args!("rows are written as {}", format.name()));
            }
            Command::Format(None) => output::say(format_args!("rows are written as {}", self.style.format.name())),
            Command::Output(path) => self.send_to(path.as_deref().map(Path::new))?,
            Command::Include(path) => {
                if depth >= limits::SCRIPT_DEPTH {
                    return Err(Error::new(
                        Code::Usage,
                        format!("`\\i {path}`: {} files are within each other", limits::SCRIPT_DEPTH),
                    ));
                }
                let text = sql::read(Path::new(&path))?;
                return self.act(&text, depth + 1).await.map_err(|error| error.context(format_args!("`{path}`")));
            }
            Command::Edit => self.next = tokio::task::block_in_place(|| edit::edit(&self.last))?,
            Command::Help => self.show(&command::help()).await?,
            Command::Quit => return Ok(Next::Leave),
        }
        Ok(Next::Continue)
    }

    /// The tables at their newest version.
    async fn search(&self) -> Result<Search> {
        self.engine.search(&self.context.asker(Surface::Shell)).await
    }

    /// Asks a statement and shows or writes its rows.
    async fn ask(&mut self, statement: &str) -> Result<()> {
        statement.clone_into(&mut self.last);
        let began = Instant::now();
        let (engine, asker) = (self.engine.clone(), self.context.asker(Surface::Shell));
        let text = statement.to_owned();
        let question = async move { engine.search(&asker).await?.sql(&text).await };
        let asked = match self.file.take() {
            Some(file) => self.ask_to_file(question, file).await,
            None => self.ask_to_screen(question).await,
        };
        match asked {
            // Who leaves a pager before the end has seen what they wanted.
            Err(error) if output::is_broken_pipe(&error) => {}
            Err(error) => {
                if let Some(pointed) = describe::point(statement, error.message()) {
                    output::say(pointed);
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        if self.has_timing {
            output::say(time(began.elapsed()));
        }
        Ok(())
    }

    async fn ask_to_screen(
        &mut self,
        question: impl Future<Output = Result<crate::search::Answer>> + Send + 'static,
    ) -> Result<()> {
        if self.style.format.is_binary() {
            let format = self.style.format.name();
            return Err(Error::new(
                Code::Usage,
                format!("{format} is nothing for a terminal: send it to a file with `\\o FILE` first"),
            ));
        }
        let mut sink = self.screen();
        let rows = rows::deliver(self.context, question, self.style, &mut sink, interrupted()).await?;
        sink.finish()?;
        if self.style.format == rows::Format::Table {
            output::say(rows::count(rows));
        }
        Ok(())
    }

    /// What fails leaves nothing in the file. Formats that hold one answer end it.
    async fn ask_to_file(
        &mut self,
        question: impl Future<Output = Result<crate::search::Answer>> + Send + 'static,
        (mut file, before): (rows::OutputFile, u64),
    ) -> Result<()> {
        let mark = file.mark()?;
        let mut sink = rows::Sink::File(file);
        let asked = rows::deliver(self.context, question, self.style, &mut sink, interrupted()).await;
        let rows::Sink::File(mut file) = sink else { return asked.map(drop) };
        match asked {
            Err(error) => {
                file.cut(mark)?;
                self.file = Some((file, before));
                Err(error)
            }
            Ok(rows) => {
                let path = file.path().display().to_string();
                output::say(format_args!("{} for `{path}`", rows::count(rows)));
                self.file = Some((file, before + rows));
                if self.style.format.is_binary() { self.send_to(None) } else { Ok(()) }
            }
        }
    }

    /// Ends the file that answers go to, and begins another one.
    fn send_to(&mut self, path: Option<&Path>) -> Result<()> {
        if let Some((file, rows)) = self.file.take() {
            let path = file.path().display().to_string();
            file.finish()?;
            output::say(format_args!("`{path}` is written, {}", rows::count(rows)));
        }
        if let Some(path) = path {
            self.file = Some((rows::OutputFile::create(path)?, 0));
        }
        Ok(())
    }

    /// Shows a text that describes something.
    async fn show(&mut self, text: &str) -> Result<()> {
        let mut sink = self.screen();
        let shown = tokio::task::block_in_place(|| {
            std::io::Write::write_all(&mut sink, text.as_bytes()).or_error(Code::Io, "cannot write to the terminal")?;
            sink.finish()
        });
        match shown {
            Err(error) if output::is_broken_pipe(&error) => Ok(()),
            shown => shown,
        }
    }

    fn screen(&self) -> rows::Sink {
        if self.has_pager { rows::Sink::paged(rows::Pager::new(self.screen)) } else { rows::Sink::stdout() }
    }
}

/// Ends with the next Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Nobody can be heard, so nothing is ended.
        std::future::pending::<()>().await;
    }
}

fn say_error(error: &Error) {
    match error.code() {
        Code::Interrupted => output::say("cancelled"),
        _ => output::error(error),
    }
}

fn on_or_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

/// A time as psql tells it.
fn time(elapsed: Duration) -> String {
    let ms = elapsed.as_secs_f64() * 1000.0;
    let seconds = elapsed.as_secs();
    match seconds {
        0 => format!("Time: {ms:.3} ms"),
        _ => format!("Time: {ms:.3} ms ({:02}:{:02}.{:03})", seconds / 60, seconds % 60, elapsed.subsec_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_psql_does() {
        for (ms, told) in [
            (1, "Time: 1.000 ms"),
            (999, "Time: 999.000 ms"),
            (1_500, "Time: 1500.000 ms (00:01.500)"),
            (61_001, "Time: 61001.000 ms (01:01.001)"),
        ] {
            assert_eq!(time(Duration::from_millis(ms)), told);
        }
    }
}
