//! Announces and scrapes over HTTP, at whatever path clients send them to. Every answer is bencoded, refusals
//! included, because clients read nothing else.

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::access_log::AccessLog;
use super::announces::{AnnounceOrigin, Announces};
use super::service::Service;
use piecework_core::printable;
use piecework_http::{Ends, QuickAnswer, QuickRequest};
use piecework_journal::{RequestEvent, Via};
use piecework_proto::announce::{Announce, AnnounceError, ScrapeReply, http};
use piecework_registry::PeerQuery;

/// The kind of a BitTorrent request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitTorrentRequest {
    /// An announce.
    Announce,
    /// A scrape.
    Scrape,
    /// A request with an info-hash at a path that is neither for announces nor for scrapes.
    Elsewhere,
}

/// Why a request is refused before it reaches a registry.
#[derive(Debug, thiserror::Error)]
enum RequestFault {
    #[error(transparent)]
    Query(#[from] AnnounceError),
    #[error("announces and scrapes use the method GET, not `{0}`")]
    Method(String),
    #[error("`{0}` is not an announce address: announce to `/announce`")]
    Path(String),
    #[error("a scrape has to name torrents: scrapes of all torrents are not supported")]
    ScrapeOfAll,
}

impl BitTorrentRequest {
    /// Returns the kind of a request; `None` if it is not a BitTorrent request.
    ///
    /// Announce URLs come in many forms: `/announce.php`, `/PASSKEY/announce`, `/announce/PASSKEY`. A passkey makes
    /// no difference. A request with an `info_hash` parameter comes from a BitTorrent client. Below the tracker's
    /// own paths, only such requests do.
    pub(super) fn of(path: &str, query: Option<&str>) -> Option<Self> {
        let mut keys = query.unwrap_or_default().split(['&', '?']);
        let names_torrent = keys.any(|part| part.starts_with("info_hash="));
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        let first = segments().next().unwrap_or_default();
        if !names_torrent && OURS.contains(&first) {
            return None;
        }
        let has = |word: &str| {
            let stem = |segment: &str| segment.split('.').next().unwrap_or_default().to_owned();
            segments().any(|segment| stem(segment).eq_ignore_ascii_case(word))
        };
        match () {
            () if has("scrape") => Some(Self::Scrape),
            () if has("announce") => Some(Self::Announce),
            () if names_torrent => Some(Self::Elsewhere),
            () => None,
        }
    }

    fn event(self) -> RequestEvent {
        match self {
            Self::Announce | Self::Elsewhere => RequestEvent::Announce,
            Self::Scrape => RequestEvent::Scrape,
        }
    }
}

/// Answers a request that [`BitTorrentRequest::of`] has recognised.
pub(super) fn answer(
    announces: &Announces,
    log: &AccessLog,
    asked: BitTorrentRequest,
    request: &Parts,
) -> Response {
    let Some(ends) = request.extensions.get::<Ends>() else {
        return bencoded(http::encode_failure("the address of the client is not known"));
    };
    let query = request.uri.query().unwrap_or_default();
    match request.method {
        Method::GET => {}
        // A check whether the tracker answers is not an announce.
        Method::HEAD => return bencoded(Vec::new()),
        _ => {
            let method = printable(request.method.as_str()).chars().take(20).collect::<String>();
            let body = refuse(log, ends, asked, query, &RequestFault::Method(method));
            return (StatusCode::METHOD_NOT_ALLOWED, body).into_response();
        }
    }
    let answered = match asked {
        BitTorrentRequest::Announce => announce(announces, ends, query),
        BitTorrentRequest::Scrape => scrape(announces, query),
        BitTorrentRequest::Elsewhere => {
            let path: String = printable(request.uri.path()).chars().take(80).collect();
            Err(RequestFault::Path(path))
        }
    };
    match answered {
        Ok(body) => bencoded(body),
        Err(fault) => refuse(log, ends, asked, query, &fault),
    }
}

/// Returns a function that answers announces without the router, and leaves all that is to be refused to it.
pub(super) fn quick(service: Arc<Service>) -> QuickAnswer {
    Arc::new(move |request: &QuickRequest<'_>, body: &mut Vec<u8>| {
        let QuickRequest { path, query, ends } = request;
        let is_announce = || {
            let asked = BitTorrentRequest::of(path, Some(query));
            asked == Some(BitTorrentRequest::Announce)
        };
        if *path != "/announce" && !is_announce() {
            return false;
        }
        let Ok(announce) = http::decode_query(query) else { return false };
        body.extend(reply(&service.announces, ends, &announce));
        true
    })
}

/// Returns the answer to an announce. It may be a refusal of the registry, which is already logged.
fn announce(announces: &Announces, ends: &Ends, query: &str) -> Result<Vec<u8>, RequestFault> {
    Ok(reply(announces, ends, &http::decode_query(query)?))
}

fn reply(announces: &Announces, ends: &Ends, announce: &Announce) -> Vec<u8> {
    let now = announces.swarms.clock().now();
    let asker = AnnounceOrigin { now, ip: ends.peer.ip(), reached: ends.local, via: Via::Http };
    let ids = !announce.compact && !announce.no_peer_id;
    let want = PeerQuery { ids, ..PeerQuery::any(usize::MAX) };
    match announces.announce(asker, announce, want) {
        Ok(reply) => http::encode_reply(&reply, announce),
        Err(refusal) => http::encode_failure(&refusal.to_string()),
    }
}

/// Returns the counts of the named torrents, zeros for unknown ones, as over UDP.
fn scrape(announces: &Announces, query: &str) -> Result<Vec<u8>, RequestFault> {
    let scrape = http::decode_scrape_query(query)?;
    if scrape.hashes.is_empty() {
        return Err(RequestFault::ScrapeOfAll);
    }
    let counts = announces.scrape(&scrape.hashes).into_iter();
    let entries = counts.map(|(hash, entry)| (hash, entry.unwrap_or_default())).collect();
    Ok(http::encode_scrape_reply(&ScrapeReply { entries }))
}

/// Returns the answer for a refused request, and logs it.
fn refuse(
    log: &AccessLog,
    ends: &Ends,
    asked: BitTorrentRequest,
    query: &str,
    fault: &RequestFault,
) -> Response {
    let why = fault.to_string();
    let body = http::encode_failure(&why);
    let named = http::decode_scrape_query(query).ok();
    let info_hash = named.and_then(|named| named.hashes.first().copied());
    log.refused(ends.peer, asked.event(), info_hash, Via::Http, why);
    bencoded(body)
}

fn bencoded(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "text/plain")], body).into_response()
}

/// First path segments of the tracker's own routes. Below them a file may be called `announce`.
const OURS: [&str; 8] =
    ["torrents", "holdings", "logs", "peers", "stats", "metrics", "events", "ui"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announces_and_scrapes_are_known_at_any_address() {
        let named = Some("passkey=1&info_hash=%01");
        for path in [
            "/announce",
            "/announce.php",
            "/Announce/",
            "//announce",
            "/0123abcd/announce",
            "/0123abcd/announce.php",
            "/announce/0123abcd",
            "/announce.php/0123abcd",
            "/tracker/0123abcd/announce",
        ] {
            assert_eq!(
                BitTorrentRequest::of(path, named),
                Some(BitTorrentRequest::Announce),
                "{path}"
            );
            assert_eq!(
                BitTorrentRequest::of(path, None),
                Some(BitTorrentRequest::Announce),
                "{path}"
            );
            let scrape = path.replace("announce", "scrape").replace("Announce", "Scrape");
            assert_eq!(
                BitTorrentRequest::of(&scrape, named),
                Some(BitTorrentRequest::Scrape),
                "{scrape}"
            );
        }
        for path in ["/", "/foo", "/torrents", "/announced"] {
            assert_eq!(
                BitTorrentRequest::of(path, named),
                Some(BitTorrentRequest::Elsewhere),
                "{path}"
            );
        }
        assert_eq!(
            BitTorrentRequest::of("/a/announce", Some("x=1?info_hash=a")),
            Some(BitTorrentRequest::Announce)
        );
    }

    #[test]
    fn addresses_of_the_catalogue_are_not_bittorrents() {
        for path in ["/", "/torrents/announce", "/logs/files/announce", "/ui/announce.js", "/x"] {
            assert_eq!(BitTorrentRequest::of(path, Some("name=announce")), None, "{path}");
            assert_eq!(BitTorrentRequest::of(path, None), None, "{path}");
        }
    }
}
