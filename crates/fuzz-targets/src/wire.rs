//! Targets of what peers send to each other.

use bytes::{Bytes, BytesMut};
use piecework_core::{Bitfield, Geometry};
use piecework_proto::local::{LocalAnnounce, MAX_LOCAL_TORRENTS};
use piecework_proto::wire::{
    DecodeLimits, Decoded, EXCHANGE_ID, ExchangeMessage, ExtendedHandshake, Handshake,
    MAX_EXCHANGED, MAX_EXTENDED_LEN, MAX_PIECE_PAYLOAD, METADATA_PIECE_LEN, MetadataMessage,
    PIECE_HEADER_LEN, decode, encode, piece_header,
};

use crate::input::Input;

/// A handshake and then messages, as a stream of any length.
pub(crate) fn messages(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let pieces = input.below(1_000);
    let limits = DecodeLimits {
        extensions: if input.flag() { EXCHANGE_ID } else { u8::MAX },
        ..DecodeLimits::new(pieces)
    };
    let mut stream = input.rest();
    if let Some((first, rest)) = stream.split_first_chunk::<{ Handshake::LEN }>()
        && let Ok(handshake) = Handshake::decode(first)
    {
        assert_eq!(handshake.encode(), *first);
        stream = rest;
    }
    // Each turn takes bytes from the stream or is the last.
    while let Some(consumed) = one(stream, &limits) {
        assert!(consumed > 0);
        stream = &stream[consumed.min(stream.len())..];
    }
}

/// Decodes the message at the front of `stream`. Returns its length if it is whole.
fn one(stream: &[u8], limits: &DecodeLimits) -> Option<usize> {
    match decode(stream, limits).ok()? {
        Decoded::Incomplete { need } => {
            assert!(need > stream.len(), "it is whole already");
            assert!(need <= 6 + MAX_EXTENDED_LEN as usize, "it waits for {need} bytes");
            None
        }
        Decoded::Message { message, consumed } => {
            let mut written = BytesMut::new();
            encode(&message, &mut written);
            assert_eq!(written, &stream[..consumed], "a message has one spelling");
            // It is whole only with its last byte.
            for end in consumed.saturating_sub(3)..consumed {
                assert!(matches!(decode(&stream[..end], limits), Ok(Decoded::Incomplete { .. })));
            }
            if let piecework_proto::wire::Message::Bitfield(bits) = &message
                && let Ok(held) = Bitfield::from_wire(bits, limits.pieces)
            {
                assert_eq!(held.as_wire(), &bits[..]);
            }
            Some(consumed)
        }
        Decoded::Piece { block } => {
            assert_eq!(piece_header(block), stream[..PIECE_HEADER_LEN]);
            assert!(block.len <= MAX_PIECE_PAYLOAD);
            let geometry = Geometry::new(1 << 24, 1 << 18).expect("64 pieces");
            if geometry.is_inside(block) {
                let span = geometry.block_span(block);
                assert!(
                    span.end <= geometry.total_len()
                        && span.end - span.start == u64::from(block.len)
                );
            }
            Some(PIECE_HEADER_LEN + block.len as usize)
        }
        Decoded::Ignored { consumed, rest, .. } => {
            assert!(consumed <= stream.len() && rest <= MAX_EXTENDED_LEN as usize);
            Some(consumed + rest)
        }
    }
}

/// The handshake of the extension protocol.
pub(crate) fn extended(bytes: &[u8]) {
    let Ok(handshake) = ExtendedHandshake::decode(bytes) else { return };
    let again = ExtendedHandshake::decode(&handshake.encode());
    assert_eq!(again.as_ref(), Ok(&handshake), "what is written is read");
    if let Some(shown) = handshake.shown_client() {
        assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
    }
}

/// A message of the extension that exchanges metadata.
pub(crate) fn metadata_message(bytes: &[u8]) {
    let Ok(Some(message)) = MetadataMessage::decode(&Bytes::copy_from_slice(bytes)) else { return };
    if let MetadataMessage::Data { bytes, .. } = &message {
        assert!(bytes.len() <= METADATA_PIECE_LEN as usize);
    }
    let again = MetadataMessage::decode(&message.encode());
    assert_eq!(again, Ok(Some(message)), "what is written is read");
}

/// A message of the extension by which peers name other peers.
pub(crate) fn exchange_message(bytes: &[u8]) {
    let Ok(message) = ExchangeMessage::decode(bytes) else { return };
    assert!(message.added.len() <= 2 * MAX_EXCHANGED && message.dropped.len() <= 2 * MAX_EXCHANGED);
    let again = ExchangeMessage::decode(&message.encode());
    assert_eq!(again, Ok(message), "what is written is read");
}

/// An announcement on the local network.
pub(crate) fn local_announce(bytes: &[u8]) {
    let Some(announce) = LocalAnnounce::decode(bytes) else { return };
    assert!((1..=MAX_LOCAL_TORRENTS).contains(&announce.torrents.len()) && announce.port != 0);
    for is_v4 in [true, false] {
        let again = LocalAnnounce::decode(&announce.encode(is_v4));
        assert_eq!(again.as_ref(), Some(&announce), "what is written is read");
    }
}
