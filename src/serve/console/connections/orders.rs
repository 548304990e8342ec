//! The buttons of an administrator.

use axum::extract::{Path, State};
use axum::response::Redirect;

use crate::connection::{Order, Registry};
use crate::serve::Shared;
use crate::serve::auth::Role;
use crate::serve::form::Form;
use crate::serve::problem::Problem;

pub(super) async fn pause(server: State<Shared>, id: Path<String>, form: Form) -> Result<Redirect, Problem> {
    carry_out(server, id, form, Order::Pause).await
}

pub(super) async fn resume(server: State<Shared>, id: Path<String>, form: Form) -> Result<Redirect, Problem> {
    carry_out(server, id, form, Order::Resume).await
}

pub(super) async fn deauthorize(server: State<Shared>, id: Path<String>, form: Form) -> Result<Redirect, Problem> {
    carry_out(server, id, form, Order::Deauthorize).await
}

async fn carry_out(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
    order: Order,
) -> Result<Redirect, Problem> {
    form.viewer.require(Role::Admin)?;
    let registry = Registry::of(&server.lake);
    let connection = registry.change(&id, order, &form.viewer.who, server.clock.now()).await?;
    Ok(Redirect::to(&format!("/connections/{}", connection.id)))
}

pub(super) async fn remove(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Redirect, Problem> {
    form.viewer.require(Role::Admin)?;
    Registry::of(&server.lake).remove(&id, &form.viewer.who, server.clock.now()).await?;
    Ok(Redirect::to("/connections"))
}
