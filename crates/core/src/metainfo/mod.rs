//! Parses the bytes of a `.torrent` into a validated torrent, hashed over the received span; and
//! makes torrents.
//!
//! BEP 3 (single- and multi-file), BEP 12 (tiers of trackers), BEP 27 (private), BEP 47 (padding
//! files). Parsing makes names safe and refuses ambiguity in what is hashed. The received bytes are
//! kept, so that unknown keys stay in the hashed span and are passed on unchanged. An idle torrent
//! may drop its bytes, piece hashes included, if they can be read again.

mod build;
mod bytes;
mod error;
mod files;
mod limits;
mod parse;
mod path;
mod repair;
mod report;
mod reread;
mod safe_name;
mod sources;
mod stream;
mod torrent;

pub use build::{MAX_PIECE_LEN, MIN_PIECE_LEN, MetainfoBuilder, check_piece_len, choose_piece_len};
pub use bytes::{TorrentBytes, TorrentSource};
pub use error::{MetainfoError, PathFault};
pub use files::{FileEntry, FileMap, FilePath, FileSlice};
pub use limits::ParseLimits;
pub use path::is_padding_name;
pub use repair::torrent_names;
pub use report::ParseReport;
pub use safe_name::{original_name, safe_name, torrent_file_stem};
pub use sources::OtherSources;
pub use stream::torrent_len;
pub use torrent::{Info, Metainfo};

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod tests;
