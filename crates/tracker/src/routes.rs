//! What is asked over HTTP, and how it is answered.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, FromRequestParts, Path, RawQuery, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::bittorrent_routes::{self, Asked};
use super::catalogue::Entry;
use super::figures;
use super::finder::FoundPeers;
use super::parts;
use super::service::{CatalogueRefusal, Service};
use super::swarm_routes;
use super::views::{Files, Request as LoggedRequest, Stats};
use piecework_core::{InfoHash, printable};
use piecework_http::metrics;
use piecework_http::web;
use piecework_http::{Ends, Lasting, SiteRule};
use piecework_journal::{RequestEvent, RequestRecord, Via};
use piecework_proto::announce::catalogue::{
    BatchAnswer, BatchOutcome, BatchedHoldings, CatalogueFault, HoldingsBatch, HoldingsReport,
    MAX_BATCH, MAX_BATCH_LEN, MAX_TORRENT_LEN, MAX_UPLOAD_LEN, RegisterOptions,
};
use piecework_registry::Refusal;

/// Why a request gets nothing: a status, and a sentence.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    error: String,
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// What the routes share.
#[derive(Clone)]
pub(super) struct Context {
    pub service: Arc<Service>,
    /// Bodies being received: each may be 16 MiB.
    bodies: Arc<Semaphore>,
    /// The same of the operator's, which may be 100 MiB.
    huge_bodies: Arc<Semaphore>,
    /// Long answers being made.
    reports: Arc<Semaphore>,
    sites: Arc<SiteRule>,
    /// The tracker is ending.
    pub stop: watch::Receiver<bool>,
}

/// All that can be asked.
pub(super) fn router(service: Arc<Service>, stop: watch::Receiver<bool>) -> Router {
    let context = Context {
        sites: Arc::new(SiteRule::new(&service.config.host_names)),
        service,
        bodies: Arc::new(Semaphore::new(MAX_BODIES)),
        huge_bodies: Arc::new(Semaphore::new(1)),
        reports: Arc::new(Semaphore::new(MAX_REPORTS)),
        stop,
    };
    let guarded = Router::new()
        .route("/", get(front))
        .route("/torrents", get(list).post(register))
        .route("/torrents/{info_hash}", get(fetch).patch(change).delete(remove))
        .route("/torrents/{info_hash}/holdings", post(holdings))
        .route("/holdings", post(holdings_batch))
        .route("/logs/requests", get(request_logs))
        .route("/logs/files", get(all_file_logs))
        .route("/logs/files/{name}", get(file_logs))
        .route("/peers", get(find_peers))
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .merge(swarm_routes::routes())
        .merge(web::router(web::Page::Tracker))
        .fallback(async || fault(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            fault(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .layer(from_fn_with_state(context.clone(), check_site));
    // BitTorrent's own requests are no browser's business, and come by any name.
    let announce = any(async |State(context): State<Context>, request: Request| {
        bittorrent_routes::answer(&context.service, Asked::Announce, &request.into_parts().0)
    });
    let scrape = any(async |State(context): State<Context>, request: Request| {
        bittorrent_routes::answer(&context.service, Asked::Scrape, &request.into_parts().0)
    });
    guarded.route("/announce", announce).route("/scrape", scrape).with_state(context)
}

/// Refuses what pages of other sites send, and what is asked by a name that is not the tracker's.
/// Clients of BitTorrent, whichever address they found, are answered before that.
async fn check_site(State(context): State<Context>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(asked) = Asked::of(parts.uri.path(), parts.uri.query()) {
        return bittorrent_routes::answer(&context.service, asked, &parts);
    }
    let local = parts.extensions.get::<Ends>().and_then(|ends| ends.local);
    let mut response = match context.sites.check_shared(&parts, local) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => fault(refusal.status(), refusal.to_string()).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A request gets nothing.
pub(super) fn fault(status: StatusCode, error: impl Into<String>) -> Fault {
    Fault { status, error: error.into() }
}

/// The answer to a request that took too long.
pub(super) fn timed_out() -> Response {
    fault(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response()
}

async fn front(headers: HeaderMap) -> Response {
    if web::is_wanted(&headers) {
        return web::redirect();
    }
    let text = concat!("Piecework tracker ", env!("CARGO_PKG_VERSION"), "\n");
    ([(CONTENT_TYPE, "text/plain")], text).into_response()
}

async fn list(
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    Extension(lasting): Extension<Lasting>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let name = query_value(&query, "name");
    let open = blocking_report(&context, move |service| {
        let mut entries = match &name {
            Some(name) => service.catalogue.named(name),
            None => service.catalogue.all(),
        };
        entries.retain(|entry| !entry.unlisted);
        entries.truncate(MAX_LISTED);
        if let (Some(name), true) = (&name, entries.is_empty()) {
            service.not_found(ends.peer, name);
        }
        entries
    })
    .await?;
    let listed = |service: &Service, entry: &Arc<Entry>| Some(service.listed(entry));
    let list = parts::Array::new("{\"torrents\":[", open, "]}".to_owned(), listed);
    Ok(parts::answer(&context, lasting, list).await?.unwrap_or_default())
}

async fn register(
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let refused = |fault: &Fault| {
        let (event, why) = (RequestEvent::Register, fault.error.clone());
        context.service.refused(ends.peer, event, None, Via::Http, why);
    };
    let options = RegisterOptions::decode_query(&query.unwrap_or_default())
        .map_err(|error| fault(StatusCode::BAD_REQUEST, error.to_string()))
        .inspect_err(refused)?;
    let is_operators = context.service.is_operator(token_in(&headers).as_deref());
    let len = HttpBody::size_hint(&body).exact().unwrap_or(0);
    let is_huge = is_operators && len > MAX_UPLOAD_LEN as u64;
    let limit = if is_huge { MAX_TORRENT_LEN } else { MAX_UPLOAD_LEN };
    let _place = place(if is_huge { &context.huge_bodies } else { &context.bodies }).await?;
    let received = receive(body, limit).await.map_err(|fault| match fault.status {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(len, limit),
        _ => fault,
    });
    let torrent = received.inspect_err(refused)?;
    let service = Arc::clone(&context.service);
    let (registered, new) =
        blocking(move || service.register(ends.peer, &torrent, options)).await??;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &registered))
}

/// The answer to a `.torrent` that is not taken for its length.
fn too_large(len: u64, limit: usize) -> Fault {
    // Who sends it in parts does not say how long it is.
    let len = if len > 0 { format!("`{len}` bytes, ") } else { String::new() };
    let beyond = match limit {
        MAX_UPLOAD_LEN => {
            format!(
                "; up to `{MAX_TORRENT_LEN}` are taken with the operator's token, or from the \
                 tracker's folder"
            )
        }
        _ => String::new(),
    };
    let error = format!("the `.torrent` has {len}more than the `{limit}` bytes taken{beyond}");
    fault(StatusCode::PAYLOAD_TOO_LARGE, error)
}

async fn fetch(
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    Segment(info_hash): Segment,
) -> Result<Response> {
    let info_hash = parse_hash(&info_hash)?;
    let _place = place(&context.reports).await?;
    let service = Arc::clone(&context.service);
    let bytes = blocking(move || service.fetch(ends.peer, info_hash)).await??;
    Ok(([(CONTENT_TYPE, "application/x-bittorrent")], bytes).into_response())
}

async fn remove(
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    Segment(info_hash): Segment,
    headers: HeaderMap,
) -> Result<StatusCode> {
    let token = token_in(&headers);
    let info_hash = match parse_hash(&info_hash) {
        Ok(info_hash) => info_hash,
        // By its name the operator alone removes one: others have the answer to registering it.
        Err(_) if context.service.is_operator(token.as_deref()) => {
            the_only_one(&context.service, &info_hash)?
        }
        Err(fault) => return Err(fault),
    };
    let service = Arc::clone(&context.service);
    blocking(move || service.remove(ends.peer, info_hash, token.as_deref())).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// The torrent of that name, if there is one and no more.
fn the_only_one(service: &Service, name: &str) -> Result<InfoHash> {
    let named = service.catalogue.named(name);
    match &named[..] {
        [entry] => Ok(entry.info_hash),
        [] => {
            let error = format!("no file named `{}` is known to this tracker", printable(name));
            Err(fault(StatusCode::NOT_FOUND, error))
        }
        several => {
            let hashes: Vec<String> =
                several.iter().take(10).map(|entry| format!("`{}`", entry.info_hash)).collect();
            let (name, hashes) = (printable(name), hashes.join(", "));
            let error = format!("several torrents are named `{name}`: say which of {hashes}");
            Err(fault(StatusCode::CONFLICT, error))
        }
    }
}

async fn change(
    State(context): State<Context>,
    Segment(info_hash): Segment,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode> {
    let info_hash = parse_hash(&info_hash)?;
    let token = token_in(&headers);
    let observe = match query_value(&query, "observe").as_deref() {
        Some("1" | "true") => true,
        Some("0" | "false") => false,
        _ => {
            let error = "say what is to change: `?observe=true` or `?observe=false`";
            return Err(fault(StatusCode::BAD_REQUEST, error));
        }
    };
    let service = Arc::clone(&context.service);
    blocking(move || service.set_observe(info_hash, token.as_deref(), observe)).await??;
    Ok(StatusCode::NO_CONTENT)
}

async fn holdings(
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    Segment(info_hash): Segment,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<StatusCode> {
    let info_hash = parse_hash(&info_hash)?;
    let report = HoldingsReport::decode_query(&query.unwrap_or_default())
        .map_err(|error| fault(StatusCode::BAD_REQUEST, error.to_string()))?;
    let entry = context.service.catalogue.get(info_hash);
    let pieces = entry.ok_or(CatalogueRefusal::Unknown(info_hash))?.pieces;
    let bitfield = receive(body, pieces.div_ceil(8) as usize).await?;
    context.service.report_holdings(ends.peer, info_hash, &report, &bitfield)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn holdings_batch(
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response> {
    let bad = |error: String| fault(StatusCode::BAD_REQUEST, error);
    let (peer_id, port) = HoldingsReport::decode_batch_query(&query.unwrap_or_default())
        .map_err(|error| bad(error.to_string()))?;
    let body = receive(body, MAX_BATCH_LEN).await?;
    let service = Arc::clone(&context.service);
    blocking(move || {
        let batch: HoldingsBatch = serde_json::from_slice(&body)
            .map_err(|error| bad(format!("the body is no batch of reports: {error}")))?;
        let count = batch.torrents.len();
        if count > MAX_BATCH {
            let error =
                format!("`{count}` reports are more than the `{MAX_BATCH}` taken at a time");
            return Err(fault(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        let outcome = |report: &BatchedHoldings| {
            let refusal = service.report_batched(ends.peer, (peer_id, port), report).err();
            let refusal = refusal.map(Fault::from);
            BatchOutcome {
                info_hash: report.info_hash,
                status: refusal.as_ref().map_or(StatusCode::NO_CONTENT, |f| f.status).as_u16(),
                error: refusal.map(|fault| fault.error),
            }
        };
        let torrents = batch.torrents.iter().map(outcome).collect();
        Ok(json(StatusCode::OK, &BatchAnswer { torrents }))
    })
    .await?
}

async fn request_logs(
    State(context): State<Context>,
    Extension(lasting): Extension<Lasting>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let limit = match query_value(&query, "limit") {
        None => DEFAULT_REQUESTS,
        Some(text) => text.parse().map_err(|_| {
            let text = printable(&text).chars().take(40).collect::<String>();
            fault(StatusCode::BAD_REQUEST, format!("`limit` is `{text}`, not a number"))
        })?,
    };
    let log = context.service.log.last(limit.min(MAX_REQUESTS));
    let more = context.service.log.len().saturating_sub(log.len());
    let tail = format!("],\"more\":{more},\"dropped\":{}}}", context.service.log.dropped());
    let open =
        |service: &Service, record: &Arc<RequestRecord>| LoggedRequest::open(service, record);
    let log = parts::Array::new("{\"requests\":[", log, tail, open);
    Ok(parts::answer(&context, lasting, log).await?.unwrap_or_default())
}

async fn all_file_logs(State(context): State<Context>) -> Result<Response> {
    report(&context, |service| {
        let mut entries = service.catalogue.all();
        entries.retain(|entry| !entry.unlisted);
        json(StatusCode::OK, &Files::of(service, &entries))
    })
    .await
}

async fn file_logs(State(context): State<Context>, Segment(name): Segment) -> Result<Response> {
    report(&context, move |service| {
        let mut entries = service.catalogue.lookup(&name);
        // Who has the info-hash of an unlisted torrent may ask about it; its name is a guess.
        entries.retain(|entry| !entry.unlisted || name.parse() == Ok(entry.info_hash));
        if entries.is_empty() {
            let name = printable(&name);
            let error = format!("no file named `{name}` is known to this tracker");
            return fault(StatusCode::NOT_FOUND, error).into_response();
        }
        json(StatusCode::OK, &Files::of(service, &entries))
    })
    .await
}

async fn find_peers(State(context): State<Context>, RawQuery(query): RawQuery) -> Result<Response> {
    let text = query_value(&query, "find").unwrap_or_default();
    let len = text.trim().chars().count();
    if !(FIND_FROM..=FIND_TO).contains(&len) {
        let error = format!(
            "say what is to be found: `?find=` and `{FIND_FROM}` to `{FIND_TO}` characters of an \
             address or a client's name"
        );
        return Err(fault(StatusCode::BAD_REQUEST, error));
    }
    report(&context, move |service| json(StatusCode::OK, &FoundPeers::of(service, text.trim())))
        .await
}

async fn stats(State(context): State<Context>) -> Result<Response> {
    report(&context, |service| json(StatusCode::OK, &Stats::of(service))).await
}

async fn metrics(State(context): State<Context>) -> Result<Response> {
    report(&context, |service| {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], figures::page(service)).into_response()
    })
    .await
}

/// Makes an answer that may take a while where that holds up nobody.
pub(super) async fn report(
    context: &Context,
    make: impl FnOnce(&Service) -> Response + Send + 'static,
) -> Result<Response> {
    blocking_report(context, make).await
}

/// The same of anything.
pub(super) async fn blocking_report<T: Send + 'static>(
    context: &Context,
    make: impl FnOnce(&Service) -> T + Send + 'static,
) -> Result<T> {
    let _place = place(&context.reports).await?;
    let service = Arc::clone(&context.service);
    blocking(move || make(&service)).await
}

async fn place(places: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>> {
    // It is never closed.
    places
        .acquire()
        .await
        .map_err(|_| fault(StatusCode::SERVICE_UNAVAILABLE, "this tracker is shutting down"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request could not be handled");
        fault(StatusCode::INTERNAL_SERVER_ERROR, "the tracker failed at this request")
    })
}

/// A request's body, if it has at most `limit` bytes.
async fn receive(body: Body, limit: usize) -> Result<Bytes> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        // What is not the connection's fault is the limit's.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<hyper::Error>() {
                return fault(StatusCode::BAD_REQUEST, "the body did not come whole");
            }
            cause = error.source();
        }
        let error = format!("the body has more than the `{limit}` bytes taken here");
        fault(StatusCode::PAYLOAD_TOO_LARGE, error)
    })
}

pub(super) fn parse_hash(text: &str) -> Result<InfoHash> {
    text.parse()
        .map_err(|error| fault(StatusCode::BAD_REQUEST, format!("{error}, as an info-hash is")))
}

/// The first value of a key in a query.
fn query_value(query: &Option<String>, key: &str) -> Option<String> {
    let query = query.as_deref()?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

/// The token that a request shows.
fn token_in(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The variable part of an address, decoded.
pub(super) struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(_) => Err(fault(StatusCode::BAD_REQUEST, "the address is not UTF-8")),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        json(self.status, &CatalogueFault { error: self.error })
    }
}

impl From<CatalogueRefusal> for Fault {
    fn from(refusal: CatalogueRefusal) -> Self {
        let status = match &refusal {
            CatalogueRefusal::BadTorrent(_) | CatalogueRefusal::BadReport => {
                StatusCode::BAD_REQUEST
            }
            CatalogueRefusal::Unknown(_) => StatusCode::NOT_FOUND,
            CatalogueRefusal::WrongToken => StatusCode::FORBIDDEN,
            CatalogueRefusal::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            CatalogueRefusal::NotKept(_)
            | CatalogueRefusal::NotChanged(_)
            | CatalogueRefusal::NotRemoved(_)
            | CatalogueRefusal::NotRead(_)
            | CatalogueRefusal::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
            CatalogueRefusal::Holdings(refusal) => match refusal {
                Refusal::BadBitfield(_) => StatusCode::BAD_REQUEST,
                Refusal::WrongKey => StatusCode::FORBIDDEN,
                // Not 404, which says that the torrent is not known: it may announce and try again.
                Refusal::UnknownPeer(_) => StatusCode::CONFLICT,
                Refusal::TooManyKeys => StatusCode::TOO_MANY_REQUESTS,
                Refusal::NotCatalogued => StatusCode::NOT_FOUND,
                Refusal::TooManyAtAddress(_) | Refusal::TooManyTorrents(_) | Refusal::Full => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
        };
        fault(status, refusal.to_string())
    }
}

/// Bodies received at a time: 256 MiB.
const MAX_BODIES: usize = 16;

/// Long answers made at a time.
const MAX_REPORTS: usize = 4;

/// Torrents in a list at most: some 30 MB, which are made as they are read.
const MAX_LISTED: usize = 100_000;

/// Characters of what peers are looked for by.
const FIND_FROM: usize = 3;
const FIND_TO: usize = 80;

/// Requests told if it is not said how many, and at most: with 50 peers each some 30 MB.
const DEFAULT_REQUESTS: usize = 1_000;
const MAX_REQUESTS: usize = 10_000;
