//! What a journal tells about a torrent. Times are milliseconds since 1970.

use std::net::SocketAddr;

use serde::Serialize;

use piecework_core::{InfoHash, PieceIndex, Sha1Hash};
use piecework_swarm::BlockDigest;

/// A torrent as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentRow {
    /// The number of the torrent in the journal.
    pub id: i64,
    pub info_hash: InfoHash,
    /// Unescaped.
    pub name: String,
    /// The number of pieces. This and the next two are 0 if they are not known.
    pub pieces: u32,
    /// Bytes of content.
    pub size: u64,
    /// Bytes per piece.
    pub piece_length: u32,
}

/// A peer that gave something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GiverRow {
    /// The number of the peer in the journal.
    pub id: i64,
    pub peer: SocketAddr,
    /// Client name and version, unescaped.
    pub client: String,
    /// Verified pieces to which it contributed.
    pub pieces: u64,
    /// Blocks of the verified pieces.
    pub blocks: u64,
    /// Bytes of the verified pieces.
    pub bytes: u64,
    /// Wrong pieces to which it contributed, guilty or not.
    pub failed: u64,
    /// It is known to have sent a wrong block.
    pub banned: bool,
    /// Blocks from it that were thrown away: duplicates, late ones, and those of wrong pieces.
    pub unused_blocks: u64,
    pub unused_bytes: u64,
    pub first_at: i64,
    pub last_at: i64,
}

/// A peer that was sent something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakerRow {
    /// The number of the peer in the journal.
    pub id: i64,
    pub peer: SocketAddr,
    /// Client name and version, unescaped.
    pub client: String,
    /// Blocks that were sent to it.
    pub blocks: u64,
    pub bytes: u64,
    pub last_at: i64,
}

/// What was sent to whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uploads {
    /// Everyone who was sent something, largest receiver first.
    pub takers: Vec<TakerRow>,
    /// Each piece that was sent, with its bytes (several times its length if several peers got it)
    /// and the id of the peer that got it last.
    pub pieces: Vec<(u32, u64, i64)>,
    /// The number of the last record that was read. The next call asks for what follows it.
    pub last: i64,
}

/// Something that happened to one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceEvent {
    pub time: i64,
    pub kind: PieceEventKind,
    pub peer: SocketAddr,
    /// Client name and version, unescaped.
    pub client: String,
    /// Which blocks, such as `0-15`; `None` if that is not recorded.
    pub blocks: Option<String>,
    pub block_count: u32,
    pub bytes: u64,
    /// When the first of the blocks was requested.
    pub requested_at: Option<i64>,
    /// When the last of the blocks arrived.
    pub received_at: Option<i64>,
}

/// What happened to a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceEventKind {
    /// The peer gave blocks, and the piece was verified.
    Given,
    /// The peer gave blocks, and the piece was wrong.
    Failed,
    /// The peer gave blocks that were thrown away.
    Unused,
    /// The peer sent a wrong block and was banned.
    Banned(Box<WrongPiece>),
    /// The peer was sent blocks.
    Sent,
}

/// A piece whose hash was wrong, and who is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongPiece {
    pub time: i64,
    pub piece: PieceIndex,
    /// The number of the wrong block in the piece; `None` while that is not known.
    pub block: Option<u32>,
    /// Who sent the wrong block; `None` while that is not known.
    pub peer: Option<SocketAddr>,
    /// The client of that peer, unescaped.
    pub client: Option<String>,
    /// How many peers had given blocks of the piece.
    pub givers: u32,
    /// The hash that the piece should have.
    pub expected: Sha1Hash,
    /// The hash that the piece had.
    pub got: Sha1Hash,
    /// Digest of the block that was sent.
    pub block_sent: Option<BlockDigest>,
    /// Digest of the right block.
    pub block_right: Option<BlockDigest>,
}

/// One peer's part in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRow {
    /// The number of the response in the journal; 0 for bans.
    pub id: i64,
    /// When the piece was verified or found wrong.
    pub time: i64,
    pub piece: PieceIndex,
    pub peer: SocketAddr,
    /// Client name and version, unescaped.
    pub client: String,
    /// Blocks that the peer gave of this piece.
    pub blocks: u32,
    pub bytes: u64,
    /// From the first request to the arrival of the last block.
    pub took_ms: u64,
    pub verdict: Verdict,
    pub info_hash: InfoHash,
    /// The name of the torrent, unescaped.
    pub torrent: String,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The hash of the piece is right, and the piece is on disk.
    Verified,
    /// The hash of the piece is wrong.
    Failed,
    /// This peer sent the wrong block and is banned.
    Banned {
        /// The offset of the block in the piece in bytes; `None` while it is only known that the
        /// peer gave all of the piece.
        #[serde(skip_serializing_if = "Option::is_none")]
        block: Option<u32>,
    },
}

/// What has been recorded since the last look at a torrent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewResponses {
    /// Givers that are new or have given more.
    pub givers: Vec<GiverRow>,
    /// Pieces that arrived, each with the id of the peer that gave most of it.
    pub pieces: Vec<(u32, i64)>,
    /// Pieces that were wrong, or for which the sender of the wrong block is now known.
    pub wrong: Vec<WrongPiece>,
}

/// When the pieces of a torrent arrived, and from whom.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arrivals {
    /// When the first piece arrived.
    pub from: i64,
    /// When the last piece arrived.
    pub to: i64,
    /// The length of each bucket in seconds.
    pub bucket_secs: f64,
    /// How many givers have no series of their own, because others gave more.
    pub unnamed: u32,
    /// The series of the 200 givers that gave most; then, if there are more givers, one of all
    /// other givers together.
    pub series: Vec<ArrivalSeries>,
}

/// What one giver gave in each bucket of [`Arrivals`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrivalSeries {
    /// The id of the giver; `None` for all givers together that have no series of their own.
    pub giver: Option<i64>,
    /// Pieces to which it contributed, per bucket.
    pub pieces: Vec<u32>,
    /// Bytes per bucket.
    pub bytes: Vec<u64>,
}
