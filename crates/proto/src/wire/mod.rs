//! What peers say to each other over a stream (BEP 3, fast extension BEP 6, extension
//! protocol BEP 10), between bytes and types. No I/O and no state: a driver keeps the bytes it has
//! received, asks [`decode`] what stands at their front, and reads on when that is not yet whole.
//!
//! Every length a peer claims is checked before a byte is set aside for it.

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
