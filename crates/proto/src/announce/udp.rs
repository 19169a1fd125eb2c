//! Announce and scrape over UDP (BEP 15, with the path of BEP 41).

use piecework_core::SaturatingFrom;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};

use super::{Announce, AnnounceEvent, AnnounceReply, MAX_PEERS, ScrapeEntry};
use piecework_core::{AnnounceKey, InfoHash, PeerId};

/// The maximum number of torrents in one scrape (BEP 15).
pub const MAX_SCRAPE_HASHES: usize = 74;

/// The maximum length of a request: an announce with options that contain a path (BEP 41), or a full scrape of 1,496
/// bytes.
pub const MAX_REQUEST_LEN: usize = 2_048;

/// The maximum length of an answer: the largest payload of an IPv4 datagram.
pub const MAX_RESPONSE_LEN: usize = 65_507;

/// A request of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Asks for a connection id, which proves that the client receives packets at its address.
    Connect {
        /// Repeated in the answer.
        transaction: u32,
    },
    /// An announce.
    Announce {
        /// The connection id from the answer to a connect.
        connection_id: u64,
        /// Repeated in the answer.
        transaction: u32,
        /// The announce itself.
        announce: Announce,
        /// Path and query of the tracker's URL (BEP 41), which may contain a passkey. Empty if there is none.
        url_data: Bytes,
    },
    /// A scrape: asks for the counts of torrents.
    Scrape {
        /// The connection id from the answer to a connect.
        connection_id: u64,
        /// Repeated in the answer.
        transaction: u32,
        /// The torrents, 1 to [`MAX_SCRAPE_HASHES`].
        hashes: Vec<InfoHash>,
    },
}

/// A request as a tracker reads it: without the path of its URL, and with the hashes where they came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestView<'a> {
    /// Asks for a connection id.
    Connect,
    /// An announce.
    Announce(Announce),
    /// A scrape of 1 to [`MAX_SCRAPE_HASHES`] torrents.
    Scrape(&'a [[u8; 20]]),
}

/// An answer of a tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// The answer to a connect request.
    Connect {
        /// The transaction number of the request.
        transaction: u32,
        /// The connection id, valid for two minutes.
        connection_id: u64,
    },
    /// The answer to an announce.
    Announce {
        /// The transaction number of the request.
        transaction: u32,
        /// The answer. Only the interval, the counts and the peers of the client's address family are sent.
        reply: AnnounceReply,
    },
    /// The answer to a scrape.
    Scrape {
        /// The transaction number of the request.
        transaction: u32,
        /// The counts in the order of the requested hashes.
        entries: Vec<ScrapeEntry>,
    },
    /// The answer to a request that failed.
    Error {
        /// The transaction number of the request.
        transaction: u32,
        /// The tracker's reason, unescaped.
        message: String,
    },
}

/// The header of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// A connection id, or the protocol's magic number in a connect.
    pub connection_id: u64,
    /// The action.
    pub action: u32,
    /// Repeated in the answer.
    pub transaction: u32,
}

/// The address family of the peers in a datagram, which is that of the datagram itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// IPv4: six bytes for each peer.
    V4,
    /// IPv6: eighteen bytes for each peer.
    V6,
}

/// The datagram does not follow the tracker protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The length is not valid.
    #[error("a datagram of `{got}` bytes is not a tracker's {what}")]
    WrongSize {
        /// The kind of datagram that it claims to be.
        what: &'static str,
        /// The datagram's length, in bytes.
        got: usize,
    },
    /// A connect without the protocol's magic number.
    #[error("a connect begins with `{0:#x}`, not with the protocol's number")]
    NotOurProtocol(
        /// The value in place of the protocol's magic number.
        u64,
    ),
    /// The action is unknown.
    #[error("unknown tracker action `{0}`")]
    UnknownAction(
        /// The number as it came.
        u32,
    ),
}

impl Header {
    /// Bytes of a header, and of a connect.
    pub const LEN: usize = 16;

    /// Returns the header of a request; `None` if there are too few bytes. A tracker checks the connection id
    /// before it parses the rest.
    pub fn peek(datagram: &[u8]) -> Option<Self> {
        let mut bytes = datagram.get(..Self::LEN)?;
        Some(Self {
            connection_id: bytes.get_u64(),
            action: bytes.get_u32(),
            transaction: bytes.get_u32(),
        })
    }

    /// Returns whether it is a scrape.
    pub fn is_scrape(&self) -> bool {
        self.action == action::SCRAPE
    }

    /// Returns whether it asks for a connection id.
    pub fn is_connect(&self) -> bool {
        self.action == action::CONNECT
    }
}

impl Request {
    /// Reads a request from one datagram.
    ///
    /// # Errors
    /// If its length, action or port is not valid. Bytes after the request are ignored, and so are the hashes of a
    /// scrape beyond [`MAX_SCRAPE_HASHES`].
    pub fn decode(datagram: &[u8]) -> Result<Self, UdpError> {
        let (header, view) = RequestView::decode(datagram)?;
        let Header { connection_id, transaction, .. } = header;
        Ok(match view {
            RequestView::Connect => Self::Connect { transaction },
            RequestView::Announce(announce) => {
                let url_data = get_url_data(&datagram[ANNOUNCE_LEN..]);
                Self::Announce { connection_id, transaction, announce, url_data }
            }
            RequestView::Scrape(hashes) => {
                let hashes = hashes.iter().copied().map(InfoHash).collect();
                Self::Scrape { connection_id, transaction, hashes }
            }
        })
    }

    /// Appends the request's datagram. Hashes beyond [`MAX_SCRAPE_HASHES`] are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect { transaction } => {
                put_header(PROTOCOL, action::CONNECT, *transaction, out)
            }
            Self::Announce { connection_id, transaction, announce, url_data } => {
                put_header(*connection_id, action::ANNOUNCE, *transaction, out);
                put_announce(announce, out);
                put_url_data(url_data, out);
            }
            Self::Scrape { connection_id, transaction, hashes } => {
                put_header(*connection_id, action::SCRAPE, *transaction, out);
                for hash in hashes.iter().take(MAX_SCRAPE_HASHES) {
                    out.put_slice(&hash.0);
                }
            }
        }
    }

    /// Returns the transaction number.
    pub fn transaction(&self) -> u32 {
        match self {
            Self::Connect { transaction }
            | Self::Announce { transaction, .. }
            | Self::Scrape { transaction, .. } => *transaction,
        }
    }
}

impl<'a> RequestView<'a> {
    /// Reads a request from one datagram, without allocating memory.
    ///
    /// # Errors
    /// As [`Request::decode`].
    pub fn decode(datagram: &'a [u8]) -> Result<(Header, Self), UdpError> {
        let got = datagram.len();
        let wrong_size = |what| UdpError::WrongSize { what, got };
        let header = Header::peek(datagram).ok_or(wrong_size("request"))?;
        if got > MAX_REQUEST_LEN {
            return Err(wrong_size("request"));
        }
        let mut body = &datagram[Header::LEN..];
        let view = match header.action {
            action::CONNECT if header.connection_id != PROTOCOL => {
                return Err(UdpError::NotOurProtocol(header.connection_id));
            }
            // Some clients send more bytes after a connect, which have no defined meaning.
            action::CONNECT => Self::Connect,
            action::ANNOUNCE if got < ANNOUNCE_LEN => return Err(wrong_size("announce")),
            action::ANNOUNCE => Self::Announce(get_announce(&mut body)),
            action::SCRAPE => {
                let (hashes, _) = body.as_chunks::<20>();
                if hashes.is_empty() {
                    return Err(wrong_size("scrape"));
                }
                Self::Scrape(&hashes[..hashes.len().min(MAX_SCRAPE_HASHES)])
            }
            other => return Err(UdpError::UnknownAction(other)),
        };
        Ok((header, view))
    }
}

impl Response {
    /// Reads an answer that came over a network of this family. Peers with port 0 are dropped,
    /// and those beyond [`MAX_PEERS`].
    ///
    /// # Errors
    /// If its length or action is not valid.
    pub fn decode(datagram: &[u8], family: Family) -> Result<Self, UdpError> {
        let wrong_size = |what| UdpError::WrongSize { what, got: datagram.len() };
        let mut body = datagram;
        if body.len() < RESPONSE_HEADER_LEN {
            return Err(wrong_size("answer"));
        }
        let (action, transaction) = (body.get_u32(), body.get_u32());
        match action {
            // "At least 16 bytes" (BEP 15), and some trackers send more.
            action::CONNECT if body.len() >= 8 => {
                Ok(Self::Connect { transaction, connection_id: body.get_u64() })
            }
            action::CONNECT => Err(wrong_size("answer to a connect")),
            action::ANNOUNCE => {
                if body.len() < 12 {
                    return Err(wrong_size("answer to an announce"));
                }
                let mut reply = AnnounceReply::new(Duration::from_secs(body.get_u32().into()));
                (reply.incomplete, reply.complete) = (body.get_u32(), body.get_u32());
                // An incomplete peer at the end is ignored.
                let peers = body.chunks_exact(family.peer_len()).filter_map(compact_peer);
                reply.peers = peers.take(MAX_PEERS).collect();
                Ok(Self::Announce { transaction, reply })
            }
            action::SCRAPE => {
                let (entries, _) = body.as_chunks::<12>();
                let entries = entries.iter().take(MAX_SCRAPE_HASHES).map(|entry| {
                    let mut entry = &entry[..];
                    ScrapeEntry {
                        complete: entry.get_u32(),
                        downloaded: entry.get_u32(),
                        incomplete: entry.get_u32(),
                    }
                });
                Ok(Self::Scrape { transaction, entries: entries.collect() })
            }
            action::ERROR => {
                let message = String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_LEN)]);
                Ok(Self::Error { transaction, message: message.into_owned() })
            }
            other => Err(UdpError::UnknownAction(other)),
        }
    }

    /// Appends the answer's datagram for a client of this address family. Peers of the other family are left out,
    /// and so is everything beyond [`MAX_RESPONSE_LEN`].
    pub fn encode(&self, family: Family, out: &mut Vec<u8>) {
        match self {
            Self::Connect { transaction, connection_id } => {
                encode_connected(*transaction, *connection_id, out);
            }
            Self::Announce { transaction, reply } => {
                encode_announce_reply(*transaction, reply, family, out);
            }
            Self::Scrape { transaction, entries } => {
                encode_counts(*transaction, entries.iter().copied(), out);
            }
            Self::Error { transaction, message } => encode_error(*transaction, message, out),
        }
    }

    /// Returns the transaction number of the request.
    pub fn transaction(&self) -> u32 {
        match self {
            Self::Connect { transaction, .. }
            | Self::Announce { transaction, .. }
            | Self::Scrape { transaction, .. }
            | Self::Error { transaction, .. } => *transaction,
        }
    }
}

impl Family {
    /// Returns the family of `addr`. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the number of bytes of a peer in compact form.
    pub fn peer_len(self) -> usize {
        match self {
            Self::V4 => 6,
            Self::V6 => 18,
        }
    }
}

/// Does the same as [`Response::encode`] for the answer to an announce, without owning the reply.
pub fn encode_announce_reply(
    transaction: u32,
    reply: &AnnounceReply,
    family: Family,
    out: &mut Vec<u8>,
) {
    let AnnounceReply { interval, complete, incomplete, .. } = *reply;
    let counts = (complete, incomplete);
    encode_peers(transaction, interval, counts, reply.peers.iter().copied(), family, out);
}

/// Does the same for an answer that is given in parts. `counts` are the numbers of complete and incomplete peers.
pub fn encode_peers(
    transaction: u32,
    interval: Duration,
    counts: (u32, u32),
    peers: impl Iterator<Item = SocketAddr>,
    family: Family,
    out: &mut Vec<u8>,
) {
    out.put_u32(action::ANNOUNCE);
    out.put_u32(transaction);
    out.put_u32(u32::try_from(interval.as_secs()).unwrap_or(u32::MAX));
    out.put_u32(counts.1);
    out.put_u32(counts.0);
    let room = (MAX_RESPONSE_LEN - 20) / family.peer_len();
    for peer in peers.filter(|peer| Family::of(peer.ip()) == family).take(room) {
        put_compact_peer(peer, out);
    }
}

/// Appends the answer to a connect.
pub fn encode_connected(transaction: u32, connection_id: u64, out: &mut Vec<u8>) {
    out.put_u32(action::CONNECT);
    out.put_u32(transaction);
    out.put_u64(connection_id);
}

/// Appends the answer to a scrape. Counts beyond [`MAX_SCRAPE_HASHES`] are left out.
pub fn encode_counts(
    transaction: u32,
    entries: impl Iterator<Item = ScrapeEntry>,
    out: &mut Vec<u8>,
) {
    out.put_u32(action::SCRAPE);
    out.put_u32(transaction);
    for entry in entries.take(MAX_SCRAPE_HASHES) {
        out.put_u32(entry.complete);
        out.put_u32(entry.downloaded);
        out.put_u32(entry.incomplete);
    }
}

/// Appends the answer to a request that failed. A long message is cut.
pub fn encode_error(transaction: u32, message: &str, out: &mut Vec<u8>) {
    out.put_u32(action::ERROR);
    out.put_u32(transaction);
    out.put_slice(&message.as_bytes()[..message.floor_char_boundary(MAX_ERROR_LEN)]);
}

/// Appends a peer in compact form (BEP 7, 23).
pub(super) fn put_compact_peer(peer: SocketAddr, out: &mut Vec<u8>) {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_u16(peer.port());
}

/// Returns the peer in six or eighteen bytes; `None` for any other length, and for port 0.
pub(super) fn compact_peer(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    let port = u16::from_be_bytes(*port);
    (port != 0).then(|| SocketAddr::new(ip.to_canonical(), port))
}

fn put_header(connection_id: u64, action: u32, transaction: u32, out: &mut Vec<u8>) {
    out.put_u64(connection_id);
    out.put_u32(action);
    out.put_u32(transaction);
}

fn put_announce(announce: &Announce, out: &mut Vec<u8>) {
    out.put_slice(&announce.info_hash.0);
    out.put_slice(&announce.peer_id.0);
    out.put_u64(announce.downloaded);
    out.put_u64(announce.left);
    out.put_u64(announce.uploaded);
    out.put_u32(match announce.event {
        AnnounceEvent::None => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    });
    // The field has no room for an IPv6 address. Trackers use the packet's address anyway.
    let ip = match announce.ip.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip,
        Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
    };
    out.put_slice(&ip.octets());
    out.put_u32(announce.key.map_or(0, AnnounceKey::short));
    let num_want = announce.num_want.map(|wanted| i32::try_from(wanted).unwrap_or(i32::MAX));
    out.put_i32(num_want.unwrap_or(-1));
    out.put_u16(announce.port);
}

/// Reads the 82 bytes after an announce's header.
fn get_announce(body: &mut &[u8]) -> Announce {
    let (mut info_hash, mut peer_id) = ([0; 20], [0; 20]);
    body.copy_to_slice(&mut info_hash);
    body.copy_to_slice(&mut peer_id);
    let (downloaded, left, uploaded) = (body.get_u64(), body.get_u64(), body.get_u64());
    let left = Announce::left_of(left);
    let event = match body.get_u32() {
        0 => AnnounceEvent::None,
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        // libtorrent and qBittorrent send 4, "paused", in every announce of a partial seed (BEP 21).
        _ => AnnounceEvent::None,
    };
    let ip = Ipv4Addr::from(body.get_u32());
    let key = body.get_u32();
    let num_want = u32::try_from(body.get_i32()).ok();
    let port = body.get_u16();
    Announce {
        uploaded,
        downloaded,
        event,
        num_want,
        key: (key != 0).then_some(AnnounceKey::Short(key)),
        ip: (!ip.is_unspecified()).then_some(IpAddr::V4(ip)),
        ..Announce::new(InfoHash(info_hash), PeerId(peer_id), port, left)
    }
}

/// Appends the options that tell a tracker the path and query of its address (BEP 41).
fn put_url_data(url_data: &[u8], out: &mut Vec<u8>) {
    for part in url_data.chunks(usize::from(u8::MAX)) {
        out.put_slice(&[option::URL_DATA, u8::saturating_from(part.len())]);
        out.put_slice(part);
    }
    if !url_data.is_empty() {
        out.put_u8(option::END);
    }
}

/// Reads the options after an announce (BEP 41). Stops at an invalid option.
fn get_url_data(mut options: &[u8]) -> Bytes {
    let mut url_data = Vec::new();
    loop {
        options = match options {
            [option::NOTHING, rest @ ..] => rest,
            [kind, len, rest @ ..] if *kind != option::END && rest.len() >= usize::from(*len) => {
                let (data, rest) = rest.split_at(usize::from(*len));
                if *kind == option::URL_DATA {
                    url_data.extend_from_slice(data);
                }
                rest
            }
            _ => return url_data.into(),
        };
    }
}

/// The value in a connect in place of a connection id (BEP 15).
const PROTOCOL: u64 = 0x417_2710_1980;

/// Bytes of an announce without options.
const ANNOUNCE_LEN: usize = 98;

/// Bytes of the action and the transaction, with which every response begins.
const RESPONSE_HEADER_LEN: usize = 8;

/// The maximum length of an error's text: a sentence or two.
const MAX_ERROR_LEN: usize = 512;

/// The numbers of the options after an announce (BEP 41).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOTHING: u8 = 1;
    pub(super) const URL_DATA: u8 = 2;
}

/// The numbers of the actions (BEP 15).
mod action {
    pub(super) const CONNECT: u32 = 0;
    pub(super) const ANNOUNCE: u32 = 1;
    pub(super) const SCRAPE: u32 = 2;
    pub(super) const ERROR: u32 = 3;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::announce::model::tests::{any_announce, any_peers};

    fn encoded(request: &Request) -> Vec<u8> {
        let mut out = Vec::new();
        request.encode(&mut out);
        out
    }

    fn an_announce() -> Request {
        let announce = Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 6_881, 77);
        let url_data = Bytes::new();
        Request::Announce { connection_id: 5, transaction: 6, announce, url_data }
    }

    fn any_hashes() -> impl Strategy<Value = Vec<InfoHash>> {
        proptest::collection::vec(any::<[u8; 20]>().prop_map(InfoHash), 1..=MAX_SCRAPE_HASHES)
    }

    fn any_entry() -> impl Strategy<Value = ScrapeEntry> {
        any::<[u32; 3]>().prop_map(|[complete, downloaded, incomplete]| ScrapeEntry {
            complete,
            downloaded,
            incomplete,
        })
    }

    proptest! {
        #[test]
        fn connects_and_scrapes_round_trip(
            (connection_id, transaction) in any::<(u64, u32)>(),
            hashes in any_hashes(),
        ) {
            for request in [
                Request::Connect { transaction },
                Request::Scrape { connection_id, transaction, hashes },
            ] {
                prop_assert_eq!(Request::decode(&encoded(&request)), Ok(request));
            }
        }

        #[test]
        fn line_5_announces_round_trip_with_the_path_of_the_tracker(
            (connection_id, transaction) in any::<(u64, u32)>(),
            mut announce in any_announce(),
            url_data in proptest::collection::vec(any::<u8>(), 0..600),
            behind in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            // Values that a datagram cannot express.
            announce.ip = announce.ip.filter(|ip| ip.is_ipv4() && !ip.is_unspecified());
            let short = announce.key.map(|key| AnnounceKey::Short(key.short()));
            announce.key = short.filter(|key| key.short() != 0);
            announce.num_want = announce.num_want.filter(|wanted| *wanted <= i32::MAX as u32);
            (announce.compact, announce.no_peer_id, announce.tracker_id) = (true, true, None);
            let (parts, len) = (url_data.len().div_ceil(255), url_data.len());
            let url_data = Bytes::from(url_data);
            let request = Request::Announce { connection_id, transaction, announce, url_data };
            let mut datagram = encoded(&request);
            let options = len + 2 * parts + usize::from(len > 0);
            prop_assert_eq!(datagram.len(), ANNOUNCE_LEN + options);
            if len > 0 {
                datagram.extend(behind);
            }
            prop_assert_eq!(Request::decode(&datagram), Ok(request));
        }

        #[test]
        fn answers_round_trip(
            (transaction, connection_id, seconds) in any::<(u32, u64, u32)>(),
            [complete, incomplete] in any::<[u32; 2]>(),
            peers in any_peers(),
            entries in proptest::collection::vec(any_entry(), 0..=MAX_SCRAPE_HASHES),
            message in "\\PC{0,80}",
        ) {
            for family in [Family::V4, Family::V6] {
                let mut reply = AnnounceReply::new(Duration::from_secs(seconds.into()));
                (reply.complete, reply.incomplete) = (complete, incomplete);
                reply.peers = peers.clone();
                reply.peers.retain(|peer| Family::of(peer.ip()) == family);
                for response in [
                    Response::Connect { transaction, connection_id },
                    Response::Announce { transaction, reply },
                    Response::Scrape { transaction, entries: entries.clone() },
                    Response::Error { transaction, message: message.clone() },
                ] {
                    let mut out = Vec::new();
                    response.encode(family, &mut out);
                    prop_assert_eq!(Response::decode(&out, family), Ok(response));
                }
            }
        }

        #[test]
        fn arbitrary_datagrams_never_panic(
            action in 0..5u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut response = action.to_be_bytes().to_vec();
            response.extend(&bytes);
            let mut request = PROTOCOL.to_be_bytes().to_vec();
            request.extend(&response);
            for datagram in [&bytes, &request, &response] {
                let _ = Request::decode(datagram);
                let _ = Response::decode(datagram, Family::V4);
                let _ = Response::decode(datagram, Family::V6);
            }
        }
    }

    #[test]
    fn datagrams_of_wrong_size_are_refused() {
        let announce = encoded(&an_announce());
        for cut in 0..announce.len() {
            assert!(matches!(
                Request::decode(&announce[..cut]),
                Err(UdpError::WrongSize { got, .. }) if got == cut
            ));
        }
        let mut long = announce;
        long.resize(MAX_REQUEST_LEN + 1, 0);
        assert!(matches!(Request::decode(&long), Err(UdpError::WrongSize { .. })));

        let scrape = |hashes| {
            let mut out = encoded(&Request::Connect { transaction: 1 });
            out[11] = action::SCRAPE as u8;
            out.resize(Header::LEN + hashes, 0);
            Request::decode(&out)
        };
        for (bytes, count) in [(20, 1), (39, 1), (20 * MAX_SCRAPE_HASHES + 20, MAX_SCRAPE_HASHES)] {
            let Ok(Request::Scrape { hashes, .. }) = scrape(bytes) else { panic!("{bytes}") };
            assert_eq!(hashes.len(), count, "what stands behind is passed over");
        }
        for wrong in [0, 19] {
            assert!(matches!(scrape(wrong), Err(UdpError::WrongSize { .. })), "{wrong}");
        }
    }

    #[test]
    fn line_4_answers_longer_than_they_need_to_be_are_taken() {
        let mut reply = AnnounceReply::new(Duration::from_secs(60));
        reply.peers = vec!["10.0.0.1:6881".parse().unwrap()];
        let entries = vec![ScrapeEntry { complete: 1, downloaded: 2, incomplete: 3 }];
        for response in [
            Response::Connect { transaction: 1, connection_id: 2 },
            Response::Announce { transaction: 1, reply },
            Response::Scrape { transaction: 1, entries },
        ] {
            for more in 1..=5 {
                let mut datagram = Vec::new();
                response.encode(Family::V4, &mut datagram);
                datagram.extend(vec![0xff; more]);
                assert_eq!(Response::decode(&datagram, Family::V4).as_ref(), Ok(&response));
            }
        }
    }

    #[test]
    fn options_that_are_not_known_or_make_no_sense_are_passed_over() {
        let path = |options: &[u8]| {
            let datagram = [&encoded(&an_announce())[..], options].concat();
            match Request::decode(&datagram) {
                Ok(Request::Announce { url_data, .. }) => url_data,
                other => panic!("no announce: {other:?}"),
            }
        };
        assert_eq!(path(b"\x01\x09\x02xx\x02\x03/a?\x01\x02\x01b\x00\x02\x01c"), "/a?b");
        for cut in [&b""[..], b"\x02", b"\x02\x05/a?", b"\x00\x02\x01c", b"\x01\x01\x01"] {
            assert_eq!(path(cut), "");
        }
    }

    #[test]
    fn a_connect_without_the_magic_number_is_refused() {
        let mut datagram = encoded(&Request::Connect { transaction: 1 });
        datagram[0] ^= 1;
        assert!(matches!(Request::decode(&datagram), Err(UdpError::NotOurProtocol(_))));
    }

    #[test]
    fn an_announce_with_port_0_is_of_who_takes_no_connections() {
        let mut datagram = encoded(&an_announce());
        datagram[96..98].copy_from_slice(&[0, 0]);
        let Ok(Request::Announce { announce, .. }) = Request::decode(&datagram) else {
            panic!("it is no announce")
        };
        assert_eq!(announce.port, 0);
    }

    #[test]
    fn an_unknown_event_is_none_and_the_largest_numbers_are_no_bytes_left() {
        let mut datagram = encoded(&an_announce());
        for event in [4, 5, 255] {
            datagram[83] = event;
            let Ok(Request::Announce { announce, .. }) = Request::decode(&datagram) else {
                panic!("{event}");
            };
            assert_eq!((announce.event, announce.left), (AnnounceEvent::None, 77));
        }
        for first in [0x7f, 0xff] {
            datagram[64..72].fill(0xff);
            datagram[64] = first;
            let Ok(Request::Announce { announce, .. }) = Request::decode(&datagram) else {
                panic!("{first}");
            };
            assert_eq!(announce.left, Announce::LEFT_UNKNOWN);
        }
    }

    #[test]
    fn a_lying_tracker_gives_no_port_0_and_no_more_peers_than_the_bound() {
        let mut reply = AnnounceReply::new(Duration::from_secs(60));
        let port = |n: usize| if n == 0 { 0 } else { 6_881 };
        reply.peers =
            (0..100_000).map(|n| SocketAddr::from(([10, 0, 0, 1], port(n % 2)))).collect();
        let mut datagram = Vec::new();
        encode_announce_reply(1, &reply, Family::V4, &mut datagram);
        assert!(datagram.len() <= MAX_RESPONSE_LEN);
        let Response::Announce { reply, .. } = Response::decode(&datagram, Family::V4).unwrap()
        else {
            panic!("an answer to an announce");
        };
        assert_eq!(reply.peers.len(), MAX_PEERS);
        assert!(reply.peers.iter().all(|peer| peer.port() != 0));
    }

    #[test]
    fn the_header_is_seen_before_the_rest() {
        let datagram = encoded(&an_announce());
        let header = Header::peek(&datagram).unwrap();
        assert_eq!((header.connection_id, header.transaction), (5, 6));
        assert!(!header.is_connect());
        assert_eq!(Header::peek(&datagram[..15]), None);
    }

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped();
        assert_eq!(Family::of(mapped.into()), Family::V4);
        assert_eq!(Family::of(Ipv6Addr::LOCALHOST.into()), Family::V6);
        let mut out = Vec::new();
        put_compact_peer(SocketAddr::from((mapped, 258)), &mut out);
        assert_eq!(out, [1, 2, 3, 4, 1, 2]);
    }
}
