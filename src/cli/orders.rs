//! `waybill connection rescope|split|pause|resume|deauthorize`: what an administrator orders.

use super::connection::{Named, report};
use super::exit::Exit;
use super::{Context, output};
use crate::connection::{Order, Registry};
use crate::error::Result;

/// Carries out an order and says what comes of it.
pub(super) async fn change(context: &Context, arguments: Named, order: Order) -> Result<Exit> {
    let lake = context.lake()?;
    let next = match &order {
        Order::Rescope(_) => "the next run monitors the new scope; what was recorded stays",
        Order::Split(1) => "the next run takes all mailboxes again, from where the shards stopped",
        Order::Split(_) => "`waybill run --shard 1/N` to N/N take a shard each, `waybill run` takes all of them",
        Order::Pause => "runs skip it; the feed keeps what they miss for 7 days",
        Order::Resume => "the next run catches up with what the feed still holds, and records the rest as a gap",
        Order::Deauthorize => {
            "runs skip it; to take the right itself away, delete the application's consent in the tenant \
             (Entra admin center, Enterprise applications)"
        }
        Order::Authorize => "the next run reads the tenant",
    };
    let connection = Registry::of(&lake).change(&arguments.name, order, &context.who(), context.clock.now()).await?;
    output::say(format_args!("{next}"));
    report(&connection, arguments.reporting)?;
    Ok(Exit::DONE)
}
