//! What can be wrong with the bytes of a peer.

use piecework_core::printable_bytes;

/// The bytes are not the peer protocol, or go beyond a bound. The stream cannot be read on: the
/// peer is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream does not begin like a BitTorrent handshake (BEP 3).
    #[error("the handshake begins with `{}`, which is not BitTorrent", printable_bytes(.0))]
    NotBitTorrent(
        /// What came, at most the twenty bytes that tell.
        Vec<u8>,
    ),
    /// A message of fixed size, or a bitfield, has another size.
    #[error("a `{message}` message has `{wanted}` bytes behind its length, not `{got}`")]
    WrongSize {
        /// Name of the message.
        message: &'static str,
        /// Bytes it must have behind the length prefix.
        wanted: u32,
        /// Bytes it claims.
        got: u32,
    },
    /// A message claims to be longer than any of its type may be.
    #[error("a message of type `{id}` claims `{got}` bytes, more than the `{limit}` allowed")]
    TooLong {
        /// Its type.
        id: u8,
        /// Bytes allowed behind the length prefix.
        limit: u32,
        /// Bytes it claims.
        got: u32,
    },
    /// The length prefix alone is more than any message may have.
    #[error("a message claims `{got}` bytes, more than any message may have")]
    OverLong {
        /// Bytes it claims.
        got: u32,
    },
    /// A request, cancel or reject names a block that nobody serves.
    #[error("a `{message}` names a block of `{len}` bytes, more than the `{limit}` allowed")]
    BlockTooLong {
        /// Name of the message.
        message: &'static str,
        /// Bytes of the block it names.
        len: u32,
        /// Bytes allowed.
        limit: u32,
    },
    /// An extended handshake is not one.
    #[error("the extended handshake is not valid: {fault}")]
    BadExtended {
        /// What is wrong with it.
        fault: String,
    },
}
