//! Announce and scrape, independent of the transport.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use piecework_core::{AnnounceKey, InfoHash, PeerId, printable};

/// The maximum number of peers read from one answer. Trackers give 50 to 200; a malicious one may give a million.
pub const MAX_PEERS: usize = 2_000;

/// The maximum number of peers by host name read from one answer, because each needs a DNS query.
pub const MAX_NAMED_PEERS: usize = 16;

/// The maximum length of a DNS name (RFC 1035).
const MAX_NAME_LEN: usize = 253;

/// An announce of a peer to a tracker (BEP 3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announce {
    /// The torrent that is announced.
    pub info_hash: InfoHash,
    /// The peer id, which handshakes contain as well.
    pub peer_id: PeerId,
    /// The port that accepts connections; 0 if the peer accepts none, or leaves without naming its port.
    pub port: u16,
    /// Payload bytes sent since `started`.
    pub uploaded: u64,
    /// Payload bytes received since `started`.
    pub downloaded: u64,
    /// Bytes still missing; 0 for a seed, [`Announce::LEFT_UNKNOWN`] if not known.
    pub left: u64,
    /// The event since the last announce.
    pub event: AnnounceEvent,
    /// The wanted number of peers; `None` leaves it to the tracker.
    pub num_want: Option<u32>,
    /// The key by which the tracker recognizes the peer when its address changes.
    pub key: Option<AnnounceKey>,
    /// The address that others should use. Trackers usually use the packet's address instead.
    pub ip: Option<IpAddr>,
    /// Whether the answer should have peers in compact form (BEP 23). Always the case over UDP.
    pub compact: bool,
    /// Whether peer ids may be left out of the non-compact form.
    pub no_peer_id: bool,
    /// The tracker id of the tracker's last answer. HTTP only.
    pub tracker_id: Option<Bytes>,
}

/// Why a peer announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum AnnounceEvent {
    /// A regular announce.
    #[default]
    None,
    /// The peer announces for the first time.
    Started,
    /// The peer leaves the swarm.
    Stopped,
    /// The peer has just got its last piece.
    Completed,
}

/// A tracker's answer to an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceReply {
    /// The time until the next regular announce. Whole seconds on the wire.
    pub interval: Duration,
    /// The minimum time until any announce.
    pub min_interval: Option<Duration>,
    /// The number of complete peers.
    pub complete: u32,
    /// The number of incomplete peers.
    pub incomplete: u32,
    /// Addresses of peers, IPv4 and IPv6.
    pub peers: Vec<SocketAddr>,
    /// Peers by host name (BEP 3), to be looked up.
    pub named: Vec<PeerName>,
    /// The ids of these peers, in the same order, where known. Written into non-compact answers, and not read from
    /// answers.
    pub peer_ids: Vec<Option<PeerId>>,
    /// The client's address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// A warning for the user. The announce was accepted.
    pub warning: Option<String>,
    /// The tracker id to send with the next announce. HTTP only.
    pub tracker_id: Option<Bytes>,
}

/// A peer by the DNS name of its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerName {
    /// The host name.
    pub host: String,
    /// The port that accepts connections.
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
    /// The tracker's reason. Unescaped.
    pub reason: String,
    /// When the client may try again, if the tracker says so.
    pub retry: Option<Retry>,
}

/// When a client may try again after a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Not before this time has passed.
    After(Duration),
    /// Never (BEP 31).
    Never,
}

/// A request for the counts of some torrents (BEP 48).
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
    /// The number of complete peers.
    pub complete: u32,
    /// How often `completed` was announced.
    pub downloaded: u32,
    /// Peers that do not have everything.
    pub incomplete: u32,
}

impl Announce {
    /// The value of `left` if the peer does not know or say it.
    pub const LEFT_UNKNOWN: u64 = u64::MAX;

    /// Normalizes the announced bytes left. A client that does not know them sends its largest number, in many
    /// clients 2^63 - 1.
    pub fn left_of(said: u64) -> u64 {
        if said >= i64::MAX as u64 { Self::LEFT_UNKNOWN } else { said }
    }

    /// Returns a regular, compact announce of a peer that has transferred nothing and misses `left` bytes.
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
    /// Returns the peer at `host` and `port`; `None` if the host does not have the form of a DNS name or the port
    /// is 0.
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

    /// Parses `IP:PORT` or `HOST:PORT`.
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
    /// Returns an answer without peers or counts.
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

    pub(crate) fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|ip| IpAddr::from(ip).to_canonical()),
        ]
    }

    pub(crate) fn any_peers() -> impl Strategy<Value = Vec<SocketAddr>> {
        proptest::collection::vec((any_ip(), 1u16..).prop_map(SocketAddr::from), 0..20)
    }

    pub(crate) fn any_announce() -> impl Strategy<Value = Announce> {
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
