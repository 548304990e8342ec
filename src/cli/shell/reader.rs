//! Lines from the terminal: the only file that knows rustyline, which has a thread of its own, since it blocks.

use std::borrow::Cow;
use std::process::Command;
use std::sync::{Arc, OnceLock, mpsc};

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Editor, Helper};
use tokio::sync::oneshot;

use super::complete::{self, Vocabulary};
use super::history::History;
use crate::cli::rows::Screen;
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;
use crate::search::script::{self, PieceKind};

const PROMPT: &str = "waybill=> ";

/// What came of asking for a line.
pub(super) enum Read {
    /// Statements that are whole, or a command; and the size of the terminal where it has one.
    Text(String, Option<Screen>),
    /// Ctrl-C: the person changed their mind.
    Interrupted,
    /// Ctrl-D: the person leaves.
    End,
}

/// A question for the next line; it begins with a text.
struct Request {
    initial: String,
    answer: oneshot::Sender<Result<Read>>,
}

/// Reads lines. Its thread ends with it.
pub(super) struct Reader {
    requests: mpsc::Sender<Request>,
}

impl Reader {
    /// Starts the thread.
    ///
    /// # Errors
    /// `io` when the terminal cannot be used.
    pub(super) fn start(vocabulary: Arc<OnceLock<Vocabulary>>) -> Result<Self> {
        let (requests, asked) = mpsc::channel::<Request>();
        let (ready, is_ready) = mpsc::channel();
        let work = move || {
            let mut history = History::of_this_user();
            let mut editor = match editor(vocabulary, &history) {
                Ok(editor) => editor,
                Err(error) => {
                    // Whoever waits for this is there.
                    drop(ready.send(Err(error)));
                    return;
                }
            };
            drop(ready.send(Ok(())));
            while let Ok(request) = asked.recv() {
                let read = read(&mut editor, &mut history, &request.initial);
                // One who does not wait any more is leaving.
                drop(request.answer.send(read));
            }
        };
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(work)
            .or_error(Code::Io, "cannot start a thread")?;
        let gone = || Error::new(Code::Internal, "the reader of the terminal ended");
        is_ready.recv().map_err(|_| gone())?.or_error(Code::Io, "cannot use the terminal")?;
        Ok(Self { requests })
    }

    /// Waits for the next statements or command.
    ///
    /// # Errors
    /// `io` when the terminal cannot be read.
    pub(super) async fn read(&self, initial: String) -> Result<Read> {
        let (answer, read) = oneshot::channel();
        let gone = || Error::new(Code::Internal, "the reader of the terminal ended");
        self.requests.send(Request { initial, answer }).map_err(|_| gone())?;
        read.await.map_err(|_| gone())?
    }
}

type Lines = Editor<Guide, MemHistory>;

fn editor(vocabulary: Arc<OnceLock<Vocabulary>>, history: &History) -> rustyline::Result<Lines> {
    let config = Config::builder()
        .max_history_size(limits::SHELL_HISTORY)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_history(config.clone(), MemHistory::with_config(&config))?;
    editor.set_helper(Some(Guide { vocabulary, files: FilenameCompleter::new() }));
    for statement in history.read() {
        editor.add_history_entry(statement)?;
    }
    Ok(editor)
}

fn read(editor: &mut Lines, history: &mut History, initial: &str) -> Result<Read> {
    loop {
        match editor.readline_with_initial(PROMPT, (initial, "")) {
            Ok(text) => {
                // False for what repeats the last one, begins with a space, or is empty.
                if !text.trim().is_empty() && editor.add_history_entry(text.as_str()).unwrap_or(false) {
                    history.add(&text);
                }
                let screen = editor.dimensions().map(|(columns, lines)| Screen { columns, lines });
                return Ok(Read::Text(text, screen.filter(|screen| screen.columns > 0 && screen.lines > 0)));
            }
            Err(ReadlineError::Interrupted) => return Ok(Read::Interrupted),
            Err(ReadlineError::Eof) => return Ok(Read::End),
            Err(ReadlineError::Signal(_)) => {}
            Err(error) => return Err(error).or_error(Code::Io, "cannot read from the terminal"),
        }
    }
}

/// Makes the terminal usable again for what comes after a shell that was ended while it read a line.
pub(super) fn restore_terminal() {
    // Where there is no `stty`, the person's own shell does the same at its next prompt.
    drop(Command::new("stty").arg("sane").status());
}

/// Whether somebody wants to leave in words that other shells know.
pub(super) fn is_farewell(text: &str) -> bool {
    ["exit", "quit"].iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

/// Whether a text can be acted on: it is empty, a command, or its last statement has ended.
fn is_whole(text: &str) -> bool {
    let is_word = is_farewell(text) || text.trim().eq_ignore_ascii_case("help");
    is_word || script::pieces(text).last().is_none_or(|piece| piece.kind != PieceKind::Open)
}

/// What rustyline asks while a person types.
struct Guide {
    /// Known a moment after the start.
    vocabulary: Arc<OnceLock<Vocabulary>>,
    files: FilenameCompleter,
}

impl Helper for Guide {}

impl Validator for Guide {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Guide {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let none = Vocabulary::default();
        match complete::complete(self.vocabulary.get().unwrap_or(&none), line, position) {
            None => self.files.complete_path(line, position),
            Some((place, words)) => {
                let pair = |word: String| Pair { display: word.clone(), replacement: word };
                Ok((place, words.into_iter().map(pair).collect()))
            }
        }
    }
}

impl Hinter for Guide {
    type Hint = String;
}

impl Highlighter for Guide {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_when_its_last_statement_has_ended() {
        for text in [
            "",
            "  \n",
            "SELECT 1;",
            "SELECT\n1\n;",
            "SELECT ';'; -- more",
            "\\d",
            "\\i it's",
            "-- only",
            "quit",
            " EXIT ",
        ] {
            assert!(is_whole(text), "{text:?}");
        }
        for text in
            ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "/* ;", "SELECT 1 -- ;", "\"a;", "quit now", "help me"]
        {
            assert!(!is_whole(text), "{text:?}");
        }
    }
}
