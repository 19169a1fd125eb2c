//! Where the content's bytes lie in files.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a torrent, one behind the other. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileMap {
    entries: Arc<[FileEntry]>,
}

/// One file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// Where it lies below the download root.
    pub path: FilePath,
    /// Bytes of the file.
    pub len: u64,
    /// Where the file begins in the content, in bytes.
    pub offset: u64,
    /// Zeros that only align the next file (BEP 47): part of the content, never written to disk. A
    /// symbolic link counts as padding of no bytes.
    pub padding: bool,
    /// Whether whoever may read the file may run it (BEP 47).
    pub executable: bool,
}

/// The names that lead to a file below the download root. The first is the torrent's name; of a
/// single-file torrent it is the only one. None is empty, `.`, `..`, or holds `/`, NUL, or a
/// character that stands for a byte ([`crate::text_of_name`]).
///
/// One string: a torrent may have a hundred thousand files, and a session ten thousand torrents.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePath(Box<str>);

/// A run of bytes inside one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSlice {
    /// Number of the file in [`FileMap::entries`].
    pub file: usize,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes; never 0.
    pub len: u64,
}

impl FileMap {
    /// The entries in the order of the content, each beginning where the one before ends.
    pub(super) fn new(entries: Vec<FileEntry>) -> Self {
        Self { entries: entries.into() }
    }

    /// The files in the order in which their bytes make up the content.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Bytes of all files together.
    pub fn total_len(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.offset + last.len)
    }

    /// The runs of bytes that `span` of the content consists of, in order. Empty files have none;
    /// what lies beyond the end of the content is left out.
    pub fn slices(&self, span: Range<u64>) -> impl Iterator<Item = FileSlice> + '_ {
        let end = span.end.min(self.total_len());
        let mut at = span.start;
        let mut file = self.entries.partition_point(|entry| entry.offset + entry.len <= at);
        std::iter::from_fn(move || {
            while at < end {
                let entry = self.entries.get(file)?;
                let slice = FileSlice {
                    file,
                    offset: at - entry.offset,
                    len: end.min(entry.offset + entry.len) - at,
                };
                file += 1;
                at += slice.len;
                if slice.len > 0 {
                    return Some(slice);
                }
            }
            None
        })
    }
}

impl FilePath {
    /// Of names that were found to be safe.
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.join(SEPARATOR.encode_utf8(&mut [0; 4])).into())
    }

    /// Of names that were found to be safe, with `/` between them.
    pub(super) fn joined(names: String) -> Self {
        Self(names.into())
    }

    /// The names, one after the other.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split(SEPARATOR)
    }

    /// The names with `/` between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The torrent's name.
    pub fn first(&self) -> &str {
        self.iter().next().unwrap_or_default()
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FileEntry {
    /// The path below the download root.
    pub fn relative_path(&self) -> PathBuf {
        self.path.iter().collect()
    }

    /// The bytes of the content that are this file.
    pub fn span(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }
}

/// No name holds it.
const SEPARATOR: char = '/';
