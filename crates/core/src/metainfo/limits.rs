//! How large a torrent may be.

use crate::bencode;

/// Limits on what a torrent may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseLimits {
    /// Bytes of the `.torrent` file.
    pub bytes: usize,
    /// Pieces.
    pub pieces: u32,
    /// Files, padding included.
    pub files: usize,
    /// Components of a path, the name of the torrent included.
    pub path_depth: usize,
    /// Bytes of one path component.
    pub name_len: usize,
    /// Bencode values, which take twelve bytes of memory each during parsing.
    pub tokens: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self {
            bytes: bencode::Limits::default().bytes,
            // 2 TiB in pieces of 1 MiB. One bit for each of them is 256 KiB per peer.
            pieces: 2_000_000,
            // Some 150 bytes of memory each, as long as the torrent is known.
            files: 500_000,
            path_depth: 100,
            // The limit of Linux file systems.
            name_len: 255,
            tokens: bencode::Limits::default().tokens,
        }
    }
}
