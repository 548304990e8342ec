//! Arrow Flight SQL: answers as Arrow batches, for ADBC and JDBC drivers
//! (<https://arrow.apache.org/docs/format/FlightSql.html>).
//!
//! Nothing is kept between requests. A ticket and the handle of a prepared statement are the statement itself, with its
//! values, under the seal of the server that gave it; whoever presents one is asked for their own token, and gets what they
//! may see themselves. So there is nothing to guess or to steal, and nothing to expire while the server runs.
//!
//! May use, of `serve`: who asks (`auth`). Only this folder knows `tonic` and `arrow_flight`.

mod service;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};

use self::service::Service;
use super::Shared;
use crate::limits;

/// Serves on a listener until told to stop, and then lets the requests under way end. `is_local` says whether only this
/// machine reaches it.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    server: Shared,
    is_local: bool,
    stop: CancellationToken,
) {
    let service = match Service::new(server, is_local) {
        Ok(service) => service,
        Err(error) => {
            tracing::error!(code = %error.code(), %error, "Flight SQL is not served");
            return;
        }
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).take_until(stop.clone().cancelled_owned());
    match tls {
        None => serve_on(incoming, service, stop).await,
        Some(tls) => {
            let greeted = incoming.map(move |stream| greet(tls.clone(), stream));
            // As many greet at once, so that one who says nothing holds up nobody.
            let greeted = greeted.buffer_unordered(limits::SERVE_CONNECTIONS).filter_map(std::future::ready);
            serve_on(greeted, service, stop).await;
        }
    }
}

/// Speaks TLS with whoever connects; nothing comes of those who do not.
async fn greet<E>(
    tls: TlsAcceptor,
    stream: Result<TcpStream, E>,
) -> Option<std::io::Result<tokio_rustls::server::TlsStream<TcpStream>>> {
    match tokio::time::timeout(limits::SERVE_HEADER_TIME, tls.accept(stream.ok()?)).await {
        Ok(Ok(stream)) => Some(Ok(stream)),
        _ => {
            tracing::debug!("no TLS connection came about");
            None
        }
    }
}

async fn serve_on<S, E>(incoming: impl Stream<Item = Result<S, E>>, service: Service, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(limits::FLIGHT_MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX);
    let serving = Server::builder()
        .concurrency_limit_per_connection(limits::FLIGHT_REQUESTS_PER_CONNECTION)
        // A client that is gone without a word is found out, and its query ended.
        .http2_keepalive_interval(Some(limits::FLIGHT_KEEPALIVE))
        .http2_keepalive_timeout(Some(limits::FLIGHT_KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let in_time = async {
        stop.cancelled().await;
        tokio::time::sleep(limits::SERVE_STOP_TIME).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::error!(%error, "Flight SQL is not served any more");
        },
        () = in_time => tracing::debug!("requests under way were cut off"),
    }
}
