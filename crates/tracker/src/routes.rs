//! The HTTP routes of the tracker.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, RawQuery, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tokio::sync::watch;

use super::bittorrent_routes::{self, BitTorrentRequest};
use super::catalogue_torrent::CatalogueTorrent;
use super::context::{
    HttpFault, PathSegment, Result, RouteContext, answer_parts, blocking, blocking_report, fault,
    json, parse_hash, place, report,
};
use super::listing::listed;
use super::metrics;
use super::parts::ArrayAnswer;
use super::peer_search::PeerSearchAnswer;
use super::refusal::CatalogueRefusal;
use super::service::Service;
use super::stats::Stats;
use super::swarm_routes;
use super::views::{FilesAnswer, RequestView};
use piecework_core::{InfoHash, printable};
use piecework_http::web;
use piecework_http::{Ends, Lasting};
use piecework_journal::{RequestEvent, RequestRecord, Via};
use piecework_proto::announce::catalogue::{
    BatchAnswer, BatchOutcome, BatchedHoldings, HoldingsBatch, HoldingsReport, MAX_BATCH,
    MAX_BATCH_LEN, MAX_TORRENT_LEN, MAX_UPLOAD_LEN, RegisterOptions,
};

/// Returns the router with all routes.
pub(super) fn router(service: Arc<Service>, stop: watch::Receiver<bool>) -> Router {
    let context = RouteContext::new(service, stop);
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
    // BitTorrent requests do not come from browsers, and may use any host name.
    let announce = any(async |State(context): State<RouteContext>, request: Request| {
        bittorrent_routes::answer(
            &context.service.announces,
            &context.service.log,
            BitTorrentRequest::Announce,
            &request.into_parts().0,
        )
    });
    let scrape = any(async |State(context): State<RouteContext>, request: Request| {
        bittorrent_routes::answer(
            &context.service.announces,
            &context.service.log,
            BitTorrentRequest::Scrape,
            &request.into_parts().0,
        )
    });
    guarded.route("/announce", announce).route("/scrape", scrape).with_state(context)
}

/// Refuses requests from pages of other sites, and requests for a host name that is not the tracker's. Requests of
/// BitTorrent clients, at any path, are answered without this check.
async fn check_site(State(context): State<RouteContext>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(asked) = BitTorrentRequest::of(parts.uri.path(), parts.uri.query()) {
        return bittorrent_routes::answer(
            &context.service.announces,
            &context.service.log,
            asked,
            &parts,
        );
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

/// Returns the answer to a request that took too long.
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
    State(context): State<RouteContext>,
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
            service.registration.not_found(ends.peer, name);
        }
        entries
    })
    .await?;
    let swarms = Arc::clone(&context.service.swarms);
    let write = move |entry: &Arc<CatalogueTorrent>| Some(listed(&swarms, entry));
    let list = ArrayAnswer::new("{\"torrents\":[", open, "]}".to_owned(), write);
    Ok(answer_parts(&context, lasting, list).await?.unwrap_or_default())
}

async fn register(
    State(context): State<RouteContext>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let refused = |fault: &HttpFault| {
        let (event, why) = (RequestEvent::Register, fault.error.clone());
        context.service.log.refused(ends.peer, event, None, Via::Http, why);
    };
    let options = RegisterOptions::decode_query(&query.unwrap_or_default())
        .map_err(|error| fault(StatusCode::BAD_REQUEST, error.to_string()))
        .inspect_err(refused)?;
    let is_operators = context.service.registration.is_operator(token_in(&headers).as_deref());
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
        blocking(move || service.registration.register(ends.peer, &torrent, options)).await??;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &registered))
}

/// Returns the fault for a `.torrent` file that is too long.
fn too_large(len: u64, limit: usize) -> HttpFault {
    // A request in chunks does not say its length.
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
    let error = format!("the `.torrent` has {len}more than the `{limit}` bytes allowed{beyond}");
    fault(StatusCode::PAYLOAD_TOO_LARGE, error)
}

async fn fetch(
    State(context): State<RouteContext>,
    Extension(ends): Extension<Ends>,
    PathSegment(info_hash): PathSegment,
) -> Result<Response> {
    let info_hash = parse_hash(&info_hash)?;
    let _place = place(&context.reports).await?;
    let service = Arc::clone(&context.service);
    let bytes = blocking(move || service.registration.fetch(ends.peer, info_hash)).await??;
    Ok(([(CONTENT_TYPE, "application/x-bittorrent")], bytes).into_response())
}

async fn remove(
    State(context): State<RouteContext>,
    Extension(ends): Extension<Ends>,
    PathSegment(info_hash): PathSegment,
    headers: HeaderMap,
) -> Result<StatusCode> {
    let token = token_in(&headers);
    let info_hash = match parse_hash(&info_hash) {
        Ok(info_hash) => info_hash,
        // Only the operator may name the torrent. Others have its info-hash from registering it.
        Err(_) if context.service.registration.is_operator(token.as_deref()) => {
            the_only_one(&context.service, &info_hash)?
        }
        Err(fault) => return Err(fault),
    };
    let service = Arc::clone(&context.service);
    blocking(move || service.registration.remove(ends.peer, info_hash, token.as_deref())).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the torrent with this name, if there is exactly one.
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
    State(context): State<RouteContext>,
    PathSegment(info_hash): PathSegment,
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
    blocking(move || service.registration.set_observe(info_hash, token.as_deref(), observe))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

async fn holdings(
    State(context): State<RouteContext>,
    Extension(ends): Extension<Ends>,
    PathSegment(info_hash): PathSegment,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<StatusCode> {
    let info_hash = parse_hash(&info_hash)?;
    let report = HoldingsReport::decode_query(&query.unwrap_or_default())
        .map_err(|error| fault(StatusCode::BAD_REQUEST, error.to_string()))?;
    let entry = context.service.catalogue.get(info_hash);
    let pieces = entry.ok_or(CatalogueRefusal::Unknown(info_hash))?.pieces;
    let bitfield = receive(body, pieces.div_ceil(8) as usize).await?;
    context.service.reports.one(ends.peer, info_hash, &report, &bitfield)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn holdings_batch(
    State(context): State<RouteContext>,
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
            .map_err(|error| bad(format!("the body is not a batch of reports: {error}")))?;
        let count = batch.torrents.len();
        if count > MAX_BATCH {
            let error =
                format!("`{count}` reports are more than the `{MAX_BATCH}` taken at a time");
            return Err(fault(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        let outcome = |report: &BatchedHoldings| {
            let refusal = service.reports.batched(ends.peer, (peer_id, port), report).err();
            let refusal = refusal.map(HttpFault::from);
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
    State(context): State<RouteContext>,
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
    let log = Arc::clone(&context.service.log);
    let records = log.records().last(limit.min(MAX_REQUESTS));
    let more = log.records().len().saturating_sub(records.len());
    let tail = format!("],\"more\":{more},\"dropped\":{}}}", log.records().dropped());
    let open = move |record: &Arc<RequestRecord>| RequestView::open(&log, record);
    let log = ArrayAnswer::new("{\"requests\":[", records, tail, open);
    Ok(answer_parts(&context, lasting, log).await?.unwrap_or_default())
}

async fn all_file_logs(State(context): State<RouteContext>) -> Result<Response> {
    report(&context, |service| {
        let mut entries = service.catalogue.all();
        entries.retain(|entry| !entry.unlisted);
        json(StatusCode::OK, &FilesAnswer::of(&service.swarms, &entries))
    })
    .await
}

async fn file_logs(
    State(context): State<RouteContext>,
    PathSegment(name): PathSegment,
) -> Result<Response> {
    report(&context, move |service| {
        let mut entries = service.catalogue.lookup(&name);
        // Whoever has the info-hash of an unlisted torrent may ask about it. Its name may be guessed.
        entries.retain(|entry| !entry.unlisted || name.parse() == Ok(entry.info_hash));
        if entries.is_empty() {
            let name = printable(&name);
            let error = format!("no file named `{name}` is known to this tracker");
            return fault(StatusCode::NOT_FOUND, error).into_response();
        }
        json(StatusCode::OK, &FilesAnswer::of(&service.swarms, &entries))
    })
    .await
}

async fn find_peers(
    State(context): State<RouteContext>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let text = query_value(&query, "find").unwrap_or_default();
    let len = text.trim().chars().count();
    if !(FIND_FROM..=FIND_TO).contains(&len) {
        let error = format!(
            "say what is to be found: `?find=` and `{FIND_FROM}` to `{FIND_TO}` characters of an \
             address or a client's name"
        );
        return Err(fault(StatusCode::BAD_REQUEST, error));
    }
    report(&context, move |service| {
        json(
            StatusCode::OK,
            &PeerSearchAnswer::of(&service.catalogue, &service.swarms, text.trim()),
        )
    })
    .await
}

async fn stats(State(context): State<RouteContext>) -> Result<Response> {
    report(&context, |service| json(StatusCode::OK, &Stats::of(service))).await
}

async fn metrics(State(context): State<RouteContext>) -> Result<Response> {
    report(&context, |service| {
        ([(CONTENT_TYPE, piecework_http::metrics::CONTENT_TYPE)], metrics::page(service))
            .into_response()
    })
    .await
}

/// Returns a request's body, if it has at most `limit` bytes.
async fn receive(body: Body, limit: usize) -> Result<Bytes> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        // Any error that does not come from the connection is the limit.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<hyper::Error>() {
                return fault(StatusCode::BAD_REQUEST, "the body is incomplete");
            }
            cause = error.source();
        }
        let error = format!("the body has more than the `{limit}` bytes allowed here");
        fault(StatusCode::PAYLOAD_TOO_LARGE, error)
    })
}

/// Returns the first value of a key in a query.
fn query_value(query: &Option<String>, key: &str) -> Option<String> {
    let query = query.as_deref()?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

/// Returns the token of a request.
fn token_in(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

/// The maximum number of torrents in a list: some 30 MB, made while the client reads.
const MAX_LISTED: usize = 100_000;

/// The minimum and maximum number of characters of a search for peers.
const FIND_FROM: usize = 3;
const FIND_TO: usize = 80;

/// The default and maximum number of requests in an answer: with 50 peers each some 30 MB.
const DEFAULT_REQUESTS: usize = 1_000;
const MAX_REQUESTS: usize = 10_000;
