//! Text → statements: where each begins and ends, as the parser of SQL reads it.
//!
//! A `;` in a string, a quoted name or a comment ends nothing. What cannot be read as words (a string that nobody closed) is
//! one open piece to its end, so that a shell goes on asking and a script hears the parser's own complaint.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// A part of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Its bytes in the script, without the `;` and the white space around it.
    pub bytes: Range<usize>,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// What a part of a script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// A statement that a `;` ended.
    Statement,
    /// A statement to the end of the text, without a `;`. It may have ended, or the rest may be still to come.
    Open,
    /// A line that begins with `\` where a statement could begin: a command of a shell.
    Command,
}

/// The statements of a script, and the lines between them that are commands of a shell. Empty statements, and those that
/// are only comments, are left out.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut from = Place { byte: 0, line: 1 };
    while let Some(next) = pieces_until_command(text, from, &mut pieces) {
        from = next;
    }
    pieces
}

/// Where the next word is in the text.
#[derive(Clone, Copy)]
struct Place {
    byte: usize,
    line: usize,
}

/// Reads on from a place; gives the place after the first command, since the words of a command are none of SQL.
fn pieces_until_command(text: &str, from: Place, pieces: &mut Vec<Piece>) -> Option<Place> {
    let rest = &text[from.byte..];
    let mut words = Vec::new();
    // Where it fails, the words before the failure are there, and what follows belongs to the last statement.
    let failed = Tokenizer::new(&GenericDialect {}, rest).tokenize_with_location_into_buf(&mut words).err();
    let mut places = Places::new(rest, from);
    let mut begun: Option<Place> = None;
    for TokenWithSpan { token, span } in &words {
        match token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::Backslash if begun.is_none() => {
                let place = places.at(span.start);
                let end = text[place.byte..].find('\n').map_or(text.len(), |at| place.byte + at);
                let line = text[place.byte..end].trim_end();
                let bytes = place.byte..place.byte + line.len();
                pieces.push(Piece { kind: PieceKind::Command, bytes, line: place.line });
                return (end < text.len()).then(|| Place { byte: end + 1, line: place.line + 1 });
            }
            Token::SemiColon => {
                if let Some(begun) = begun.take() {
                    pieces.push(piece(text, PieceKind::Statement, begun, places.at(span.start).byte));
                }
            }
            _ => {
                begun.get_or_insert_with(|| places.at(span.start));
            }
        }
    }
    // A failure is where the unreadable word is found out to be one; without a statement before, it begins there.
    if let Some(failure) = &failed {
        begun.get_or_insert_with(|| places.after(words.last()));
        tracing::trace!(%failure, "not all of the text is words of SQL");
    }
    if let Some(begun) = begun {
        pieces.push(piece(text, PieceKind::Open, begun, text.len()));
    }
    None
}

fn piece(text: &str, kind: PieceKind, begun: Place, end: usize) -> Piece {
    let end = begun.byte + text[begun.byte..end.max(begun.byte)].trim_end().len();
    Piece { kind, bytes: begun.byte..end, line: begun.line }
}

/// Lines and columns, in letters and ever later, as places in bytes: one walk over the text.
struct Places<'a> {
    letters: std::iter::Peekable<std::str::CharIndices<'a>>,
    length: usize,
    from: Place,
    line: u64,
    column: u64,
}

impl<'a> Places<'a> {
    fn new(rest: &'a str, from: Place) -> Self {
        Self { letters: rest.char_indices().peekable(), length: rest.len(), from, line: 1, column: 1 }
    }

    fn at(&mut self, location: Location) -> Place {
        while (self.line, self.column) < (location.line, location.column) {
            match self.letters.next() {
                Some((_, '\n')) => (self.line, self.column) = (self.line + 1, 1),
                Some(_) => self.column += 1,
                None => break,
            }
        }
        self.here()
    }

    /// The first letter behind a word that is no white space.
    fn after(&mut self, word: Option<&TokenWithSpan>) -> Place {
        if let Some(word) = word {
            self.at(word.span.end);
        }
        while let Some((_, letter)) = self.letters.next_if(|(_, letter)| letter.is_whitespace()) {
            (self.line, self.column) = if letter == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.here()
    }

    fn here(&mut self) -> Place {
        let byte = self.letters.peek().map_or(self.length, |(at, _)| *at);
        let lines = usize::try_from(self.line - 1).unwrap_or(usize::MAX);
        Place { byte: self.from.byte + byte, line: self.from.line.saturating_add(lines) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(PieceKind, &str, usize)> {
        pieces(text).into_iter().map(|piece| (piece.kind, &text[piece.bytes], piece.line)).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_in_a_string_a_name_or_a_comment() {
        use PieceKind::{Command, Open, Statement};
        for (text, expected) in [
            ("", vec![]),
            (" \n\t ", vec![]),
            (";;; ;", vec![]),
            ("-- only; a comment", vec![]),
            ("/* one; */ ; -- two;\n", vec![]),
            ("SELECT 1", vec![(Open, "SELECT 1", 1)]),
            ("SELECT 1;", vec![(Statement, "SELECT 1", 1)]),
            ("SELECT 1 ; SELECT 2", vec![(Statement, "SELECT 1", 1), (Open, "SELECT 2", 1)]),
            ("SELECT ';' || ''';' ;x", vec![(Statement, "SELECT ';' || ''';'", 1), (Open, "x", 1)]),
            ("SELECT \";\";\n\nSELECT 2;", vec![(Statement, "SELECT \";\"", 1), (Statement, "SELECT 2", 3)]),
            ("SELECT 1 -- ;\n, 2 /* ; */;", vec![(Statement, "SELECT 1 -- ;\n, 2 /* ; */", 1)]),
            (
                "SELECT 'ä€😀;';\n  SELECT 'ß'; z",
                vec![(Statement, "SELECT 'ä€😀;'", 1), (Statement, "SELECT 'ß'", 2), (Open, "z", 2)],
            ),
            ("SELECT 1;\r\nSELECT 2;\r\n", vec![(Statement, "SELECT 1", 1), (Statement, "SELECT 2", 2)]),
            // What nobody closed goes on to the end.
            ("SELECT 1; SELECT 'a; b", vec![(Statement, "SELECT 1", 1), (Open, "SELECT 'a; b", 1)]),
            ("SELECT 1;\n 'a; b", vec![(Statement, "SELECT 1", 1), (Open, "'a; b", 2)]),
            ("SELECT 1; /* never ends;", vec![(Statement, "SELECT 1", 1), (Open, "/* never ends;", 1)]),
            ("'", vec![(Open, "'", 1)]),
            ("\"a;", vec![(Open, "\"a;", 1)]),
            // Commands of a shell, whose words are none of SQL.
            ("\\d", vec![(Command, "\\d", 1)]),
            ("  \\i it's; here \nSELECT 1;", vec![(Command, "\\i it's; here", 1), (Statement, "SELECT 1", 2)]),
            (
                "SELECT 1;\\x\n\\timing\r\nSELECT 2",
                vec![(Statement, "SELECT 1", 1), (Command, "\\x", 1), (Command, "\\timing", 2), (Open, "SELECT 2", 3)],
            ),
            ("SELECT 1\n\\x", vec![(Open, "SELECT 1\n\\x", 1)]),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn hostile_text_is_read_to_its_end() {
        let parts =
            ["'", "\"", ";", "\\", "\n", "/*", "*/", "--", "$$", "😀", "\u{0}", "a", " ", "`", "E'", "{", "\u{202e}"];
        for first in parts {
            for second in parts {
                for third in parts {
                    let text = format!("{first}{second}{third}{first}");
                    let mut end = 0;
                    for piece in pieces(&text) {
                        assert!(piece.bytes.start >= end && text.get(piece.bytes.clone()).is_some(), "{text:?}");
                        end = piece.bytes.end;
                    }
                }
            }
        }
        assert_eq!(pieces(&"SELECT 1;".repeat(20_000)).len(), 20_000);
        assert_eq!(pieces(&"\\x\n".repeat(200)).len(), 200);
        assert_eq!(pieces(&"'".repeat(100_001)).len(), 1);
    }
}
