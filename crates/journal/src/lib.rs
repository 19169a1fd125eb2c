//! The record of who gave which piece when, and who asked the tracker what.
//!
//! ```
//! use std::time::Duration;
//! use piecework_journal::{Journal, JournalOptions};
//!
//! let folder = tempfile::tempdir()?;
//! let journal = Journal::open(&JournalOptions {
//!     path: folder.path().join("journal.sqlite"),
//!     age: Duration::from_secs(90 * 86_400),
//!     size: 64 << 20,
//!     program: "example".to_owned(),
//! })?;
//! // `journal.record(…)` for each thing that happens; then:
//! assert!(journal.read(|reader| reader.torrents())?.is_empty());
//! journal.close();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Journal`] is an SQLite database that a thread of its own writes in batches. In front of it is a
//! queue that is bounded in bytes: recording takes a short lock and never waits for the disk. While
//! the file cannot be written, for instance because its disk is full, records wait in the queue and
//! writing is tried again. If the queue is full, the oldest records are dropped and counted by
//! torrent. `docs/journal.md` describes the tables for queries in SQL; our own programs use a
//! [`Reader`].

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod age;
mod database;
mod error;
mod journal;
mod losses;
mod options;
mod pieces;
mod queue;
mod read;
mod record;
mod request_log;
mod request_record;
mod request_ring;
mod retention;
mod rows;
mod run;
mod time;
mod write;
mod writer;

#[cfg(test)]
mod tests;

pub use error::JournalError;
pub use journal::Journal;
pub use options::JournalOptions;
pub use pieces::{
    Giver, GiverTotal, LogSummary, PieceLog, PieceRecord, PieceResponse, TorrentName,
};
pub use queue::MissingRecords;
pub use read::{Filter, Owners, Reader};
pub use record::{Blame, BlockFate, HashFailure, Record, Response, Upload};
pub use request_log::RequestLog;
pub use request_record::{HandedList, RequestEvent, RequestRecord, Via};
pub use rows::{
    ArrivalSeries, Arrivals, GiverRow, NewResponses, PieceEvent, PieceEventKind, ResponseRow,
    TakerRow, TorrentRow, Uploads, Verdict, WrongPiece,
};
pub use run::OwnRun;
pub use time::rfc3339;
