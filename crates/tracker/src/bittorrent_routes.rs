//! BitTorrent's own requests over HTTP: announces and scrapes, at whatever address of the tracker
//! clients send them to. Every answer is bencoded, refusals too: clients read nothing else.

use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::service::{Asker, Service};
use piecework_core::printable;
use piecework_http::Ends;
use piecework_journal::{RequestEvent, Via};
use piecework_proto::announce::{ScrapeReply, http};
use piecework_registry::Want;

/// What a client of BitTorrent asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// To be known, and for peers.
    Announce,
    /// For counts.
    Scrape,
    /// It names a torrent at an address where nobody answers for one.
    Elsewhere,
}

impl Asked {
    /// What is asked for; `None` if it is not BitTorrent's.
    ///
    /// Announce URLs come in many forms: `/announce.php`, `/PASSKEY/announce`, `/announce/PASSKEY`.
    /// A passkey makes no difference here. Whoever names a torrent as BitTorrent does is a client of
    /// it; below addresses of our own, nobody else is.
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

/// Answers a request that [`Asked::of`] has recognised.
pub(super) fn answer(service: &Service, asked: Asked, request: &Parts) -> Response {
    let Some(ends) = request.extensions.get::<Ends>() else {
        return bencoded(http::encode_failure("the tracker does not know who asks"));
    };
    let query = request.uri.query().unwrap_or_default();
    match request.method {
        Method::GET => {}
        // Whoever only looks whether somebody answers does not announce.
        Method::HEAD => return bencoded(Vec::new()),
        _ => {
            let method = printable(request.method.as_str()).chars().take(20).collect::<String>();
            let refused = format!("`{method}` is no method to announce or scrape by: use GET");
            let body = refuse(service, ends, asked, query, refused);
            return (StatusCode::METHOD_NOT_ALLOWED, body).into_response();
        }
    }
    let answered = match asked {
        Asked::Announce => announce(service, ends, query),
        Asked::Scrape => scrape(service, query),
        Asked::Elsewhere => {
            let path: String = printable(request.uri.path()).chars().take(80).collect();
            Err(format!("nobody answers for a torrent at `{path}`: announce to `/announce` here"))
        }
    };
    match answered {
        Ok(body) => bencoded(body),
        Err(refused) => refuse(service, ends, asked, query, refused),
    }
}

/// The answer to an announce, a refusal of the registry included, which has its own entry in the log.
fn announce(service: &Service, ends: &Ends, query: &str) -> Result<Vec<u8>, String> {
    let announce = http::decode_query(query).map_err(|error| error.to_string())?;
    let asker = Asker { ip: ends.peer.ip(), reached: ends.local, via: Via::Http };
    let ids = !announce.compact && !announce.no_peer_id;
    let want = Want { ids, ..Want::any(usize::MAX) };
    Ok(match service.announce(asker, &announce, want) {
        Ok(reply) => http::encode_reply(&reply, &announce),
        Err(refusal) => http::encode_failure(&refusal.to_string()),
    })
}

/// The counts of each torrent that is asked for: zeros for one that is not known, as over UDP.
fn scrape(service: &Service, query: &str) -> Result<Vec<u8>, String> {
    let scrape = http::decode_scrape_query(query).map_err(|error| error.to_string())?;
    if scrape.hashes.is_empty() {
        return Err("a scrape of all torrents is not answered here: name some".to_owned());
    }
    let counts = service.scrape(&scrape.hashes).into_iter();
    let entries = counts.map(|(hash, entry)| (hash, entry.unwrap_or_default())).collect();
    Ok(http::encode_scrape_reply(&ScrapeReply { entries }))
}

/// Tells why a request gets nothing, and writes that into the log.
fn refuse(service: &Service, ends: &Ends, asked: Asked, query: &str, why: String) -> Response {
    let body = http::encode_failure(&why);
    let named = http::decode_scrape_query(query).ok();
    let info_hash = named.and_then(|named| named.hashes.first().copied());
    service.refused(ends.peer, asked.event(), info_hash, Via::Http, why);
    bencoded(body)
}

fn bencoded(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "text/plain")], body).into_response()
}

/// First parts of addresses that are the tracker's own: a file may be called `announce`.
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
            assert_eq!(Asked::of(path, named), Some(Asked::Announce), "{path}");
            assert_eq!(Asked::of(path, None), Some(Asked::Announce), "{path}");
            let scrape = path.replace("announce", "scrape").replace("Announce", "Scrape");
            assert_eq!(Asked::of(&scrape, named), Some(Asked::Scrape), "{scrape}");
        }
        for path in ["/", "/foo", "/torrents", "/announced"] {
            assert_eq!(Asked::of(path, named), Some(Asked::Elsewhere), "{path}");
        }
        assert_eq!(Asked::of("/a/announce", Some("x=1?info_hash=a")), Some(Asked::Announce));
    }

    #[test]
    fn addresses_of_the_catalogue_are_not_bittorrents() {
        for path in ["/", "/torrents/announce", "/logs/files/announce", "/ui/announce.js", "/x"] {
            assert_eq!(Asked::of(path, Some("name=announce")), None, "{path}");
            assert_eq!(Asked::of(path, None), None, "{path}");
        }
    }
}
