//! Connections: from bytes to requests and from answers to bytes, and the faults that happen to bodies on their way.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderValue, Request as HttpRequest, Response};
use futures::stream::{self, BoxStream, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::Simulator;
use super::answer::{Content, Reply, Request};
use super::faults::Action;
use super::report::{Kind, MailboxSlot};

/// Bodies of requests are small: forms, batches, mails that a test adds.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Time for the bytes before a broken place to be sent.
const BREAK_PAUSE: Duration = Duration::from_millis(5);

/// Accepts connections until told to stop.
pub(crate) async fn listen(
    simulator: Arc<Simulator>,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let stream = tokio::select! {
            // The sender is gone when the simulator was dropped without being stopped.
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file handles, most likely: others have to end first.
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot send small packets at once");
        }
        let (simulator, mut stopped, acceptor) = (Arc::clone(&simulator), stopped.clone(), acceptor.clone());
        tokio::spawn(async move {
            let serving = async {
                match acceptor {
                    None => serve(simulator, stream, "http").await,
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => serve(simulator, stream, "https").await,
                        Err(error) => tracing::debug!(%error, "no TLS connection came about"),
                    },
                }
            };
            tokio::select! {
                () = serving => {}
                _ = stopped.changed() => {}
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    simulator: Arc<Simulator>,
    stream: S,
    scheme: &'static str,
) {
    let service = service_fn(move |request| {
        let simulator = Arc::clone(&simulator);
        async move { Ok::<_, Infallible>(handle(&simulator, request, scheme).await) }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn handle(simulator: &Arc<Simulator>, request: HttpRequest<Incoming>, scheme: &str) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match axum::body::to_bytes(Body::new(body), REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err(_) => return respond(Reply::new(413, "text/plain", "Content Too Large")),
    };
    // Links in answers lead back to where we were asked, whatever name the caller has for it.
    let host = head.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let base = format!("{scheme}://{host}");
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::new(head.method, path, head.headers, body, base);
    let (reply, kind, actions, slot) = simulator.answer(request).await;
    let is_throttled = reply.status.as_u16() == 429 || (reply.status.as_u16() == 403 && is_af429(&reply));
    simulator.counters.answered(kind, reply.status.as_u16(), is_throttled);
    let reply = with_faults(reply, &actions).await;
    respond(counted(simulator, reply, kind, slot))
}

fn is_af429(reply: &Reply) -> bool {
    match &reply.content {
        Content::Whole(body) => {
            memchr::memmem::find(body, b"\"AF429\"").is_some() || memchr::memmem::find(body, b"\"429\"").is_some()
        }
        Content::Stream(_) => false,
    }
}

/// A body on its way to the wire: it can fail.
enum Outgoing {
    Whole(Bytes),
    Stream(BoxStream<'static, std::io::Result<Bytes>>),
}

struct Sending {
    reply: Reply,
    body: Outgoing,
}

fn respond(sending: impl Into<Sending>) -> Response<Body> {
    let Sending { reply, body } = sending.into();
    let body = match body {
        Outgoing::Whole(bytes) => Body::from(bytes),
        Outgoing::Stream(stream) => Body::from_stream(stream),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        response.headers_mut().append(name, value);
    }
    response
}

impl From<Reply> for Sending {
    fn from(mut reply: Reply) -> Self {
        let content = std::mem::replace(&mut reply.content, Content::Whole(Bytes::new()));
        let body = match content {
            Content::Whole(bytes) => Outgoing::Whole(bytes),
            Content::Stream(stream) => Outgoing::Stream(stream.map(Ok).boxed()),
        };
        Self { reply, body }
    }
}

/// Counts what is sent. The place on the mailbox is free again as soon as the last piece is handed over: a client
/// that has read everything may ask again at once.
fn counted(simulator: &Arc<Simulator>, mut sending: Sending, kind: Kind, slot: Option<MailboxSlot>) -> Sending {
    let counters = Arc::clone(&simulator.counters);
    match sending.body {
        Outgoing::Whole(ref bytes) => counters.sent(kind, bytes.len()),
        Outgoing::Stream(mut stream) => {
            sending.body = Outgoing::Stream(
                async_stream::stream! {
                    let mut slot = slot;
                    let mut next = stream.next().await;
                    while let Some(piece) = next {
                        next = stream.next().await;
                        if next.is_none() {
                            slot.take();
                        }
                        counters.sent(kind, piece.as_ref().map_or(0, Bytes::len));
                        if piece.is_err() {
                            // What was given so far shall reach the other side before the connection breaks.
                            tokio::time::sleep(BREAK_PAUSE).await;
                        }
                        yield piece;
                    }
                }
                .boxed(),
            );
        }
    }
    sending
}

/// What the faults do to a body.
async fn with_faults(mut reply: Reply, actions: &[Action]) -> Sending {
    let mut announced = None;
    for action in actions {
        match action {
            Action::ContentType(content_type) => {
                reply.headers.retain(|(name, _)| name != "content-type");
                reply = reply.custom("content-type", content_type);
            }
            Action::Bom => {
                let bom = Bytes::from_static(b"\xef\xbb\xbf");
                reply.content = match reply.content {
                    Content::Whole(body) => Content::Whole([bom, body].concat().into()),
                    Content::Stream(stream) => Content::Stream(stream::iter([bom]).chain(stream).boxed()),
                };
            }
            Action::TruncatedJson => {
                let content = std::mem::replace(&mut reply.content, Content::Whole(Bytes::new()));
                let body = whole(content).await;
                reply.content = Content::Whole(body.slice(..body.len() / 4 * 3));
            }
            Action::ShortBody(_) => {
                let content = std::mem::replace(&mut reply.content, Content::Whole(Bytes::new()));
                let body = whole(content).await;
                announced = Some(body.len());
                reply.content = Content::Whole(body);
            }
            _ => {}
        }
    }
    let mut sending = Sending::from(reply);
    for action in actions {
        sending.body = match (action, sending.body) {
            (Action::Truncate(bytes), body) => Outgoing::Stream(limited(pieces(body), *bytes, false)),
            (Action::Reset(bytes) | Action::ShortBody(bytes), body) => {
                Outgoing::Stream(limited(pieces(body), *bytes, true))
            }
            (Action::SlowBody { bytes, ms }, body) => {
                Outgoing::Stream(slow(pieces(body), (*bytes).max(1), Duration::from_millis(*ms)))
            }
            (_, body) => body,
        };
    }
    if let Some(length) = announced {
        sending.reply.headers.push((CONTENT_LENGTH, HeaderValue::from(length)));
    }
    sending
}

async fn whole(content: Content) -> Bytes {
    match content {
        Content::Whole(bytes) => bytes,
        Content::Stream(stream) => stream.collect::<Vec<Bytes>>().await.concat().into(),
    }
}

fn pieces(body: Outgoing) -> BoxStream<'static, std::io::Result<Bytes>> {
    match body {
        Outgoing::Whole(bytes) => stream::iter([Ok(bytes)]).boxed(),
        Outgoing::Stream(stream) => stream,
    }
}

/// The first bytes of a body, and then a failure that closes the connection, or nothing more.
fn limited(
    mut body: BoxStream<'static, std::io::Result<Bytes>>,
    bytes: usize,
    fails: bool,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    async_stream::stream! {
        let mut left = bytes;
        while left > 0 && let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => {
                    let piece = piece.slice(..piece.len().min(left));
                    left -= piece.len();
                    yield Ok(piece);
                }
                Err(error) => yield Err(error),
            }
        }
        if fails {
            yield Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        }
    }
    .boxed()
}

fn slow(
    mut body: BoxStream<'static, std::io::Result<Bytes>>,
    bytes: usize,
    pause: Duration,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    async_stream::stream! {
        while let Some(piece) = body.next().await {
            let Ok(mut piece) = piece else {
                yield piece;
                return;
            };
            while !piece.is_empty() {
                tokio::time::sleep(pause).await;
                yield Ok(piece.split_to(bytes.min(piece.len())));
            }
        }
    }
    .boxed()
}
