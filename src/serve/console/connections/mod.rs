//! Data Connections: who is monitored, whether it works, and if not, why and what to do.
//!
//! `list` is the table, `detail` the panel of one, `add` and `rescope` say whose mail it is, `consent` leads an administrator
//! of the tenant to the consent page and back, `orders` are the buttons. What they decide, the rooms below decide.

mod add;
pub(crate) mod consent;
mod detail;
mod list;
mod orders;

use axum::Router;
use axum::routing::{get, post};
use maud::{Markup, html};

use super::layout::{Kind, badge};
use crate::clock::Time;
use crate::event::Status;
use crate::serve::Shared;
use crate::serve::form::upload_limit;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/connections", get(list::page_of_all))
        .route("/connections/add", get(add::page_to_add).post(add::add).layer(upload_limit()))
        .route("/connections/authorized", get(consent::answered))
        .route("/connections/{id}", get(detail::page_of_one))
        .route("/connections/{id}/users.csv", get(detail::users))
        .route("/connections/{id}/scope", get(add::page_to_rescope).post(add::rescope).layer(upload_limit()))
        .route("/connections/{id}/authorize", post(consent::begin))
        .route("/connections/{id}/check", post(detail::check))
        .route("/connections/{id}/pause", post(orders::pause))
        .route("/connections/{id}/resume", post(orders::resume))
        .route("/connections/{id}/deauthorize", post(orders::deauthorize))
        .route("/connections/{id}/remove", post(orders::remove))
}

fn kind_of(status: Status) -> Kind {
    match status {
        Status::Initializing => Kind::Info,
        Status::Monitoring => Kind::Good,
        Status::Error => Kind::Error,
        Status::Paused | Status::Deauthorized | Status::Removed => Kind::Resting,
    }
}

fn status(status: Status) -> Markup {
    badge(kind_of(status), status.as_str())
}

/// A time as everybody reads it alike, with the exact one for machines.
pub(super) fn when(time: Time) -> Markup {
    let exact = time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    html! { time.moment datetime=(exact) { (time.format("%Y-%m-%d %H:%M")) " UTC" } }
}

/// A span in the largest unit that says enough.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
