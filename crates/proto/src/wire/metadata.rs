//! Messages that exchange the `info` dictionary of a torrent (`ut_metadata`, BEP 9).

use std::fmt::Display;

use bytes::Bytes;

use super::WireError;
use piecework_core::bencode::{self, Kind, Limits};

/// The name of the extension in the extended handshake.
pub const METADATA_EXTENSION: &str = "ut_metadata";

/// The length of a piece of metadata. Only the last one is shorter.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// The maximum length of a `ut_metadata` message after its extended id: a piece and a dictionary.
pub const MAX_METADATA_MESSAGE_LEN: u32 = METADATA_PIECE_LEN + 1024;

/// A `ut_metadata` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Asks for a piece of the metadata.
    Request {
        /// The number of the piece.
        piece: u32,
    },
    /// Gives a piece.
    Data {
        /// The number of the piece.
        piece: u32,
        /// The length of the whole metadata, as the sender says. `None` if it does not say.
        total_size: Option<u64>,
        /// The bytes of the piece, not checked.
        bytes: Bytes,
    },
    /// Refuses a request.
    Reject {
        /// The number of the piece.
        piece: u32,
    },
}

impl MetadataMessage {
    /// Decodes the payload of an extended message. Returns `None` for a type that is not known, which must be
    /// ignored (BEP 9).
    ///
    /// # Errors
    /// [`WireError::BadMetadata`] if it is too long, is not a dictionary, has no type or no valid piece, or if bytes
    /// follow a message that has none.
    pub fn decode(payload: &Bytes) -> Result<Option<Self>, WireError> {
        let bad = |fault: &dyn Display| WireError::BadMetadata { fault: fault.to_string() };
        if payload.len() > MAX_METADATA_MESSAGE_LEN as usize {
            return Err(bad(&format_args!("it has `{}` bytes", payload.len())));
        }
        let (scan, end) = bencode::scan_prefix(payload, &LIMITS).map_err(|fault| bad(&fault))?;
        let root = scan.root();
        if root.kind() != Kind::Dict {
            return Err(bad(&"it is not a dictionary"));
        }
        let int = |key: &[u8]| root.get(key).and_then(|value| value.as_int());
        let Some(kind) = int(b"msg_type") else { return Err(bad(&"it has no type")) };
        let piece = int(b"piece").and_then(|piece| u32::try_from(piece).ok());
        let bytes = payload.slice(end..);
        let no_piece = || bad(&"it has no valid piece");
        match kind {
            DATA if bytes.len() > METADATA_PIECE_LEN as usize => {
                Err(bad(&format_args!("its piece has `{}` bytes", bytes.len())))
            }
            DATA => Ok(Some(Self::Data {
                piece: piece.ok_or_else(no_piece)?,
                total_size: int(b"total_size").and_then(|size| u64::try_from(size).ok()),
                bytes,
            })),
            REQUEST | REJECT if !bytes.is_empty() => {
                Err(bad(&format_args!("`{}` bytes follow it", bytes.len())))
            }
            REQUEST => Ok(Some(Self::Request { piece: piece.ok_or_else(no_piece)? })),
            REJECT => Ok(Some(Self::Reject { piece: piece.ok_or_else(no_piece)? })),
            _ => Ok(None),
        }
    }

    /// Returns the payload of the extended message.
    pub fn encode(&self) -> Bytes {
        let (kind, piece) = match self {
            Self::Request { piece } => (REQUEST, piece),
            Self::Data { piece, .. } => (DATA, piece),
            Self::Reject { piece } => (REJECT, piece),
        };
        let mut out = format!("d8:msg_typei{kind}e5:piecei{piece}e");
        let bytes: &[u8] = match self {
            Self::Data { total_size, bytes, .. } => {
                if let Some(size) = total_size {
                    out.push_str(&format!("10:total_sizei{size}e"));
                }
                bytes
            }
            Self::Request { .. } | Self::Reject { .. } => &[],
        };
        out.push('e');
        [out.as_bytes(), bytes].concat().into()
    }

    /// Returns piece `piece` of the metadata `info`, `None` if it has no such piece.
    pub fn data(info: &[u8], piece: u32) -> Option<Self> {
        let start = (piece as usize).checked_mul(METADATA_PIECE_LEN as usize)?;
        let rest = info.get(start..).filter(|rest| !rest.is_empty())?;
        let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(METADATA_PIECE_LEN as usize)]);
        Some(Self::Data { piece, total_size: Some(info.len() as u64), bytes })
    }
}

const REQUEST: i64 = 0;
const DATA: i64 = 1;
const REJECT: i64 = 2;

/// Real ones have three keys. The bytes of a piece are not part of the dictionary.
const LIMITS: Limits = Limits { bytes: MAX_METADATA_MESSAGE_LEN as usize, depth: 8, tokens: 256 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(payload: &[u8]) -> Result<Option<MetadataMessage>, WireError> {
        MetadataMessage::decode(&Bytes::copy_from_slice(payload))
    }

    #[test]
    fn messages_of_other_clients_are_understood() {
        let request = MetadataMessage::Request { piece: 0 };
        assert_eq!(read(b"d8:msg_typei0e5:piecei0ee").unwrap(), Some(request));
        let data = read(b"d8:msg_typei1e5:piecei2e10:total_sizei34256eeabc").unwrap();
        let bytes = Bytes::from_static(b"abc");
        assert_eq!(data, Some(MetadataMessage::Data { piece: 2, total_size: Some(34_256), bytes }));
        let reject = MetadataMessage::Reject { piece: 1 };
        assert_eq!(read(b"d8:msg_typei2e5:piecei1e1:xlee").unwrap(), Some(reject));
        // BEP 9: unknown types must be ignored.
        assert_eq!(read(b"d8:msg_typei9eeabc").unwrap(), None);
    }

    #[test]
    fn a_wrong_message_is_refused() {
        let long = [b"d8:msg_typei1e5:piecei0ee".as_slice(), &[7; 16_385]].concat();
        for payload in [
            &b""[..],
            b"i1e",
            b"de",
            b"d8:msg_typei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4294967296ee",
            b"d8:msg_typei0e5:piecei0eex",
            b"d8:msg_typei1e5:piece9999999999:",
            &long,
            &[b'l'; 20_000],
        ] {
            let error = read(payload).unwrap_err();
            assert!(matches!(error, WireError::BadMetadata { .. }), "{error}");
        }
    }

    #[test]
    fn an_impossible_size_is_not_a_size() {
        let data = read(b"d8:msg_typei1e5:piecei0e10:total_sizei-5ee").unwrap();
        assert!(matches!(data, Some(MetadataMessage::Data { total_size: None, .. })));
        let data = read(b"d8:msg_typei1e5:piecei0e10:total_sizei9223372036854775807ee").unwrap();
        let most = Some(i64::MAX as u64);
        assert!(
            matches!(data, Some(MetadataMessage::Data { total_size, .. }) if total_size == most)
        );
    }

    #[test]
    fn metadata_is_cut_in_pieces() {
        let info: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
        let mut whole = Vec::new();
        for piece in 0..3 {
            let Some(MetadataMessage::Data { bytes, .. }) = MetadataMessage::data(&info, piece)
            else {
                panic!("no piece {piece}")
            };
            whole.extend_from_slice(&bytes);
        }
        assert!(whole == info);
        assert_eq!(MetadataMessage::data(&info, 3), None);
        assert_eq!(MetadataMessage::data(&info, u32::MAX), None);
        assert_eq!(MetadataMessage::data(&info[..32_768], 2), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            piece: u32, kind in 0..3, size in proptest::option::of(0..=i64::MAX as u64),
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let message = match kind {
                0 => MetadataMessage::Request { piece },
                1 => MetadataMessage::Data { piece, total_size: size, bytes: bytes.into() },
                _ => MetadataMessage::Reject { piece },
            };
            prop_assert_eq!(MetadataMessage::decode(&message.encode()).unwrap(), Some(message));
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }
}
