//! The JSON of the daemon's native API as Rust types. `docs/api.md` describes it field by field.
//! Both of the daemon's interfaces use these types, so that they show the same.
//!
//! ```
//! use piecework_api::{LeechRequest, Source};
//!
//! let body = r#"{"source": {"catalogue": {"name": "linux.iso", "tracker": null}}}"#;
//! let request: LeechRequest = serde_json::from_str(body)?;
//! assert!(matches!(request.source, Source::Catalogue { name, .. } if name == "linux.iso"));
//! // A misspelt field is an error that names it.
//! let error = serde_json::from_str::<LeechRequest>(r#"{"sauce": 1}"#).unwrap_err();
//! assert!(error.to_string().contains("`sauce`"));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Sizes are bytes, rates are bytes a second, durations are seconds, and times are seconds since
//! 1970. All are whole numbers unless a field says otherwise. Names and paths come from torrents
//! and are not escaped: escape them before you display them.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

pub mod client;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use client::fuzzing;

mod event;
mod fields;
mod file_ranges;
mod journal;
mod request;
mod settings;
mod torrent;

pub use event::Event;
pub use file_ranges::{FileRangeError, parse_file_ranges};
pub use journal::{
    BadPiece, GiverInfo, Givers, NewPieces, PieceState, PieceStory, SentPieces, Series, StoryEntry,
    TakerInfo, Timeline,
};
pub use request::{
    Added, Alive, BlockListAnswer, CatalogueAnswer, Fault, FolderList, FolderUse, FreeSpace,
    InspectRequest, Inspected, LeechRequest, MoveRequest, PeersRequest, PortTest, QueueAllRequest,
    QueueMove, QueueRequest, RemoveRequest, RenameRequest, SeedRequest, Source, TorrentChange,
};
pub use settings::{
    AltLimits, Choke, Encryption, SeedLimit, Settings, SettingsChange, SettingsError,
    TorrentSettings,
};
pub use torrent::{
    Causes, Counts, FileInfo, LogEntry, Overview, PeerEncryption, PeerInfo, PeerSource, PieceMap,
    Sources, State, Torrent, TorrentDetail, TrackerInfo, TrackerState, Waiting,
};
