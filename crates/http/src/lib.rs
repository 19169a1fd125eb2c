//! An HTTP and HTTPS server with limits: on connections, on the time of each step, and on the memory of answers. It
//! serves any router.
//!
//! ```
//! use std::time::Duration;
//! use axum::http::StatusCode;
//! use axum::response::IntoResponse;
//! use axum::{Router, routing::get};
//! use piecework_http::{Connections, Entrance, Limits, serve};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let connections = Connections::new(Limits {
//!     max_connections: 100,
//!     max_connections_per_ip: 10,
//!     header_timeout: Duration::from_secs(10),
//!     request_timeout: Duration::from_secs(30),
//! });
//! let router = Router::new().route("/", get(|| async { "here" }));
//! let timed_out = || StatusCode::REQUEST_TIMEOUT.into_response();
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! stop.send_replace(true);
//! // Returns when it is told to stop and nothing is under way.
//! serve(listener, Entrance::default(), connections, router, timed_out, stopped).await;
//! # Ok(())
//! # }
//! ```
//!
//! Answers are limited too: a client that does not read its answer is disconnected, and the bytes of unread answers
//! are limited for each network and in all.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod metrics;
pub mod web;

mod answers;
mod entrance;
mod events;
mod parts;
mod proxies;
mod quick;
mod sender;
mod shares;
mod site;
mod streams;
mod tls;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use piecework_listener::Listener;

use shares::SharedPlaces;

use answers::{AnswerPlace, Answers, ReadProgress, WatchedConnection};
use entrance::EnteredConnection;
use quick::{QuickEnd, Rewound};

pub use answers::TooManyAnswers;
pub use entrance::{Entrance, EntranceError, PlainHttp};
pub use events::{BEAT, Left, Teller, answer_in_parts, event_stream, heartbeat};
pub use parts::{PartWriter, answer_as_written, part_writer};
pub use proxies::{ForwardedError, NoProxy, Proxies};
pub use quick::{QuickAnswer, QuickRequest};
pub use sender::Senders;
pub use site::{MAX_SHOWN, SiteRefusal, SiteRule};
pub use streams::{STREAMS_PER_IP, StreamPlace, Streams, TooManyStreams};
pub use tls::{CertificateFiles, ServerTls, TlsError};

/// The limits of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of connections, over all listeners that share these limits.
    pub max_connections: usize,
    /// The maximum number of connections from one IPv4 address or IPv6 /64. Loopback may have three quarters of all
    /// instead, and each user of this machine half of these.
    pub max_connections_per_ip: usize,
    /// The time for the head of a request, and for which a connection may be idle.
    pub header_timeout: Duration,
    /// The time until the answer begins, including the request's body.
    pub request_timeout: Duration,
}

/// The two ends of a request's connection. Found in the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The address of the client: that of the connection, or the one that a configured proxy names.
    pub peer: SocketAddr,
    /// The local address of the connection, if known.
    pub local: Option<IpAddr>,
}

/// Controls the lifetime of a request's connection, for answers that have no end. Found in the extensions of each
/// request.
#[derive(Debug, Clone, Default)]
pub struct Lasting(Arc<ConnectionHold>);

/// The open connections, in all and from each address.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    shares: Mutex<SharedPlaces>,
    rejected: AtomicU64,
    answers: Arc<Answers>,
}

impl Lasting {
    fn of(client: IpAddr, answers: &Arc<Answers>, progress: &Arc<ReadProgress>) -> Self {
        let connection = AnswerConnection {
            client,
            answers: Arc::clone(answers),
            progress: Arc::clone(progress),
        };
        Self(Arc::new(ConnectionHold { connection: Some(connection), ..ConnectionHold::default() }))
    }

    /// Takes room for an answer of `bytes` bytes.
    fn take(&self, bytes: usize) -> Result<Option<AnswerPlace>, TooManyAnswers> {
        let Some(connection) = &self.0.connection else { return Ok(None) };
        let AnswerConnection { client, answers, progress } = connection;
        answers.take(*client, bytes, progress, self).map(Some)
    }

    /// Lets the connection live as long as its client stays.
    pub fn keep(&self) {
        self.0.kept.store(true, Ordering::Relaxed);
    }

    /// Restores the usual lifetime of the connection.
    pub fn release(&self) {
        self.0.kept.store(false, Ordering::Relaxed);
    }

    /// Ends the connection at once and discards unsent data.
    pub fn close(&self) {
        self.0.close.notify_one();
    }

    fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// Waits for [`Lasting::close`].
    async fn closed(&self) {
        self.0.close.notified().await;
    }
}

impl Connections {
    /// Returns a counter without connections.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            shares: Mutex::new(SharedPlaces::new(
                limits.max_connections,
                limits.max_connections_per_ip,
            )),
            rejected: AtomicU64::new(0),
            answers: Answers::new(),
        })
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> u64 {
        self.shares.lock().taken() as u64
    }

    /// Returns the number of connections that were closed at once because there were too many.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes of unread answers.
    pub fn answer_bytes(&self) -> usize {
        self.answers.bytes()
    }

    /// Takes a place for a connection from `peer`, if there is one.
    fn take(self: &Arc<Self>, peer: SocketAddr) -> Option<ConnectionPlace> {
        self.shares.lock().take(peer, Senders::now).ok()?;
        Some(ConnectionPlace { connections: Arc::clone(self), peer: Some(peer) })
    }

    /// Takes a place for a proxy, whose connections come from many clients.
    fn take_shared(self: &Arc<Self>) -> Option<ConnectionPlace> {
        self.shares.lock().take_shared().ok()?;
        Some(ConnectionPlace { connections: Arc::clone(self), peer: None })
    }
}

/// Accepts connections through `entrance` until `stop` changes, then waits for the requests under way. `timed_out`
/// returns the answer to a request that took too long.
pub async fn serve(
    listener: TcpListener,
    entrance: Entrance,
    connections: Arc<Connections>,
    router: Router,
    timed_out: fn() -> Response,
    stop: watch::Receiver<bool>,
) {
    serve_quickly(listener, entrance, connections, router, None, timed_out, stop).await;
}

/// Does the same as [`serve`], and answers plain requests over plain HTTP by `quick` first.
pub async fn serve_quickly(
    listener: TcpListener,
    entrance: Entrance,
    connections: Arc<Connections>,
    router: Router,
    quick: Option<QuickAnswer>,
    timed_out: fn() -> Response,
    mut stop: watch::Receiver<bool>,
) {
    let limits = connections.limits;
    let mut listener = Listener::new(listener, "HTTP");
    let mut open = JoinSet::new();
    let mut look = tokio::time::interval(LOOK_AT_CERTIFICATE);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept(|| {}) => accepted,
            Some(_) = open.join_next() => continue,
            _ = look.tick(), if entrance.has_tls() => {
                if let Some(tls) = entrance.tls.clone() {
                    // Runs in the background. Until it is done, the old certificate is used.
                    tokio::task::spawn_blocking(move || tls.look());
                }
                continue;
            }
            _ = stop.changed() => break,
        };
        let place = match entrance.proxies.contains(peer.ip()) {
            true => connections.take_shared(),
            false => connections.take(peer),
        };
        let Some(place) = place else {
            connections.rejected.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let terms = ServerState {
            limits,
            entrance: entrance.clone(),
            answers: Arc::clone(&connections.answers),
            router: router.clone(),
            // What a proxy sends names its client in a header field.
            quick: quick.clone().filter(|_| !entrance.proxies.contains(peer.ip())),
            timed_out,
        };
        let connection = converse(stream, peer, terms, stop.clone());
        open.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    let all_ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_TIME, all_ended).await.is_err() {
        open.shutdown().await;
    }
}

/// The shared state of all connections of a server.
struct ServerState {
    limits: Limits,
    entrance: Entrance,
    answers: Arc<Answers>,
    router: Router,
    quick: Option<QuickAnswer>,
    timed_out: fn() -> Response,
}

/// Serves one connection until it ends.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    terms: ServerState,
    stop: watch::Receiver<bool>,
) {
    // Answers are written whole, so that waiting for more data would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is already gone");
    }
    let ends = Ends { peer, local: stream.local_addr().ok().map(|addr| addr.ip()) };
    let entrance = terms.entrance.clone();
    let entered = entrance.enter(stream, peer.ip(), terms.limits.header_timeout).await;
    let reset = match entered {
        None => return,
        Some(EnteredConnection::Plain(stream)) => match plain(stream, ends, terms, stop).await {
            None => return,
            Some(stream) => stream.set_zero_linger(),
        },
        Some(EnteredConnection::Tls(stream)) => match talk(stream, ends, terms, stop).await {
            None => return,
            Some(stream) => stream.get_ref().0.set_zero_linger(),
        },
    };
    if let Err(error) = reset {
        tracing::debug!(%error, "the connection could not be set to discard unsent data");
    }
}

/// Serves one connection without TLS until it ends, its first requests quickly. Returns it if it has to be reset.
async fn plain(
    mut stream: TcpStream,
    ends: Ends,
    terms: ServerState,
    mut stop: watch::Receiver<bool>,
) -> Option<TcpStream> {
    let Some(answer) = &terms.quick else { return talk(stream, ends, terms, stop).await };
    let patience = terms.limits.header_timeout;
    match quick::converse(&mut stream, ends, answer, patience, &mut stop).await {
        QuickEnd::Closed => None,
        QuickEnd::Unread => Some(stream),
        QuickEnd::Other(read) => {
            let stream = Rewound::new(read, stream);
            talk(stream, ends, terms, stop).await.map(Rewound::into_inner)
        }
    }
}

/// Serves one connection until it ends. Returns it if it has to be reset, because a client that does not read would
/// leave the system with megabytes to send.
async fn talk<I>(
    stream: I,
    ends: Ends,
    terms: ServerState,
    mut stop: watch::Receiver<bool>,
) -> Option<I>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ServerState { limits, entrance, answers, router, timed_out, .. } = terms;
    let proxies = entrance.proxies;
    let progress = ReadProgress::new();
    let lasting = Lasting::of(ends.peer.ip(), &answers, &progress);
    let (extension, watched) = (lasting.clone(), Arc::clone(&progress));
    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let mut request = request.map(Body::new);
        let client = proxies.client(ends.peer, request.headers());
        let ends = Ends { peer: client.unwrap_or(ends.peer), ..ends };
        request.extensions_mut().insert(ends);
        request.extensions_mut().insert(extension.clone());
        let (answers, progress, lasting) =
            (Arc::clone(&answers), Arc::clone(&watched), extension.clone());
        async move {
            let answer = tokio::time::timeout(limits.request_timeout, router.oneshot(request));
            let response = match client {
                // The client must not be treated as the proxy itself.
                Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
                Ok(_) => match answer.await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_) => timed_out(),
                },
            };
            let response = answers.admit(ends.peer.ip(), &progress, &lasting, response);
            Ok::<Response, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(WatchedConnection::new(stream, Arc::clone(&progress))),
            answer,
        );
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = lasting.closed() => return Some(connection.into_parts().io.into_inner().into_inner()),
        () = progress.unread() => {
            return Some(connection.into_parts().io.into_inner().into_inner());
        }
        () = too_old(&lasting) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            // A client that still does not read its answer does not want it.
            tokio::time::timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
        }
        _ = stop.changed() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    None
}

/// Waits until a connection has reached its maximum age and is not kept open.
async fn too_old(lasting: &Lasting) {
    loop {
        tokio::time::sleep(MAX_AGE).await;
        if !lasting.is_kept() {
            return;
        }
    }
}

/// Whether a connection is kept open or closed.
#[derive(Debug, Default)]
struct ConnectionHold {
    kept: AtomicBool,
    close: Notify,
    /// `None` in an instance that only waits for [`Lasting::close`].
    connection: Option<AnswerConnection>,
}

/// The connection of an answer.
#[derive(Debug)]
struct AnswerConnection {
    client: IpAddr,
    answers: Arc<Answers>,
    progress: Arc<ReadProgress>,
}

/// The place of one open connection.
struct ConnectionPlace {
    connections: Arc<Connections>,
    /// `None` for a proxy.
    peer: Option<SocketAddr>,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut shares = self.connections.shares.lock();
        match self.peer {
            Some(peer) => shares.give_back(peer),
            None => shares.give_back_shared(),
        }
    }
}

/// The maximum length of a request's head. The longest scrape has 7,100 bytes, and clients send a few hundred more.
const MAX_HEADER: usize = 8 * 1024;

/// The buffer size of a connection: for a head or a part of a body.
const MAX_BUFFER: usize = 64 * 1024;

/// The maximum number of header fields in a request. Browsers send about 20.
const MAX_HEADERS: usize = 64;

/// The maximum age of a connection, even if it is busy. Long enough for 10 MiB at 17 KiB/s, and it ends connections
/// that are not read.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The time for the answer under way when a connection has reached its maximum age.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// The time for requests under way when the server stops.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

/// The time between two checks of the certificate's files.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use axum::Extension;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    const LIMITS: Limits = Limits {
        max_connections: 3,
        max_connections_per_ip: 1,
        header_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
    };

    #[test]
    fn a_connection_takes_a_place_until_it_ends() {
        let connections = Connections::new(LIMITS);
        let take = |addr: &str| connections.take(addr.parse().unwrap());
        let first = take("192.0.2.1:1");
        assert!(first.is_some() && take("192.0.2.1:2").is_none());
        let second = take("192.0.2.2:1");
        assert_eq!(connections.open(), 2);
        drop((first, second));
        assert_eq!(connections.open(), 0);
        assert!(take("192.0.2.1:2").is_some());
    }

    const ENDS: Ends =
        Ends { peer: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1), local: None };

    fn terms(router: Router) -> ServerState {
        let timed_out = || Response::new(Body::empty());
        let entrance = Entrance::default();
        ServerState {
            limits: LIMITS,
            entrance,
            answers: Answers::new(),
            router,
            quick: None,
            timed_out,
        }
    }

    /// Serves a stream that sends `chunk` bytes at a time for as long as it may. Returns the client's end of the
    /// connection, and whether the server's end had to be reset.
    fn stream_of(
        chunk: usize,
    ) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<bool>, watch::Sender<bool>) {
        let events = move |Extension(lasting): Extension<Lasting>| async move {
            let (teller, response) = event_stream(lasting);
            tokio::spawn(async move { while teller.tell(vec![b'x'; chunk]).await.is_ok() {} });
            response
        };
        let router = Router::new().route("/events", axum::routing::get(events));
        let (near, far) = tokio::io::duplex(1024);
        let (stop, stopped) = watch::channel(false);
        let served = async move { talk(far, ENDS, terms(router), stopped).await.is_some() };
        (near, tokio::spawn(served), stop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_not_read_is_closed() {
        let (mut near, served, _stop) = stream_of(10_000);
        near.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        assert!(served.await.unwrap(), "it was to be reset");
        assert!(begun.elapsed() < Duration::from_secs(61), "{:?}", begun.elapsed());
        // Only the data under way arrives. The connection ends, but the answer has no end.
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        assert!(got.starts_with(b"HTTP/1.1 200") && got.len() <= 1024, "{}", got.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_read_slowly_stays() {
        let (mut near, served, _stop) = stream_of(5 << 20);
        near.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // 40 KiB a second: more than 2 minutes for one event, and longer than connections live.
        let mut part = vec![0; 40 * 1024];
        for _ in 0..700 {
            near.read_exact(&mut part).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(!served.is_finished());
        // The client reads nothing from now on.
        assert!(served.await.unwrap());
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_is_reset() {
        let events = async |Extension(lasting): Extension<Lasting>| {
            let (teller, response) = event_stream(lasting.clone());
            assert_eq!(teller.tell("data: 1\n\n").await, Ok(()));
            lasting.close();
            // Leaves without ending the stream.
            tokio::spawn(async move { teller.left().await });
            response
        };
        let router = Router::new().route("/events", axum::routing::get(events));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, peer) = listener.accept().await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        near.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        converse(far, peer, terms(router), stopped).await;
        let error = near.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_the_end_of_a_stream_is_not_waited_for() {
        let events = async |Extension(lasting): Extension<Lasting>| {
            let (teller, response) = event_stream(lasting);
            assert_eq!(teller.tell(vec![b'x'; 1 << 20]).await, Ok(()));
            response
        };
        let router = Router::new().route("/events", axum::routing::get(events));
        let (mut near, far) = tokio::io::duplex(1024);
        let (_stop, stopped) = watch::channel(false);
        near.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(talk(far, ENDS, terms(router), stopped).await.is_some(), "it was to be reset");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_any_length_that_is_not_read_ends_its_connection() {
        for len in [2_000, 60_000, 5 << 20] {
            let answer = async move || vec![b'x'; len];
            let router = Router::new().route("/", axum::routing::get(answer));
            let (mut near, far) = tokio::io::duplex(1024);
            let (_stop, stopped) = watch::channel(false);
            near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let begun = Instant::now();
            let terms = terms(router);
            let answers = Arc::clone(&terms.answers);
            assert!(talk(far, ENDS, terms, stopped).await.is_some(), "{len}");
            assert!(begun.elapsed() < Duration::from_secs(61), "{:?}", begun.elapsed());
            assert_eq!(answers.bytes(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_that_is_read_slowly_comes_whole() {
        let answer = async || vec![b'x'; 5 << 20];
        let router = Router::new().route("/", axum::routing::get(answer));
        let (mut near, far) = tokio::io::duplex(1024);
        let (_stop, stopped) = watch::channel(false);
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let served = tokio::spawn(talk(far, ENDS, terms(router), stopped));
        let mut got = 0;
        let mut part = vec![0; 40 * 1024];
        loop {
            let read = near.read(&mut part).await.unwrap();
            if read == 0 {
                break;
            }
            got += read;
            // 25 KiB a second.
            tokio::time::advance(Duration::from_millis(read as u64 / 25)).await;
        }
        assert!(got > 5 << 20 && got < (5 << 20) + 1_000, "{got}");
        assert!(served.await.unwrap().is_none());
    }
}
