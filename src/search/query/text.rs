//! The text form, for a command line: `file.category is any (Archive, SourceCode) and risk.score > 3`.
//!
//! ```text
//!   filter    = both { "or" both }
//!   both      = one { "and" one }
//!   one       = "(" filter ")" | term comparison
//!   term      = a term of the model, or a column of `events`, in any case
//!   comparison= "is" value | "is not" value | "is any" list | "is none" list | "exists" | "does not exist"
//!             | "is greater than" value | "is less than" value | "on" value | "on or after" value
//!             | "on or before" value | "within the last" value
//!             | "=" value | "!=" value | ">" value | "<" value | ">=" value | "<=" value
//!   list      = "(" value { "," value } ")"
//!   value     = a word, or a text in "double" or 'single' quotes, in which a doubled quote is one
//! ```

use std::fmt;

use super::value::Given;
use super::{Clause, Filter, Member, Operator, Query, Term, Value};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::search::query::term::Kind;

impl Query {
    /// Reads the text form.
    ///
    /// # Errors
    /// `usage`, which says at which character.
    pub fn parse(text: &str) -> Result<Self> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0, end: text.chars().count() + 1 };
        let query = parser.either(1)?;
        if let Some(token) = parser.peek() {
            return Err(wrong(token.at, format!("expected `and`, `or` or the end, not {}", token.what)));
        }
        let findings = query.check_size();
        if findings.is_empty() { Ok(query) } else { Err(super::Finding::error(&findings)) }
    }
}

fn wrong(at: usize, problem: impl fmt::Display) -> Error {
    Error::new(Code::Usage, format!("in the filter at character {at}: {problem}"))
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// A word without quotes.
    Word(String),
    /// A text in quotes.
    Quoted(String),
    /// `(`, `)`, `,` or a comparison in signs.
    Sign(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) => write!(f, "`{text}`"),
            Self::Quoted(text) => write!(f, "the text `{text}`"),
            Self::Sign(text) => write!(f, "`{text}`"),
        }
    }
}

struct Token {
    what: What,
    /// Counted in characters, from 1.
    at: usize,
}

/// Longer signs before those that they begin with.
const SIGNS: [&str; 10] = ["!=", "<>", ">=", "<=", "(", ")", ",", "=", ">", "<"];

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let (mut rest, mut at) = (text, 1);
    while let Some(letter) = rest.chars().next() {
        let length = if letter.is_whitespace() {
            letter.len_utf8()
        } else if letter == '"' || letter == '\'' {
            let (content, length) =
                quoted(rest, letter).ok_or_else(|| wrong(at, "the quote that opens here is never closed"))?;
            tokens.push(Token { what: What::Quoted(content), at });
            length
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push(Token { what: What::Sign(sign), at });
            sign.len()
        } else {
            let end = rest.find(|other: char| ends_word(other)).unwrap_or(rest.len()).max(letter.len_utf8());
            tokens.push(Token { what: What::Word(rest[..end].to_owned()), at });
            end
        };
        at += rest[..length].chars().count();
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn ends_word(letter: char) -> bool {
    letter.is_whitespace() || "(),=<>!\"'".contains(letter)
}

/// What stands in quotes, and how many bytes it took with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != quote {
            content.push(letter);
        } else if letters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Some((content, at + 1));
        }
    }
    None
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    end: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn position(&self) -> usize {
        self.peek().map_or(self.end, |token| token.at)
    }

    /// Takes the words if they come next.
    fn takes(&mut self, words: &[&str]) -> bool {
        let next = self.tokens[self.at.min(self.tokens.len())..].iter();
        let are_next = next.take(words.len()).zip(words).filter(|(token, word)| match &token.what {
            What::Word(text) => text.eq_ignore_ascii_case(word),
            What::Sign(sign) => sign == *word,
            What::Quoted(_) => false,
        });
        let is_next = are_next.count() == words.len();
        if is_next {
            self.at += words.len();
        }
        is_next
    }

    fn either(&mut self, depth: usize) -> Result<Query> {
        let mut parts = vec![self.both(depth)?];
        while self.takes(&["or"]) {
            parts.push(self.both(depth)?);
        }
        Ok(join(Clause::Or, parts))
    }

    fn both(&mut self, depth: usize) -> Result<Query> {
        let mut parts = vec![self.one(depth)?];
        while self.takes(&["and"]) {
            parts.push(self.one(depth)?);
        }
        Ok(join(Clause::And, parts))
    }

    fn one(&mut self, depth: usize) -> Result<Query> {
        if depth > limits::SEARCH_DEPTH {
            let most = limits::SEARCH_DEPTH;
            return Err(wrong(self.position(), format!("parentheses are at most {most} levels deep")));
        }
        if self.takes(&["("]) {
            let query = self.either(depth + 1)?;
            if !self.takes(&[")"]) {
                return Err(wrong(self.position(), "expected `)`"));
            }
            return Ok(query);
        }
        Ok(Query { clause: Clause::And, members: vec![Member::Filter(self.filter()?)] })
    }

    fn filter(&mut self) -> Result<Filter> {
        let position = self.position();
        let name = match self.peek().map(|token| &token.what) {
            Some(What::Word(name)) => name.clone(),
            Some(other) => return Err(wrong(position, format!("expected a term such as `file.name`, not {other}"))),
            None => return Err(wrong(position, "expected a term such as `file.name`, and there is no more")),
        };
        let unknown = || wrong(position, format!("there is no term `{name}`{}", nearest(&name)));
        let term = Term::named(&name).ok_or_else(unknown)?;
        self.at += 1;
        let operator = self.operator(term)?;
        let value_position = self.position();
        let given = match operator {
            Operator::Exists | Operator::DoesNotExist => Given::Nothing,
            operator if operator.takes_list() => Given::Many(self.list()?),
            Operator::WithinTheLast => Given::One(duration(self.value()?)),
            _ => Given::One(self.value()?),
        };
        Filter::of(term, operator, given).map_err(|finding| wrong(value_position, finding))
    }

    fn operator(&mut self, term: Term) -> Result<Operator> {
        use Operator::{
            DoesNotExist, Exists, GreaterThan, Is, IsAny, IsNone, IsNot, LessThan, On, OnOrAfter, OnOrBefore,
            WithinTheLast,
        };
        // Longer ones before those that they begin with.
        let operators: [(&[&str], Operator); 27] = [
            (&["is", "greater", "than"], GreaterThan),
            (&["is", "less", "than"], LessThan),
            (&["is", "not", "any", "of"], IsNone),
            (&["is", "any", "of"], IsAny),
            (&["is", "none", "of"], IsNone),
            (&["is", "any", "("], IsAny),
            (&["is", "none", "("], IsNone),
            (&["includes", "any"], IsAny),
            (&["includes", "none"], IsNone),
            (&["is", "not"], IsNot),
            (&["is"], Is),
            (&["does", "not", "exist"], DoesNotExist),
            (&["exists"], Exists),
            (&["greater", "than"], GreaterThan),
            (&["less", "than"], LessThan),
            (&["on", "or", "after"], OnOrAfter),
            (&["on", "or", "before"], OnOrBefore),
            (&["on"], On),
            (&["within", "the", "last"], WithinTheLast),
            (&["!="], IsNot),
            (&["<>"], IsNot),
            (&[">="], OnOrAfter),
            (&["<="], OnOrBefore),
            (&["="], Is),
            (&[">"], GreaterThan),
            (&["<"], LessThan),
            (&["within"], WithinTheLast),
        ];
        let position = self.position();
        for (words, operator) in operators {
            if !self.takes(words) {
                continue;
            }
            if words.last() == Some(&"(") {
                self.at -= 1;
            }
            // A number is "at least" by being greater than one less, which `>=` would hide.
            let is_of_times = matches!(operator, OnOrAfter | OnOrBefore);
            if is_of_times && term.kind() != Kind::Time && words.len() == 1 {
                return Err(wrong(position, format!("`{}` compares times; numbers take > and <", words[0])));
            }
            return Ok(operator);
        }
        let found = self.peek().map_or("nothing".to_owned(), |token| token.what.to_string());
        let takes: Vec<&str> = term.kind().operators().iter().map(|operator| operator.words()).collect();
        Err(wrong(position, format!("expected a comparison ({}) after `{term}`, not {found}", takes.join(", "))))
    }

    fn value(&mut self) -> Result<String> {
        let position = self.position();
        let value = match self.peek().map(|token| &token.what) {
            Some(What::Word(text) | What::Quoted(text)) => text.clone(),
            Some(other @ What::Sign(_)) => {
                return Err(wrong(position, format!("expected a value, not {other}; put it in quotes if it is one")));
            }
            None => return Err(wrong(position, "expected a value, and there is no more")),
        };
        self.at += 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<Vec<String>> {
        if !self.takes(&["("]) {
            return Err(wrong(self.position(), "expected a list of values in parentheses"));
        }
        let mut values = vec![self.value()?];
        while self.takes(&[","]) {
            values.push(self.value()?);
        }
        if !self.takes(&[")"]) {
            return Err(wrong(self.position(), "expected `,` or `)`"));
        }
        Ok(values)
    }
}

/// Parts of one clause side by side, so that `a and (b and c)` is what `a and b and c` is.
fn join(clause: Clause, mut parts: Vec<Query>) -> Query {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let members = parts.into_iter().flat_map(|part| {
        if part.members.len() == 1 || part.clause == clause { part.members } else { vec![Member::Group(part)] }
    });
    Query { clause, members: members.collect() }
}

/// `7d`, as the other options have it, is `P7D`.
fn duration(text: String) -> String {
    let is_short = crate::clock::span(&text).is_some();
    match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, unit @ ("d" | "w"))) if is_short => format!("P{number}{}", unit.to_uppercase()),
        Some((number, unit @ ("h" | "m" | "s"))) if is_short => format!("PT{number}{}", unit.to_uppercase()),
        _ => text,
    }
}

/// The term that begins or ends like a name that there is not.
fn nearest(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_near = |term: &Term| {
        let known = term.name().to_ascii_lowercase();
        term.is_known_to_mail() && !last.is_empty() && (known.ends_with(last) || known.starts_with(&name))
    };
    Term::all().find(is_near).map(|term| format!("; did you mean `{term}`?")).unwrap_or_default()
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.clause {
            Clause::And => " and ",
            Clause::Or => " or ",
        };
        for (index, member) in self.members.iter().enumerate() {
            if index > 0 {
                f.write_str(by)?;
            }
            match member {
                Member::Filter(filter) => write!(f, "{filter}")?,
                Member::Group(group) => write!(f, "({group})")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.term, self.operator.words())?;
        let list = |f: &mut fmt::Formatter<'_>, values: Vec<String>| match self.operator.takes_list() {
            true => write!(f, " ({})", values.join(", ")),
            false => write!(f, " {}", values.join(", ")),
        };
        match &self.value {
            Value::Nothing => Ok(()),
            Value::Texts(texts) => list(f, texts.iter().map(|text| written(text)).collect()),
            Value::Numbers(numbers) => list(f, numbers.iter().map(ToString::to_string).collect()),
            Value::Flag(flag) => write!(f, " {flag}"),
            Value::Moment(moment) => write!(f, " {moment}"),
            Value::Span(span) => write!(f, " {span}"),
        }
    }
}

/// A value as it may stand in a filter.
fn written(text: &str) -> String {
    let is_word = !text.is_empty() && !text.contains(ends_word) && !["not", "any", "none"].contains(&text);
    if is_word { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> String {
        Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn the_words_of_the_console_and_of_sql_are_understood() {
        for (text, meant) in [
            ("FILE.NAME IS *.docx", "file.name is *.docx"),
            ("sha256 exists", "file.hash.sha256 exists"),
            ("file.name is not 'a b.txt'", "file.name is not \"a b.txt\""),
            ("file.category is any (Archive, SourceCode)", "file.category is any (Archive, SourceCode)"),
            ("file.category is none of (Archive)", "file.category is none (Archive)"),
            ("recipients includes any (\"*@gmail.com\")", "destination.email.recipients is any (*@gmail.com)"),
            ("risk.score > 3", "risk.score is greater than 3"),
            ("subject is \"say \"\"hi\"\"\"", "destination.email.subject is \"say \"\"hi\"\"\""),
            ("@timestamp within the last 7d", "@timestamp within the last P7D"),
            ("@timestamp within PT15M", "@timestamp within the last PT15M"),
            ("@timestamp on or before 2026-10-31", "@timestamp on or before 2026-10-31"),
            ("observed_at >= 2026-10-31T00:00:00Z", "@timestamp on or after 2026-10-31T00:00:00Z"),
            ("mailbox does not exist", "email.mailbox does not exist"),
            ("a.b is 1", ""),
        ] {
            if meant.is_empty() {
                assert!(Query::parse(text).is_err());
            } else {
                assert_eq!(again(text), meant);
                assert_eq!(Query::parse(meant).unwrap(), Query::parse(text).unwrap());
            }
        }
    }

    #[test]
    fn and_binds_before_or() {
        assert_eq!(again("md5 exists and sha256 exists or subject exists"), {
            "(file.hash.md5 exists and file.hash.sha256 exists) or destination.email.subject exists"
        });
        assert_eq!(again("md5 exists and (sha256 exists and (subject exists))"), {
            "file.hash.md5 exists and file.hash.sha256 exists and destination.email.subject exists"
        });
    }

    #[test]
    fn an_error_says_where() {
        for (text, expected) in [
            ("", "character 1: expected a term"),
            ("file.nam is a", "character 1: there is no term `file.nam`"),
            ("file.name", "character 10: expected a comparison"),
            ("file.name is", "character 13: expected a value"),
            ("file.name is any a", "character 18: expected `and`"),
            ("file.name is any (a", "character 20: expected `,` or `)`"),
            ("(file.name exists", "character 18: expected `)`"),
            ("file.name exists file.name", "character 18: expected `and`"),
            ("file.name is 'a", "character 14: the quote"),
            ("file.name > 3", "character 13: `file.name` takes IS"),
            ("risk.score >= 3", "character 12: `>=` compares times"),
            ("sha256 = abc", "character 10: `file.hash.sha256` IS needs a SHA-256"),
            ("ü is 1", "character 1: there is no term"),
        ] {
            let error = Query::parse(text).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let deep = format!("{}md5 exists{}", "(".repeat(1000), ")".repeat(1000));
        assert!(Query::parse(&deep).unwrap_err().to_string().contains("levels deep"));
    }
}
