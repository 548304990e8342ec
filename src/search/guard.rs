//! What a reader of the lake may not do, decided on the plan and not on the text.

use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SQLOptions;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Code, Error, Result};
use crate::limits;

/// Refuses a statement that is too long or too deep to be one that a person or a tool wrote. Planning goes down into each
/// expression, so that a long enough chain of operators would end the stack, and with it the program; therefore this looks at
/// the words before anything reads them as SQL.
///
/// # Errors
/// `query-refused`.
pub fn check_text(statement: &str) -> Result<()> {
    let refused = |what: &str, is: usize, most: usize| {
        Err(Error::new(Code::QueryRefused, format!("the statement has {is} {what}, and {most} are the most")))
    };
    if statement.len() > limits::STATEMENT_BYTES {
        return refused("bytes", statement.len(), limits::STATEMENT_BYTES);
    }
    match depth(statement) {
        depth if depth > limits::STATEMENT_DEPTH => refused("levels", depth, limits::STATEMENT_DEPTH),
        _ => Ok(()),
    }
}

/// The most levels that the statement's tree can have: each operator of a chain is one, and so is each bracket. What is no
/// SQL has no levels; the parser says what is wrong with it.
fn depth(statement: &str) -> usize {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, statement).tokenize() else { return 0 };
    // The length of the chain in each bracket that is open, and all of them together.
    let (mut chains, mut depth, mut deepest) = (vec![0], 0_usize, 0);
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                chains.push(1);
                depth += 1;
            }
            Token::RParen | Token::RBracket | Token::RBrace if chains.len() > 1 => depth -= chains.pop().unwrap_or(0),
            Token::RParen | Token::RBracket | Token::RBrace => {}
            Token::Comma | Token::SemiColon => {
                // The next expression of a list begins; the bracket around it stays.
                let bracket = usize::from(chains.len() > 1);
                if let Some(chain) = chains.last_mut() {
                    depth -= *chain - bracket.min(*chain);
                    *chain = bracket.min(*chain);
                }
            }
            token if is_link(&token) => {
                if let Some(chain) = chains.last_mut() {
                    *chain += 1;
                    depth += 1;
                }
            }
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Whether a token makes a tree deeper: an operator, or a word that works like one.
fn is_link(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::CASE
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
        ),
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::Placeholder(_)
        | Token::EOF => false,
        _ => true,
    }
}

/// Refuses what is no query by its kind. The plan would be refused, too, where there is one; but DataFusion plans only some of
/// these statements, and those that it does not know would pass for questions with a fault.
///
/// # Errors
/// `query-refused`.
pub(super) fn check_kind(statement: &Parsed) -> Result<()> {
    let is_query = match statement {
        Parsed::Explain(_) => true,
        Parsed::Statement(statement) => matches!(
            **statement,
            Statement::Query(_)
                | Statement::Explain { .. }
                | Statement::ExplainTable { .. }
                | Statement::ShowColumns { .. }
                | Statement::ShowFunctions { .. }
                | Statement::ShowTables { .. }
                | Statement::ShowVariable { .. }
        ),
        _ => false,
    };
    if is_query {
        return Ok(());
    }
    let text = statement.to_string();
    let word = text.split_whitespace().next().unwrap_or_default();
    Err(Error::new(Code::QueryRefused, format!("only queries are allowed: `{word}` begins none")))
}

/// Lets queries through and nothing else: no definition of objects, no writing, no COPY, no settings.
///
/// # Errors
/// `query-refused`.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|error| {
            Error::new(Code::QueryRefused, format!("only queries are allowed: {}", error.strip_backtrace()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_the_longest_chain_and_lists_have_none() {
        for (statement, levels) in [
            ("SELECT 1", 0),
            ("SELECT 1 + 1 + 1", 2),
            ("SELECT (1 + 1) + 1", 2),
            ("SELECT ((1))", 2),
            ("SELECT * FROM t WHERE a IN ('1', '2', '3', '4')", 3),
            ("SELECT 1 + 1, 1 + 1, 1 + 1", 1),
            ("SELECT f(1 + 1, 1 + 1)", 2),
            ("SELECT '1 + 1 + 1 + 1'", 0),
            ("SELECT ')))' || ((((", 5),
            (")))) 1 + 1", 1),
        ] {
            assert_eq!(depth(statement), levels, "{statement}");
        }
    }
}
