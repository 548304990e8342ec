//! What went wrong, in a form that a person, a script and a server can act on.
//!
//! An [`Error`] says what failed, on what, and why. Its [`Code`] answers every question that a caller asks of a
//! failure: does trying again help, which exit code, which remedy. The remedies live in `docs/troubleshooting.md`,
//! one heading per code, and nowhere else; the page is embedded, so the program and the page cannot disagree.
//!
//! May use: nothing of Waybill.

use std::fmt;

/// The one home of remedies; `## <code>` headings, the first paragraph after `**What to do.**` is the hint.
const TROUBLESHOOTING: &str = include_str!("../docs/troubleshooting.md");

/// Result with Waybill's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, exit $exit:literal, retry $retry:literal;)*) => {
        /// What kind of failure it is. A code is stable: scripts, dashboards and the troubleshooting page name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the troubleshooting page.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The stable text, which is also the heading in `docs/troubleshooting.md`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The exit code of a command that ends with this failure.
            pub fn exit_code(self) -> u8 {
                match self { $(Code::$name => $exit,)* }
            }

            /// Whether the same request may succeed later with nothing changed by a person.
            pub fn is_transient(self) -> bool {
                match self { $(Code::$name => $retry,)* }
            }
        }
    };
}

codes! {
    /// The command line is not understood or contradicts itself.
    Usage = "usage", exit 2, retry false;
    /// A configuration value, job file, CSV or environment variable is wrong or missing.
    Configuration = "configuration", exit 2, retry false;
    /// There is no lake at the URL.
    NoLake = "no-lake", exit 10, retry false;
    /// The lake's storage cannot be reached or refuses.
    LakeUnavailable = "lake-unavailable", exit 1, retry true;
    /// The lake's storage lets Waybill read but not write, or neither.
    LakeNotWritable = "lake-not-writable", exit 1, retry true;
    /// What the lake holds contradicts itself or cannot be read.
    LakeDamaged = "lake-damaged", exit 1, retry false;
    /// Another run of the same connection committed first.
    RunInProgress = "run-in-progress", exit 11, retry true;
    /// No connection has that name.
    ConnectionUnknown = "connection-unknown", exit 2, retry false;
    /// A connection with that name exists, or its record was changed by somebody else meanwhile.
    ConnectionConflict = "connection-conflict", exit 2, retry false;
    /// The connection was deauthorised: Waybill does not read its tenant.
    ConnectionDeauthorized = "connection-deauthorized", exit 12, retry false;
    /// The client secret, certificate or assertion was refused.
    SecretRefused = "secret-refused", exit 12, retry false;
    /// The client secret has expired.
    SecretExpired = "secret-expired", exit 12, retry false;
    /// The certificate has expired.
    CertificateExpired = "certificate-expired", exit 12, retry false;
    /// The application does not exist in the tenant, or is disabled there.
    ApplicationMissing = "application-missing", exit 12, retry false;
    /// The tenant does not exist in this cloud.
    TenantUnknown = "tenant-unknown", exit 12, retry false;
    /// No administrator consented to the application, or the consent was withdrawn.
    ConsentMissing = "consent-missing", exit 12, retry true;
    /// Consent was given less than an hour ago and is not in force everywhere yet.
    ConsentPending = "consent-pending", exit 12, retry true;
    /// The administrator declined, or the consent page ended with an error.
    ConsentRefused = "consent-refused", exit 12, retry false;
    /// The application has some of its permissions, and lacks one.
    PermissionMissing = "permission-missing", exit 12, retry true;
    /// Every mailbox that was asked refused.
    MailboxesDenied = "mailboxes-denied", exit 12, retry true;
    /// Unified auditing is switched off in the tenant.
    AuditingDisabled = "auditing-disabled", exit 12, retry true;
    /// The audit subscription was disabled and could not be started.
    SubscriptionDisabled = "subscription-disabled", exit 1, retry true;
    /// The feed was switched on a short time ago and has no content yet.
    ContentAwaited = "content-awaited", exit 0, retry true;
    /// The feed has brought no content for long.
    ContentSilent = "content-silent", exit 3, retry true;
    /// A mailbox holds sent messages that the audit log does not report.
    SendNotAudited = "send-not-audited", exit 3, retry true;
    /// The service asks to slow down, for longer than one request waits.
    Throttled = "throttled", exit 1, retry true;
    /// The service failed or cannot be reached.
    ServiceUnavailable = "service-unavailable", exit 1, retry true;
    /// The service answered in a way that Waybill does not understand.
    ServiceProtocol = "service-protocol", exit 1, retry true;
    /// This machine's clock and the service's disagree.
    ClockSkew = "clock-skew", exit 1, retry true;
    /// A content blob is older than the feed keeps, or does not exist.
    ContentExpired = "content-expired", exit 3, retry false;
    /// A content blob or an attachment ended early or cannot be decoded.
    ContentUnreadable = "content-unreadable", exit 3, retry true;
    /// The time asked for is older than the feed keeps.
    GapTooOld = "gap-too-old", exit 3, retry false;
    /// A policy keeps the application out of this mailbox.
    MailboxDenied = "mailbox-denied", exit 3, retry true;
    /// There is no such mailbox in the cloud: no licence, on-premises, deleted.
    MailboxMissing = "mailbox-missing", exit 3, retry true;
    /// The message is not in the mailbox: not there yet, moved, deleted, or never saved.
    MessageMissing = "message-missing", exit 3, retry true;
    /// The attachment cannot be read although its message is there.
    AttachmentUnreadable = "attachment-unreadable", exit 3, retry true;
    /// The attachment is a link or has no bytes of its own.
    AttachmentHasNoBytes = "attachment-has-no-bytes", exit 0, retry false;
    /// An audit record cannot be understood.
    RecordUnreadable = "record-unreadable", exit 3, retry false;
    /// The SQL cannot be planned or run.
    QueryInvalid = "query-invalid", exit 1, retry false;
    /// The SQL asks for something that a reader of the lake may not do.
    QueryRefused = "query-refused", exit 1, retry false;
    /// The answer or the work for it is larger than one query may be.
    QueryTooLarge = "query-too-large", exit 1, retry false;
    /// The query was not done in its time.
    QueryTimeout = "query-timeout", exit 1, retry false;
    /// Too many queries are at work.
    QueriesBusy = "queries-busy", exit 1, retry true;
    /// No run has finished for longer than any schedule would leave it.
    RunOverdue = "run-overdue", exit 3, retry false;
    /// Nobody is signed in.
    NotSignedIn = "not-signed-in", exit 12, retry false;
    /// Whoever is signed in may not do this.
    NotAllowed = "not-allowed", exit 12, retry false;
    /// The request is not one that the server takes: from another site, too large, for no page.
    RequestRefused = "request-refused", exit 2, retry false;
    /// A signal stopped the command; nothing is lost.
    Interrupted = "interrupted", exit 130, retry true;
    /// A file or stream of this machine cannot be read or written.
    Io = "io", exit 1, retry false;
    /// A defect of Waybill.
    Internal = "internal", exit 1, retry false;
}

impl Code {
    /// The one next step, from `docs/troubleshooting.md`.
    pub fn hint(self) -> Option<&'static str> {
        let heading = format!("\n## {}\n", self.as_str());
        let section = &TROUBLESHOOTING[TROUBLESHOOTING.find(&heading)? + heading.len()..];
        let section = section.split("\n## ").next()?;
        let hint = section.split("**What to do.**").nth(1)?;
        hint.split("\n\n").next().map(str::trim)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: what failed, on what, and why. Never holds a secret.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure with a message of one sentence: lower case, no full stop, literals in backticks.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// Adds the cause, which goes to the log and not to the outside.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what was being done before the message: ``cannot read blob `x`: <message>``.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// What kind of failure it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What failed, on what, and why.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The one next step.
    pub fn hint(&self) -> Option<&'static str> {
        self.code.hint()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Shorthand for attaching a code and a message to a foreign error.
pub trait ResultExt<T> {
    /// Turns the error into one with this code; the foreign text follows the message.
    fn or_error(self, code: Code, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> ResultExt<T> for std::result::Result<T, E> {
    fn or_error(self, code: Code, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::new(code, format!("{doing}: {error}")).caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_remedy_and_every_heading_is_a_code() {
        for code in Code::ALL {
            assert!(code.hint().is_some_and(|hint| !hint.is_empty()), "docs/troubleshooting.md lacks {code}");
        }
        let headings: Vec<&str> = TROUBLESHOOTING.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(headings, codes);
    }
}
