//! What can be wrong with a `.torrent`.

use std::error::Error;

use crate::InfoHash;
use crate::bencode::BencodeError;

/// Why bytes are not an acceptable torrent, or why a torrent cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MetainfoError {
    /// The file is larger than the limit.
    #[error("the torrent file has `{len}` bytes, more than the `{limit}` allowed")]
    TooLong {
        /// The length of the file in bytes.
        len: usize,
        /// The number of bytes allowed.
        limit: usize,
    },
    /// The bytes were dropped and cannot be read again.
    #[error(transparent)]
    Unreadable(Box<dyn Error + Send + Sync>),
    /// The bytes were dropped, and the file they came from now holds another torrent.
    #[error("the file of the torrent `{wanted}` is another torrent now, `{got}`")]
    Replaced {
        /// The torrent whose bytes are needed.
        wanted: InfoHash,
        /// The torrent in the file.
        got: InfoHash,
    },
    /// The bytes were dropped, and there is no source for them.
    #[error("the torrent is not in memory")]
    NotInMemory,
    /// Not bencode, or a value of the wrong type.
    #[error("the torrent is malformed: {0}")]
    Bencode(#[from] BencodeError),
    /// Bencode, but not a torrent.
    #[error("this is not a torrent file: it is not a dictionary with an `info` dictionary in it")]
    NotATorrent,
    /// A required key is missing.
    #[error("the torrent has no `{key}`")]
    Missing {
        /// The key, with its dictionary.
        key: &'static str,
    },
    /// The value of a key has the wrong type.
    #[error("the torrent's `{key}` is not {wanted}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The expected type.
        wanted: &'static str,
    },
    /// The torrent has only the hashes of BEP 52.
    #[error(
        "this is a version 2 torrent (BEP 52) without version 1 hashes, which is not supported yet; a hybrid torrent of the same files would be"
    )]
    VersionTwoOnly,
    /// A piece length that no torrent can have.
    #[error("the piece length `{value}` is not between 1 and `{limit}` bytes")]
    PieceLength {
        /// The value in the torrent.
        value: i64,
        /// The longest allowed.
        limit: u32,
    },
    /// A piece length with which we do not make torrents.
    #[error("the piece length `{value}` is not a power of two from 16 KiB to 64 MiB")]
    UnusualPieceLength {
        /// The requested length.
        value: u32,
    },
    /// The hashes do not match the length of the content.
    #[error(
        "`{total_len}` bytes in pieces of `{piece_len}` need `{wanted}` bytes of piece hashes, not `{got}`"
    )]
    HashCount {
        /// The length of the content in bytes.
        total_len: u64,
        /// The piece length in bytes.
        piece_len: u32,
        /// The number of bytes of hashes expected.
        wanted: u64,
        /// The number of bytes of hashes found.
        got: usize,
    },
    /// There are too many pieces.
    #[error(
        "`{pieces}` pieces are more than the `{limit}` allowed: longer pieces would make fewer"
    )]
    TooManyPieces {
        /// The number of pieces.
        pieces: u64,
        /// The number of pieces allowed.
        limit: u32,
    },
    /// There are too many files.
    #[error(
        "`{files}` files are more than the `{limit}` that a torrent may have: an archive is one"
    )]
    TooManyFiles {
        /// The number of files.
        files: usize,
        /// The number of files allowed.
        limit: usize,
    },
    /// A file has a negative length.
    #[error("the file `{path}` has the impossible length `{value}`")]
    FileLength {
        /// The path of the file.
        path: String,
        /// The value in the torrent.
        value: i64,
    },
    /// The total length does not fit a signed 64-bit integer.
    #[error("the total length of the files exceeds 2^63 - 1 bytes")]
    TotalLength,
    /// The torrent does not say what its content is.
    #[error("the torrent has neither `length` nor `files`")]
    NeitherLengthNorFiles,
    /// The list of files is empty.
    #[error("the torrent lists no files")]
    NoFiles,
    /// A path is not safe to store.
    #[error("the path `{path}` is refused: {fault}")]
    Path {
        /// The path, its components joined by `/`, shortened if it is long.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The same path occurs twice.
    #[error("the file `{path}` is listed twice")]
    DuplicatePath {
        /// The path.
        path: String,
    },
    /// A path is both a file and a folder.
    #[error("`{path}` is a file, but `{other}` would be inside it")]
    FileIsFolder {
        /// The file.
        path: String,
        /// The path that would lie inside it.
        other: String,
    },
}

/// Why a path is not safe to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It has no components.
    #[error("it is empty")]
    NoComponents,
    /// A component is empty.
    #[error("a part of it is empty")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("`.` and `..` are not file names")]
    DotComponent,
    /// A component begins with `/`.
    #[error("it is absolute")]
    Absolute,
    /// A component contains a separator. `\\` counts as one if the component is a path on Windows.
    #[error("a part of it contains `/`, or is a path with `\\`")]
    Separator,
    /// A component contains a NUL byte.
    #[error("it contains a NUL byte")]
    Nul,
    /// A component is longer than file systems allow.
    #[error("a part of it has `{len}` bytes, more than the `{limit}` allowed")]
    TooLong {
        /// The length of the component in bytes.
        len: usize,
        /// The number of bytes allowed.
        limit: usize,
    },
    /// It has too many components.
    #[error("it has more than `{limit}` parts")]
    TooDeep {
        /// The number of components allowed.
        limit: usize,
    },
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A component is a name that other programs take for padding.
    #[error("a part of it names padding, which is never written")]
    Padding,
}
