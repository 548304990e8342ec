//! Where rows go.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::PathBuf;

use super::file::OutputFile;
use super::pager::Pager;
use crate::cli::output;
use crate::error::{Code, Result, ResultExt};

/// Where rows go.
pub(in crate::cli) enum Sink {
    /// Standard output, which is no terminal.
    Stdout(BufWriter<Stdout>),
    /// The terminal.
    Terminal(Visible<BufWriter<Stdout>>, bool),
    /// The terminal, through a pager when there is more than it shows.
    Paged(Visible<Pager>),
    /// A file.
    File(OutputFile),
}

impl Sink {
    /// Standard output, whatever it is.
    pub(in crate::cli) fn stdout() -> Self {
        let stdout = BufWriter::new(io::stdout());
        if output::is_terminal() { Self::Terminal(Visible::new(stdout), false) } else { Self::Stdout(stdout) }
    }

    /// The terminal, through a pager.
    pub(in crate::cli) fn paged(pager: Pager) -> Self {
        Self::Paged(Visible::new(pager))
    }

    /// Whether something of it is on the screen, so that nothing else should be.
    pub(in crate::cli) fn is_on_screen(&self) -> bool {
        match self {
            Self::Stdout(_) | Self::File(_) => false,
            Self::Terminal(_, has_written) => *has_written,
            Self::Paged(pager) => pager.inner.is_open(),
        }
    }

    /// The file that it is.
    pub(in crate::cli) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(file) => Some(file.path().to_owned()),
            Self::Stdout(_) | Self::Terminal(..) | Self::Paged(_) => None,
        }
    }

    /// All is written: gives a file its name, and waits for the reader of a pager.
    ///
    /// # Errors
    /// `io`.
    pub(in crate::cli) fn finish(self) -> Result<()> {
        let place = self.to_string();
        let finished = match self {
            Self::Stdout(mut stdout) => stdout.flush(),
            Self::Terminal(mut terminal, _) => terminal.flush(),
            Self::Paged(pager) => pager.inner.finish(),
            Self::File(file) => return file.finish(),
        };
        finished.or_error(Code::Io, format!("cannot write to {place}"))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::Terminal(terminal, has_written) => {
                *has_written |= !bytes.is_empty();
                terminal.write(bytes)
            }
            Self::Paged(pager) => pager.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::Terminal(terminal, _) => terminal.flush(),
            Self::Paged(pager) => pager.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout(_) | Self::Terminal(..) => f.write_str("standard output"),
            Self::Paged(_) => f.write_str("the pager"),
            Self::File(file) => write!(f, "`{}`", file.path().display()),
        }
    }
}

/// Takes from a terminal what would command it: the text of a mail is a stranger's. A control character becomes `?`.
pub(in crate::cli) struct Visible<W> {
    inner: W,
    /// Whether the last byte was the first of the two that C1 controls have in UTF-8.
    is_c1_begun: bool,
}

impl<W: Write> Visible<W> {
    fn new(inner: W) -> Self {
        Self { inner, is_c1_begun: false }
    }
}

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut visible = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if std::mem::take(&mut self.is_c1_begun) {
                if (0x80..=0x9f).contains(byte) {
                    visible.push(b'?');
                    continue;
                }
                visible.push(0xc2);
            }
            match byte {
                0xc2 => self.is_c1_begun = true,
                b'\n' | b'\t' => visible.push(*byte),
                0..=0x1f | 0x7f => visible.push(b'?'),
                _ => visible.push(*byte),
            }
        }
        self.inner.write_all(&visible)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_the_terminal() {
        let every: String = ('\u{0}'..='\u{2ff}').collect();
        // Whole, and byte by byte, as a buffer may cut it.
        for step in [1, 2, 3, 4096] {
            let mut terminal = Visible::new(Vec::new());
            for piece in every.as_bytes().chunks(step) {
                terminal.write_all(piece).unwrap();
            }
            let shown = String::from_utf8(terminal.inner).unwrap();
            let expected: String =
                every.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }).collect();
            assert_eq!(shown, expected, "in pieces of {step}");
        }
    }
}
