//! A request to a tracker.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use piecework_core::{InfoHash, PeerId};
use piecework_registry::HandedPeer;

/// A request to a tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestRecord {
    /// When it was answered.
    pub time: SystemTime,
    /// The address that the client announces, or that of its connection.
    pub peer: SocketAddr,
    /// The id that the client claims.
    pub peer_id: Option<PeerId>,
    pub event: RequestEvent,
    /// The torrent, if the request names one.
    pub info_hash: Option<InfoHash>,
    /// The name of the torrent in the catalogue at that time, unescaped.
    pub name: Option<Arc<str>>,
    /// The peers in the answer.
    pub handed: HandedList,
    /// Why the request was refused, if it was; unescaped.
    pub outcome: Result<(), Arc<str>>,
    pub via: Via,
    /// The torrent was unlisted then, or before it was removed. Public logs must not show it.
    pub unlisted: bool,
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestEvent {
    /// A regular announce.
    Announce,
    /// The announce of a peer that starts.
    Started,
    /// The announce of a peer that stops.
    Stopped,
    /// The announce of a peer that has just completed its download.
    Completed,
    /// A request for counts.
    Scrape,
    /// A report of the pieces that a peer holds.
    Holdings,
    /// A lookup of a name that is not in the catalogue. (If it is, the request that follows is
    /// recorded.)
    Lookup,
    /// A download of the metainfo.
    Fetch,
    /// A torrent was added to the catalogue.
    Register,
    /// A torrent was removed from the catalogue.
    Remove,
}

/// Kinds of requests that do not compete for room, most important first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum RequestKind {
    /// A change of the catalogue: a torrent was registered or removed.
    Change,
    /// A download of a `.torrent` from the catalogue.
    Fetch,
    /// Any other request about a torrent in the catalogue.
    Catalogued,
    /// Anything else: torrents of an open tracker, unknown names, refused registrations.
    Other,
}

/// The transport of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Via {
    /// HTTP over TCP.
    Http,
    /// UDP (BEP 15).
    Udp,
}

/// The peers in an answer: 8 or 20 bytes each, because there may be 200 in a record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HandedList {
    v4: Box<[(Ipv4Addr, u16, bool)]>,
    v6: Box<[(Ipv6Addr, u16, bool)]>,
}

impl RequestRecord {
    /// Returns the kind whose room the record takes.
    pub(super) fn kind(&self) -> RequestKind {
        let (named, done) = (self.name.is_some(), self.outcome.is_ok());
        match self.event {
            RequestEvent::Register | RequestEvent::Remove if done => RequestKind::Change,
            RequestEvent::Fetch if named && done => RequestKind::Fetch,
            // The name was looked up and not found.
            RequestEvent::Lookup => RequestKind::Other,
            _ if named => RequestKind::Catalogued,
            _ => RequestKind::Other,
        }
    }

    /// Returns a remark on a request that was answered: a peer that announces port 0 accepts no
    /// connections, and is not listed.
    pub fn note(&self) -> Option<&'static str> {
        let is_announce = matches!(
            self.event,
            RequestEvent::Announce | RequestEvent::Started | RequestEvent::Completed
        );
        let unlisted = is_announce && self.peer.port() == 0 && self.outcome.is_ok();
        unlisted.then_some("not listed: port 0")
    }

    /// Returns when it was answered, in milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> i64 {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn time_of(unix_ms: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0))
    }
}

impl RequestKind {
    pub(super) const COUNT: usize = 4;
    pub(super) const ALL: [Self; Self::COUNT] =
        [Self::Change, Self::Fetch, Self::Catalogued, Self::Other];

    /// Returns how many eighths of a log's records belong to this kind, however many requests of
    /// other kinds come.
    pub(super) fn eighths(self) -> usize {
        match self {
            Self::Change | Self::Fetch => 1,
            Self::Catalogued => 4,
            Self::Other => 2,
        }
    }

    /// Returns how many eighths of the peers in a log's records belong to this kind. Only announces
    /// contain peers.
    pub(super) fn peer_eighths(self) -> usize {
        match self {
            Self::Change | Self::Fetch => 0,
            Self::Catalogued => 6,
            Self::Other => 2,
        }
    }
}

impl RequestEvent {
    /// Returns the event with this number. The numbers are stored in journals.
    pub(super) fn of_number(number: i64) -> Self {
        match number {
            0 => Self::Announce,
            1 => Self::Started,
            2 => Self::Stopped,
            3 => Self::Completed,
            4 => Self::Scrape,
            5 => Self::Holdings,
            6 => Self::Lookup,
            7 => Self::Fetch,
            8 => Self::Register,
            _ => Self::Remove,
        }
    }

    /// Returns one word, for the console and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Scrape => "scrape",
            Self::Holdings => "holdings",
            Self::Lookup => "lookup",
            Self::Fetch => "fetch",
            Self::Register => "register",
            Self::Remove => "remove",
        }
    }
}

impl Via {
    pub(super) fn of_number(number: i64) -> Self {
        if number == 0 { Self::Http } else { Self::Udp }
    }

    /// Returns one word, for the console and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Udp => "udp",
        }
    }
}

impl HandedList {
    pub fn new(peers: &[HandedPeer]) -> Self {
        Self {
            v4: peers
                .iter()
                .filter_map(|peer| match peer.addr.ip() {
                    IpAddr::V4(ip) => Some((ip, peer.addr.port(), peer.complete)),
                    IpAddr::V6(_) => None,
                })
                .collect(),
            v6: peers
                .iter()
                .filter_map(|peer| match peer.addr.ip() {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(ip) => Some((ip, peer.addr.port(), peer.complete)),
                })
                .collect(),
        }
    }

    /// Returns the peers, complete ones first.
    pub fn iter(&self) -> impl Iterator<Item = HandedPeer> + '_ {
        let of = |wanted: bool| {
            let v4 = self.v4.iter().map(|(ip, port, complete)| ((*ip).into(), *port, *complete));
            let v6 = self.v6.iter().map(|(ip, port, complete)| ((*ip).into(), *port, *complete));
            v4.chain(v6).filter(move |(_, _, complete)| *complete == wanted).map(
                |(ip, port, complete): (IpAddr, _, _)| HandedPeer {
                    addr: SocketAddr::new(ip, port),
                    complete,
                },
            )
        };
        of(true).chain(of(false))
    }

    /// Returns the first of them as text: `+` before a complete peer, `-` before others. Returns
    /// `None` if there are none.
    pub(super) fn to_text(&self) -> Option<String> {
        let named = |complete| self.iter().filter(move |p| p.complete == complete).take(NAMED);
        let mut text = String::new();
        for HandedPeer { addr, complete } in named(true).chain(named(false)) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{addr} ", if complete { '+' } else { '-' });
        }
        text.pop();
        (!text.is_empty()).then_some(text)
    }

    /// Parses what [`HandedList::to_text`] wrote.
    pub(super) fn of_text(text: &str) -> Self {
        let peer = |word: &str| {
            let complete = word.starts_with('+');
            let addr = word.get(1..)?.parse().ok()?;
            Some(HandedPeer { addr, complete })
        };
        let peers: Vec<HandedPeer> = text.split(' ').filter_map(peer).collect();
        Self::new(&peers)
    }

    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Peers of each kind that the journal lists for a request.
const NAMED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_come_back_from_their_text() {
        let peer = |addr: &str, complete| HandedPeer { addr: addr.parse().unwrap(), complete };
        let list = HandedList::new(&[peer("1.2.3.4:5", false), peer("[::1]:6", true)]);
        let text = list.to_text().unwrap();
        assert_eq!(text, "+[::1]:6 -1.2.3.4:5");
        assert_eq!(HandedList::of_text(&text), list);
        assert_eq!(HandedList::default().to_text(), None);
    }

    #[test]
    fn packed_peers_come_back_complete_first() {
        let peer = |addr: &str, complete| HandedPeer { addr: addr.parse().unwrap(), complete };
        let peers = [peer("1.2.3.4:5", false), peer("[::1]:6", true)];
        let packed = HandedList::new(&peers);
        assert_eq!(packed.iter().collect::<Vec<_>>(), [peers[1], peers[0]]);
    }
}
