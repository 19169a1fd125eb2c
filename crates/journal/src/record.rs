//! What is written to a journal.

use std::sync::Arc;

use super::request_record::RequestRecord;
use piecework_core::metainfo::Metainfo;
use piecework_core::{PieceIndex, Sha1Hash};
use piecework_swarm::{BlockDigest, BlockRanges, PeerIdentity};

/// One event. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub enum Record {
    /// A peer gave blocks of a piece.
    Given(Response),
    /// A peer was sent blocks of a piece.
    Sent(Upload),
    /// A complete piece was wrong. Its givers are in [`Record::Given`].
    Failed(HashFailure),
    /// It is known who sent a wrong block.
    Judged(Box<Blame>),
    /// A request to the tracker.
    Request(Arc<RequestRecord>),
}

impl Record {
    /// Returns about how many bytes the record takes in memory.
    pub(super) fn size(&self) -> usize {
        let apart = match self {
            Self::Given(it) if it.ranges.spilled() => {
                it.ranges.capacity() * size_of::<(u32, u32)>()
            }
            Self::Given(_) | Self::Sent(_) | Self::Failed(_) => 0,
            Self::Judged(_) => size_of::<Blame>(),
            // An IPv4 peer takes 8 bytes, an IPv6 peer 20.
            Self::Request(it) => size_of::<RequestRecord>() + it.handed.len() * 20,
        };
        size_of::<Self>() + apart
    }

    /// Returns the torrent; `None` for a request, which is about the tracker.
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

/// One peer's part in one piece.
#[derive(Debug, Clone)]
pub struct Response {
    /// When the result was known.
    pub time: i64,
    pub torrent: Arc<Metainfo>,
    /// The peer that gave the blocks.
    pub who: Arc<PeerIdentity>,
    pub piece: PieceIndex,
    pub fate: BlockFate,
    /// The number of blocks.
    pub blocks: u32,
    pub bytes: u64,
    /// Which blocks; empty for blocks that were thrown away.
    pub ranges: BlockRanges,
    /// When the first block was requested and when the last arrived, if known.
    pub asked: Option<(i64, i64)>,
}

/// What happened to received blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFate {
    /// The piece is right and on disk.
    Verified,
    /// The piece is wrong.
    Failed,
    /// They were thrown away: duplicates, too late, or of a piece that was given up.
    Unused,
}

/// What one peer was sent of one piece.
#[derive(Debug, Clone)]
pub struct Upload {
    /// When the last of the blocks was sent.
    pub time: i64,
    pub torrent: Arc<Metainfo>,
    /// The peer that was sent the blocks.
    pub who: Arc<PeerIdentity>,
    pub piece: PieceIndex,
    /// The number of blocks.
    pub blocks: u32,
    pub bytes: u64,
}

/// A piece with a wrong hash.
#[derive(Debug, Clone)]
pub struct HashFailure {
    /// When the result was known.
    pub time: i64,
    pub torrent: Arc<Metainfo>,
    pub piece: PieceIndex,
    /// The number of peers that gave the piece.
    pub givers: u32,
    /// The hash that the piece had.
    pub got: Sha1Hash,
}

/// The peer that sent a wrong block.
#[derive(Debug, Clone)]
pub struct Blame {
    /// When it was known.
    pub time: i64,
    pub torrent: Arc<Metainfo>,
    /// The peer to blame.
    pub who: Arc<PeerIdentity>,
    pub piece: PieceIndex,
    /// The hash that the piece had with the wrong block.
    pub got: Sha1Hash,
    /// The number of the block in the piece; `None` while it is only known that the peer gave all
    /// of the piece.
    pub block: Option<u32>,
    /// The digest of the block that the peer sent.
    pub sent: Option<BlockDigest>,
    /// The digest of the right block.
    pub right: Option<BlockDigest>,
}
