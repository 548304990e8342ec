//! The Postgres wire protocol (<https://www.postgresql.org/docs/current/protocol.html>), for psql, drivers, notebooks and
//! BI tools.
//!
//! A connection is a session of somebody over the lake. Each statement sees the lake as it is then; those of a transaction
//! see it as its first one did. Nothing can be changed: what clients set for themselves is taken and has no effect,
//! what would lift a limit is refused.
//!
//! May use, of `serve`: who asks (`auth`). Only this folder knows `pgwire`; the library that encodes rows speaks DataFusion's
//! types, so it knows a few of those too.

mod catalog;
mod handlers;
mod scram;
mod statement;

use std::sync::Arc;

use pgwire::api::ConnectionManager;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::handlers::{Connection, Handlers};
pub use self::scram::Verifier;
use super::Shared;
use crate::limits;

/// Serves on a listener until told to stop. `is_local` says whether only this machine reaches it.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    server: Shared,
    is_local: bool,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::POSTGRES_CONNECTIONS));
    let running = Arc::new(ConnectionManager::new());
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // Whoever comes when all places are taken waits in the system's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, most likely: others have to end first.
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok((stream, watched)) = twice(stream) else { continue };
        let connection = Connection::new(Arc::clone(&server), peer.ip(), is_local, Arc::clone(&running));
        let tls = tls.clone();
        connections.spawn(async move {
            let _place = place;
            let served = pgwire::tokio::process_socket(stream, tls, Handlers(Arc::new(connection)));
            tokio::select! {
                ended = served => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                },
                // While a query is at work nobody reads what the client sends, and so nobody would see it go.
                () = gone(watched) => tracing::debug!("a client is gone"),
            }
        });
    }
    // Sessions last as long as people like: there is no end of a request to wait for.
    connections.abort_all();
}

/// A connection, and the same connection to look at.
fn twice(stream: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let watched = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, watched))
}

/// Ends when the other side has closed the connection.
async fn gone(watched: TcpStream) {
    while let Ok(ready) = watched.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // Something was sent that waits to be read: that, too, is "ready".
        tokio::time::sleep(limits::POSTGRES_WATCHED_EVERY).await;
    }
}
