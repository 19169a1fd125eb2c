//! The first 68 bytes of a connection.

use super::WireError;
use piecework_core::{InfoHash, PeerId};

/// The first message of both sides: torrent, peer id and extensions (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The sender's peer id.
    pub peer_id: PeerId,
    /// The extension bits. Unknown bits are ignored.
    pub reserved: [u8; 8],
}

impl Handshake {
    /// The length of a handshake in bytes.
    pub const LEN: usize = 68;

    /// Returns a handshake that offers the fast extension (BEP 6) and the extension protocol (BEP 10).
    pub fn ours(info_hash: InfoHash, peer_id: PeerId) -> Self {
        let mut reserved = [0; 8];
        reserved[EXTENDED_BIT.0] |= EXTENDED_BIT.1;
        reserved[FAST_BIT.0] |= FAST_BIT.1;
        Self { info_hash, peer_id, reserved }
    }

    /// Decodes a handshake.
    ///
    /// # Errors
    /// [`WireError::NotBitTorrent`] if it does not begin as one.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, WireError> {
        Self::check_prefix(bytes)?;
        let mut handshake =
            Self { info_hash: InfoHash([0; 20]), peer_id: PeerId([0; 20]), reserved: [0; 8] };
        handshake.reserved.copy_from_slice(&bytes[20..28]);
        handshake.info_hash.0.copy_from_slice(&bytes[28..48]);
        handshake.peer_id.0.copy_from_slice(&bytes[48..68]);
        Ok(handshake)
    }

    /// Checks the received part of a handshake, so that another protocol is refused at its first wrong byte.
    /// Accepts an empty part, and any bytes after the twentieth.
    ///
    /// # Errors
    /// [`WireError::NotBitTorrent`] with the received bytes.
    pub fn check_prefix(bytes: &[u8]) -> Result<(), WireError> {
        let seen = &bytes[..bytes.len().min(PROTOCOL.len())];
        if PROTOCOL.starts_with(seen) {
            Ok(())
        } else {
            Err(WireError::NotBitTorrent(seen.to_vec()))
        }
    }

    /// Returns the wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved);
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..68].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Returns whether the fast extension is offered (BEP 6).
    pub fn fast(&self) -> bool {
        self.reserved[FAST_BIT.0] & FAST_BIT.1 != 0
    }

    /// Returns whether the extension protocol is offered (BEP 10).
    pub fn extended(&self) -> bool {
        self.reserved[EXTENDED_BIT.0] & EXTENDED_BIT.1 != 0
    }
}

/// The length byte and the name of the protocol (BEP 3).
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Byte and mask of the fast extension's bit (BEP 6).
const FAST_BIT: (usize, u8) = (7, 0x04);

/// Byte and mask of the extension protocol's bit (BEP 10).
const EXTENDED_BIT: (usize, u8) = (5, 0x10);

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Handshake {
        Handshake::ours(InfoHash([7; 20]), PeerId(*b"-PW0100-abcdefghijkl"))
    }

    #[test]
    fn our_handshake_offers_fast_and_extended_and_round_trips() {
        let bytes = ours().encode();
        assert_eq!(bytes[20..28], [0, 0, 0, 0, 0, 0x10, 0, 0x04]);
        let read = Handshake::decode(&bytes).unwrap();
        assert_eq!(read, ours());
        assert!(read.fast() && read.extended());
    }

    #[test]
    fn a_plain_handshake_offers_nothing() {
        let plain = Handshake { reserved: [0; 8], ..ours() };
        let read = Handshake::decode(&plain.encode()).unwrap();
        assert!(!read.fast() && !read.extended());
    }

    #[test]
    fn wrong_handshake_is_refused_at_its_first_wrong_byte() {
        assert_eq!(Handshake::check_prefix(b""), Ok(()));
        assert_eq!(Handshake::check_prefix(b"\x13BitT"), Ok(()));
        assert_eq!(Handshake::check_prefix(&ours().encode()), Ok(()));
        for wrong in [&b"G"[..], b"\x12", b"\x13BitTorrent Protocol", b"\x13bit"] {
            assert_eq!(
                Handshake::check_prefix(wrong),
                Err(WireError::NotBitTorrent(wrong.to_vec()))
            );
        }
        let mut bytes = ours().encode();
        bytes[19] = b'L';
        assert!(Handshake::decode(&bytes).is_err());
    }

    #[test]
    fn the_error_shows_what_came_safely() {
        let error = Handshake::check_prefix(b"\x1b[2J / HTTP/1.1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the handshake begins with `\\x1b[2J / HTTP/1.1`, which is not BitTorrent"
        );
    }
}
