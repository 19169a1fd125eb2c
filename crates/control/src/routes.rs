//! The native API: every address, and what the daemon is asked for it. `docs/api.md` describes it.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Extension, FromRequestParts, RawQuery};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use super::answer::{Failure, Result, bad, fault, json};
use super::config::ControlConfig;
use super::receive::{self, Bodies, SMALL_BODY, Segment, Segments, optional, query, value_or};
use super::{events, figures, listing};
use piecework_api::{
    Added, Alive, BlockListAnswer, FolderUse, InspectRequest, LeechRequest, MoveRequest,
    PeersRequest, QueueAllRequest, QueueRequest, RemoveRequest, RenameRequest, SeedRequest,
    SettingsChange, TorrentChange,
};
use piecework_core::{InfoHash, printable};
use piecework_daemon::{Caller, Daemon, DaemonError, LogQuery};
use piecework_http::metrics;
use piecework_http::web;
use piecework_http::{Ends, Lasting, STREAMS_PER_IP, Streams};

/// What the routes share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) daemon: Daemon,
    started: Instant,
    body_timeout: Duration,
    /// Places for large bodies.
    bodies: Arc<Bodies>,
    /// Streams of events.
    streams: Arc<Streams>,
    /// Somebody asked the daemon to end.
    ask: watch::Sender<bool>,
    /// The control is closing.
    stop: watch::Receiver<bool>,
}

impl Context {
    pub(super) fn new(
        daemon: Daemon,
        config: &ControlConfig,
        ask: watch::Sender<bool>,
        stop: watch::Receiver<bool>,
        bodies: Arc<Bodies>,
    ) -> Self {
        Self {
            daemon,
            started: Instant::now(),
            body_timeout: config.body_timeout,
            bodies,
            streams: Streams::new(config.max_event_streams, STREAMS_PER_IP),
            ask,
            stop,
        }
    }
}

/// What the routes share, with the daemon as whoever asks may use it.
impl FromRequestParts<Context> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Context,
    ) -> std::result::Result<Self, Infallible> {
        // The guard always says; what has not passed it has a guest's rights.
        let caller = parts.extensions.get().copied().unwrap_or(Caller::Guest);
        Ok(Self { daemon: shared.daemon.for_caller(caller), ..shared.clone() })
    }
}

/// All that can be asked. The guard is not before it yet.
pub(super) fn router(context: Context) -> Router {
    Router::new()
        .route("/", get(alive))
        .route("/status", get(listing::status))
        .route("/events", get(listen))
        .route("/seed", post(seed))
        .route("/leech", post(leech))
        .route("/inspect", post(inspect))
        .route("/torrents", get(listing::catalogue))
        .route("/torrents/{info_hash}", get(listing::detail).patch(change).delete(remove))
        .route("/torrents/{info_hash}/peers", get(peers).post(add_peers))
        .route("/torrents/{info_hash}/pieces", get(listing::pieces))
        .route("/torrents/{info_hash}/files", get(listing::files))
        .route("/torrents/{info_hash}/trackers", get(trackers))
        .route("/torrents/{info_hash}/sources", get(sources))
        .route("/torrents/{info_hash}/log", get(log))
        .route("/torrents/{info_hash}/givers", get(listing::givers))
        .route("/torrents/{info_hash}/sent", get(sent))
        .route("/torrents/{info_hash}/pieces/{piece}", get(story))
        .route("/torrents/{info_hash}/bad", get(bad_pieces))
        .route("/torrents/{info_hash}/timeline", get(timeline))
        .route("/torrents/{info_hash}/torrent", get(listing::torrent))
        .route("/torrents/{info_hash}/pause", post(pause))
        .route("/torrents/{info_hash}/resume", post(resume))
        .route("/torrents/{info_hash}/start-now", post(start_now))
        .route("/torrents/{info_hash}/overwrite", post(overwrite))
        .route("/torrents/{info_hash}/recheck", post(recheck))
        .route("/torrents/{info_hash}/reannounce", post(reannounce))
        .route("/torrents/{info_hash}/move", post(move_data))
        .route("/torrents/{info_hash}/rename", post(rename))
        .route("/torrents/{info_hash}/queue", post(queue))
        .route("/queue", post(queue_all))
        .route("/settings", get(settings).patch(change_settings))
        .route("/free-space", get(free_space))
        .route("/folders", get(folders))
        .route("/test", post(test))
        .route("/block-list/reload", post(reload_block_list))
        .route("/shutdown", post(shutdown))
        .route("/metrics", get(metrics))
        .merge(web::router(web::Page::Daemon))
        .fallback(nothing_here)
        .method_not_allowed_fallback(async || {
            fault(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .with_state(context)
}

/// The answer at an address that there is not.
pub(super) async fn nothing_here() -> Response {
    let error = "there is nothing at this address; docs/api.md tells what there is";
    fault(StatusCode::NOT_FOUND, error).into_response()
}

pub(super) type Answer = Result<Response>;

async fn alive(context: Context, headers: HeaderMap) -> Response {
    if web::is_wanted(&headers) {
        return web::redirect();
    }
    json(
        StatusCode::OK,
        &Alive {
            program: "piecework".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: context.started.elapsed().as_secs(),
            peer_port: context.daemon.peer_port(),
            tracker: context.daemon.tracker().map(str::to_owned),
            owner: context.daemon.caller().is_owner(),
        },
    )
}

async fn listen(
    context: Context,
    Extension(ends): Extension<Ends>,
    Extension(lasting): Extension<Lasting>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let [torrent] = query(raw.as_deref(), ["torrent"])?;
    let only = torrent.map(|text| which(&context.daemon, &text)).transpose()?;
    let place = context
        .streams
        .take(ends.peer)
        .map_err(|refusal| fault(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()))?;
    let listener = match only {
        Some(info_hash) => context.daemon.listen_to(info_hash),
        None => context.daemon.listen(),
    };
    Ok(events::stream(listener, only, lasting, place, context.stop.clone()))
}

async fn seed(
    context: Context,
    lasting: Option<Extension<Lasting>>,
    RawQuery(raw): RawQuery,
    body: Body,
) -> Answer {
    let [wait] = query(raw.as_deref(), ["wait"])?;
    let wait = optional(wait, "wait", "`true` or `false`")?;
    context.daemon.must_own("sharing files")?;
    let request: SeedRequest = large(&context, body).await?;
    let wait = wait.or(request.wait).unwrap_or(true);
    let Context { daemon, .. } = context;
    let begun = carry_out(async move { daemon.begin_seed(request).await }).await?;
    if !wait {
        return Ok(json(StatusCode::ACCEPTED, &begun.listed));
    }
    if let Some(Extension(lasting)) = lasting {
        // Much to hash takes long.
        lasting.keep();
    }
    Ok(added(begun.done().await?))
}

async fn leech(context: Context, body: Body) -> Answer {
    let request: LeechRequest = large(&context, body).await?;
    let Context { daemon, .. } = context;
    carry_out(async move { daemon.leech(request).await }).await.map(added)
}

async fn inspect(context: Context, body: Body) -> Answer {
    let request: InspectRequest = large(&context, body).await?;
    Ok(json(StatusCode::OK, &context.daemon.inspect(request).await?))
}

async fn change(context: Context, Segment(text): Segment, body: Body) -> Answer {
    let change: TorrentChange = large(&context, body).await?;
    let (daemon, info_hash) = one(context, &text)?;
    let torrent = carry_out(async move { daemon.change(info_hash, change).await }).await?;
    Ok(json(StatusCode::OK, &torrent))
}

async fn remove(
    context: Context,
    Segment(text): Segment,
    RawQuery(raw): RawQuery,
    body: Body,
) -> Answer {
    let [delete_data, unregister] = query(raw.as_deref(), ["delete_data", "unregister"])?;
    let mut request: RemoveRequest = small(&context, body).await?;
    request.delete_data |= value_or(delete_data, "delete_data", "`true` or `false`", false)?;
    request.unregister |= value_or(unregister, "unregister", "`true` or `false`", false)?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.remove(info_hash, request).await }).await
}

async fn peers(context: Context, Segment(text): Segment) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.peers(info_hash).await?))
}

async fn add_peers(context: Context, Segment(text): Segment, body: Body) -> Answer {
    let PeersRequest { peers } = small(&context, body).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move {
        let peers = daemon.look_up_peers(&peers).await?;
        daemon.add_peers(info_hash, peers).await
    })
    .await
}

async fn trackers(context: Context, Segment(text): Segment) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.detail_without_files(info_hash).await?.trackers))
}

async fn sources(context: Context, Segment(text): Segment) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.sources(info_hash).await?))
}

async fn log(context: Context, Segment(text): Segment, RawQuery(raw): RawQuery) -> Answer {
    let [limit, after, peer, since] = query(raw.as_deref(), ["limit", "after", "peer", "since"])?;
    let query = LogQuery {
        limit: value_or(limit, "limit", "a number", DEFAULT_LOG)?.min(MAX_LOG),
        after: optional(after, "after", "a number")?,
        peer: optional(peer, "peer", "`IP:PORT`")?,
        since: optional(since, "since", "seconds since 1970")?,
    };
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.log(info_hash, query).await?))
}

async fn sent(context: Context, Segment(text): Segment, RawQuery(raw): RawQuery) -> Answer {
    let [after, taker] = query(raw.as_deref(), ["after", "taker"])?;
    let after = value_or(after, "after", "a number", 0)?;
    let taker = optional(taker, "taker", "the `id` of a taker")?;
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.sent(info_hash, after, taker).await?))
}

async fn story(context: Context, Segments([text, piece]): Segments) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    let piece = value_or(Some(piece), "piece", "a number", 0)?;
    Ok(json(StatusCode::OK, &context.daemon.story(info_hash, piece).await?))
}

async fn bad_pieces(context: Context, Segment(text): Segment) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.bad(info_hash).await?))
}

async fn timeline(context: Context, Segment(text): Segment, RawQuery(raw): RawQuery) -> Answer {
    let [buckets] = query(raw.as_deref(), ["buckets"])?;
    let buckets = value_or(buckets, "buckets", "a number", DEFAULT_BUCKETS)?;
    if !(1..=MAX_BUCKETS).contains(&buckets) {
        return Err(bad(format!("`buckets` is `{buckets}`: write 1 to {MAX_BUCKETS}")));
    }
    let info_hash = which(&context.daemon, &text)?;
    Ok(json(StatusCode::OK, &context.daemon.timeline(info_hash, buckets).await?))
}

async fn pause(context: Context, Segment(text): Segment, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.pause(info_hash).await }).await
}

async fn resume(context: Context, Segment(text): Segment, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.start_torrent(info_hash, false).await }).await
}

async fn overwrite(context: Context, Segment(text): Segment, body: Body) -> Answer {
    context.daemon.must_own("overwriting files")?;
    receive::nothing(body, context.body_timeout).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.overwrite(info_hash).await }).await
}

async fn start_now(context: Context, Segment(text): Segment, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.start_torrent(info_hash, true).await }).await
}

async fn recheck(context: Context, Segment(text): Segment, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.recheck(info_hash).await }).await
}

async fn reannounce(context: Context, Segment(text): Segment, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.reannounce(info_hash).await }).await
}

async fn move_data(context: Context, Segment(text): Segment, body: Body) -> Answer {
    context.daemon.must_own("moving files")?;
    let request: MoveRequest = small(&context, body).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.move_data(info_hash, request).await }).await
}

async fn rename(context: Context, Segment(text): Segment, body: Body) -> Answer {
    let request: RenameRequest = small(&context, body).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.rename(info_hash, request).await }).await
}

async fn queue(context: Context, Segment(text): Segment, body: Body) -> Answer {
    let QueueRequest { to } = small(&context, body).await?;
    let (daemon, info_hash) = one(context, &text)?;
    done(async move { daemon.move_in_queue(&[info_hash], to).await }).await
}

async fn queue_all(context: Context, body: Body) -> Answer {
    let QueueAllRequest { torrents, to } = large(&context, body).await?;
    let Context { daemon, .. } = context;
    done(async move { daemon.move_in_queue(&torrents, to).await }).await
}

async fn settings(context: Context) -> Response {
    json(StatusCode::OK, &context.daemon.settings())
}

async fn change_settings(context: Context, body: Body) -> Answer {
    context.daemon.must_own("changing settings")?;
    let change: SettingsChange = small(&context, body).await?;
    let Context { daemon, .. } = context;
    let settings = carry_out(async move { daemon.change_settings(change).await }).await?;
    Ok(json(StatusCode::OK, &settings))
}

async fn free_space(context: Context, RawQuery(raw): RawQuery) -> Answer {
    let [path] = query(raw.as_deref(), ["path"])?;
    let path = path.ok_or_else(|| bad("say which folder: `/free-space?path=…`"))?;
    Ok(json(StatusCode::OK, &context.daemon.free_space(Path::new(&path)).await?))
}

async fn folders(context: Context, RawQuery(raw): RawQuery) -> Answer {
    let [path, purpose] = query(raw.as_deref(), ["path", "for"])?;
    let purpose = match purpose.as_deref() {
        None | Some("output") => FolderUse::Output,
        Some("share") => FolderUse::Share,
        Some(other) => {
            let shown = printable(other);
            return Err(bad(format!("`for` is `{shown}`: write `output` or `share`")));
        }
    };
    Ok(json(StatusCode::OK, &context.daemon.folder_list(path.as_deref(), purpose).await?))
}

async fn test(context: Context, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    Ok(json(StatusCode::OK, &context.daemon.port_test().await))
}

async fn reload_block_list(context: Context, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    let Context { daemon, .. } = context;
    let ranges = carry_out(async move { daemon.reload_block_list().await }).await?;
    Ok(json(StatusCode::OK, &BlockListAnswer { ranges }))
}

async fn metrics(context: Context) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], figures::page(&context.daemon)).into_response()
}

async fn shutdown(context: Context, body: Body) -> Answer {
    receive::nothing(body, context.body_timeout).await?;
    context.ask.send_replace(true);
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Which torrent is meant: its info-hash, or at least [`MIN_PREFIX`] of its first digits if there is
/// only one that begins so.
pub(super) fn which(daemon: &Daemon, text: &str) -> Result<InfoHash> {
    if let Ok(info_hash) = text.parse() {
        return Ok(daemon.listed_as(info_hash));
    }
    let prefix = prefix(text)?;
    matching(daemon.hashes().into_iter(), &prefix)
}

fn prefix(text: &str) -> Result<String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || !(MIN_PREFIX..=40).contains(&text.len()) {
        let shown: String = printable(text).chars().take(48).collect();
        let error = format!(
            "`{shown}` is not an info-hash of forty hexadecimal digits, nor its first {MIN_PREFIX} \
             or more"
        );
        return Err(bad(error));
    }
    Ok(text.to_ascii_lowercase())
}

fn matching(hashes: impl Iterator<Item = InfoHash>, prefix: &str) -> Result<InfoHash> {
    let mut found = hashes.filter(|info_hash| info_hash.to_string().starts_with(prefix));
    match (found.next(), found.count()) {
        (Some(info_hash), 0) => Ok(info_hash),
        (Some(_), more) => {
            Err(bad(format!("`{prefix}` begins {} info-hashes: write more of it", more + 1)))
        }
        (None, _) => {
            let error = format!("there is no torrent here whose info-hash begins with `{prefix}`");
            Err(fault(StatusCode::NOT_FOUND, error))
        }
    }
}

fn one(context: Context, text: &str) -> Result<(Daemon, InfoHash)> {
    let info_hash = which(&context.daemon, text)?;
    Ok((context.daemon, info_hash))
}

async fn small<T: serde::de::DeserializeOwned>(context: &Context, body: Body) -> Result<T> {
    receive::json(body, SMALL_BODY, context.body_timeout).await
}

async fn large<T: serde::de::DeserializeOwned>(context: &Context, body: Body) -> Result<T> {
    let len = HttpBody::size_hint(&body).exact();
    let place = context.bodies.place(len, context.daemon.caller()).await;
    receive::json(body, place.limit, context.body_timeout).await
}

/// Does what was asked to its end, even if whoever asked hangs up half-way.
async fn carry_out<T: Send + 'static>(
    work: impl Future<Output = std::result::Result<T, DaemonError>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(error) => {
            tracing::error!(%error, "a request could not be handled");
            let error = "the daemon failed at this request; its log says more";
            Err(fault(StatusCode::INTERNAL_SERVER_ERROR, error))
        }
    }
}

/// The same for what answers nothing.
async fn done(
    work: impl Future<Output = std::result::Result<(), DaemonError>> + Send + 'static,
) -> Answer {
    carry_out(work).await.map(|()| StatusCode::NO_CONTENT.into_response())
}

fn added(added: Added) -> Response {
    json(if added.duplicate { StatusCode::OK } else { StatusCode::CREATED }, &added)
}

/// Hexadecimal digits of an info-hash at least: among 1,000 torrents, 1 in 66 such beginnings is
/// another's too.
const MIN_PREFIX: usize = 4;

/// Responses told if it is not said how many, and at most: some 7 MB, and 5 MB of JSON.
const DEFAULT_LOG: usize = 1_000;
const MAX_LOG: usize = 20_000;

/// Parts of a time line: as many as a wide screen has columns for.
const DEFAULT_BUCKETS: u32 = 100;
const MAX_BUCKETS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_is_found_by_the_beginning_of_its_info_hash() {
        let hash = |first: u8, second: u8| {
            let mut bytes = [0; 20];
            bytes[..3].copy_from_slice(&[0xab, first, second]);
            InfoHash(bytes)
        };
        let here = [hash(0xcd, 0x10), hash(0xcd, 0x20), hash(0xef, 0)];
        let find = |text: &str| matching(here.iter().copied(), &prefix(text)?);
        assert_eq!(find("ABEF").unwrap(), here[2]);
        assert_eq!(find("abcd1").unwrap(), here[0]);
        let ambiguous = find("abcd").unwrap_err();
        assert!(ambiguous.error.contains("2 info-hashes"), "{}", ambiguous.error);
        assert_eq!(find("0000").unwrap_err().status, 404);
        for bad in ["", "abc", "xyzw", "../settings", &"a".repeat(41)] {
            assert_eq!(find(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
