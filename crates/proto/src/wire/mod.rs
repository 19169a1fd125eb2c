//! The peer protocol (BEP 3, fast extension BEP 6, extension protocol BEP 10). No I/O and no state: a driver keeps
//! the received bytes, decodes their beginning with [`decode`], and reads more if there is no complete message.
//!
//! Every length that a peer claims is checked before memory is allocated for it.

mod codec;
mod error;
mod extended;
mod handshake;
mod message;

pub use codec::{
    DecodeLimits, Decoded, MAX_EXTENDED_HANDSHAKE_LEN, MAX_EXTENDED_LEN, MAX_PIECE_PAYLOAD,
    MAX_REQUEST_LEN, MAX_UNKNOWN_LEN, PIECE_HEADER_LEN, decode, encode, piece_header,
};
pub use error::WireError;
pub use extended::ExtendedHandshake;
pub use handshake::Handshake;
pub use message::Message;
