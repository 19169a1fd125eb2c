//! One request to a tracker.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use piecework_core::{InfoHash, PeerId};
use piecework_registry::HandedPeer;

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestRecord {
    /// When it was answered.
    pub time: SystemTime,
    /// Who asked: the address it announces, or that of its connection where it announces none.
    pub peer: SocketAddr,
    /// Who it says it is.
    pub peer_id: Option<PeerId>,
    /// What it asked for.
    pub event: RequestEvent,
    /// Which torrent, if one was named.
    pub info_hash: Option<InfoHash>,
    /// The name the torrent had in the catalogue at that time. Unescaped.
    pub name: Option<Arc<str>>,
    /// The peers it was given.
    pub handed: HandedList,
    /// How it went: why it was refused if it was. Unescaped.
    pub outcome: Result<(), Arc<str>>,
    /// How it came.
    pub via: Via,
    /// The torrent was unlisted then, or had been when it was removed: no public log tells of it.
    pub unlisted: bool,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestEvent {
    /// A regular announce.
    Announce,
    /// An announce of one who begins.
    Started,
    /// An announce of one who leaves.
    Stopped,
    /// An announce of one who has just become complete.
    Completed,
    /// Counts.
    Scrape,
    /// A report of the pieces it holds.
    Holdings,
    /// A name that is not in the catalogue; of one that is there, what follows is told.
    Lookup,
    /// The metainfo.
    Fetch,
    /// A torrent into the catalogue.
    Register,
    /// A torrent out of it.
    Remove,
}

/// Kinds of requests that do not compete for room, the most important first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum RequestKind {
    /// A change of the catalogue: a torrent was registered or removed.
    Change,
    /// A `.torrent` of the catalogue was handed out.
    Fetch,
    /// Everything else about a torrent of the catalogue.
    Catalogued,
    /// Everything else: torrents of an open tracker, names in vain, registrations that were refused.
    Other,
}

/// How a request came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Via {
    /// TCP.
    Http,
    /// Datagrams (BEP 15).
    Udp,
}

/// Peers that were handed out: 8 or 20 bytes each, since there are up to 200 in a record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HandedList {
    v4: Box<[(Ipv4Addr, u16, bool)]>,
    v6: Box<[(Ipv6Addr, u16, bool)]>,
}

impl RequestRecord {
    /// Returns the kind whose room it takes.
    pub(super) fn kind(&self) -> RequestKind {
        let (named, done) = (self.name.is_some(), self.outcome.is_ok());
        match self.event {
            RequestEvent::Register | RequestEvent::Remove if done => RequestKind::Change,
            RequestEvent::Fetch if named && done => RequestKind::Fetch,
            // Its name is what was looked for in vain.
            RequestEvent::Lookup => RequestKind::Other,
            _ if named => RequestKind::Catalogued,
            _ => RequestKind::Other,
        }
    }

    /// What is to be said of a request that was answered: who announces port 0 takes no connections, and
    /// is not listed.
    pub fn note(&self) -> Option<&'static str> {
        let is_announce = matches!(
            self.event,
            RequestEvent::Announce | RequestEvent::Started | RequestEvent::Completed
        );
        let unlisted = is_announce && self.peer.port() == 0 && self.outcome.is_ok();
        unlisted.then_some("not listed: port 0")
    }

    /// When it was answered, milliseconds since 1970.
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

    /// The eighths of a log's records that it keeps, however many requests of other kinds come.
    pub(super) fn eighths(self) -> usize {
        match self {
            Self::Change | Self::Fetch => 1,
            Self::Catalogued => 4,
            Self::Other => 2,
        }
    }

    /// The eighths of the peers in a log's records that it keeps. Only announces name peers.
    pub(super) fn peer_eighths(self) -> usize {
        match self {
            Self::Change | Self::Fetch => 0,
            Self::Catalogued => 6,
            Self::Other => 2,
        }
    }
}

impl RequestEvent {
    /// The event with this number; the numbers stand in journals.
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

    /// One word, as the console and the JSON have it.
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

    /// One word, as the console and the JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Udp => "udp",
        }
    }
}

impl HandedList {
    /// Packs `peers`.
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

    /// The peers, those that were complete first.
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

    /// The first of them as text: `+` before one that held everything, `-` before others. `None`
    /// if there are none.
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

    /// What [`HandedList::to_text`] wrote.
    pub(super) fn of_text(text: &str) -> Self {
        let peer = |word: &str| {
            let complete = word.starts_with('+');
            let addr = word.get(1..)?.parse().ok()?;
            Some(HandedPeer { addr, complete })
        };
        let peers: Vec<HandedPeer> = text.split(' ').filter_map(peer).collect();
        Self::new(&peers)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Peers of each kind that the journal names for a request.
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
