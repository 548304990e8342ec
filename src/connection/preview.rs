//! Whom a scope means, shown before it is saved.

use std::collections::HashMap;

use serde::Serialize;

use super::scope_csv::ScopeCsv;
use crate::error::Result;
use crate::source::{Member, Scope, Source};

/// People that a preview names.
const SAMPLE: usize = 10;

/// Whom a scope means at this moment.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// How many people; nothing for everybody.
    pub people: Option<usize>,
    /// Some of them, by object id.
    pub sample: Vec<Member>,
    /// What is odd about the list, and about whom it names, with line numbers where there is a file.
    pub findings: Vec<String>,
}

/// Asks the directory whom a scope means.
///
/// # Errors
/// The service's failure, as when nobody has consented yet.
pub async fn preview<S: Source>(source: &S, scope: &Scope, csv: Option<&ScopeCsv>) -> Result<Preview> {
    let resolved = source.resolve_scope(scope).await?;
    let lines: HashMap<String, usize> = csv.map_or_else(HashMap::new, |csv| {
        csv.entries.iter().map(|entry| entry.to_lowercase()).zip(csv.lines.iter().copied()).collect()
    });
    let mut findings = csv.map_or_else(Vec::new, |csv| csv.findings.clone());
    findings.extend(resolved.findings.iter().map(|finding| match lines.get(&finding.entry.to_lowercase()) {
        Some(line) => format!("line {line}: {finding}"),
        None => finding.to_string(),
    }));
    let sample = resolved.members().unwrap_or_default().iter().take(SAMPLE).cloned().collect();
    Ok(Preview { people: resolved.people(), sample, findings })
}
