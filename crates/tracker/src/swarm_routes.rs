//! What is asked over HTTP about who holds what. `docs/tracker.md` describes it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::catalogue::Entry;
use super::feeds;
use super::parts;
use super::routes::{Context, Fault, Result, Segment, fault, json, parse_hash, report};
use super::service::CatalogueRefusal;
use super::swarm_views::{AtRiskAnswer, Holders, Map, Missing, WithoutAnswer};
use piecework_core::{PieceIndex, printable};
use piecework_http::{Ends, Lasting, TooManyStreams};
use piecework_registry::SwarmView;

/// The addresses below `/torrents/{info_hash}`, and `/events`.
pub(super) fn routes() -> Router<Context> {
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
    State(context): State<Context>,
    Extension(lasting): Extension<Lasting>,
    Segment(text): Segment,
) -> Result<Response> {
    let entry = entry_of(&context, &text)?;
    let answer = parts::answer(&context, lasting, Map::of(Arc::clone(&entry))).await?;
    Ok(answer.unwrap_or_else(|| gone(&entry)))
}

async fn piece(
    State(context): State<Context>,
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
        json(StatusCode::OK, &Holders::of(service, piece, &service.holders(entry.info_hash, piece)))
    })
    .await
}

async fn at_risk(
    State(context): State<Context>,
    Segment(text): Segment,
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
    State(context): State<Context>,
    Segment(text): Segment,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let peers = peers_of(query.as_deref(), 1)?;
    ask(&context, &text, move |swarm| match known(swarm, &peers) {
        Ok(()) => json(StatusCode::OK, &Missing::of(peers[0], swarm)),
        Err(unknown) => unknown.into_response(),
    })
    .await
}

async fn without(
    State(context): State<Context>,
    Segment(text): Segment,
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
    State(context): State<Context>,
    Extension(ends): Extension<Ends>,
    Extension(lasting): Extension<Lasting>,
    Segment(text): Segment,
) -> Result<Response> {
    let entry = entry_of(&context, &text)?;
    let place = context.service.feeds.place(ends.peer).map_err(too_many)?;
    let service = Arc::clone(&context.service);
    Ok(feeds::torrent(service, entry, lasting, place, context.stop.clone()))
}

async fn events(
    State(context): State<Context>,
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
    let service = Arc::clone(&context.service);
    Ok(feeds::catalogue(service, requests, lasting, place, context.stop.clone()))
}

/// Answers from a copy of a torrent's swarm, where that holds up nobody.
async fn ask(
    context: &Context,
    text: &str,
    make: impl FnOnce(&SwarmView) -> Response + Send + 'static,
) -> Result<Response> {
    let entry = entry_of(context, text)?;
    report(context, move |service| match service.swarm(entry.info_hash) {
        Some(swarm) => make(&swarm),
        None => gone(&entry),
    })
    .await
}

fn entry_of(context: &Context, text: &str) -> Result<Arc<Entry>> {
    let info_hash = parse_hash(text)?;
    let entry = context.service.catalogue.get(info_hash);
    Ok(entry.ok_or(CatalogueRefusal::Unknown(info_hash))?)
}

/// The torrent was removed this very moment.
fn gone(entry: &Entry) -> Response {
    Fault::from(CatalogueRefusal::Unknown(entry.info_hash)).into_response()
}

fn too_many(refusal: TooManyStreams) -> Fault {
    fault(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
}

/// The values of a key in a query, in order.
fn values(query: Option<&str>, key: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.filter(|(name, _)| name == key).map(|(_, value)| value.into_owned()).collect()
}

/// The peers that the query names: one at least, and no more than `most`.
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

/// Whether all of `peers` are in the swarm.
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

/// Holders up to which pieces are asked for as being at risk. The work is this many times the
/// pieces.
const MAX_K: u32 = 100;

/// Peers whose leaving can be thought of at a time.
const MAX_WITHOUT: usize = 1_000;
