//! Where a connection stands as a run found it: what a person sees in the table of connections.
//!
//! A run that could not read says why; one that read clears that by itself. What an administrator decided (paused,
//! deauthorised) is not a run's business and is kept in the registry.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::report::{Failure, Report};
use super::row::Stamp;
use super::state::State;
use crate::clock::Time;
use crate::error::{Code, Error};
use crate::event::{Action, Change, Outcome, Status};
use crate::limits;

/// How the last run left a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `initializing`, `monitoring` or `error`.
    pub status: Status,
    /// Since when it has this status for this reason.
    pub since: Time,
    /// The reason, by its heading in the troubleshooting page; nothing when all is well.
    pub code: Option<String>,
    /// The reason in a sentence.
    pub message: Option<String>,
}

impl Health {
    /// What the run that is about to finish says of the connection; the time stays when nothing changed. `found` is what
    /// a person must know although the run went on.
    pub(super) fn after(report: &Report, state: &State, found: Option<&Failure>, now: Time) -> Self {
        let before = state.health.as_ref();
        let (status, reason) = match (&report.error, report.outcome) {
            // A signal says nothing about the tenant.
            (_, Outcome::Interrupted) if before.is_some() => return before.expect("checked by the guard").clone(),
            (Some(error), _) => (Status::Error, Some(error.clone())),
            (None, _) => match found {
                Some(failure) => (Status::Error, Some(failure.clone())),
                None => content(state, now),
            },
        };
        let (code, message) = reason.map_or((None, None), |why| (Some(why.code.to_owned()), Some(why.message)));
        let since = match before {
            Some(before) if before.status == status && before.code == code => before.since,
            _ => now,
        };
        Self { status, since, code, message }
    }

    /// The row of `changes` that says so, unless nothing changed.
    pub(super) fn change(&self, before: Option<&Self>, stamp: &Stamp) -> Option<Change> {
        let is_same = before.is_some_and(|before| before.status == self.status && before.code == self.code);
        (!is_same).then(|| Change {
            change_id: Uuid::new_v4().to_string(),
            changed_at: self.since,
            actor: "run".to_owned(),
            action: Action::Status,
            connection_id: Some(stamp.connection_id.to_string()),
            connection_name: Some(stamp.connection_name.clone()),
            status: Some(self.status),
            status_before: Some(before.map_or(Status::Initializing, |before| before.status)),
            code: self.code.clone(),
            detail: self.message.clone(),
            run_id: Some(stamp.run_id.to_string()),
        })
    }
}

/// A feed that answers and brings nothing is suspicious: Exchange reports something in every tenant that is in use.
fn content(state: &State, now: Time) -> (Status, Option<Failure>) {
    let found = |status, code, message: String| (status, Some(Failure::from(&Error::new(code, message))));
    let begun = state.begun.unwrap_or(now);
    match state.newest_content {
        Some(newest) if now - newest.max(begun) > limits::CONTENT_SILENT => {
            let hours = (now - newest).num_hours();
            found(
                Status::Error,
                Code::ContentSilent,
                format!("the feed has brought no audit content for {hours} hours"),
            )
        }
        Some(_) => (Status::Monitoring, None),
        None if now - begun > limits::CONTENT_AWAITED => {
            let hours = (now - begun).num_hours();
            let message = format!("the feed has never brought any audit content, {hours} hours after the first run");
            found(Status::Error, Code::ContentSilent, message)
        }
        None => {
            let message = "the audit log can be read and holds no content yet".to_owned();
            found(Status::Initializing, Code::ContentAwaited, message)
        }
    }
}

/// A permission that is missing shortly after consent was given has not spread yet.
pub fn pending(error: Error, authorized: Option<Time>, now: Time) -> Error {
    let is_about_consent =
        matches!(error.code(), Code::ConsentMissing | Code::PermissionMissing | Code::MailboxesDenied);
    match authorized {
        Some(at) if is_about_consent && now - at < limits::CONSENT_SPREADS => Error::new(
            Code::ConsentPending,
            format!(
                "consent was given {} minutes ago and is not in force everywhere yet: {error}",
                (now - at).num_minutes().max(0)
            ),
        ),
        _ => error,
    }
}
