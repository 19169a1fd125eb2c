//! How large a torrent may be.

use crate::bencode;

/// What a torrent may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseLimits {
    /// Bytes of the `.torrent` file.
    pub bytes: usize,
    /// Pieces.
    pub pieces: u32,
    /// Files, padding counted.
    pub files: usize,
    /// Components of a path, the torrent's name counted.
    pub path_depth: usize,
    /// Bytes of one component of a path.
    pub name_len: usize,
    /// Values of bencode, twelve bytes of memory each while it is read.
    pub tokens: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self {
            bytes: bencode::Limits::default().bytes,
            // 2 TiB in pieces of 1 MiB; a bit for each of them is 256 KiB a peer.
            pieces: 2_000_000,
            // Some 150 bytes of memory each for as long as the torrent is known.
            files: 500_000,
            path_depth: 100,
            // What Linux file systems take.
            name_len: 255,
            tokens: bencode::Limits::default().tokens,
        }
    }
}
