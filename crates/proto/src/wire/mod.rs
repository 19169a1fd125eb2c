//! The peer protocol (BEP 3, fast extension BEP 6, extension protocol BEP 10, metadata BEP 9, peer exchange BEP 11). No I/O and no state: a driver keeps
//! the received bytes, decodes their beginning with [`decode`], and reads more if there is no complete message.
//!
//! Every length that a peer claims is checked before memory is allocated for it.

mod codec;
mod error;
mod exchange;
mod extended;
mod handshake;
mod message;
mod metadata;

pub use codec::{
    DecodeLimits, Decoded, EXCHANGE_ID, MAX_EXTENDED_HANDSHAKE_LEN, MAX_EXTENDED_LEN,
    MAX_PIECE_PAYLOAD, MAX_REQUEST_LEN, MAX_UNKNOWN_LEN, METADATA_ID, PIECE_HEADER_LEN, decode,
    encode, piece_header,
};
pub use error::WireError;
pub use exchange::{
    EXCHANGE_EXTENSION, ExchangeFlags, ExchangeMessage, ExchangedPeer, MAX_EXCHANGE_MESSAGE_LEN,
    MAX_EXCHANGED,
};
pub use extended::ExtendedHandshake;
pub use handshake::Handshake;
pub use message::Message;
pub use metadata::{
    MAX_METADATA_MESSAGE_LEN, METADATA_EXTENSION, METADATA_PIECE_LEN, MetadataMessage,
};
