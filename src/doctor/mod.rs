//! What is wrong with a connection, and what to do about it.
//!
//! `standing` reads where a connection stands from the lake alone, cheaply, for lists and pages. `checks` asks the lake,
//! the tenant and the schedule, in order, and ends with the one thing to do. `missing` answers why one message has no row.
//! All three only look: nothing is changed but a probe object that is deleted at once.
//!
//! May use: `connection`, `run`, `search`, `lake`, `source`, `event`, and the base.

mod checks;
mod missing;
mod standing;

use serde::Serialize;

use crate::error::{Code, Error};
use crate::run::Failure;

pub use self::checks::{Examination, examine, examine_lake};
pub use self::missing::{Inquiry, inquire};
pub use self::standing::{Owed, Standing, standing};

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// The finding, one sentence.
    pub finding: String,
    /// The code of the troubleshooting page, when something is wrong.
    pub code: Option<&'static str>,
    /// What to do, when something is wrong.
    pub hint: Option<&'static str>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Good,
    /// Something to know; events may be missing.
    Warning,
    /// Events are missing, or will be.
    Bad,
    /// Could not be looked at, since an earlier check failed.
    Skipped,
}

impl Check {
    fn good(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, finding: finding.into(), code: None, hint: None }
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Skipped, finding: why.into(), code: None, hint: None }
    }

    fn warning(name: &'static str, code: Code, finding: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, finding: finding.into(), code: Some(code.as_str()), hint: code.hint() }
    }

    fn bad(name: &'static str, error: &Error) -> Self {
        let Failure { code, message, hint } = Failure::from(error);
        Self { name, verdict: Verdict::Bad, finding: message, code: Some(code), hint }
    }
}
