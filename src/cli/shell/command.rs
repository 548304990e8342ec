//! `\d`, `\x` and the others: what a line that begins with `\` says.

use clap::ValueEnum as _;

use crate::cli::rows::Format;
use crate::error::{Code, Error, Result};

/// A command of the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A table's columns, or all tables and views.
    Describe { name: Option<String>, is_long: bool },
    /// Tables only, or views only.
    Relations { views: bool, is_long: bool },
    /// Functions, whose name may have `*` and `?`.
    Functions { name: Option<String>, is_long: bool },
    /// Which lake it is.
    Lake,
    /// Whether times are told; the other way round without a word.
    Timing(Option<bool>),
    /// Whether each value has a line.
    Expanded(Option<bool>),
    /// Whether long answers are shown in a pager.
    Pager(Option<bool>),
    /// How rows are written; asks without a word.
    Format(Option<Format>),
    /// Where rows go; back to the screen without a name.
    Output(Option<String>),
    /// Do what a file says.
    Include(String),
    /// The last statement in an editor.
    Edit,
    /// What there is.
    Help,
    /// Leave.
    Quit,
}

/// A command's names, what it takes, and what it does.
pub(super) struct About {
    pub(super) names: &'static [&'static str],
    pub(super) takes: &'static str,
    pub(super) does: &'static str,
}

/// Every command, in the order of the help.
pub(super) const ALL: [About; 15] = [
    About {
        names: &["\\d"],
        takes: "[NAME]",
        does: "tables and views, or the columns of one; \\d+ says what they mean",
    },
    About { names: &["\\dt"], takes: "", does: "tables; \\dt+ says what a row is" },
    About { names: &["\\dv"], takes: "", does: "views" },
    About { names: &["\\df"], takes: "[NAME]", does: "functions, * and ? are wildcards; \\df+ says what they give" },
    About { names: &["\\l"], takes: "", does: "the lake" },
    About { names: &["\\timing"], takes: "[on|off]", does: "how long each statement takes" },
    About { names: &["\\x"], takes: "[on|off]", does: "a line for each value instead of a row" },
    About { names: &["\\format"], takes: "[FORMAT]", does: "table, csv, json, ndjson, parquet or arrow" },
    About { names: &["\\pset"], takes: "NAME VALUE", does: "format, expanded or pager, as psql has it" },
    About { names: &["\\o"], takes: "[FILE]", does: "rows go to a file; \\o alone ends it" },
    About { names: &["\\i"], takes: "FILE", does: "statements and commands from a file" },
    About { names: &["\\e"], takes: "", does: "the last statement in $VISUAL or $EDITOR" },
    About { names: &["\\h", "\\help"], takes: "", does: "this text" },
    About { names: &["\\?"], takes: "", does: "this text" },
    About { names: &["\\q", "\\quit"], takes: "", does: "leave, as Ctrl-D does" },
];

/// What a command line says.
///
/// # Errors
/// `usage`.
pub(super) fn parse(line: &str) -> Result<Command> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // Fingers that write SQL end everything with a `;`.
    let word = word.trim_end_matches(';');
    let rest = rest.trim();
    let plain = rest.trim_end_matches(';').trim_end();
    let name = || (!plain.is_empty()).then(|| unquoted(plain));
    let is_long = word.ends_with('+');
    let alone = |command: Command| match plain {
        "" => Ok(command),
        _ => Err(Error::new(Code::Usage, format!("`{word}` takes nothing, and `{plain}` follows it"))),
    };
    match word {
        "\\d" | "\\d+" => Ok(Command::Describe { name: name(), is_long }),
        "\\dt" | "\\dt+" => alone(Command::Relations { views: false, is_long }),
        "\\dv" | "\\dv+" => alone(Command::Relations { views: true, is_long }),
        "\\df" | "\\df+" => Ok(Command::Functions { name: name(), is_long }),
        "\\l" | "\\l+" => alone(Command::Lake),
        "\\timing" => Ok(Command::Timing(switch(word, plain)?)),
        "\\x" => Ok(Command::Expanded(switch(word, plain)?)),
        "\\format" => Ok(Command::Format(format(plain)?)),
        "\\pset" => setting(plain),
        "\\o" | "\\out" => Ok(Command::Output((!rest.is_empty()).then(|| unquoted(rest)))),
        "\\i" | "\\include" if rest.is_empty() => Err(Error::new(Code::Usage, format!("`{word}` needs a file"))),
        "\\i" | "\\include" => Ok(Command::Include(unquoted(rest))),
        "\\e" | "\\edit" => alone(Command::Edit),
        "\\h" | "\\help" | "\\?" => Ok(Command::Help),
        "\\q" | "\\quit" => Ok(Command::Quit),
        _ => Err(Error::new(Code::Usage, format!("there is no command `{word}`; `\\?` lists them"))),
    }
}

/// `\pset NAME [VALUE]`.
fn setting(rest: &str) -> Result<Command> {
    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let value = value.trim();
    match name {
        "format" => Ok(Command::Format(format(value)?)),
        "expanded" | "x" => Ok(Command::Expanded(switch("\\pset expanded", value)?)),
        "pager" => Ok(Command::Pager(switch("\\pset pager", value)?)),
        _ => Err(Error::new(Code::Usage, format!("`\\pset` knows format, expanded and pager, and not `{name}`"))),
    }
}

fn format(word: &str) -> Result<Option<Format>> {
    match word {
        "" => Ok(None),
        // psql's words for what is the table here.
        "aligned" | "wrapped" => Ok(Some(Format::Table)),
        _ => Format::from_str(word, true).map(Some).map_err(|_| {
            let names: Vec<&str> = Format::value_variants().iter().map(|format| format.name()).collect();
            Error::new(Code::Usage, format!("there is no format `{word}`; there are {}", names.join(", ")))
        }),
    }
}

fn switch(command: &str, word: &str) -> Result<Option<bool>> {
    match word.to_ascii_lowercase().as_str() {
        "" | "toggle" => Ok(None),
        "on" | "true" | "yes" | "1" => Ok(Some(true)),
        "off" | "false" | "no" | "0" => Ok(Some(false)),
        _ => Err(Error::new(Code::Usage, format!("`{command}` is on or off, and not `{word}`"))),
    }
}

/// A name in quotes as psql has them; without quotes as it is.
fn unquoted(text: &str) -> String {
    for quote in ['\'', '"'] {
        let inner = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner.replace(&format!("{quote}{quote}"), &quote.to_string());
        }
    }
    text.to_owned()
}

/// What there is, for a person.
pub(super) fn help() -> String {
    let mut text =
        "A statement ends with `;` and may have several lines. Tab completes, Ctrl-R looks back, Ctrl-C cancels.\n\n"
            .to_owned();
    for about in &ALL {
        let call = format!("{} {}", about.names.join(", "), about.takes);
        text.push_str(&format!("  {:<22} {}\n", call.trim_end(), about.does));
    }
    text.push_str(
        "\nTables and functions: docs/sql.md. Everything that is asked is recorded in the table `searches`.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_psql_reads_them() {
        let describe = |name: Option<&str>, is_long| Command::Describe { name: name.map(str::to_owned), is_long };
        let functions = |name: Option<&str>, is_long| Command::Functions { name: name.map(str::to_owned), is_long };
        for (line, expected) in [
            ("\\d", describe(None, false)),
            ("\\d+", describe(None, true)),
            ("\\d file_events", describe(Some("file_events"), false)),
            ("\\d+   \"file_events\" ;", describe(Some("file_events"), true)),
            ("\\d;", describe(None, false)),
            ("\\dt", Command::Relations { views: false, is_long: false }),
            ("\\dv+", Command::Relations { views: true, is_long: true }),
            ("\\df", functions(None, false)),
            ("\\df+ *_zone", functions(Some("*_zone"), true)),
            ("\\l", Command::Lake),
            ("\\timing", Command::Timing(None)),
            ("\\timing ON", Command::Timing(Some(true))),
            ("\\timing off;", Command::Timing(Some(false))),
            ("\\x", Command::Expanded(None)),
            ("\\x on", Command::Expanded(Some(true))),
            ("\\format", Command::Format(None)),
            ("\\format CSV", Command::Format(Some(Format::Csv))),
            ("\\pset format parquet", Command::Format(Some(Format::Parquet))),
            ("\\pset format aligned", Command::Format(Some(Format::Table))),
            ("\\pset expanded on", Command::Expanded(Some(true))),
            ("\\pset pager off", Command::Pager(Some(false))),
            ("\\o", Command::Output(None)),
            ("\\o my file.csv", Command::Output(Some("my file.csv".to_owned()))),
            ("\\o 'it''s;.csv'", Command::Output(Some("it's;.csv".to_owned()))),
            ("\\i a;b.sql", Command::Include("a;b.sql".to_owned())),
            ("\\e", Command::Edit),
            ("\\?", Command::Help),
            ("\\h SELECT", Command::Help),
            ("\\q", Command::Quit),
            ("  \\quit  ", Command::Quit),
        ] {
            assert_eq!(parse(line).unwrap(), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_command_is_said_clearly() {
        for (line, said) in [
            ("\\", "there is no command `\\`"),
            ("\\copy file_events to '/tmp/x'", "there is no command `\\copy`"),
            ("\\! rm -rf /", "there is no command `\\!`"),
            ("\\dx", "there is no command `\\dx`"),
            ("\\D", "there is no command `\\D`"),
            ("\\dt file_events", "takes nothing"),
            ("\\timing maybe", "is on or off"),
            ("\\format xml", "there is no format `xml`; there are table, csv, json, ndjson, parquet, arrow"),
            ("\\pset", "knows format"),
            ("\\pset null x", "and not `null`"),
            ("\\i", "needs a file"),
            ("\\😀", "there is no command `\\😀`"),
        ] {
            match parse(line) {
                Err(error) => assert!(!said.is_empty() && error.message().contains(said), "{line:?}: {error}"),
                Ok(command) => assert!(said.is_empty(), "{line:?} is {command:?}"),
            }
        }
    }

    #[test]
    fn the_help_names_every_command_that_is_read() {
        let help = help();
        for about in &ALL {
            for name in about.names {
                assert!(help.contains(name), "{name}");
                let said = parse(name).map(drop).map_err(|error| error.to_string());
                assert!(!said.is_err_and(|said| said.contains("no command")), "{name}");
            }
        }
    }
}
