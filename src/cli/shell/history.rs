//! What was typed in earlier shells: a file that only its owner may read, a statement a line.
//!
//! `$XDG_STATE_HOME/waybill/history`, else `~/.local/state/waybill/history`. Line ends and backslashes are written as `\n`
//! and `\\`. Each statement is appended when it is typed, so that a killed shell forgets nothing and two shells at once do
//! not undo each other. Where the file cannot be read or written the shell works without it.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::limits;

/// The file of what was typed, when there can be one.
#[derive(Debug)]
pub(super) struct History(Option<PathBuf>);

impl History {
    /// In the state folder of whoever runs this.
    pub(super) fn of_this_user() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        Self(state.map(|state| state.join("waybill/history")))
    }

    /// The latest statements, oldest first.
    pub(super) fn read(&self) -> Vec<String> {
        let Some(path) = &self.0 else { return Vec::new() };
        match latest(path) {
            Ok(statements) => statements.into(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::debug!(file = %path.display(), %error, "the history cannot be read");
                Vec::new()
            }
        }
    }

    /// Adds a statement.
    pub(super) fn add(&mut self, statement: &str) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = append(path, statement) {
            tracing::debug!(file = %path.display(), %error, "the history cannot be written, and is not any more");
            self.0 = None;
        }
    }
}

fn latest(path: &Path) -> io::Result<VecDeque<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let is_cut = length > limits::SHELL_HISTORY_BYTES;
    if is_cut {
        file.seek(SeekFrom::End(-i64::try_from(limits::SHELL_HISTORY_BYTES).unwrap_or(i64::MAX)))?;
    }
    let mut statements = VecDeque::new();
    let lines = BufReader::new(file.take(limits::SHELL_HISTORY_BYTES)).split(b'\n');
    // The first line after a cut is part of one.
    for line in lines.skip(usize::from(is_cut)) {
        let statement = unescaped(&String::from_utf8_lossy(&line?));
        if !statement.is_empty() {
            statements.push_back(statement);
        }
        if statements.len() > limits::SHELL_HISTORY {
            statements.pop_front();
        }
    }
    Ok(statements)
}

fn append(path: &Path, statement: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // One that somebody made readable for others holds addresses and subjects all the same.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    // One write for a line, so that lines of two shells do not mix.
    file.write_all(format!("{}\n", escaped(statement)).as_bytes())
}

fn escaped(statement: &str) -> String {
    statement.replace('\\', "\\\\").replace('\r', "").replace('\n', "\\n")
}

fn unescaped(line: &str) -> String {
    let mut statement = String::with_capacity(line.len());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => statement.push('\n'),
                Some(other) => statement.push(other),
                None => statement.push('\\'),
            },
            // A hand-made file may hold anything; the editor shows it on the terminal.
            letter if letter.is_control() && letter != '\t' => {}
            letter => statement.push(letter),
        }
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_comes_back_and_is_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/waybill/history");
        let mut history = History(Some(path.clone()));
        assert_eq!(history.read(), [""; 0]);
        let typed = ["SELECT 1;", "SELECT '\\n',\n  'ä😀'\nFROM x;", "\\d file_events", "\\"];
        for statement in typed {
            history.add(statement);
        }
        assert_eq!(history.read(), typed);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        history.add("again");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_history_that_cannot_be_had_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History(Some(folder.path().to_owned()));
        assert_eq!(history.read(), [""; 0]);
        history.add("SELECT 1;");
        assert!(history.0.is_none());
        History(None).add("SELECT 1;");
        let path = folder.path().join("history");
        fs::write(&path, b"\xff\xfe\x1b[2J\n\n\\\nSELECT 1;").unwrap();
        assert_eq!(History(Some(path.clone())).read(), ["\u{fffd}\u{fffd}[2J", "\\", "SELECT 1;"]);
        let many: String = (0..limits::SHELL_HISTORY + 10).map(|number| format!("SELECT {number};\n")).collect();
        fs::write(&path, many).unwrap();
        let read = History(Some(path)).read();
        assert_eq!((read.len(), read[0].as_str()), (limits::SHELL_HISTORY, "SELECT 10;"));
    }
}
