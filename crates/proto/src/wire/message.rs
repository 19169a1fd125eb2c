//! The messages of the peer protocol.

use bytes::Bytes;

use piecework_core::{BlockRef, PieceIndex};

/// A message of the peer protocol, except `piece`, whose payload is read directly into a block buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Four zero bytes, which show that the peer is still there (BEP 3).
    KeepAlive,
    /// No further requests will be served (BEP 3).
    Choke,
    /// Requests will be served (BEP 3).
    Unchoke,
    /// The receiver has pieces the sender wants (BEP 3).
    Interested,
    /// The receiver has no pieces that the sender wants (BEP 3).
    NotInterested,
    /// The sender now holds this piece (BEP 3).
    Have(PieceIndex),
    /// All pieces that the sender holds, as unchecked bytes (BEP 3).
    Bitfield(Bytes),
    /// Asks for a block (BEP 3).
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
    /// A message of the extension protocol. Id 0 is its handshake, which assigns the other ids (BEP 10).
    Extended {
        /// The extended message id.
        id: u8,
        /// The content after the id.
        payload: Bytes,
    },
    /// A message of unknown type, which is ignored.
    Unknown {
        /// Its type.
        id: u8,
    },
}
