//! The handshake of the extension protocol (BEP 10).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use super::WireError;
use piecework_core::bencode::{self, Kind, Limits, Node};
use piecework_core::printable;

/// The payload of extended message 0. Everything in it is optional.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtendedHandshake {
    /// The extensions that the sender supports, with the message id of each (`m`).
    pub messages: BTreeMap<String, u8>,
    /// The client's name and version (`v`), at most 128 bytes. Unescaped: show it only through [`printable`].
    pub client: Option<String>,
    /// The maximum number of its pending requests (`reqq`).
    pub reqq: Option<u32>,
    /// Whether it will request nothing (`upload_only`, BEP 21).
    pub upload_only: Option<bool>,
    /// The port that accepts connections (`p`).
    pub listen_port: Option<u16>,
    /// The receiver's address as the sender sees it (`yourip`).
    pub your_ip: Option<IpAddr>,
    /// The length of the torrent's `info` dictionary (`metadata_size`, BEP 9).
    pub metadata_size: Option<u64>,
}

impl ExtendedHandshake {
    /// Decodes the payload. Unknown keys and invalid values are ignored, because clients send many forms.
    ///
    /// # Errors
    /// [`WireError::BadExtended`] if it is not a bencoded dictionary, or exceeds a limit.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let bad = |fault: &dyn Display| WireError::BadExtended { fault: fault.to_string() };
        let scan = bencode::scan(payload, &LIMITS).map_err(|fault| bad(&fault))?;
        let root = scan.root();
        if root.kind() != Kind::Dict {
            return Err(bad(&"it is not a dictionary"));
        }
        let mut messages = BTreeMap::new();
        for (name, id) in root.get(b"m").into_iter().flat_map(Node::entries) {
            // Id 0 means that the sender does not support the extension (any more).
            let id = id.as_int().and_then(|id| u8::try_from(id).ok()).filter(|id| *id != 0);
            let (Some(id), Ok(name)) = (id, std::str::from_utf8(name)) else { continue };
            if messages.len() == MAX_MESSAGES {
                return Err(bad(&format_args!("it names more than `{MAX_MESSAGES}` extensions")));
            }
            messages.insert(name.to_owned(), id);
        }
        let int = |key: &[u8]| root.get(key).and_then(Node::as_int);
        Ok(Self {
            messages,
            client: root.get(b"v").and_then(Node::as_bytes).map(client_of),
            reqq: int(b"reqq").and_then(|reqq| u32::try_from(reqq).ok()),
            upload_only: int(b"upload_only").map(|flag| flag != 0),
            listen_port: int(b"p").and_then(|port| u16::try_from(port).ok()).filter(|p| *p != 0),
            your_ip: root.get(b"yourip").and_then(Node::as_bytes).and_then(ip_of),
            metadata_size: int(b"metadata_size").and_then(|size| u64::try_from(size).ok()),
        })
    }

    /// Returns the payload of extended message 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"d1:md".to_vec();
        for (name, id) in &self.messages {
            put_bytes(name.as_bytes(), &mut out);
            put_int(*id, &mut out);
        }
        out.push(b'e');
        if let Some(size) = self.metadata_size {
            put_bytes(b"metadata_size", &mut out);
            put_int(size, &mut out);
        }
        if let Some(port) = self.listen_port {
            put_bytes(b"p", &mut out);
            put_int(port, &mut out);
        }
        if let Some(reqq) = self.reqq {
            put_bytes(b"reqq", &mut out);
            put_int(reqq, &mut out);
        }
        if let Some(flag) = self.upload_only {
            put_bytes(b"upload_only", &mut out);
            put_int(u8::from(flag), &mut out);
        }
        if let Some(client) = &self.client {
            put_bytes(b"v", &mut out);
            put_bytes(client.as_bytes(), &mut out);
        }
        if let Some(ip) = self.your_ip {
            put_bytes(b"yourip", &mut out);
            match ip {
                IpAddr::V4(ip) => put_bytes(&ip.octets(), &mut out),
                IpAddr::V6(ip) => put_bytes(&ip.octets(), &mut out),
            }
        }
        out.push(b'e');
        out
    }

    /// Returns [`ExtendedHandshake::client`] in a form that is safe to show.
    pub fn shown_client(&self) -> Option<String> {
        self.client.as_deref().map(|client| printable(client).into_owned())
    }
}

fn client_of(bytes: &[u8]) -> String {
    // Cut before and after decoding, because replacing invalid UTF-8 makes the text longer.
    let mut client = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_CLIENT)]).into_owned();
    client.truncate(client.floor_char_boundary(MAX_CLIENT));
    client
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(ip) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(ip));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

fn put_int(value: impl Display, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("i{value}e").as_bytes());
}

/// Real ones have less than 1 KiB, three levels and fifty values.
const LIMITS: Limits = Limits { bytes: 64 * 1024, depth: 32, tokens: 4_096 };

/// The maximum number of extensions. Clients name about ten.
const MAX_MESSAGES: usize = 64;

/// The maximum length of a client's name. The longest in use have 40 bytes.
const MAX_CLIENT: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_handshake() -> impl Strategy<Value = ExtendedHandshake> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ];
        (
            proptest::collection::btree_map("\\PC{0,20}", 1u8.., 0..=MAX_MESSAGES),
            proptest::option::of("\\PC{0,30}"),
            any::<(Option<u32>, Option<bool>)>(),
            proptest::option::of(1u16..),
            proptest::option::of(ip),
            proptest::option::of(0..=i64::MAX as u64),
        )
            .prop_map(
                |(messages, client, (reqq, upload_only), listen_port, your_ip, size)| {
                    ExtendedHandshake {
                        messages,
                        client,
                        reqq,
                        upload_only,
                        listen_port,
                        your_ip,
                        metadata_size: size,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn handshakes_round_trip(handshake in any_handshake()) {
            let payload = handshake.encode();
            prop_assert!(bencode::scan(&payload, &LIMITS).unwrap().is_canonical());
            prop_assert_eq!(ExtendedHandshake::decode(&payload).unwrap(), handshake);
        }

        #[test]
        fn arbitrary_payloads_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            key in "(1:m|1:p|1:v|4:reqq|6:yourip|11:upload_only|13:metadata_size)",
            value in "(i-?[0-9]{1,20}e|[0-9]:[a-z]{0,9}|le|de|d1:ai-1ee)",
        ) {
            let _ = ExtendedHandshake::decode(&payload);
            let _ = ExtendedHandshake::decode(format!("d{key}{value}e").as_bytes());
        }
    }

    #[test]
    fn the_handshake_of_another_client_is_read() {
        let payload = b"d1:ei0e4:ipv616:aaaaaaaaaaaaaaaa12:complete_agoi5e1:md11:ut_metadatai3e\
                        6:ut_pexi1e10:ut_unknowni0ee13:metadata_sizei245e1:pi51413e4:reqqi512e\
                        11:upload_onlyi1e1:v17:Transmission 3.006:yourip4:\x7f\0\0\x01e";
        let handshake = ExtendedHandshake::decode(payload).unwrap();
        let messages: Vec<_> = handshake.messages.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(messages, [("ut_metadata", 3), ("ut_pex", 1)]);
        assert_eq!(handshake.client.as_deref(), Some("Transmission 3.00"));
        assert_eq!((handshake.reqq, handshake.upload_only), (Some(512), Some(true)));
        assert_eq!((handshake.listen_port, handshake.metadata_size), (Some(51_413), Some(245)));
        assert_eq!(handshake.your_ip, Some(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn optional_values_of_the_wrong_type_are_passed_over() {
        let payload = b"d1:mle1:p3:abc4:reqqi-1e11:upload_only1:y1:vi7e6:yourip3:abce";
        assert_eq!(ExtendedHandshake::decode(payload).unwrap(), ExtendedHandshake::default());
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let deep = [b"d1:m".as_slice(), &[b'l'; 40], &[b'e'; 41]].concat();
        let mut long = b"d1:v70000:".to_vec();
        long.resize(70_010, b'v');
        long.push(b'e');
        for payload in [&b""[..], b"le", b"d", b"dee", &deep, &long] {
            let error = ExtendedHandshake::decode(payload).unwrap_err();
            assert!(matches!(error, WireError::BadExtended { .. }), "{error}");
        }
    }

    #[test]
    fn too_many_extensions_are_refused() {
        let mut handshake = ExtendedHandshake::default();
        for n in 0..=MAX_MESSAGES {
            handshake.messages.insert(n.to_string(), 1);
        }
        assert!(ExtendedHandshake::decode(&handshake.encode()).is_err());
    }

    #[test]
    fn a_client_name_with_control_characters_is_cut_and_shown_safely() {
        let payload = [b"d1:v300:\x1b[2J".as_slice(), &[0xff; 296], b"e"].concat();
        let handshake = ExtendedHandshake::decode(&payload).unwrap();
        assert!(handshake.client.as_ref().unwrap().len() <= MAX_CLIENT);
        assert!(handshake.shown_client().unwrap().starts_with("\\x1b[2J\u{fffd}"));
    }
}
