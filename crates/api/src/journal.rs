//! What the daemon's journal knows of a torrent: who gave which piece.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Who gave a torrent, and who was sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Givers {
    /// Who gave anything, the most generous first.
    pub givers: Vec<GiverInfo>,
    /// Who was sent anything, who got most first.
    pub takers: Vec<TakerInfo>,
    /// For each piece the `id` of who gave most of its bytes; -1: it is not held; -2: it is held,
    /// and nobody is known to have given it.
    pub by_piece: Vec<i64>,
    /// Records of who gave or was sent what that are lost, because the journal could not be
    /// written: what is told here lacks them.
    #[serde(default)]
    pub lost: u64,
    /// Records that wait until the journal can be written: what is told here will have them.
    #[serde(default)]
    pub waiting: u64,
}

/// A peer that gave something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiverInfo {
    /// Its number in the journal.
    pub id: i64,
    /// Its address.
    pub peer: SocketAddr,
    /// Its client.
    pub client: String,
    /// Verified pieces it had a part in.
    pub pieces: u64,
    /// Blocks of those.
    pub blocks: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Wrong pieces it had a part in, guilty or not.
    pub failed: u64,
    /// It is known to have sent a wrong block.
    pub banned: bool,
    /// Blocks it sent that were thrown away: they came twice, too late, or of wrong pieces.
    pub unused_blocks: u64,
    /// Bytes of those.
    pub unused_bytes: u64,
    /// When it first gave something.
    pub first_at: i64,
    /// When it last did.
    pub last_at: i64,
}

/// A peer that was sent something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakerInfo {
    /// Its number in the journal.
    pub id: i64,
    /// Its address.
    pub peer: SocketAddr,
    /// Its client.
    pub client: String,
    /// Blocks that went out to it.
    pub blocks: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// When it was last sent something.
    pub last_at: i64,
}

/// What was sent to whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SentPieces {
    /// Who was sent anything, who got most first.
    pub takers: Vec<TakerInfo>,
    /// Pieces that went out, each with the bytes of it that did (several times its length if several
    /// peers got it) and the `id` of who got the last of them.
    pub pieces: Vec<(u32, u64, i64)>,
    /// The number of the last record that was looked at: ask for what follows it.
    pub last: i64,
}

/// All that is known of one piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceStory {
    /// Which, from 0.
    pub piece: u32,
    /// How it stands.
    pub state: PieceState,
    /// What happened to it, oldest first.
    pub story: Vec<StoryEntry>,
}

/// How a piece stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PieceState {
    /// Not here, and nothing of it is asked for.
    Missing,
    /// Blocks of it are asked for or here.
    Downloading,
    /// All of it came and is being hashed.
    Verifying,
    /// Verified and on disk.
    Held,
}

/// Something that happened to a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryEntry {
    /// When, RFC 3339.
    pub time: String,
    /// What: `given`, `failed`, `banned`, `sent`, or `unused`.
    pub kind: String,
    /// With whom.
    pub peer: SocketAddr,
    /// Its client.
    pub client: String,
    /// Which blocks of the piece, such as `0-15`; `None` if that is not kept.
    pub blocks: Option<String>,
    /// How many.
    pub block_count: u32,
    /// Bytes.
    pub bytes: u64,
    /// When the first of them was asked for, RFC 3339.
    pub requested_at: Option<String>,
    /// When the last of them came, RFC 3339.
    pub received_at: Option<String>,
    /// `verified`, `failed`, `banned` or `unused`; `None` for what was sent.
    pub verdict: Option<String>,
    /// What shows that its block was wrong.
    pub evidence: Option<BadPiece>,
}

/// A piece that came wrong, and who is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPiece {
    /// When it was found wrong, RFC 3339.
    pub time: String,
    /// Which, from 0.
    pub piece: u32,
    /// The number of the wrong block in it; `None` while that is not known.
    pub block: Option<u32>,
    /// Who sent that block; `None` while that is not known.
    pub peer: Option<SocketAddr>,
    /// Its client.
    pub client: Option<String>,
    /// How many peers had given the piece.
    pub givers: u32,
    /// The hash it should have, hexadecimal.
    pub expected: String,
    /// The hash it had.
    pub got: String,
    /// SHA-1 of the block that was sent.
    pub block_sent: Option<String>,
    /// SHA-1 of the right block.
    pub block_right: Option<String>,
}

/// When pieces came, and from whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// When the first of them came.
    pub from: i64,
    /// When the last did.
    pub to: i64,
    /// Length of each bucket, a fraction.
    pub seconds: f64,
    /// How many givers have no series of their own, because others gave more.
    #[serde(default)]
    pub others: u32,
    /// What each of the 200 givers gave that gave most; last, if there are more givers, what all
    /// the others gave together.
    pub series: Vec<Series>,
}

/// What one peer gave, by time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Its number in the journal; [`Series::OTHERS`] for all that have no series of their own.
    pub giver: i64,
    /// Pieces it had a part in, in each bucket.
    pub pieces: Vec<u32>,
    /// Bytes it gave, in each bucket.
    pub bytes: Vec<u64>,
}

impl Series {
    /// No giver's number: all together that have no series of their own.
    pub const OTHERS: i64 = 0;
}

/// What is new about who gave what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewPieces {
    /// Givers that are new or have given more.
    pub givers: Vec<GiverInfo>,
    /// Pieces that came, each with the `id` of who gave most of it.
    pub pieces: Vec<(u32, i64)>,
    /// Pieces that came wrong, or of which it is known now who sent the wrong block.
    pub bad: Vec<BadPiece>,
}
