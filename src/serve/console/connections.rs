//! Data Connections: which tenants are monitored.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use maud::html;

use super::layout::{Page, Section, page, table};
use crate::connection::Registry;
use crate::serve::Shared;
use crate::serve::auth::Viewer;
use crate::serve::problem::Problem;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/connections", get(list))
}

async fn list(State(server): State<Shared>, viewer: Viewer) -> Result<Page, Problem> {
    let connections = Registry::of(&server.lake).list().await?;
    let rows = connections.iter().map(|connection| {
        vec![
            html! { (connection.name) },
            html! { (connection.service.as_str()) },
            html! { (connection.created.format("%Y-%m-%d %H:%M UTC")) },
        ]
    });
    let body = html! {
        @if connections.is_empty() {
            p { "There is no connection yet." }
        } @else {
            (table("Connections of this lake", &["Display name", "Service", "Added"], rows))
        }
    };
    Ok(page("Data Connections", Some(&viewer), body).section(Section::Connections))
}
