//! The query options that Graph takes: `$select`, `$expand`, `$filter`.
//!
//! <https://learn.microsoft.com/graph/query-parameters>

/// The selected properties, in lower case; `None` selects the default ones.
pub(crate) type Select = Option<Vec<String>>;

pub(crate) fn select(text: Option<&str>) -> Select {
    let names: Vec<String> =
        text?.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.iter().any(|name| name == "*") { None } else { Some(names) }
}

/// Whether a property (in lower case) belongs to the answer.
pub(crate) fn is_selected(select: &Select, name: &str) -> bool {
    select.as_ref().is_none_or(|names| names.iter().any(|selected| selected == name))
}

/// What is to be expanded: `attachments($select=id,name)`, and any other name.
pub(crate) fn expand(text: Option<&str>, name: &str) -> Option<Select> {
    let text = text?;
    let start = text.to_ascii_lowercase().find(name)?;
    let rest = &text[start + name.len()..];
    let Some(options) = rest.strip_prefix('(').and_then(|rest| rest.split(')').next()) else { return Some(None) };
    let options = options.split(';').find_map(|option| {
        let (key, value) = option.split_once('=')?;
        key.trim().eq_ignore_ascii_case("$select").then_some(value)
    });
    Some(select(options))
}

/// A parsed `$filter`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Compare {
        property: String,
        operator: Operator,
        value: String,
    },
    /// `property/any(x:x eq 'value')`.
    Any {
        property: String,
        value: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Ge,
    Gt,
    Le,
    Lt,
    StartsWith,
}

impl Filter {
    /// `None` if the text is no filter that is understood here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let tokens = tokens(text)?;
        let mut rest = tokens.as_slice();
        let filter = either(&mut rest, 0)?;
        rest.is_empty().then_some(filter)
    }

    /// Whether an object passes; `get` gives its properties' values by their lower-case names, several for a list.
    pub(crate) fn passes(&self, get: &dyn Fn(&str) -> Vec<String>) -> bool {
        match self {
            Self::And(filters) => filters.iter().all(|filter| filter.passes(get)),
            Self::Or(filters) => filters.iter().any(|filter| filter.passes(get)),
            Self::Any { property, value } => get(property).iter().any(|found| found.eq_ignore_ascii_case(value)),
            Self::Compare { property, operator, value } => {
                let found = get(property);
                let found = found.first().map(String::as_str).unwrap_or_default();
                match operator {
                    Operator::Eq => found.eq_ignore_ascii_case(value),
                    Operator::Ne => !found.eq_ignore_ascii_case(value),
                    Operator::Ge => found >= value.as_str(),
                    Operator::Gt => found > value.as_str(),
                    Operator::Le => found <= value.as_str(),
                    Operator::Lt => found < value.as_str(),
                    Operator::StartsWith => found.to_lowercase().starts_with(&value.to_lowercase()),
                }
            }
        }
    }

    /// The values that a property is compared with for equality, anywhere in the filter.
    pub(crate) fn equals<'a>(&'a self, name: &str, found: &mut Vec<&'a str>) {
        match self {
            Self::And(filters) | Self::Or(filters) => filters.iter().for_each(|filter| filter.equals(name, found)),
            Self::Compare { property, operator: Operator::Eq, value } if property == name => found.push(value),
            Self::Any { property, value } if property == name => found.push(value),
            Self::Compare { .. } | Self::Any { .. } => {}
        }
    }

    /// The property that stands first, which is the one that sorting has to begin with.
    pub(crate) fn first_property(&self) -> Option<&str> {
        match self {
            Self::And(filters) | Self::Or(filters) => filters.first()?.first_property(),
            Self::Compare { property, .. } | Self::Any { property, .. } => Some(property),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            '\'' => {
                let mut literal = String::new();
                loop {
                    match characters.next()? {
                        // A quote inside of a literal is doubled.
                        '\'' if characters.next_if_eq(&'\'').is_some() => literal.push('\''),
                        '\'' => break,
                        other => literal.push(other),
                    }
                }
                tokens.push(Token::Text(literal));
            }
            first => {
                let mut word = String::from(first);
                while let Some(next) = characters.next_if(|next| !matches!(next, ' ' | '\t' | '(' | ')' | ',' | '\'')) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Some(tokens)
}

/// More parentheses than this are nobody's filter.
const DEPTH_MAX: usize = 20;

fn take_word(rest: &mut &[Token], word: &str) -> bool {
    match rest.split_first() {
        Some((Token::Word(found), tail)) if found.eq_ignore_ascii_case(word) => {
            *rest = tail;
            true
        }
        _ => false,
    }
}

fn take(rest: &mut &[Token]) -> Option<Token> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(first.clone())
}

fn either(rest: &mut &[Token], depth: usize) -> Option<Filter> {
    let mut filters = vec![both(rest, depth)?];
    while take_word(rest, "or") {
        filters.push(both(rest, depth)?);
    }
    if filters.len() == 1 { filters.pop() } else { Some(Filter::Or(filters)) }
}

fn both(rest: &mut &[Token], depth: usize) -> Option<Filter> {
    let mut filters = vec![clause(rest, depth)?];
    while take_word(rest, "and") {
        filters.push(clause(rest, depth)?);
    }
    if filters.len() == 1 { filters.pop() } else { Some(Filter::And(filters)) }
}

fn clause(rest: &mut &[Token], depth: usize) -> Option<Filter> {
    if depth > DEPTH_MAX {
        return None;
    }
    let word = match take(rest)? {
        Token::Open => {
            let filter = either(rest, depth + 1)?;
            return (take(rest)? == Token::Close).then_some(filter);
        }
        Token::Word(word) => word,
        Token::Text(_) | Token::Close | Token::Comma => return None,
    };
    if word.eq_ignore_ascii_case("startswith") {
        let (Token::Open, Token::Word(property), Token::Comma, value, Token::Close) =
            (take(rest)?, take(rest)?, take(rest)?, take(rest)?, take(rest)?)
        else {
            return None;
        };
        return Some(Filter::Compare {
            property: property.to_ascii_lowercase(),
            operator: Operator::StartsWith,
            value: literal(value)?,
        });
    }
    if let Some(property) = word.strip_suffix("/any") {
        // `(x:x eq 'value')`
        let (Token::Open, Token::Word(_), Token::Word(operator), value, Token::Close) =
            (take(rest)?, take(rest)?, take(rest)?, take(rest)?, take(rest)?)
        else {
            return None;
        };
        let value = literal(value)?;
        return operator
            .eq_ignore_ascii_case("eq")
            .then(|| Filter::Any { property: property.to_ascii_lowercase(), value });
    }
    let Token::Word(operator) = take(rest)? else { return None };
    let property = word.to_ascii_lowercase();
    if operator.eq_ignore_ascii_case("in") {
        let mut filters = Vec::new();
        if take(rest)? != Token::Open {
            return None;
        }
        loop {
            let value = literal(take(rest)?)?;
            filters.push(Filter::Compare { property: property.clone(), operator: Operator::Eq, value });
            match take(rest)? {
                Token::Comma => {}
                Token::Close => return Some(Filter::Or(filters)),
                _ => return None,
            }
        }
    }
    let operator = match operator.to_ascii_lowercase().as_str() {
        "eq" => Operator::Eq,
        "ne" => Operator::Ne,
        "ge" => Operator::Ge,
        "gt" => Operator::Gt,
        "le" => Operator::Le,
        "lt" => Operator::Lt,
        _ => return None,
    };
    Some(Filter::Compare { property, operator, value: literal(take(rest)?)? })
}

fn literal(token: Token) -> Option<String> {
    match token {
        Token::Text(text) | Token::Word(text) => Some(text),
        Token::Open | Token::Close | Token::Comma => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood() {
        let passes = |filter: &str| {
            let filter = Filter::parse(filter)?;
            Some(filter.passes(&|name| match name {
                "mail" => vec!["O'Neil@x.org".to_owned()],
                "proxyaddresses" => vec!["smtp:b@x.org".to_owned(), "SMTP:a@x.org".to_owned()],
                "isdraft" => vec!["false".to_owned()],
                "sentdatetime" => vec!["2026-11-02T00:00:00Z".to_owned()],
                _ => Vec::new(),
            }))
        };
        assert_eq!(passes("mail eq 'o''neil@x.org'"), Some(true));
        assert_eq!(passes("mail eq 'x' or (isDraft eq false and sentDateTime ge 2026-11-01T00:00:00Z)"), Some(true));
        assert_eq!(passes("proxyAddresses/any(x:x eq 'smtp:a@x.org')"), Some(true));
        assert_eq!(passes("mail in ('a', 'b')"), Some(false));
        assert_eq!(passes("startswith(mail,'o')"), Some(true));
        for wrong in ["", "mail", "mail eq", "mail eq 'x", "(mail eq 'x'", "mail like 'x'", "mail eq 'x' 'y'"] {
            assert_eq!(passes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn expansions_have_their_own_selection() {
        let text = Some("attachments($select=id,Name;$top=5)");
        assert_eq!(expand(text, "attachments"), Some(Some(vec!["id".to_owned(), "name".to_owned()])));
        assert_eq!(expand(Some("attachments"), "attachments"), Some(None));
        assert_eq!(expand(None, "attachments"), None);
    }
}
