//! The messages of the peer protocol.

use bytes::Bytes;

use piecework_core::{BlockRef, PieceIndex};

/// One message of the peer protocol, but for `piece`, whose payload goes straight into a block
/// buffer and never into a value of this type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Four zero bytes: the peer is still there (BEP 3).
    KeepAlive,
    /// No further requests will be served (BEP 3).
    Choke,
    /// Requests will be served (BEP 3).
    Unchoke,
    /// The receiver has pieces the sender wants (BEP 3).
    Interested,
    /// It has none (any more) (BEP 3).
    NotInterested,
    /// The sender now holds this piece (BEP 3).
    Have(PieceIndex),
    /// All the pieces the sender holds, unchecked bytes (BEP 3).
    Bitfield(Bytes),
    /// Please send this block (BEP 3).
    Request(BlockRef),
    /// This block is no longer wanted (BEP 3).
    Cancel(BlockRef),
    /// UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// The sender suggests this piece (BEP 6).
    Suggest(PieceIndex),
    /// The sender holds every piece (BEP 6).
    HaveAll,
    /// The sender holds no piece (BEP 6).
    HaveNone,
    /// This request will not be served (BEP 6).
    Reject(BlockRef),
    /// This piece is served even while choked (BEP 6).
    AllowedFast(PieceIndex),
    /// A message of the extension protocol: 0 is its handshake, others as agreed there (BEP 10).
    Extended {
        /// Extended message number.
        id: u8,
        /// Everything behind that number.
        payload: Bytes,
    },
    /// A message of a type we do not know; passed over.
    Unknown {
        /// Its type.
        id: u8,
    },
}
