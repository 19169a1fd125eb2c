//! Layer 3: the record of who gave which piece when, and who asked the tracker what.

mod pieces;

pub use pieces::{
    Giver, GiverTotal, LogSummary, PieceLog, PieceRecord, PieceResponse, TorrentName, Verdict,
};
