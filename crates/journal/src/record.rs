//! What is written into a journal.

use std::sync::Arc;

use super::request_record::RequestRecord;
use piecework_core::metainfo::Metainfo;
use piecework_core::{PieceIndex, Sha1Hash};
use piecework_swarm::{BlockDigest, BlockRanges, PeerIdentity};

/// One thing that happened. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub enum Record {
    /// A peer gave blocks of a piece.
    Given(Given),
    /// A peer was sent blocks of a piece.
    Sent(Sent),
    /// A piece came whole and was wrong. Who gave it is in [`Record::Given`].
    Failed(Failed),
    /// It is known who sent a wrong block.
    Judged(Box<Judged>),
    /// Somebody asked the tracker for something.
    Request(Arc<RequestRecord>),
}

impl Record {
    /// Bytes that the record takes in memory, about.
    pub(super) fn size(&self) -> usize {
        let apart = match self {
            Self::Given(it) if it.ranges.spilled() => {
                it.ranges.capacity() * size_of::<(u32, u32)>()
            }
            Self::Given(_) | Self::Sent(_) | Self::Failed(_) => 0,
            Self::Judged(_) => size_of::<Judged>(),
            // An IPv4 peer takes 8 bytes, an IPv6 peer 20.
            Self::Request(it) => size_of::<RequestRecord>() + it.handed.len() * 20,
        };
        size_of::<Self>() + apart
    }

    /// The torrent that it is about; requests are about the tracker.
    pub(super) fn torrent(&self) -> Option<&Arc<Metainfo>> {
        match self {
            Self::Given(it) => Some(&it.torrent),
            Self::Sent(it) => Some(&it.torrent),
            Self::Failed(it) => Some(&it.torrent),
            Self::Judged(it) => Some(&it.torrent),
            Self::Request(_) => None,
        }
    }
}

/// One peer's part in one piece, and what became of it.
#[derive(Debug, Clone)]
pub struct Given {
    /// When that was known.
    pub time: i64,
    /// The torrent.
    pub torrent: Arc<Metainfo>,
    /// Who gave.
    pub who: Arc<PeerIdentity>,
    /// Which piece.
    pub piece: PieceIndex,
    /// What became of the blocks.
    pub fate: Fate,
    /// How many.
    pub blocks: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Which; empty for blocks that were thrown away.
    pub ranges: BlockRanges,
    /// When the first of them was asked for and when the last came, if that is known.
    pub asked: Option<(i64, i64)>,
}

/// What became of received blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Their piece is right and on disk.
    Verified,
    /// Their piece is wrong.
    Failed,
    /// They were thrown away: they came twice, too late, or their piece was given up.
    Unused,
}

/// What one peer was sent of one piece.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When the last of the blocks had gone out.
    pub time: i64,
    /// The torrent.
    pub torrent: Arc<Metainfo>,
    /// To whom.
    pub who: Arc<PeerIdentity>,
    /// Which piece.
    pub piece: PieceIndex,
    /// Blocks.
    pub blocks: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// A wrong piece.
#[derive(Debug, Clone)]
pub struct Failed {
    /// When that was known.
    pub time: i64,
    /// The torrent.
    pub torrent: Arc<Metainfo>,
    /// Which piece.
    pub piece: PieceIndex,
    /// Number of peers that gave it.
    pub givers: u32,
    /// The hash it had.
    pub got: Sha1Hash,
}

/// Who sent a wrong block.
#[derive(Debug, Clone)]
pub struct Judged {
    /// When that was known.
    pub time: i64,
    /// The torrent.
    pub torrent: Arc<Metainfo>,
    /// Who.
    pub who: Arc<PeerIdentity>,
    /// In which piece.
    pub piece: PieceIndex,
    /// The hash that the piece had with that block in it.
    pub got: Sha1Hash,
    /// The number of the block in the piece; `None` while it is only known that the peer gave all
    /// of the piece.
    pub block: Option<u32>,
    /// Digest of the block it sent.
    pub sent: Option<BlockDigest>,
    /// Digest of the right block.
    pub right: Option<BlockDigest>,
}
