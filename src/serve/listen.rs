//! Connections: TLS, how many at once, how long they may take for nothing, and an orderly end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::TlsFiles;
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;

/// The other side of a connection; in every request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Reads a certificate and its key, for a protocol by its name in ALPN.
///
/// # Errors
/// `configuration`.
pub(super) fn acceptor(files: &TlsFiles, protocol: &str) -> Result<TlsAcceptor> {
    let doing = |path: &std::path::Path| format!("cannot use `{}` for TLS", path.display());
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| Error::new(Code::Configuration, format!("{}: {error}", doing(&files.certificate))))?;
    if certificates.is_empty() {
        return Err(Error::new(Code::Configuration, format!("{}: it holds no certificate", doing(&files.certificate))));
    }
    // The reason is left out: nothing of a key belongs into a message.
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|_| Error::new(Code::Configuration, format!("{}: it holds no key", doing(&files.key))))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .or_error(Code::Configuration, doing(&files.certificate))?;
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until told to stop, and then lets those that are in work end.
pub(super) async fn listen(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::SERVE_CONNECTIONS));
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
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone().layer(Extension(Peer(peer))), stop.clone());
        connections.spawn(async move {
            let _place = place;
            match acceptor {
                None => serve(stream, router, stop).await,
                Some(acceptor) => {
                    match tokio::time::timeout(limits::SERVE_HEADER_TIME, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => serve(stream, router, stop).await,
                        Ok(Err(error)) => debug!(%error, "no TLS connection came about"),
                        Err(_) => debug!("no TLS connection came about in time"),
                    }
                }
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits::SERVE_STOP_TIME, all).await.is_err() {
        debug!("requests under way were cut off");
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::SERVE_HEADER_TIME)
        .max_buf_size(limits::SERVE_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
