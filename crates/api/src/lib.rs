//! What the daemon and those who drive it say to each other, as Rust types: the JSON of
//! the native API, which `docs/api.md` describes field by field. The daemon's own layers speak
//! these types too, so that every way in shows the same.
//!
//! Sizes are bytes, rates bytes a second, spans seconds, moments seconds since 1970, all whole
//! numbers unless a field says otherwise. Names and paths come from torrents: they are given as
//! they are, and must be escaped where they are shown.

#![warn(missing_docs)]

pub mod client;

mod event;
mod fields;
mod journal;
mod request;
mod settings;
mod torrent;

pub use event::Event;
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
    AltLimits, Choke, Encryption, SeedLimit, Settings, SettingsChange, TorrentSettings,
    parse_file_ranges,
};
pub use torrent::{
    Causes, Counts, FileInfo, LogEntry, Overview, PeerEncryption, PeerInfo, PieceMap, Sources,
    State, Torrent, TorrentDetail, TrackerInfo, TrackerState, Waiting,
};
