//! The common questions as options: which file, from whom, to whom, when.

use super::{Clause, Filter, Finding, Member, Operator, Query, Term};
use crate::clock::Time;
use crate::error::{Code, Error, Result};

/// What to look for; an event must meet each criterion that is given, by one of its values.
#[derive(Clone, Debug, Default)]
pub struct Criteria {
    /// SHA-256, hexadecimal in any case.
    pub sha256: Vec<String>,
    /// MD5, hexadecimal in any case.
    pub md5: Vec<String>,
    /// File names; `*` stands for any characters and `?` for one; case does not matter.
    pub file_name: Vec<String>,
    /// Senders or shown authors, likewise.
    pub sender: Vec<String>,
    /// Recipients (to, cc or bcc), likewise; without wildcard and `@` it is a domain.
    pub recipient: Vec<String>,
    /// Words of the subject, likewise; matches anywhere.
    pub subject: Vec<String>,
    /// Message-IDs with their angle brackets.
    pub message_id: Vec<String>,
    /// Sent at or after.
    pub begin: Option<Time>,
    /// Sent before.
    pub end: Option<Time>,
}

impl Criteria {
    /// The criteria as a query; everything when there is none.
    ///
    /// # Errors
    /// `usage` when a value cannot be one, such as a hash of another length.
    pub fn query(&self) -> Result<Query> {
        let mut query = Query::everything();
        let is_domain = |value: &&String| !value.contains(['@', '*', '?']);
        let (domains, recipients): (Vec<&String>, Vec<&String>) = self.recipient.iter().partition(is_domain);
        let subjects: Vec<String> = self.subject.iter().map(|words| format!("*{}*", words.trim())).collect();
        let criteria: [&[(&str, Vec<&String>)]; 7] = [
            &[("file.hash.sha256", self.sha256.iter().collect())],
            &[("file.hash.md5", self.md5.iter().collect())],
            &[("file.name", self.file_name.iter().collect())],
            &[
                ("source.email.sender", self.sender.iter().collect()),
                ("source.email.from", self.sender.iter().collect()),
            ],
            &[("destination.email.recipients", recipients), ("email.recipientDomains", domains)],
            &[("destination.email.subject", subjects.iter().collect())],
            &[("email.messageId", self.message_id.iter().collect())],
        ];
        for alternatives in criteria {
            let given = alternatives.iter().filter(|(_, values)| !values.is_empty());
            let filters = given.map(|(term, values)| any(term, values)).collect::<Result<Vec<_>>>()?;
            query = query.and(Query { clause: Clause::Or, members: filters });
        }
        for (operator, time) in [(Operator::OnOrAfter, self.begin), (Operator::LessThan, self.end)] {
            let Some(time) = time else { continue };
            let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            query.members.push(Member::Filter(filter(Filter::new(known("@timestamp")?, operator, time))?));
        }
        Ok(query)
    }
}

fn any(term: &str, values: &[&String]) -> Result<Member> {
    let values = values.iter().map(|value| value.trim().to_owned()).collect();
    filter(Filter::list(known(term)?, Operator::IsAny, values)).map(Member::Filter)
}

fn known(term: &str) -> Result<Term> {
    Term::parse(term).ok_or_else(|| Error::new(Code::Internal, format!("there is no term `{term}`")))
}

fn filter(made: std::result::Result<Filter, Finding>) -> Result<Filter> {
    made.map_err(|finding| Finding::error(&[finding]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_criteria_must_all_be_met_by_one_of_their_values() {
        let text = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let criteria = Criteria {
            sender: text(&["Ann@x.example"]),
            recipient: text(&["gmail.com", "*@web.example"]),
            subject: text(&["offer"]),
            ..Criteria::default()
        };
        assert_eq!(
            criteria.query().unwrap().to_string(),
            "(source.email.sender is any (Ann@x.example) or source.email.from is any (Ann@x.example)) and \
             (destination.email.recipients is any (*@web.example) or email.recipientDomains is any (gmail.com)) and \
             destination.email.subject is any (*offer*)"
        );
        assert_eq!(Criteria::default().query().unwrap(), Query::everything());
        let short = Criteria { sha256: text(&["e3b0"]), ..Criteria::default() };
        assert_eq!(short.query().unwrap_err().code(), Code::Usage);
    }
}
