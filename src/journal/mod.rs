//! Layer 3: the record of who gave which piece when, and who asked the tracker what.

mod pieces;
mod requests;

pub use pieces::{
    Giver, GiverTotal, LogSummary, PieceLog, PieceRecord, PieceResponse, TorrentName, Verdict,
};
pub use requests::{HandedList, RequestEvent, RequestLog, RequestRecord, Via};
