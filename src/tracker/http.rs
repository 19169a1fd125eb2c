//! HTTP connections: accepted within bounds, each with a time for everything.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::routes;
use super::service::Service;

/// The two ends of a request's connection.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub peer: SocketAddr,
    pub local: Option<IpAddr>,
}

/// Accepts connections until told to stop, then lets those under way end.
pub(super) async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    let router = routes::router(Arc::clone(&service));
    let open = Arc::new(Open::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = open.take(peer.ip(), &service) else {
                    service.counters.http_rejected.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let connection =
                    converse(stream, peer, Arc::clone(&service), router.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file handles, mostly: without a pause this would spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_TIME, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves one connection to its end.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<Service>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is already gone");
    }
    let ends = Ends { peer, local: stream.local_addr().ok().map(|addr| addr.ip()) };
    let request_timeout = service.config.request_timeout;
    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ends);
        async move {
            let answer = tokio::time::timeout(request_timeout, router.oneshot(request)).await;
            Ok::<Response, Infallible>(match answer {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => routes::fault(StatusCode::REQUEST_TIMEOUT, "the request took too long")
                    .into_response(),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.config.header_timeout)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(MAX_AGE) => {
            connection.as_mut().graceful_shutdown();
            // Who still does not read its answer does not want it.
            tokio::time::timeout(request_timeout, connection).await.unwrap_or(Ok(()))
        }
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Connections that are open, in all and from each address.
#[derive(Default)]
struct Open {
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// One open connection's place.
struct Place {
    open: Arc<Open>,
    service: Arc<Service>,
    ip: IpAddr,
}

impl Open {
    /// A place for a connection from `ip`, if there is one.
    fn take(self: &Arc<Self>, ip: IpAddr, service: &Arc<Service>) -> Option<Place> {
        let ip = network_of(ip);
        let config = &service.config;
        let mut by_ip = self.by_ip.lock();
        let all = &service.counters.http_connections;
        if all.load(Ordering::Relaxed) >= config.max_connections as u64 {
            return None;
        }
        let here = by_ip.entry(ip).or_default();
        if *here >= config.max_connections_per_ip && !ip.is_loopback() {
            return None;
        }
        *here += 1;
        all.fetch_add(1, Ordering::Relaxed);
        Some(Place { open: Arc::clone(self), service: Arc::clone(service), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_ip = self.open.by_ip.lock();
        if let Some(here) = by_ip.get_mut(&self.ip) {
            *here -= 1;
            if *here == 0 {
                by_ip.remove(&self.ip);
            }
        }
        self.service.counters.http_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one subscriber holds: an IPv4 address, or an IPv6 /64.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let [a, b, c, d, ..] = ip.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        ip => ip,
    }
}

/// Bytes of a request's head. The longest scrape has 7,100; clients send a few hundred more.
const MAX_HEADER: usize = 8 * 1024;

/// Bytes a connection buffers: a head, or a part of a body.
const MAX_BUFFER: usize = 64 * 1024;

/// Header fields of a request; browsers send about 20.
const MAX_HEADERS: usize = 64;

/// How long a connection lives, however busy: long enough for 10 MiB at 17 KiB a second, and an end
/// for those who do not read what they asked for.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How long requests under way may take when the tracker ends.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
