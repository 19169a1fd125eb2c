//! A tracker's answers in bencode. The encoder is hand-written and makes one allocation, because a busy tracker
//! spends most of its time here.

use piecework_core::SaturatingFrom;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::MAX_SCRAPE_HASHES;
use super::query::MAX_TRACKER_ID;
use crate::announce::udp::{Family, compact_peer, put_compact_peer};
use crate::announce::{
    Announce, AnnounceError, AnnounceReply, MAX_NAMED_PEERS, MAX_PEERS, PeerName, Refusal, Retry,
    ScrapeEntry, ScrapeReply,
};
use piecework_core::bencode::{self, Kind, Limits, Node, Tolerance};
use piecework_core::{InfoHash, PeerId};

/// The maximum length of an answer. With [`MAX_PEERS`] peers in non-compact form with ids it has less than 200 KiB.
pub const MAX_BODY_LEN: usize = 1024 * 1024;

/// The result of an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpReply {
    /// The tracker accepted the announce.
    Reply(AnnounceReply),
    /// The tracker refused the announce.
    Failure(Refusal),
}

/// The result of a scrape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpScrapeReply {
    /// The tracker gave the counts.
    Reply(ScrapeReply),
    /// The tracker refused the scrape for this reason. Unescaped.
    Failure(String),
}

/// Returns the answer to `announce`, with peers in compact or non-compact form as requested. The non-compact form
/// contains known ids unless the request asked to leave them out.
pub fn encode_reply(reply: &AnnounceReply, announce: &Announce) -> Vec<u8> {
    let text = reply.warning.as_ref().map_or(0, String::len)
        + reply.tracker_id.as_ref().map_or(0, Bytes::len);
    let peer_len = if announce.compact { 18 } else { 64 };
    let mut out = Vec::with_capacity(256 + text + peer_len * reply.peers.len());
    out.push(b'd');
    put_int_at(b"complete", reply.complete.into(), &mut out);
    if let Some(ip) = reply.external_ip {
        put_bytes(b"external ip", &mut out);
        match ip.to_canonical() {
            IpAddr::V4(ip) => put_bytes(&ip.octets(), &mut out),
            IpAddr::V6(ip) => put_bytes(&ip.octets(), &mut out),
        }
    }
    put_int_at(b"incomplete", reply.incomplete.into(), &mut out);
    put_int_at(b"interval", reply.interval.as_secs(), &mut out);
    if let Some(least) = reply.min_interval {
        put_int_at(b"min interval", least.as_secs(), &mut out);
    }
    put_bytes(b"peers", &mut out);
    if announce.compact {
        put_compact(&reply.peers, Family::V4, &mut out);
        if reply.peers.iter().any(|peer| Family::of(peer.ip()) == Family::V6) {
            put_bytes(b"peers6", &mut out);
            put_compact(&reply.peers, Family::V6, &mut out);
        }
    } else {
        out.push(b'l');
        for (at, peer) in reply.peers.iter().enumerate() {
            let id = reply.peer_ids.get(at).copied().flatten();
            put_peer_dict(*peer, id.filter(|_| !announce.no_peer_id), &mut out);
        }
        out.push(b'e');
    }
    if let Some(id) = &reply.tracker_id {
        put_bytes(b"tracker id", &mut out);
        put_bytes(id, &mut out);
    }
    if let Some(warning) = &reply.warning {
        put_bytes(b"warning message", &mut out);
        put_bytes(warning.as_bytes(), &mut out);
    }
    out.push(b'e');
    out
}

/// Returns the answer to a refused announce or scrape.
pub fn encode_failure(reason: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + reason.len());
    out.push(b'd');
    put_bytes(b"failure reason", &mut out);
    put_bytes(reason.as_bytes(), &mut out);
    out.push(b'e');
    out
}

/// Parses the answer to an announce. Bytes after it are ignored, because many tracker scripts append a line end or
/// more. Peers with port 0 or without an address are dropped, and those beyond [`MAX_PEERS`]. Peers with a host
/// name are in [`AnnounceReply::named`].
///
/// # Errors
/// If it is longer than [`MAX_BODY_LEN`], not bencode, or not an answer.
pub fn decode_reply(body: &[u8]) -> Result<HttpReply, AnnounceError> {
    let (scan, _) = bencode::scan_tolerant(body, &LIMITS, TOLERANCE)?;
    let root = dict(scan.root())?;
    if let Some(reason) = text(root, b"failure reason") {
        return Ok(HttpReply::Failure(Refusal { reason, retry: retry(root) }));
    }
    let interval = seconds(root, b"interval");
    let peers = root.get(b"peers");
    let peers6 = root.get(b"peers6");
    if interval.is_none() && peers.is_none() && peers6.is_none() {
        return Err(AnnounceError::BadReply { fault: "it has neither an interval nor peers" });
    }
    let mut reply = AnnounceReply::new(interval.unwrap_or(DEFAULT_INTERVAL));
    reply.min_interval = seconds(root, b"min interval");
    reply.complete = count(root, b"complete");
    reply.incomplete = count(root, b"incomplete");
    reply.warning = text(root, b"warning message");
    reply.external_ip = root.get(b"external ip").and_then(Node::as_bytes).and_then(ip_of);
    let id = root.get(b"tracker id").and_then(Node::as_bytes);
    reply.tracker_id = id.filter(|id| id.len() <= MAX_TRACKER_ID).map(Bytes::copy_from_slice);
    if let Some(peers) = peers {
        take_peers(peers, Family::V4, &mut reply.peers)?;
        let names = peers.items().filter_map(name_of_dict);
        reply.named = names.take(MAX_NAMED_PEERS).collect();
    }
    if let Some(peers) = peers6 {
        take_peers(peers, Family::V6, &mut reply.peers)?;
    }
    Ok(HttpReply::Reply(reply))
}

/// Returns the answer to a scrape. A repeated torrent is included once.
pub fn encode_scrape_reply(reply: &ScrapeReply) -> Vec<u8> {
    let mut entries: Vec<&(InfoHash, ScrapeEntry)> = reply.entries.iter().collect();
    entries.sort_by_key(|(hash, _)| *hash);
    entries.dedup_by_key(|(hash, _)| *hash);
    let mut out = Vec::with_capacity(16 + 96 * entries.len());
    out.push(b'd');
    put_bytes(b"files", &mut out);
    out.push(b'd');
    for (hash, entry) in entries {
        put_bytes(&hash.0, &mut out);
        out.push(b'd');
        put_int_at(b"complete", entry.complete.into(), &mut out);
        put_int_at(b"downloaded", entry.downloaded.into(), &mut out);
        put_int_at(b"incomplete", entry.incomplete.into(), &mut out);
        out.push(b'e');
    }
    out.extend_from_slice(b"ee");
    out
}

/// Parses the answer to a scrape. Keys that are not info-hashes are ignored, and so are bytes after the answer.
///
/// # Errors
/// If it is longer than [`MAX_BODY_LEN`], not bencode, or not an answer.
pub fn decode_scrape_reply(body: &[u8]) -> Result<HttpScrapeReply, AnnounceError> {
    let (scan, _) = bencode::scan_tolerant(body, &LIMITS, TOLERANCE)?;
    let root = dict(scan.root())?;
    if let Some(reason) = text(root, b"failure reason") {
        return Ok(HttpScrapeReply::Failure(reason));
    }
    let files = root.get(b"files").ok_or(AnnounceError::BadReply { fault: "it has no `files`" })?;
    let entries = dict(files)?.entries().filter_map(|(key, node)| {
        let hash = InfoHash(key.try_into().ok()?);
        let entry = ScrapeEntry {
            complete: count(node, b"complete"),
            downloaded: count(node, b"downloaded"),
            incomplete: count(node, b"incomplete"),
        };
        Some((hash, entry))
    });
    Ok(HttpScrapeReply::Reply(ScrapeReply { entries: entries.take(MAX_SCRAPE_HASHES).collect() }))
}

fn dict<'s, 'a>(node: Node<'s, 'a>) -> Result<Node<'s, 'a>, AnnounceError> {
    match node.kind() {
        Kind::Dict => Ok(node),
        _ => Err(AnnounceError::BadReply { fault: "it is not a dictionary" }),
    }
}

fn text(node: Node<'_, '_>, key: &[u8]) -> Option<String> {
    let bytes = node.get(key)?.as_bytes()?;
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_LEN)]).into_owned())
}

/// Parses a count. Invalid or negative numbers, which some trackers use for unknown counts, are 0.
fn count(node: Node<'_, '_>, key: &[u8]) -> u32 {
    let count = node.get(key).and_then(Node::as_int).unwrap_or(0);
    u32::try_from(count.clamp(0, u32::MAX.into())).unwrap_or(0)
}

/// Parses when the client may try again after a refusal: `retry in` (BEP 31) in minutes or `never`, or else an
/// interval beside the reason.
fn retry(root: Node<'_, '_>) -> Option<Retry> {
    if let Some(asked) = root.get(b"retry in") {
        if asked.as_bytes() == Some(b"never") {
            return Some(Retry::Never);
        }
        // Some trackers send the number as a string.
        let text = || asked.as_str()?.trim().parse().ok();
        let minutes = asked.as_int().or_else(text).filter(|minutes| *minutes > 0)?;
        let minutes = u64::saturating_from(minutes.clamp(0, u32::MAX.into()));
        return Some(Retry::After(Duration::from_secs(minutes * 60)));
    }
    let least = seconds(root, b"min interval").unwrap_or_default();
    let pause = seconds(root, b"interval").unwrap_or_default().max(least);
    (!pause.is_zero()).then_some(Retry::After(pause))
}

fn seconds(node: Node<'_, '_>, key: &[u8]) -> Option<Duration> {
    let seconds = node.get(key)?.as_int()?;
    // A u32 as in UDP answers: 136 years.
    Some(Duration::from_secs(u64::saturating_from(seconds.clamp(0, u32::MAX.into()))))
}

/// Adds the peers in `node`, in compact form (of this family) or in non-compact form (of any).
fn take_peers(
    node: Node<'_, '_>,
    family: Family,
    peers: &mut Vec<SocketAddr>,
) -> Result<(), AnnounceError> {
    let room = MAX_PEERS.saturating_sub(peers.len());
    if let Some(bytes) = node.as_bytes() {
        // An incomplete peer at the end is ignored.
        let chunks = bytes.chunks_exact(family.peer_len());
        peers.extend(chunks.filter_map(compact_peer).take(room));
        return Ok(());
    }
    if node.kind() != Kind::List {
        return Err(AnnounceError::BadReply { fault: "its peers are neither bytes nor a list" });
    }
    peers.extend(node.items().filter_map(peer_of_dict).take(room));
    Ok(())
}

/// Parses a peer in the form of BEP 3.
fn peer_of_dict(node: Node<'_, '_>) -> Option<SocketAddr> {
    let ip: IpAddr = node.get(b"ip")?.as_str()?.trim().parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port_of_dict(node)?))
}

/// Parses a peer with a DNS name in place of its address, which BEP 3 allows.
fn name_of_dict(node: Node<'_, '_>) -> Option<PeerName> {
    PeerName::new(node.get(b"ip")?.as_str()?.trim(), port_of_dict(node)?)
}

/// Parses the port of a peer, which some trackers send as a string.
fn port_of_dict(node: Node<'_, '_>) -> Option<u16> {
    let port = node.get(b"port")?;
    let number = port.as_int().or_else(|| port.as_str()?.trim().parse().ok())?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(ip) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(ip));
    }
    Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical())
}

fn put_compact(peers: &[SocketAddr], family: Family, out: &mut Vec<u8>) {
    let chosen = || peers.iter().filter(|peer| Family::of(peer.ip()) == family);
    put_number((chosen().count() * family.peer_len()) as u64, out);
    out.push(b':');
    chosen().for_each(|peer| put_compact_peer(*peer, out));
}

fn put_peer_dict(peer: SocketAddr, id: Option<PeerId>, out: &mut Vec<u8>) {
    let mut ip = AddressText { bytes: [0; 45], len: 0 };
    // The longest address fits, so writing cannot fail.
    let _ = write!(ip, "{}", peer.ip().to_canonical());
    out.push(b'd');
    put_bytes(b"ip", out);
    put_bytes(ip.as_bytes(), out);
    if let Some(id) = id {
        put_bytes(b"peer id", out);
        put_bytes(&id.0, out);
    }
    put_int_at(b"port", peer.port().into(), out);
    out.push(b'e');
}

fn put_int_at(key: &[u8], value: u64, out: &mut Vec<u8>) {
    put_bytes(key, out);
    out.push(b'i');
    put_number(value, out);
    out.push(b'e');
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_number(bytes.len() as u64, out);
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn put_number(mut value: u64, out: &mut Vec<u8>) {
    // 2^64 has 20 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// A text buffer on the stack for an address, whose length must be written before it. The longest has 45 bytes.
struct AddressText {
    bytes: [u8; 45],
    len: usize,
}

impl AddressText {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for AddressText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Dictionaries are at most three levels deep. A megabyte of peers in non-compact form has 40,000 peers of seven
/// values.
const LIMITS: Limits = Limits { bytes: MAX_BODY_LEN, depth: 16, tokens: 300_000 };

/// Some trackers send numbers that are not normalized, or repeat keys.
const TOLERANCE: Tolerance = Tolerance { numbers: true, duplicate_keys: true };

/// The maximum length of a tracker's message to the user: a sentence or two.
const MAX_TEXT_LEN: usize = 512;

/// The interval if a tracker sends none: what most trackers use.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce::model::tests::{any_ip, any_peers};
    use piecework_core::PeerId;

    fn asking(compact: bool) -> Announce {
        Announce { compact, ..Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 6_881, 0) }
    }

    fn taken(body: &[u8]) -> AnnounceReply {
        match decode_reply(body).unwrap() {
            HttpReply::Reply(reply) => reply,
            HttpReply::Failure(refusal) => panic!("refused: {}", refusal.reason),
        }
    }

    fn by_family(mut peers: Vec<SocketAddr>) -> Vec<SocketAddr> {
        peers.sort_by_key(|peer| peer.is_ipv6());
        peers
    }

    fn any_reply() -> impl Strategy<Value = AnnounceReply> {
        (
            any::<(u32, Option<u32>, u32, u32)>(),
            any_peers(),
            proptest::option::of(any_ip()),
            proptest::option::of("\\PC{0,80}"),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
        )
            .prop_map(
                |((interval, least, complete, incomplete), peers, ip, warning, id)| AnnounceReply {
                    interval: Duration::from_secs(interval.into()),
                    min_interval: least.map(|least| Duration::from_secs(least.into())),
                    complete,
                    incomplete,
                    peers,
                    named: Vec::new(),
                    peer_ids: Vec::new(),
                    external_ip: ip,
                    warning,
                    tracker_id: id.map(Bytes::from),
                },
            )
    }

    proptest! {
        #[test]
        fn answers_round_trip(mut reply in any_reply()) {
            prop_assert_eq!(&taken(&encode_reply(&reply, &asking(false))), &reply);
            let compact = taken(&encode_reply(&reply, &asking(true)));
            reply.peers = by_family(reply.peers);
            prop_assert_eq!(compact, reply);
        }

        #[test]
        fn answers_are_canonical_bencode(reply in any_reply(), compact: bool) {
            let body = encode_reply(&reply, &asking(compact));
            prop_assert!(bencode::scan(&body, &LIMITS).unwrap().is_canonical());
        }

        #[test]
        fn failures_round_trip(reason in "\\PC{0,80}") {
            let body = encode_failure(&reason);
            let refusal = Refusal { reason: reason.clone(), retry: None };
            prop_assert_eq!(decode_reply(&body).unwrap(), HttpReply::Failure(refusal));
            prop_assert_eq!(decode_scrape_reply(&body).unwrap(), HttpScrapeReply::Failure(reason));
        }

        #[test]
        fn scrapes_round_trip(
            entries in proptest::collection::btree_map(any::<[u8; 20]>(), any::<[u32; 3]>(), 0..20),
        ) {
            let entry = |[complete, downloaded, incomplete]: [u32; 3]| {
                ScrapeEntry { complete, downloaded, incomplete }
            };
            let entries = entries.into_iter().map(|(hash, counts)| (InfoHash(hash), entry(counts)));
            let reply = ScrapeReply { entries: entries.collect() };
            let body = encode_scrape_reply(&reply);
            prop_assert!(bencode::scan(&body, &LIMITS).unwrap().is_canonical());
            prop_assert_eq!(decode_scrape_reply(&body).unwrap(), HttpScrapeReply::Reply(reply));
        }

        #[test]
        fn arbitrary_bodies_never_panic(
            body in proptest::collection::vec(any::<u8>(), 0..100),
            value in "(i-?[0-9]{1,12}e|[0-9]:[a-z]{0,9}|le|de|ld2:ip3:::14:porti0eee)",
        ) {
            let _ = decode_reply(&body);
            let _ = decode_scrape_reply(&body);
            for key in ["8:complete", "5:files", "8:interval", "5:peers", "6:peers6"] {
                let _ = decode_reply(format!("d{key}{value}e").as_bytes());
                let _ = decode_scrape_reply(format!("d{key}{value}e").as_bytes());
            }
        }
    }

    #[test]
    fn the_answer_is_what_other_clients_expect() {
        let mut reply = AnnounceReply::new(Duration::from_secs(1_800));
        (reply.complete, reply.incomplete) = (1, 2);
        reply.peers = vec!["1.2.3.4:258".parse().unwrap(), "[::1]:772".parse().unwrap()];
        assert_eq!(
            encode_reply(&reply, &asking(true)),
            b"d8:completei1e10:incompletei2e8:intervali1800e5:peers6:\x01\x02\x03\x04\x01\x02\
              6:peers618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x03\x04e"
        );
        assert_eq!(
            encode_reply(&reply, &asking(false)),
            b"d8:completei1e10:incompletei2e8:intervali1800e\
              5:peersld2:ip7:1.2.3.44:porti258eed2:ip3:::14:porti772eeee"
        );
    }

    #[test]
    fn peers_one_by_one_may_carry_ids_and_names() {
        let body = b"d8:intervali60e5:peersld2:ip9:127.0.0.17:peer id20:aaaaaaaaaaaaaaaaaaaa\
                     4:porti6881eed2:ip9:localhost4:porti1eed2:ip7:1.2.3.44:porti70000eeee";
        assert_eq!(taken(body).peers, ["127.0.0.1:6881".parse().unwrap()]);
    }

    #[test]
    fn a_lying_tracker_gives_no_port_0_and_no_more_peers_than_the_bound() {
        let mut reply = AnnounceReply::new(Duration::from_secs(60));
        let port = |n: u32| if n.is_multiple_of(2) { 0 } else { 6_881 };
        reply.peers = (0..30_000).map(|n| SocketAddr::from(([10, 0, 0, 1], port(n)))).collect();
        for compact in [true, false] {
            let peers = taken(&encode_reply(&reply, &asking(compact))).peers;
            assert_eq!(peers.len(), MAX_PEERS);
            assert!(peers.iter().all(|peer| peer.port() != 0));
        }
    }

    #[test]
    fn a_million_peers_are_more_than_an_answer_may_have() {
        let mut reply = AnnounceReply::new(Duration::from_secs(60));
        reply.peers = vec!["10.0.0.1:6881".parse().unwrap(); 1_000_000];
        let body = encode_reply(&reply, &asking(true));
        assert!(matches!(decode_reply(&body), Err(AnnounceError::NotBencode(_))));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for body in [&b"<html>"[..], b"i1e", b"de", b"d5:peersi1ee", b" d8:intervali1ee"] {
            let shown = decode_reply(body).unwrap_err().to_string();
            assert!(shown.starts_with("the tracker's answer is not valid: "), "{shown}");
        }
    }

    #[test]
    fn refusals_say_when_to_come_back() {
        let retry = |body: &str| match decode_reply(body.as_bytes()).unwrap() {
            HttpReply::Failure(refusal) => refusal.retry,
            HttpReply::Reply(reply) => panic!("taken: {reply:?}"),
        };
        let after = |seconds| Some(Retry::After(Duration::from_secs(seconds)));
        assert_eq!(retry("d14:failure reason4:busye"), None);
        assert_eq!(retry("d14:failure reason4:busy8:intervali900ee"), after(900));
        assert_eq!(retry("d14:failure reason4:busy8:intervali5e12:min intervali60ee"), after(60));
        assert_eq!(retry("d14:failure reason4:busy8:retry ini30ee"), after(1_800));
        assert_eq!(retry("d14:failure reason4:busy8:retry in2:30e"), after(1_800));
        assert_eq!(retry("d14:failure reason4:gone8:retry in5:nevere"), Some(Retry::Never));
        for nothing in ["i0e", "i-5e", "3:now", "le"] {
            assert_eq!(retry(&format!("d14:failure reason4:busy8:retry in{nothing}e")), None);
        }
    }

    #[test]
    fn negative_counts_and_intervals_are_zero() {
        let reply = taken(b"d8:completei-1e8:intervali-5ee");
        assert_eq!((reply.complete, reply.interval), (0, Duration::ZERO));
    }
}
