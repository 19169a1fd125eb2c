//! Errors in the bytes of a peer.

use piecework_core::printable_bytes;

/// The bytes do not follow the peer protocol or exceed a limit. Decoding cannot go on, and the peer has to be
/// dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream does not begin like a BitTorrent handshake (BEP 3).
    #[error("the handshake begins with `{}`, which is not BitTorrent", printable_bytes(.0))]
    NotBitTorrent(
        /// The received bytes, at most the first twenty.
        Vec<u8>,
    ),
    /// A message of fixed length, or a bitfield, has another length.
    #[error("a `{message}` message has `{wanted}` bytes after its length, not `{got}`")]
    WrongSize {
        /// The name of the message.
        message: &'static str,
        /// The required length after the prefix.
        wanted: u32,
        /// The claimed length.
        got: u32,
    },
    /// A message claims to be longer than its type allows.
    #[error("a message of type `{id}` claims `{got}` bytes, more than the `{limit}` allowed")]
    TooLong {
        /// The message type.
        id: u8,
        /// The maximum length after the prefix.
        limit: u32,
        /// The claimed length.
        got: u32,
    },
    /// A message claims to be longer than any message may be.
    #[error("a message claims `{got}` bytes, more than any message may have")]
    OverLong {
        /// The claimed length.
        got: u32,
    },
    /// A request, cancel or reject names a block that is too long.
    #[error("a `{message}` names a block of `{len}` bytes, more than the `{limit}` allowed")]
    BlockTooLong {
        /// The name of the message.
        message: &'static str,
        /// The length of the block.
        len: u32,
        /// The maximum length.
        limit: u32,
    },
    /// A `ut_metadata` message is not valid.
    #[error("the `ut_metadata` message is not valid: {fault}")]
    BadMetadata {
        /// What is wrong with it.
        fault: String,
    },
    /// A `ut_pex` message is not valid.
    #[error("the `ut_pex` message is not valid: {fault}")]
    BadExchange {
        /// What is wrong with it.
        fault: String,
    },
    /// An extended handshake is not valid.
    #[error("the extended handshake is not valid: {fault}")]
    BadExtended {
        /// What is wrong with it.
        fault: String,
    },
}
