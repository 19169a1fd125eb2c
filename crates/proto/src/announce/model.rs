//! Announce and scrape, whatever carries them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use piecework_core::{AnnounceKey, InfoHash, PeerId, printable};

/// Peers taken from one answer at most. Trackers give 50 to 200; a lying one may give a million.
pub const MAX_PEERS: usize = 2_000;

/// Peers by name taken from one answer at most: each is a question to the system's resolver.
pub const MAX_NAMED_PEERS: usize = 16;

/// Bytes of a DNS name at most (RFC 1035).
const MAX_NAME_LEN: usize = 253;

/// What a peer tells a tracker (BEP 3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announce {
    /// The torrent that is announced.
    pub info_hash: InfoHash,
    /// The id that the announcing peer also shows in handshakes.
    pub peer_id: PeerId,
    /// The port it accepts peers on; 0 of one that accepts none, or that leaves and did not say it.
    pub port: u16,
    /// Payload bytes sent since `started`.
    pub uploaded: u64,
    /// Payload bytes received since `started`.
    pub downloaded: u64,
    /// Bytes still missing; 0 says that it is a seed, [`Announce::LEFT_UNKNOWN`] nothing.
    pub left: u64,
    /// What has changed since the peer's last announce.
    pub event: AnnounceEvent,
    /// Peers wanted; `None` leaves it to the tracker.
    pub num_want: Option<u32>,
    /// Random number by which the tracker knows the peer again when its address changes.
    pub key: Option<AnnounceKey>,
    /// The address it wants to be known by; trackers usually take the packet's.
    pub ip: Option<IpAddr>,
    /// Peers are to be given as a string of addresses (BEP 23). UDP knows no other way.
    pub compact: bool,
    /// Where peers are given one by one, their ids may be left out.
    pub no_peer_id: bool,
    /// What the tracker's last answer gave as its id. HTTP only.
    pub tracker_id: Option<Bytes>,
}

/// Why a peer announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum AnnounceEvent {
    /// The interval is over.
    #[default]
    None,
    /// The peer announces for the first time.
    Started,
    /// The peer leaves the swarm and is handed out no more.
    Stopped,
    /// It has just got its last piece.
    Completed,
}

/// What a tracker answers to an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceReply {
    /// Time until the next regular announce. Whole seconds on the wire.
    pub interval: Duration,
    /// Least time until any other.
    pub min_interval: Option<Duration>,
    /// Peers that have everything.
    pub complete: u32,
    /// Peers that do not.
    pub incomplete: u32,
    /// Addresses of peers, IPv4 and IPv6.
    pub peers: Vec<SocketAddr>,
    /// Peers that it gives by name (BEP 3), yet to be looked up.
    pub named: Vec<PeerName>,
    /// The ids of these peers, in their order, where they are known. Written into answers that give
    /// peers one by one; not read from answers.
    pub peer_ids: Vec<Option<PeerId>>,
    /// The address the tracker sees us at (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// A note for people; the announce was taken all the same.
    pub warning: Option<String>,
    /// To be sent back with the next announce. HTTP only.
    pub tracker_id: Option<Bytes>,
}

/// A peer by the DNS name of its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerName {
    /// The name of its host.
    pub host: String,
    /// The port it accepts peers on.
    pub port: u16,
}

/// The text is not the address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the address of a peer: write IP:PORT or HOST:PORT", printable(.0))]
pub struct PeerNameError(
    /// What was given.
    pub String,
);

/// A tracker's refusal of an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why, in the tracker's words. Unescaped.
    pub reason: String,
    /// When the tracker wants to be asked again, if it says so.
    pub retry: Option<Retry>,
}

/// When a tracker that refused wants to be asked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Not before this time has passed.
    After(Duration),
    /// Not at all (BEP 31, `never`).
    Never,
}

/// A question for the counts of some torrents (BEP 48).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrape {
    /// The torrents whose counts are wanted.
    pub hashes: Vec<InfoHash>,
}

/// The answer to a [`Scrape`]. A torrent unknown to the tracker may be missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrapeReply {
    /// The torrents that the tracker knows, each with its counts.
    pub entries: Vec<(InfoHash, ScrapeEntry)>,
}

/// A torrent's counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ScrapeEntry {
    /// Peers that have everything.
    pub complete: u32,
    /// How often `completed` was announced.
    pub downloaded: u32,
    /// Peers that do not have everything.
    pub incomplete: u32,
}

impl Announce {
    /// In place of the bytes left: the peer does not know, or did not say.
    pub const LEFT_UNKNOWN: u64 = u64::MAX;

    /// Returns the bytes left that a peer means: who does not know them says the largest number it
    /// has, which is that of 63 bits in many clients.
    pub fn left_of(said: u64) -> u64 {
        if said >= i64::MAX as u64 { Self::LEFT_UNKNOWN } else { said }
    }

    /// A regular announce of a peer that has moved nothing and has `left` bytes to get, compact.
    pub fn new(info_hash: InfoHash, peer_id: PeerId, port: u16, left: u64) -> Self {
        Self {
            info_hash,
            peer_id,
            port,
            uploaded: 0,
            downloaded: 0,
            left,
            event: AnnounceEvent::None,
            num_want: None,
            key: None,
            ip: None,
            compact: true,
            no_peer_id: true,
            tracker_id: None,
        }
    }
}

impl PeerName {
    /// Returns the peer at `host` and `port`. `None` if the host has not the form of a DNS name, as an
    /// address has not, or the port is 0.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=MAX_NAME_LEN).contains(&host.len())
            && host.bytes().all(allowed)
            && host.bytes().any(|byte| byte.is_ascii_alphanumeric())
            && host.parse::<IpAddr>().is_err();
        (is_name && port != 0).then(|| Self { host: host.to_owned(), port })
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    /// Reads `IP:PORT` or `HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, PeerNameError> {
        let text = text.trim();
        let fault = || PeerNameError(text.to_owned());
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let (host, port) = (addr.ip().to_string(), addr.port());
            return if port == 0 { Err(fault()) } else { Ok(Self { host, port }) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
        Self::new(host, port.parse().map_err(|_| fault())?).ok_or_else(fault)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl AnnounceReply {
    /// An answer without peers or counts.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            min_interval: None,
            complete: 0,
            incomplete: 0,
            peers: Vec::new(),
            named: Vec::new(),
            peer_ids: Vec::new(),
            external_ip: None,
            warning: None,
            tracker_id: None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_4_a_peer_is_named_by_address_or_by_name() {
        let read = |text: &str| text.parse::<PeerName>().map(|peer| peer.to_string());
        for text in ["10.0.0.1:6881", "[2001:db8::1]:6881", "peer.example:1", "my_host-1:65535"] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "peer",
            ":1",
            "peer:",
            "peer:0",
            "peer:65536",
            "10.0.0.1:0",
            "a b:1",
            "ä:1",
            "...:1",
            "h\u{1b}:1",
            "2001:db8::1",
            "http://h:1",
        ] {
            assert_eq!(read(text), Err(PeerNameError(text.to_owned())));
        }
        assert_eq!(PeerName::new(&"x".repeat(254), 1), None);
    }

    pub fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|ip| IpAddr::from(ip).to_canonical()),
        ]
    }

    pub fn any_peers() -> impl Strategy<Value = Vec<SocketAddr>> {
        proptest::collection::vec((any_ip(), 1u16..).prop_map(SocketAddr::from), 0..20)
    }

    pub fn any_announce() -> impl Strategy<Value = Announce> {
        let who = (any::<[u8; 20]>(), any::<[u8; 20]>(), 1u16..);
        let event = proptest::sample::select(vec![
            AnnounceEvent::None,
            AnnounceEvent::Started,
            AnnounceEvent::Stopped,
            AnnounceEvent::Completed,
        ]);
        let rest = (
            any::<[u64; 3]>(),
            event,
            any::<Option<u32>>(),
            any_key(),
            proptest::option::of(any_ip()),
            any::<[bool; 2]>(),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        );
        (who, rest).prop_map(|((info_hash, peer_id, port), rest)| {
            let ([uploaded, downloaded, left], event, num_want, key, ip, flags, id) = rest;
            Announce {
                info_hash: InfoHash(info_hash),
                peer_id: PeerId(peer_id),
                port,
                uploaded,
                downloaded,
                left: Announce::left_of(left),
                event,
                num_want,
                key,
                ip,
                compact: flags[0],
                no_peer_id: flags[1],
                tracker_id: id.map(Bytes::from),
            }
        })
    }

    pub(crate) fn any_key() -> impl Strategy<Value = Option<AnnounceKey>> {
        prop_oneof![
            Just(None),
            any::<u32>().prop_map(|key| Some(AnnounceKey::Short(key))),
            any::<[u8; 16]>().prop_map(|key| Some(AnnounceKey::Long(key))),
        ]
    }
}
