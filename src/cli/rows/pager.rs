//! A pager, once there is more than the terminal shows.
//!
//! `WAYBILL_PAGER`, else `PAGER`, else `less -S`, which does not break wide lines; an empty one is none. What a person
//! sets there is a line for the shell, as with every program that has a pager.

use std::io::{self, BufWriter, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// How large the terminal is, in letters and lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Screen {
    /// Letters of a line.
    pub(in crate::cli) columns: u16,
    /// Lines.
    pub(in crate::cli) lines: u16,
}

/// Text that goes to the terminal when it fits, and through a pager when it does not.
pub(in crate::cli) struct Pager {
    screen: Screen,
    /// The text until it is too much, which is a screen of it.
    waiting: Vec<u8>,
    lines: u16,
    /// Letters of the last line.
    column: u32,
    running: Running,
}

enum Running {
    /// All of it fits yet.
    NotYet,
    /// A pager shows it.
    Pager(Child, BufWriter<ChildStdin>),
    /// There is none: it goes to the terminal as it comes.
    None(BufWriter<io::Stdout>),
}

impl Pager {
    pub(in crate::cli) fn new(screen: Screen) -> Self {
        Self { screen, waiting: Vec::new(), lines: 0, column: 0, running: Running::NotYet }
    }

    /// Whether something is on the screen.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.running, Running::NotYet)
    }

    fn start(&mut self) -> io::Result<&mut dyn Write> {
        if matches!(self.running, Running::NotYet) {
            self.running = match spawn()? {
                Some((child, input)) => Running::Pager(child, BufWriter::new(input)),
                None => Running::None(BufWriter::new(io::stdout())),
            };
        }
        Ok(match &mut self.running {
            Running::Pager(_, input) => input,
            Running::None(stdout) => stdout,
            Running::NotYet => &mut self.waiting,
        })
    }

    /// Shows what waits, or waits until the person has left the pager.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.running, Running::NotYet) {
            Running::NotYet => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&self.waiting)?;
                stdout.flush()
            }
            Running::None(mut stdout) => stdout.flush(),
            Running::Pager(mut child, mut input) => {
                // Someone who leaves before the end has seen enough, and is waited for all the same.
                let flushed = input.flush();
                drop(input);
                child.wait()?;
                flushed
            }
        }
    }

    fn is_too_much(&mut self, bytes: &[u8]) -> bool {
        for letter in String::from_utf8_lossy(bytes).chars() {
            match letter {
                '\n' => (self.lines, self.column) = (self.lines.saturating_add(1), 0),
                // From here on are the scripts whose letters take two places on a terminal, and few others.
                '\u{1100}'.. => self.column += 2,
                _ => self.column += 1,
            }
            // A line is left for the prompt.
            if self.column > u32::from(self.screen.columns) || self.lines.saturating_add(1) > self.screen.lines {
                return true;
            }
        }
        false
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if matches!(self.running, Running::NotYet) {
            if !self.is_too_much(bytes) {
                self.waiting.extend(bytes);
                return Ok(bytes.len());
            }
            let waiting = std::mem::take(&mut self.waiting);
            self.start()?.write_all(&waiting)?;
        }
        self.start()?.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.running {
            Running::NotYet => Ok(()),
            Running::Pager(_, input) => input.flush(),
            Running::None(stdout) => stdout.flush(),
        }
    }
}

impl Drop for Pager {
    /// The query failed or was cancelled: the person still looks at what came until then.
    fn drop(&mut self) {
        if let Running::Pager(mut child, input) = std::mem::replace(&mut self.running, Running::NotYet) {
            // This flushes and closes the pipe; that nobody may read it any more is no matter.
            drop(input);
            if let Err(error) = child.wait() {
                tracing::debug!(%error, "the pager could not be waited for");
            }
        }
    }
}

/// Starts the pager; nothing when there is none.
fn spawn() -> io::Result<Option<(Child, ChildStdin)>> {
    let chosen = ["WAYBILL_PAGER", "PAGER"].iter().find_map(std::env::var_os);
    let mut command = match chosen {
        Some(line) if line.is_empty() => return Ok(None),
        Some(line) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(line);
            command
        }
        None => {
            let mut command = Command::new("less");
            command.arg("-S");
            command
        }
    };
    match command.stdin(Stdio::piped()).spawn() {
        Ok(mut child) => Ok(child.stdin.take().map(|input| (child, input))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_of_text_waits_and_more_does_not() {
        let screen = Screen { columns: 10, lines: 3 };
        for (text, fits) in [
            ("", true),
            ("1234567890\n", true),
            ("12345678901", false),
            ("1\n2\n", true),
            ("1\n2\n3\n", false),
            ("日本語日本\n", true),
            ("日本語日本語", false),
        ] {
            let mut pager = Pager::new(screen);
            assert_eq!(!pager.is_too_much(text.as_bytes()), fits, "{text:?}");
        }
    }
}
