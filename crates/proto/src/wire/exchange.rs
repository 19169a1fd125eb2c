//! Messages by which peers name other peers (`ut_pex`, BEP 11).

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::WireError;
use piecework_core::bencode::{self, Kind, Limits};

/// The name of the extension in the extended handshake.
pub const EXCHANGE_EXTENSION: &str = "ut_pex";

/// The maximum length of a `ut_pex` message after its extended id. One with 100 addresses of each kind has 6 KiB. The
/// first message of some clients names all their peers.
pub const MAX_EXCHANGE_MESSAGE_LEN: u32 = 16 * 1024;

/// The maximum number of addresses of each list that are read. BEP 11 allows 50, except in the first message.
pub const MAX_EXCHANGED: usize = 100;

/// A `ut_pex` message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExchangeMessage {
    /// Peers to which the sender has connected since its last message.
    pub added: Vec<ExchangedPeer>,
    /// Addresses of peers that have left it.
    pub dropped: Vec<SocketAddr>,
}

/// A peer that another one names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangedPeer {
    /// Its address.
    pub addr: SocketAddr,
    /// What the sender says of it.
    pub flags: ExchangeFlags,
}

/// What is said of a peer. Unknown flags are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExchangeFlags(pub u8);

impl ExchangeFlags {
    /// It prefers encrypted connections.
    pub const ENCRYPTED: Self = Self(0x01);
    /// It requests nothing.
    pub const SEED: Self = Self(0x02);
    /// The sender has dialled it, so that it accepts connections.
    pub const REACHABLE: Self = Self(0x10);

    /// Returns both flags.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether all flags of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl ExchangeMessage {
    /// Decodes the payload of an extended message. Of each list, at most [`MAX_EXCHANGED`] addresses are read. A rest
    /// that is too short for an address, and values of another type, are ignored, because clients send many forms. The
    /// addresses are not checked.
    ///
    /// # Errors
    /// [`WireError::BadExchange`] if it is not a bencoded dictionary, or is too long.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let bad = |fault: &dyn Display| WireError::BadExchange { fault: fault.to_string() };
        if payload.len() > MAX_EXCHANGE_MESSAGE_LEN as usize {
            return Err(bad(&format_args!("it has `{}` bytes", payload.len())));
        }
        let scan = bencode::scan(payload, &LIMITS).map_err(|fault| bad(&fault))?;
        let root = scan.root();
        if root.kind() != Kind::Dict {
            return Err(bad(&"it is not a dictionary"));
        }
        let bytes = |key: &[u8]| root.get(key).and_then(|value| value.as_bytes()).unwrap_or(&[]);
        let mut added = Vec::new();
        for (addrs, flags) in [
            (addrs_v4(bytes(b"added")), bytes(b"added.f")),
            (addrs_v6(bytes(b"added6")), bytes(b"added6.f")),
        ] {
            added.extend(addrs.into_iter().enumerate().map(|(at, addr)| ExchangedPeer {
                addr,
                flags: ExchangeFlags(flags.get(at).copied().unwrap_or_default()),
            }));
        }
        let mut dropped = addrs_v4(bytes(b"dropped"));
        dropped.extend(addrs_v6(bytes(b"dropped6")));
        Ok(Self { added, dropped })
    }

    /// Returns the payload of the extended message.
    pub fn encode(&self) -> Bytes {
        let mut out = b"d".to_vec();
        let is_v4 = |peer: &&ExchangedPeer| peer.addr.is_ipv4();
        let (v4, v6): (Vec<&ExchangedPeer>, Vec<_>) = self.added.iter().partition(is_v4);
        for (key, flags_key, peers) in [("added", "added.f", v4), ("added6", "added6.f", v6)] {
            if !peers.is_empty() {
                put(key, &compact(peers.iter().map(|peer| peer.addr)), &mut out);
                let flags: Vec<u8> = peers.iter().map(|peer| peer.flags.0).collect();
                put(flags_key, &flags, &mut out);
            }
        }
        let (v4, v6): (Vec<&SocketAddr>, Vec<_>) =
            self.dropped.iter().partition(|addr| addr.is_ipv4());
        for (key, addrs) in [("dropped", v4), ("dropped6", v6)] {
            if !addrs.is_empty() {
                put(key, &compact(addrs.into_iter().copied()), &mut out);
            }
        }
        out.push(b'e');
        out.into()
    }
}

fn addrs_v4(bytes: &[u8]) -> Vec<SocketAddr> {
    let (addrs, _) = bytes.as_chunks::<6>();
    let addr = |&[a, b, c, d, high, low]: &[u8; 6]| {
        SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))
    };
    addrs.iter().take(MAX_EXCHANGED).map(addr).collect()
}

fn addrs_v6(bytes: &[u8]) -> Vec<SocketAddr> {
    let (addrs, _) = bytes.as_chunks::<18>();
    let addr = |bytes: &[u8; 18]| {
        let (ip, port) = bytes.split_first_chunk::<16>()?;
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some(SocketAddr::from((*ip, port)))
    };
    addrs.iter().take(MAX_EXCHANGED).filter_map(addr).collect()
}

fn compact(addrs: impl Iterator<Item = SocketAddr>) -> Vec<u8> {
    let mut out = Vec::new();
    for addr in addrs {
        match addr.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
    out
}

fn put(key: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:{key}{}:", key.len(), value.len()).as_bytes());
    out.extend_from_slice(value);
}

/// Real ones have at most seven keys.
const LIMITS: Limits = Limits { bytes: MAX_EXCHANGE_MESSAGE_LEN as usize, depth: 8, tokens: 256 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(addr: &str, flags: u8) -> ExchangedPeer {
        ExchangedPeer { addr: addr.parse().unwrap(), flags: ExchangeFlags(flags) }
    }

    #[test]
    fn the_message_of_another_client_is_read() {
        let payload =
            b"d5:added12:\x0a\0\0\x01\x1a\xe1\x0a\0\0\x02\0\x017:added.f2:\x12\x006:added618:\
                        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe18:added6.f1:\x01\
                        7:dropped6:\x0a\0\0\x03\0\x028:dropped60:1:xi1ee";
        let message = ExchangeMessage::decode(payload).unwrap();
        let added =
            [peer("10.0.0.1:6881", 0x12), peer("10.0.0.2:1", 0), peer("[2001:db8::1]:6881", 1)];
        assert_eq!(message.added, added);
        assert!(added[0].flags.has(ExchangeFlags::SEED.with(ExchangeFlags::REACHABLE)));
        assert!(!added[1].flags.has(ExchangeFlags::SEED));
        assert_eq!(message.dropped, ["10.0.0.3:2".parse().unwrap()]);
    }

    #[test]
    fn missing_flags_odd_lengths_and_wrong_types_are_passed_over() {
        let message =
            ExchangeMessage::decode(b"d5:added8:\x0a\0\0\x01\0\x01ab7:droppedi1ee").unwrap();
        assert_eq!(message.added, [peer("10.0.0.1:1", 0)]);
        assert!(message.dropped.is_empty());
        assert_eq!(ExchangeMessage::decode(b"de").unwrap(), ExchangeMessage::default());
    }

    #[test]
    fn of_ten_thousand_addresses_a_hundred_are_read_and_none_if_the_message_is_too_long() {
        let many = |count: usize| {
            let added = vec![peer("10.0.0.1:1", 0); count];
            let dropped = added.iter().map(|peer| peer.addr).collect();
            ExchangeMessage { added, dropped }.encode()
        };
        let message = ExchangeMessage::decode(&many(1_000)).unwrap();
        assert_eq!((message.added.len(), message.dropped.len()), (100, 100));
        let error = ExchangeMessage::decode(&many(10_000)).unwrap_err();
        assert!(matches!(error, WireError::BadExchange { .. }), "{error}");
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        let deep = [&[b'l'; 20][..], &[b'e'; 20]].concat();
        for payload in [&b""[..], b"le", b"d", b"dee", b"i1e", b"d5:added6:abce", &deep] {
            let error = ExchangeMessage::decode(payload).unwrap_err();
            assert!(matches!(error, WireError::BadExchange { .. }), "{error}");
        }
    }

    fn any_addr() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
            any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            added in proptest::collection::vec((any_addr(), any::<u8>()), 0..20),
            dropped in proptest::collection::vec(any_addr(), 0..20),
        ) {
            let mut added: Vec<_> = added
                .into_iter()
                .map(|(addr, flags)| ExchangedPeer { addr, flags: ExchangeFlags(flags) })
                .collect();
            let mut dropped = dropped;
            // Lists of IPv4 come first.
            added.sort_by_key(|peer| peer.addr.is_ipv6());
            dropped.sort_by_key(SocketAddr::is_ipv6);
            let message = ExchangeMessage { added, dropped };
            let payload = message.encode();
            prop_assert!(bencode::scan(&payload, &LIMITS).unwrap().is_canonical());
            prop_assert_eq!(ExchangeMessage::decode(&payload).unwrap(), message);
        }

        #[test]
        fn no_bytes_do_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            key in "(5:added|7:added.f|6:added6|8:added6.f|7:dropped|8:dropped6)",
            value in "(i-?[0-9]{1,20}e|[0-9]:[a-z]{0,9}|le|de)",
        ) {
            let _ = ExchangeMessage::decode(&bytes);
            let _ = ExchangeMessage::decode(format!("d{key}{value}e").as_bytes());
        }
    }
}
