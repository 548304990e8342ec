//! What a client's statement wants: an answer from the lake, or nothing but a word that it was heard.

use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{Set, Statement as Ast};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::api::results::Tag;

use super::catalog::simplify;
use super::handlers::state;
use crate::error::{Code, Error, Result};
use crate::search::{POSTGRES_SETTINGS, check_statement};

/// A statement of a client.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// A query: as the engine reads it, and as it was asked.
    Query { text: String, asked: String },
    /// A transaction begins.
    Begin,
    /// A transaction ends, with this word.
    End(&'static str),
    /// Something that has no effect here, with its word.
    Heard(&'static str),
}

/// A statement that a client prepared.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) wanted: Wanted,
    /// The columns of its answer.
    pub(super) columns: SchemaRef,
    /// The types of its parameters.
    pub(super) parameters: SchemaRef,
}

/// Reads a text of statements.
///
/// # Errors
/// `query-invalid` when it is no SQL; `query-refused` when it is too long, or sets what may not be set.
pub(super) fn read(parser: &PostgresCompatibilityParser, text: &str) -> Result<Vec<Wanted>> {
    // Before anything reads it.
    check_statement(text)?;
    let parsed = parser.parse(text).map_err(|error| Error::new(Code::QueryInvalid, error.to_string()))?;
    let is_one = parsed.len() == 1;
    parsed
        .into_iter()
        .map(|mut statement| {
            simplify(&mut statement, text);
            let asked = if is_one { text.trim().to_owned() } else { statement.to_string() };
            wanted(&statement, asked)
        })
        .collect()
}

fn wanted(statement: &Ast, asked: String) -> Result<Wanted> {
    Ok(match statement {
        Ast::StartTransaction { .. } => Wanted::Begin,
        Ast::Commit { .. } => Wanted::End("COMMIT"),
        Ast::Rollback { .. } => Wanted::End("ROLLBACK"),
        Ast::Savepoint { .. } => Wanted::Heard("SAVEPOINT"),
        Ast::ReleaseSavepoint { .. } => Wanted::Heard("RELEASE"),
        Ast::Discard { .. } => Wanted::Heard("DISCARD"),
        Ast::Deallocate { .. } => Wanted::Heard("DEALLOCATE"),
        Ast::Reset(_) => Wanted::Heard("RESET"),
        Ast::Set(set) => {
            if let Set::SingleAssignment { variable, .. } = set
                && variable.to_string().contains('.')
            {
                return Err(Error::new(Code::QueryRefused, format!("`{variable}` cannot be set here")));
            }
            Wanted::Heard("SET")
        }
        Ast::ShowVariable { variable } => {
            let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
            let name = match words.join(" ").as_str() {
                "transaction isolation level" => "transaction_isolation".to_owned(),
                "time zone" => "timezone".to_owned(),
                name => name.to_owned(),
            };
            match POSTGRES_SETTINGS.iter().find(|(known, _)| *known == name) {
                Some((name, value)) => Wanted::Query { text: format!("SELECT '{value}' AS \"{name}\""), asked },
                // What the engine itself shows: tables, columns.
                None => Wanted::Query { text: statement.to_string(), asked },
            }
        }
        other => Wanted::Query { text: other.to_string(), asked },
    })
}

impl Wanted {
    /// Whether it may follow a failure within a transaction.
    pub(super) fn ends_transaction(&self) -> bool {
        matches!(self, Self::End(_))
    }
}

/// The word that tells what was done.
pub(super) fn tag(word: &str) -> Tag {
    Tag::new(word)
}

/// SQLSTATE of a failure: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn sqlstate(error: &Error) -> &'static str {
    let message = error.message();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    match error.code() {
        Code::QueryRefused | Code::NotAllowed => state::INSUFFICIENT_PRIVILEGE,
        Code::NotSignedIn => state::INVALID_PASSWORD,
        Code::QueryTimeout | Code::Interrupted => state::QUERY_CANCELED,
        Code::QueryTooLarge => state::PROGRAM_LIMIT_EXCEEDED,
        Code::QueriesBusy => state::TOO_MANY_CONNECTIONS,
        Code::QueryInvalid if says(&["ParserError", "sql parser error", "Expected:", "TokenizerError"]) => {
            state::SYNTAX_ERROR
        }
        Code::QueryInvalid if says(&["No field named", "Schema error"]) => state::UNDEFINED_COLUMN,
        Code::QueryInvalid if says(&["Invalid function", "Function '"]) => state::UNDEFINED_FUNCTION,
        Code::QueryInvalid if says(&["table '", "table `"]) => state::UNDEFINED_TABLE,
        Code::QueryInvalid if says(&["Divide by zero", "DivideByZero"]) => state::DIVISION_BY_ZERO,
        Code::QueryInvalid if says(&["Cast error", "cast", "parse"]) => state::INVALID_TEXT_REPRESENTATION,
        Code::QueryInvalid | Code::Usage => state::SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        Code::LakeUnavailable => state::CONNECTION_FAILURE,
        _ => state::INTERNAL_ERROR,
    }
}
