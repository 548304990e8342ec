//! The pages of the console. `layout` has their parts; each page is a file with its routes and what it asks of the rooms
//! below.

pub(crate) mod connections;
pub(crate) mod layout;
mod search;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;

use super::Shared;

/// Every page.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(async || Redirect::to("/connections")))
        .merge(connections::routes())
        .merge(search::routes())
}
