//! What the daemon's journal knows of a torrent: who gave which piece.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The givers and takers of a torrent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Givers {
    /// The givers, the most generous first.
    pub givers: Vec<GiverInfo>,
    /// The peers to which something was sent, those that got most first.
    pub takers: Vec<TakerInfo>,
    /// For each piece the `id` of the peer that gave most of its bytes. -1: the piece is not held.
    /// -2: it is held, and its giver is not known.
    pub by_piece: Vec<i64>,
    /// Number of records that were lost because the journal could not be written. They are missing
    /// in these sums.
    #[serde(default)]
    pub lost: u64,
    /// Number of records that wait until the journal can be written. They will be included later.
    #[serde(default)]
    pub waiting: u64,
}

/// A peer that gave something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiverInfo {
    /// The peer's number in the journal.
    pub id: i64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The peer's client program.
    pub client: String,
    /// Number of verified pieces to which it contributed.
    pub pieces: u64,
    /// The blocks that it gave of these pieces.
    pub blocks: u64,
    /// The bytes of these blocks.
    pub bytes: u64,
    /// Number of wrong pieces to which it contributed, guilty or not.
    pub failed: u64,
    /// Whether it is known to have sent a wrong block.
    pub banned: bool,
    /// Blocks that it sent and that were discarded: they came twice, too late, or belonged to wrong
    /// pieces.
    pub unused_blocks: u64,
    /// The bytes of these blocks.
    pub unused_bytes: u64,
    /// When it first gave something.
    pub first_at: i64,
    /// When it last gave something.
    pub last_at: i64,
}

/// A peer that was sent something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakerInfo {
    /// The peer's number in the journal.
    pub id: i64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The peer's client program.
    pub client: String,
    /// Blocks sent to it.
    pub blocks: u64,
    /// The bytes of these blocks.
    pub bytes: u64,
    /// When it was last sent something.
    pub last_at: i64,
}

/// The pieces that were sent, and the peers that got them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SentPieces {
    /// The peers to which something was sent, those that got most first.
    pub takers: Vec<TakerInfo>,
    /// Pieces that were sent, each with the bytes sent (several times its length if several peers
    /// got it) and the `id` of the peer that got the last of them.
    pub pieces: Vec<(u32, u64, i64)>,
    /// The number of the last record that is included, for the next request's `after`.
    pub last: i64,
}

/// All that is known of one piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceStory {
    /// The piece's number, from 0.
    pub piece: u32,
    /// The state of the piece.
    pub state: PieceState,
    /// What happened to it, oldest first.
    pub story: Vec<StoryEntry>,
}

/// The state of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PieceState {
    /// Not here, and none of its blocks is requested.
    Missing,
    /// Some of its blocks are requested or here.
    Downloading,
    /// All blocks have arrived and are being hashed.
    Verifying,
    /// Verified and on disk.
    Held,
}

/// Something that happened to a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryEntry {
    /// The time, RFC 3339.
    pub time: String,
    /// The kind of event: `given`, `failed`, `banned`, `sent`, or `unused`.
    pub kind: String,
    /// The other peer's address.
    pub peer: SocketAddr,
    /// The peer's client program.
    pub client: String,
    /// The blocks of the piece, such as `0-15`; `None` if that is not recorded.
    pub blocks: Option<String>,
    /// The number of blocks.
    pub block_count: u32,
    /// The bytes of these blocks.
    pub bytes: u64,
    /// When the first of them was requested, RFC 3339.
    pub requested_at: Option<String>,
    /// When the last of them arrived, RFC 3339.
    pub received_at: Option<String>,
    /// `verified`, `failed`, `banned` or `unused`; `None` for what was sent.
    pub verdict: Option<String>,
    /// The evidence that its block was wrong.
    pub evidence: Option<BadPiece>,
}

/// A piece that arrived wrong, and the guilty peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPiece {
    /// When it was found wrong, RFC 3339.
    pub time: String,
    /// The piece's number, from 0.
    pub piece: u32,
    /// The number of the wrong block in it; `None` while that is not known.
    pub block: Option<u32>,
    /// The peer that sent this block; `None` while that is not known.
    pub peer: Option<SocketAddr>,
    /// The peer's client program.
    pub client: Option<String>,
    /// The number of peers that had given the piece.
    pub givers: u32,
    /// The hash that it should have, hexadecimal.
    pub expected: String,
    /// The hash that it had.
    pub got: String,
    /// SHA-1 of the block that was sent.
    pub block_sent: Option<String>,
    /// SHA-1 of the right block.
    pub block_right: Option<String>,
}

/// When pieces arrived, and from whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// When the first piece arrived.
    pub from: i64,
    /// When the last piece arrived.
    pub to: i64,
    /// Length of each bucket, a fraction.
    pub seconds: f64,
    /// The number of givers without their own series, because others gave more.
    #[serde(default)]
    pub others: u32,
    /// One series for each of the 200 givers that gave most. If there are more givers, the last
    /// series is the sum of all others.
    pub series: Vec<Series>,
}

/// What one peer gave, over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The peer's number in the journal; [`Series::OTHERS`] for all peers without their own series.
    pub giver: i64,
    /// Pieces to which it contributed, in each bucket.
    pub pieces: Vec<u32>,
    /// Bytes that it gave, in each bucket.
    pub bytes: Vec<u64>,
}

impl Series {
    /// Stands for all givers without their own series. No giver has this number.
    pub const OTHERS: i64 = 0;
}

/// News about who gave what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewPieces {
    /// Givers that are new or have given more.
    pub givers: Vec<GiverInfo>,
    /// New pieces, each with the `id` of the peer that gave most of it.
    pub pieces: Vec<(u32, i64)>,
    /// Pieces that arrived wrong, or whose guilty peer is known now.
    pub bad: Vec<BadPiece>,
}
