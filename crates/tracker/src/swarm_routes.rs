//! The HTTP routes for questions about who holds what. See `docs/tracker.md`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::catalogue_torrent::CatalogueTorrent;
use super::context::{
    HttpFault, PathSegment, Result, RouteContext, answer_parts, fault, json, parse_hash, report,
};
use super::feeds;
use super::refusal::CatalogueRefusal;
use super::swarm_views::{AtRiskAnswer, HoldersAnswer, Map, MissingAnswer, WithoutAnswer};
use piecework_core::{PieceIndex, printable};
use piecework_http::{Ends, Lasting, TooManyStreams};
use piecework_registry::SwarmView;

/// Returns the routes below `/torrents/{info_hash}`, and `/events`.
pub(super) fn routes() -> Router<RouteContext> {
    Router::new()
        .route("/torrents/{info_hash}/map", get(map))
        .route("/torrents/{info_hash}/pieces/{piece}", get(piece))
        .route("/torrents/{info_hash}/at-risk", get(at_risk))
        .route("/torrents/{info_hash}/missing", get(missing))
        .route("/torrents/{info_hash}/without", get(without))
        .route("/torrents/{info_hash}/events", get(torrent_events))
        .route("/events", get(events))
}

async fn map(
    State(context): State<RouteContext>,
    Extension(lasting): Extension<Lasting>,
    PathSegment(text): PathSegment,
) -> Result<Response> {
    let entry = entry_of(&context, &text)?;
    let map = Map::of(Arc::clone(&context.service.maps), Arc::clone(&entry));
    let answer = answer_parts(&context, lasting, map).await?;
    Ok(answer.unwrap_or_else(|| gone(&entry)))
}

async fn piece(
    State(context): State<RouteContext>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
) -> Result<Response> {
    let Ok(Path((hash, piece))) = path else {
        return Err(fault(StatusCode::BAD_REQUEST, "the address is not UTF-8"));
    };
    let entry = entry_of(&context, &hash)?;
    let piece = number(&piece, "a piece", "from 0")?;
    if piece >= entry.pieces {
        let error = format!("the torrent has `{}` pieces, from 0; none is `{piece}`", entry.pieces);
        return Err(fault(StatusCode::NOT_FOUND, error));
    }
    let piece = PieceIndex(piece);
    report(&context, move |service| {
        json(
            StatusCode::OK,
            &HoldersAnswer::of(
                &service.swarms,
                piece,
                &service.swarms.holders(entry.info_hash, piece),
            ),
        )
    })
    .await
}

async fn at_risk(
    State(context): State<RouteContext>,
    PathSegment(text): PathSegment,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let k = match values(query.as_deref(), "k").first() {
        Some(text) => number(text, "`k`", "of peers")?.min(MAX_K),
        None => 1,
    };
    ask(&context, &text, move |swarm| json(StatusCode::OK, &AtRiskAnswer::of(k, &swarm.at_risk(k))))
        .await
}

async fn missing(
    State(context): State<RouteContext>,
    PathSegment(text): PathSegment,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let peers = peers_of(query.as_deref(), 1)?;
    ask(&context, &text, move |swarm| match known(swarm, &peers) {
        Ok(()) => json(StatusCode::OK, &MissingAnswer::of(peers[0], swarm)),
        Err(unknown) => unknown.into_response(),
    })
    .await
}

async fn without(
    State(context): State<RouteContext>,
    PathSegment(text): PathSegment,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let peers = peers_of(query.as_deref(), MAX_WITHOUT)?;
    ask(&context, &text, move |swarm| match known(swarm, &peers) {
        Ok(()) => json(StatusCode::OK, &WithoutAnswer::of(&swarm.without(&peers))),
        Err(unknown) => unknown.into_response(),
    })
    .await
}

async fn torrent_events(
    State(context): State<RouteContext>,
    Extension(ends): Extension<Ends>,
    Extension(lasting): Extension<Lasting>,
    PathSegment(text): PathSegment,
) -> Result<Response> {
    let entry = entry_of(&context, &text)?;
    let place = context.service.feeds.place(ends.peer).map_err(too_many)?;
    let feeds = Arc::clone(&context.service.feeds);
    Ok(feeds::torrent(feeds, entry, lasting, place, context.stop.clone()))
}

async fn events(
    State(context): State<RouteContext>,
    Extension(ends): Extension<Ends>,
    Extension(lasting): Extension<Lasting>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let requests = match values(query.as_deref(), "requests").first().map(String::as_str) {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(other) => {
            let error = format!("`requests` is `{}`, not `true` or `false`", short(other));
            return Err(fault(StatusCode::BAD_REQUEST, error));
        }
    };
    let place = context.service.feeds.place(ends.peer).map_err(too_many)?;
    let feeds = Arc::clone(&context.service.feeds);
    Ok(feeds::catalogue(feeds, requests, lasting, place, context.stop.clone()))
}

/// Makes an answer from a copy of a torrent's swarm, on a blocking thread.
async fn ask(
    context: &RouteContext,
    text: &str,
    make: impl FnOnce(&SwarmView) -> Response + Send + 'static,
) -> Result<Response> {
    let entry = entry_of(context, text)?;
    report(context, move |service| match service.swarms.swarm(entry.info_hash) {
        Some(swarm) => make(&swarm),
        None => gone(&entry),
    })
    .await
}

fn entry_of(context: &RouteContext, text: &str) -> Result<Arc<CatalogueTorrent>> {
    let info_hash = parse_hash(text)?;
    let entry = context.service.catalogue.get(info_hash);
    Ok(entry.ok_or(CatalogueRefusal::Unknown(info_hash))?)
}

/// Returns the answer for a torrent that was removed during the request.
fn gone(entry: &CatalogueTorrent) -> Response {
    HttpFault::from(CatalogueRefusal::Unknown(entry.info_hash)).into_response()
}

fn too_many(refusal: TooManyStreams) -> HttpFault {
    fault(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
}

/// Returns the values of a key in a query, in order.
fn values(query: Option<&str>, key: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.filter(|(name, _)| name == key).map(|(_, value)| value.into_owned()).collect()
}

/// Returns the peers that the query names: at least one, and at most `most`.
fn peers_of(query: Option<&str>, most: usize) -> Result<Vec<SocketAddr>> {
    let named = values(query, "peer");
    if named.is_empty() || named.len() > most {
        let error = match most {
            1 => "name one peer, as `?peer=IP:PORT`".to_owned(),
            most => format!("name one to `{most}` peers, as `?peer=IP:PORT&peer=IP:PORT`"),
        };
        return Err(fault(StatusCode::BAD_REQUEST, error));
    }
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            let error = format!("`{}` is not a peer's address, IP:PORT", short(text));
            fault(StatusCode::BAD_REQUEST, error)
        })
    };
    named.iter().map(parse).collect()
}

/// Checks that all of `peers` are in the swarm.
fn known(swarm: &SwarmView, peers: &[SocketAddr]) -> Result<()> {
    match peers.iter().find(|addr| swarm.peer(**addr).is_none()) {
        None => Ok(()),
        Some(addr) => {
            let error = format!("no peer at `{addr}` is known for this torrent");
            Err(fault(StatusCode::NOT_FOUND, error))
        }
    }
}

fn number(text: &str, what: &str, of: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        let error = format!("`{}` is not {what}: write a number {of}", short(text));
        fault(StatusCode::BAD_REQUEST, error)
    })
}

fn short(text: &str) -> String {
    printable(&text.chars().take(60).collect::<String>()).into_owned()
}

/// The maximum number of holders up to which a piece is at risk. The work is proportional to this number times the
/// pieces.
const MAX_K: u32 = 100;

/// The maximum number of peers in a question about what remains without them.
const MAX_WITHOUT: usize = 1_000;
