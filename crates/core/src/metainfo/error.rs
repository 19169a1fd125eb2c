//! What can be wrong with a `.torrent`.

use std::error::Error;

use crate::InfoHash;
use crate::bencode::BencodeError;

/// Why bytes are not a torrent that we take, or a torrent cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MetainfoError {
    /// A file larger than the limit.
    #[error("the torrent file has `{len}` bytes, more than the `{limit}` allowed")]
    TooLong {
        /// Bytes of the file.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes were let go of and cannot be read again.
    #[error(transparent)]
    Unreadable(Box<dyn Error + Send + Sync>),
    /// The bytes were let go of, and the file they came from now holds another torrent.
    #[error("the file of the torrent `{wanted}` is another torrent now, `{got}`")]
    Replaced {
        /// The torrent whose bytes are needed.
        wanted: InfoHash,
        /// The torrent in the file.
        got: InfoHash,
    },
    /// The bytes are not in memory, and there is no source for them.
    #[error("the torrent is not in memory")]
    NotInMemory,
    /// Not bencode, or a value of another shape than its key demands.
    #[error("the torrent is malformed: {0}")]
    Bencode(#[from] BencodeError),
    /// Bencode, but no torrent.
    #[error("this is not a torrent file: it is no dictionary with an `info` dictionary in it")]
    NotATorrent,
    /// A key without which there is no torrent.
    #[error("the torrent has no `{key}`")]
    Missing {
        /// The key, with the dictionary it belongs into.
        key: &'static str,
    },
    /// A value of another type than its key demands.
    #[error("the torrent's `{key}` is not {wanted}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// Only the hashes of BEP 52.
    #[error(
        "this is a version 2 torrent (BEP 52) without version 1 hashes, which is not supported yet; a hybrid torrent of the same files would be"
    )]
    VersionTwoOnly,
    /// A piece length that no torrent can have.
    #[error("the piece length `{value}` is not between 1 and `{limit}` bytes")]
    PieceLength {
        /// What the torrent says.
        value: i64,
        /// The longest taken.
        limit: u32,
    },
    /// A piece length that we do not make torrents with.
    #[error("the piece length `{value}` is not a power of two from 16 KiB to 64 MiB")]
    UnusualPieceLength {
        /// What was asked for.
        value: u32,
    },
    /// Hashes that do not cover the content.
    #[error(
        "`{total_len}` bytes in pieces of `{piece_len}` need `{wanted}` bytes of piece hashes, not `{got}`"
    )]
    HashCount {
        /// Bytes of content.
        total_len: u64,
        /// Bytes a piece.
        piece_len: u32,
        /// Bytes of hashes that makes.
        wanted: u64,
        /// Bytes of hashes there are.
        got: usize,
    },
    /// More pieces than the limit.
    #[error(
        "`{pieces}` pieces are more than the `{limit}` allowed: longer pieces would make fewer"
    )]
    TooManyPieces {
        /// Pieces of the torrent.
        pieces: u64,
        /// Pieces allowed.
        limit: u32,
    },
    /// More files than the limit.
    #[error(
        "`{files}` files are more than the `{limit}` that a torrent may have: an archive is one"
    )]
    TooManyFiles {
        /// Files there are.
        files: usize,
        /// Files allowed.
        limit: usize,
    },
    /// A file of less than no bytes.
    #[error("the file `{path}` has the impossible length `{value}`")]
    FileLength {
        /// The file.
        path: String,
        /// What the torrent says.
        value: i64,
    },
    /// More bytes than a signed 64-bit number counts.
    #[error("the files are longer together than 2^63 - 1 bytes")]
    TotalLength,
    /// No way to name the content.
    #[error("the torrent has neither `length` nor `files`")]
    NeitherLengthNorFiles,
    /// An empty list of files.
    #[error("the torrent lists no files")]
    NoFiles,
    /// A path that is not safe to store.
    #[error("the path `{path}` is refused: {fault}")]
    Path {
        /// The path, its components joined by `/`, cut if it is long.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// One path twice.
    #[error("the file `{path}` is listed twice")]
    DuplicatePath {
        /// The path.
        path: String,
    },
    /// A path that is a file for one entry and a folder for another.
    #[error("`{path}` is a file, but `{other}` would be inside it")]
    FileIsFolder {
        /// The file.
        path: String,
        /// What would be inside it.
        other: String,
    },
}

/// Why a path is not safe to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// No components at all.
    #[error("it is empty")]
    NoComponents,
    /// A component of no bytes.
    #[error("a part of it is empty")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("`.` and `..` are not file names")]
    DotComponent,
    /// A component that begins with `/`.
    #[error("it is absolute")]
    Absolute,
    /// A separator inside a component; `\\` counts as one where it leads elsewhere.
    #[error("a part of it contains `/`, or is a path with `\\`")]
    Separator,
    /// A NUL byte.
    #[error("it contains a NUL byte")]
    Nul,
    /// A component that no file system takes.
    #[error("a part of it has `{len}` bytes, more than the `{limit}` allowed")]
    TooLong {
        /// Bytes of the component.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many folders inside one another.
    #[error("it has more than `{limit}` parts")]
    TooDeep {
        /// Components allowed.
        limit: usize,
    },
    /// Not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A name by which other programs take a file for padding.
    #[error("a part of it names padding, which is never written")]
    Padding,
}
