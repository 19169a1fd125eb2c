//! Transmission's RPC over the daemon, so that every remote made for Transmission drives it: both
//! the JSON-RPC 2.0 of Transmission 4.1 and what came before. `docs/transmission-rpc.md` says of
//! every method and field whether it is real, constant or refused.
//!
//! ```text
//! HTTP ──▶ here: session id ──▶ protocol: dialects ──▶ core: methods ──▶ daemon
//!                                  names: spelling      fields, torrent_set, torrent_add, session,
//!                                                       trackers, limits, groups: what means what
//! ```

mod arguments;
mod core;
mod fault;
mod fields;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod groups;
mod ids;
mod limits;
mod memory;
mod method;
mod names;
pub(super) mod page;
mod protocol;
mod rows;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code))]
pub(super) mod samples;
mod session;
mod session_id;
mod torrent_add;
mod torrent_set;
mod trackers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::sync::watch;

use self::core::Rpc;
use super::receive::{self, Bodies};
use piecework_daemon::{Caller, Daemon};
use piecework_http::{Lasting, answer_as_written};

/// The routes `/transmission/rpc` and `/transmission/rpc/`. A guard must stand before them, for
/// hosts, origins and the password; the session id is dealt with here. Who wants the daemon to end
/// is passed on to `ask`. A body must come within `body_timeout`,
/// and a large one waits until there is one of the places of `bodies`.
pub(super) fn router(
    daemon: Daemon,
    ask: watch::Sender<bool>,
    body_timeout: Duration,
    bodies: Arc<Bodies>,
) -> Router {
    let way = Way { rpc: Arc::new(Rpc::new(daemon, ask)), body_timeout, bodies };
    // Who gives transmission-remote an address as its help shows them, with a slash at the end, has
    // it ask for the last of these.
    let paths = ["/transmission/rpc", "/transmission/rpc/", "/transmission//rpc/"];
    let add = |router: Router<Way>, path| router.route(path, any(serve));
    paths.into_iter().fold(Router::new(), add).with_state(way)
}

#[derive(Clone)]
struct Way {
    rpc: Arc<Rpc>,
    body_timeout: Duration,
    /// Places for large bodies.
    bodies: Arc<Bodies>,
}

async fn serve(State(way): State<Way>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Way { rpc, body_timeout, bodies } = way;
    // The guard always says; what has not passed it has a guest's rights.
    let caller = parts.extensions.get().copied().unwrap_or(Caller::Guest);
    let rpc = rpc.for_caller(caller);
    let length =
        parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let most = receive::most_bytes(length, caller);
    if length.is_some_and(|length| length > most as u64) {
        let text = format!("a request may have {} MiB\n", most >> 20);
        return (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    if !brings_session_id(&rpc, &parts.headers) {
        // Whoever is still sending would not hear us before all is taken.
        receive::discard(body, most, body_timeout).await;
        return conflict(&rpc.session_id());
    }
    if parts.method != Method::POST {
        let allow = [(ALLOW, HeaderValue::from_static("POST"))];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "requests are sent by POST\n")
            .into_response();
    }
    // Kept while what is read of the body lives.
    let place = match length {
        Some(0..=SMALL) => None,
        _ => Some(bodies.place(length, caller).await),
    };
    let body = match receive::bytes(body, most, body_timeout).await {
        Ok(body) => body,
        Err(fault) => return fault.into_response(),
    };
    // The server always says; tests of single routes do not.
    let lasting = parts.extensions.get::<Lasting>().cloned().unwrap_or_default();
    answer_as_written(lasting, &parts.headers, JSON, |out| async move {
        protocol::answer(body, place, &rpc, out).await;
    })
    .await
}

fn brings_session_id(rpc: &Rpc, headers: &HeaderMap) -> bool {
    headers.get(&SESSION_ID).is_some_and(|given| rpc.accepts(given.as_bytes()))
}

/// Tells the session id to whoever can read it.
fn conflict(session_id: &str) -> Response {
    let mut headers = HeaderMap::new();
    // Letters and digits: always a header's value.
    if let Ok(value) = HeaderValue::from_str(session_id) {
        headers.insert(SESSION_ID, value);
    }
    headers.insert(RPC_VERSION, HeaderValue::from_static(session::RPC_VERSION_SEMVER));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    // Some clients find the id here.
    let page = format!(
        "<h1>409: Conflict</h1><p>Send the request again with this header, which keeps pages of \
         other sites from sending requests:</p><p><code>X-Transmission-Session-Id: {session_id}\
         </code></p>\n"
    );
    (StatusCode::CONFLICT, headers, page).into_response()
}

const SESSION_ID: HeaderName = HeaderName::from_static("x-transmission-session-id");
const RPC_VERSION: HeaderName = HeaderName::from_static("x-transmission-rpc-version");

const JSON: &str = "application/json; charset=UTF-8";

/// Bytes of a request that needs no place among the large ones.
const SMALL: u64 = receive::SMALL_BODY as u64;
