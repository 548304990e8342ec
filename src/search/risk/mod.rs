//! Risk: how much a file event deserves a look, by rules that people read and change.
//!
//! `rules` reads them, `steps` are the parts that SQL has no words for, `history` counts earlier uses of a destination,
//! `provider` is the table `events`, in which the rules are applied to every row when it is asked for: a changed rule changes
//! the answer, and no row is written again.
//! The rules are `schemas/risk.toml` and, where a lake has its own, `risk.toml` at its root. `docs/risk.md` explains them.

mod history;
mod provider;
mod rules;
mod steps;

use std::sync::Arc;

use bytes::Bytes;
use chrono::NaiveDate;
use tokio::sync::Mutex;
use uuid::Uuid;

pub(super) use self::provider::events_table;
pub use self::rules::Trusted;
use self::rules::{DEFAULT, Rules};
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::event::{Action, Change};
use crate::lake::{Lake, Versioned};

/// Begins the first line of a lake's own rules; the number of the change follows. People may delete the line.
const HEADER: &str = "# waybill: revision ";

/// The rules in force in a lake, read when they are needed and parsed when they changed.
#[derive(Debug)]
pub(super) struct LakeRules {
    lake: Lake,
    latest: Mutex<Option<(Bytes, Arc<Rules>)>>,
}

impl LakeRules {
    /// Nothing is read yet.
    pub(super) fn of(lake: Lake) -> Self {
        Self { lake, latest: Mutex::default() }
    }

    /// The rules as they are now.
    ///
    /// # Errors
    /// `configuration` when they make no sense, `lake-unavailable`.
    pub(super) async fn newest(&self) -> Result<Arc<Rules>> {
        let bytes = self.lake.risk_rules().await?.map(|document| document.bytes).unwrap_or_default();
        let mut latest = self.latest.lock().await;
        if let Some((_, rules)) = latest.as_ref().filter(|(of, _)| *of == bytes) {
            return Ok(Arc::clone(rules));
        }
        let rules = Arc::new(Rules::parse(text(&bytes)?)?);
        *latest = Some((bytes, Arc::clone(&rules)));
        Ok(rules)
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).or_error(Code::Configuration, "the rules of risk are no UTF-8 text")
}

/// The rules of a lake, to see and to change. Each change is recorded in `changes`.
pub struct RiskRules<'a> {
    lake: &'a Lake,
}

/// A lake's own rules as they were read.
#[derive(Default)]
struct Document {
    /// Without the header.
    body: String,
    /// Counts the changes.
    revision: i64,
    over: Option<Versioned>,
}

impl<'a> RiskRules<'a> {
    /// Those of a lake.
    pub fn of(lake: &'a Lake) -> Self {
        Self { lake }
    }

    /// The rules in force as one document: the lake's own, then the sections of the default that it does not replace.
    ///
    /// # Errors
    /// `lake-unavailable`; `configuration` when they are no text.
    pub async fn show(&self) -> Result<String> {
        let mut shown = self.read().await?.body;
        let own: toml::Table =
            toml::from_str(&shown).or_error(Code::Configuration, "the rules of risk cannot be read")?;
        if !shown.is_empty() && !shown.ends_with('\n') {
            shown.push('\n');
        }
        for block in blocks(DEFAULT) {
            let is_missing = match block.section {
                Some(section) => !own.contains_key(section),
                // What stands above the sections introduces a whole document.
                None => own.is_empty(),
            };
            if is_missing {
                shown.push_str(block.text);
            }
        }
        Ok(shown)
    }

    /// Whom the lake trusts, by domain.
    ///
    /// # Errors
    /// `lake-unavailable`; `configuration` when the rules make no sense.
    pub async fn trusted(&self) -> Result<Vec<Trusted>> {
        Ok(Rules::parse(&self.read().await?.body)?.trust.all().to_vec())
    }

    /// Replaces the lake's own rules.
    ///
    /// # Errors
    /// `configuration` when they make no sense: then nothing changes. `lake-unavailable`, `lake-not-writable`, and
    /// `connection-conflict` when somebody else changes them at the same moment.
    pub async fn set(&self, new: &str, by: &str, now: Time) -> Result<()> {
        let rules = Rules::parse(new)?;
        let document = self.read().await?;
        let (indicators, trusted) = (rules.indicators.len(), rules.trust.all().len());
        let detail = format!("{indicators} indicators, {trusted} trusted domains");
        self.write(document, split(new).0.to_owned(), Action::RiskRulesSet, by, now, detail).await
    }

    /// Goes back to the default rules; domains are trusted no more.
    ///
    /// # Errors
    /// Like [`Self::set`].
    pub async fn reset(&self, by: &str, now: Time) -> Result<()> {
        let document = self.read().await?;
        self.write(document, String::new(), Action::RiskRulesReset, by, now, "the default rules apply".to_owned()).await
    }

    /// Trusts a domain (given as people type it) from a day on.
    ///
    /// # Errors
    /// `configuration` when it is no domain or is trusted already; else like [`Self::set`].
    pub async fn trust(
        &self,
        domain: &str,
        from: NaiveDate,
        include_subdomains: bool,
        by: &str,
        now: Time,
    ) -> Result<Trusted> {
        let domain = rules::domain(domain)?;
        let document = self.read().await?;
        if Rules::parse(&document.body)?.trust.all().iter().any(|trusted| trusted.domain == domain) {
            let what = format!("`{domain}` is trusted already; remove it first to change from when on");
            return Err(Error::new(Code::Configuration, what));
        }
        let mut body = document.body.clone();
        if !body.is_empty() {
            body = format!("{}\n\n", body.trim_end());
        }
        // A domain has no character that TOML would read as something else.
        body.push_str(&format!("[[trusted]]\ndomain = \"{domain}\"\nfrom = {from}\n"));
        if include_subdomains {
            body.push_str("include_subdomains = true\n");
        }
        Rules::parse(&body).map_err(|error| error.context(by_hand()))?;
        let below = if include_subdomains { " and the domains below it" } else { "" };
        let detail = format!("`{domain}`{below} from {from}");
        self.write(document, body, Action::TrustAdded, by, now, detail).await?;
        Ok(Trusted { domain, from, include_subdomains })
    }

    /// Trusts a domain no more, at any time.
    ///
    /// # Errors
    /// `configuration` when it was not trusted; else like [`Self::set`].
    pub async fn distrust(&self, domain: &str, by: &str, now: Time) -> Result<()> {
        let domain = rules::domain(domain)?;
        let document = self.read().await?;
        let mut expected = Rules::parse(&document.body)?.trust.all().to_vec();
        let before = expected.len();
        expected.retain(|trusted| trusted.domain != domain);
        if expected.len() == before {
            return Err(Error::new(Code::Configuration, format!("`{domain}` is not trusted")));
        }
        let is_it = |block: &Block<'_>| {
            let trust = Rules::parse(block.text).map(|rules| rules.trust);
            block.section == Some("trusted")
                && trust.is_ok_and(|trust| trust.all().iter().all(|trusted| trusted.domain == domain))
        };
        let body: String =
            blocks(&document.body).into_iter().filter(|block| !is_it(block)).map(|block| block.text).collect();
        // People may have written the section in a form that lines do not show.
        if Rules::parse(&body).map(|rules| rules.trust.all().to_vec()).ok().as_ref() != Some(&expected) {
            return Err(Error::new(Code::Configuration, by_hand()));
        }
        self.write(document, body, Action::TrustRemoved, by, now, format!("`{domain}`")).await
    }

    async fn read(&self) -> Result<Document> {
        let Some(over) = self.lake.risk_rules().await? else { return Ok(Document::default()) };
        let (body, revision) = split(text(&over.bytes)?);
        Ok(Document { body: body.to_owned(), revision, over: Some(over) })
    }

    async fn write(
        &self,
        document: Document,
        body: String,
        action: Action,
        by: &str,
        now: Time,
        detail: String,
    ) -> Result<()> {
        // Where somebody deleted the header, the time makes sure that the number still grows.
        let revision =
            if document.over.is_some() && document.revision == 0 { now.timestamp() } else { document.revision + 1 };
        self.lake.put_risk_rules(format!("{HEADER}{revision}\n{body}").into_bytes(), document.over.as_ref()).await?;
        let change = Change {
            change_id: Uuid::new_v4().to_string(),
            changed_at: now,
            actor: by.to_owned(),
            action,
            connection_id: None,
            connection_name: None,
            status: None,
            status_before: None,
            code: None,
            detail: Some(detail),
            run_id: None,
        };
        self.lake.record(&[change], "risk", revision).await
    }
}

fn by_hand() -> String {
    "the rules of risk are written in a form that only a person can edit: `waybill risk show`, then `risk set`"
        .to_owned()
}

/// A document's body and its revision.
fn split(document: &str) -> (&str, i64) {
    let (first, rest) = document.split_once('\n').unwrap_or((document, ""));
    match first.strip_prefix(HEADER).and_then(|number| number.trim().parse().ok()) {
        Some(revision) => (rest, revision),
        None => (document, 0),
    }
}

/// A section of a document with the comment right above it.
struct Block<'a> {
    /// Its name; nothing for what stands above the first section.
    section: Option<&'a str>,
    text: &'a str,
}

/// A document taken apart at its sections; together they are the document.
fn blocks(document: &str) -> Vec<Block<'_>> {
    let mut starts = vec![(0, None)];
    let (mut at, mut comment) = (0, None);
    for line in document.split_inclusive('\n') {
        let plain = line.trim();
        if plain.starts_with('[') {
            let name = plain.trim_matches(['[', ' ']).split([']', '.', ' ']).next();
            starts.push((comment.unwrap_or(at), name));
        }
        comment = plain.starts_with('#').then(|| comment.unwrap_or(at));
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([document.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|((start, section), end)| Block { section: *section, text: &document[*start..end] })
        .collect()
}

#[cfg(test)]
mod tests;
