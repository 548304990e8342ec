//! Admin consent: an administrator of the tenant lets the application in, once.
//!
//! ```text
//!   Waybill ── address with state ──▶ administrator's browser ──▶ Entra: Accept?
//!   Waybill ◀── redirect with state ───────────────────────────────────┘
//! ```
//!
//! What comes back proves little: anybody can call the redirect address, and `admin_consent=True` stands in refusals too.
//! So it is bound by `state`, refused when it carries an error, and whether the application may really read is asked of
//! the services afterwards. <https://learn.microsoft.com/entra/identity-platform/v2-admin-consent>

use std::borrow::Cow;

use oauth2::CsrfToken;
use url::Url;

use super::Connection;
use crate::clock::Time;
use crate::error::{Code, Error, Result};

/// A request for consent that is under way.
#[derive(Clone, Debug)]
pub struct ConsentRequest {
    state: String,
    tenant_id: uuid::Uuid,
    /// Where the administrator's browser must go.
    pub url: Url,
    /// When it was made; it should not be answered much later.
    pub asked: Time,
}

impl ConsentRequest {
    /// Asks for everything that the application's registration lists, and so for both services at once: the second form of
    /// the page takes the permissions of one service only. `redirect` must be registered for the application.
    ///
    /// # Errors
    /// `configuration` when the sign-in endpoint cannot be used.
    pub fn new(connection: &Connection, redirect: &Url, now: Time) -> Result<Self> {
        let login = connection.login_root();
        let tenant_id = connection.application.tenant_id;
        let address = format!("{}/{tenant_id}/adminconsent", login.trim_end_matches('/'));
        let mut url = Url::parse(&address)
            .map_err(|error| Error::new(Code::Configuration, format!("`{address}` is no URL: {error}")))?;
        let state = CsrfToken::new_random().into_secret();
        url.query_pairs_mut()
            .append_pair("client_id", &connection.application.client_id.to_string())
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("state", &state);
        Ok(Self { state, tenant_id, url, asked: now })
    }

    /// Whether a redirect's query answers this request.
    pub fn is_answered_by(&self, query: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
        let state = value(query, "state").unwrap_or_default();
        // The comparison takes the same time wherever the texts differ.
        let differences = state.bytes().zip(self.state.bytes()).fold(0, |found, (one, other)| found | (one ^ other));
        state.len() == self.state.len() && differences == 0
    }

    /// Judges the redirect's query.
    ///
    /// # Errors
    /// `consent-refused`, with the reason in an administrator's words.
    pub fn judge(&self, query: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<()> {
        let refuse = |why: String| Err(Error::new(Code::ConsentRefused, why));
        if !self.is_answered_by(query) {
            return refuse(
                "the answer does not belong to this request for consent (its `state` is another one)".to_owned(),
            );
        }
        if let Some(error) = value(query, "error") {
            let description = value(query, "error_description").unwrap_or_default();
            return refuse(format!("{}: `{}` {}", explain(error, description), clean(error), clean(description)));
        }
        match value(query, "tenant") {
            Some(tenant) if !tenant.eq_ignore_ascii_case(&self.tenant_id.to_string()) => refuse(format!(
                "consent was given in the tenant `{}`, and this connection reads the tenant `{}`",
                clean(tenant),
                self.tenant_id
            )),
            Some(_) => Ok(()),
            None => refuse("the answer names no tenant, so it is no answer of the consent page".to_owned()),
        }
    }
}

fn value<'a>(query: &'a [(Cow<'_, str>, Cow<'_, str>)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
}

/// Text from outside, for a message: one line, no control characters, not long.
fn clean(text: &str) -> String {
    let first = text.split(" Trace ID:").next().unwrap_or_default();
    first.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(300).collect()
}

/// What a refusal means: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
fn explain(error: &str, description: &str) -> &'static str {
    const NUMBERS: [(&str, &str); 7] = [
        ("AADSTS65004", "the administrator declined"),
        ("AADSTS650051", "the registration lists a permission that no longer exists"),
        ("AADSTS650052", "the tenant lacks a service that the registration asks for"),
        ("AADSTS50011", "the redirect address is not registered for the application"),
        ("AADSTS90094", "whoever signed in may not consent for the organisation"),
        ("AADSTS90093", "whoever signed in may not consent for the organisation"),
        ("AADSTS700016", "the application does not exist in the tenant"),
    ];
    // The longer number first: one begins with the other.
    let mut known = NUMBERS;
    known.sort_by_key(|(number, _)| std::cmp::Reverse(number.len()));
    match known.iter().find(|(number, _)| description.contains(number)) {
        Some((_, meaning)) => meaning,
        None if matches!(error, "permission_denied" | "access_denied" | "consent_required") => {
            "the administrator declined"
        }
        None => "the consent page ended with an error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ConsentRequest {
        ConsentRequest {
            state: "s1".to_owned(),
            tenant_id: uuid::Uuid::from_u128(7),
            url: Url::parse("https://login.example/x").unwrap(),
            asked: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn judge(query: &str) -> Result<()> {
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        request().judge(&pairs)
    }

    const TENANT: &str = "00000000-0000-0000-0000-000000000007";

    #[test]
    fn consent_is_the_absence_of_an_error_in_our_own_tenant() {
        judge(&format!("tenant={TENANT}&state=s1&admin_consent=True")).unwrap();
        judge(&format!("admin_consent=True&tenant={TENANT}&scope=x&state=s1")).unwrap();
    }

    #[test]
    fn an_answer_that_is_not_ours_is_refused() {
        for query in ["", "admin_consent=True", "state=s2&tenant=x", "state=s&tenant=x", "state=s1"] {
            assert_eq!(judge(query).unwrap_err().code(), Code::ConsentRefused, "{query}");
        }
        let other = judge("state=s1&tenant=11111111-0000-0000-0000-000000000007").unwrap_err();
        assert!(other.message().contains("consent was given in the tenant `11111111"), "{other}");
    }

    #[test]
    fn a_refusal_says_why_although_it_says_admin_consent_true() {
        for (query, meaning) in [
            (
                "admin_consent=True&error=consent_required&error_description=AADSTS65004%3A+User+declined",
                "the administrator declined",
            ),
            ("error=permission_denied&error_description=The+admin+canceled+the+request", "the administrator declined"),
            ("error=invalid_resource&error_description=AADSTS650051%3A+gone", "a permission that no longer exists"),
            ("error=invalid_request&error_description=AADSTS50011%3A+reply", "the redirect address is not registered"),
            ("error=x&error_description=AADSTS90094", "may not consent for the organisation"),
            ("error=server_error", "the consent page ended with an error"),
        ] {
            let error = judge(&format!("{query}&state=s1")).unwrap_err();
            assert_eq!(error.code(), Code::ConsentRefused);
            assert!(error.message().contains(meaning), "{error}");
        }
    }

    #[test]
    fn text_from_outside_cannot_draw_lines_into_a_terminal() {
        let error = judge("state=s1&error=%1b%5b31m%0ax&error_description=a%0d%0ab").unwrap_err();
        assert!(!error.message().contains(char::is_control), "{error:?}");
    }
}
