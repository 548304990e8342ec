//! To the consent page of the tenant, and back.

use std::sync::{Mutex, PoisonError};

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Redirect;
use url::Url;

use crate::clock::Time;
use crate::connection::consent::ConsentRequest;
use crate::connection::{Order, Registry};
use crate::error::{Code, Error, ResultExt as _};
use crate::limits;
use crate::serve::Shared;
use crate::serve::auth::{Role, Viewer};
use crate::serve::form::Form;
use crate::serve::problem::Problem;

/// Requests for consent that are under way. They live in memory: after a restart an administrator presses the button again.
#[derive(Default)]
pub(crate) struct Pending(Mutex<Vec<Asked>>);

struct Asked {
    request: ConsentRequest,
    connection: String,
    who: String,
}

impl Pending {
    fn add(&self, asked: Asked, now: Time) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| now - other.request.asked < limits::CONSENT_ANSWERED);
        let surplus = (all.len() + 1).saturating_sub(limits::CONSENTS_PENDING);
        all.drain(..surplus);
        all.push(asked);
    }

    /// The request that a redirect answers, made by the same person; it can be answered once.
    fn take(
        &self,
        query: &[(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)],
        who: &str,
        now: Time,
    ) -> Option<Asked> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| now - other.request.asked < limits::CONSENT_ANSWERED);
        let place = all.iter().position(|asked| asked.who == who && asked.request.is_answered_by(query))?;
        Some(all.swap_remove(place))
    }
}

/// Leads to the consent page.
pub(super) async fn begin(
    State(server): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    form: Form,
) -> Result<Redirect, Problem> {
    form.viewer.require(Role::Admin)?;
    let connection = Registry::of(&server.lake).get(&id).await?;
    let redirect = Url::parse(&format!("{}/connections/authorized", server.site.origin(&headers)?))
        .or_error(Code::Internal, "cannot build the redirect address")?;
    let now = server.clock.now();
    let request = ConsentRequest::new(&connection, &redirect, now)?;
    let url = request.url.to_string();
    server.consents.add(Asked { request, connection: connection.id.to_string(), who: form.viewer.who }, now);
    Ok(Redirect::to(&url))
}

/// Takes the answer of the consent page.
pub(super) async fn answered(
    State(server): State<Shared>,
    viewer: Viewer,
    RawQuery(query): RawQuery,
) -> Result<Redirect, Problem> {
    viewer.require(Role::Admin)?;
    let query: Vec<_> = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()).collect();
    let now = server.clock.now();
    let asked = server.consents.take(&query, &viewer.who, now).ok_or_else(|| {
        Error::new(Code::ConsentRefused, "nobody who is signed in here asked for this consent in the last ten minutes")
    })?;
    asked.request.judge(&query)?;
    let registry = Registry::of(&server.lake);
    registry.change(&asked.connection, Order::Authorize, &viewer.who, now).await?;
    Ok(Redirect::to(&format!("/connections/{}", asked.connection)))
}
