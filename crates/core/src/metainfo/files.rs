//! How the content is divided into files.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a torrent in the order of their bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileMap {
    entries: Arc<[FileEntry]>,
}

/// One file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// The path below the download root.
    pub path: FilePath,
    /// The length in bytes.
    pub len: u64,
    /// The offset in the content, in bytes.
    pub offset: u64,
    /// Whether the file is padding (BEP 47): zeros that align the next file. They are part of the
    /// content and never written to disk. A symbolic link counts as padding of no bytes.
    pub padding: bool,
    /// Whether the file is executable (BEP 47).
    pub executable: bool,
}

/// The path components of a file below the download root. The first is the name of the torrent; it
/// is the only one in a single-file torrent. No component is empty, `.` or `..`, or contains `/`,
/// NUL, or a character that stands for a byte ([`crate::text_of_name`]).
///
/// Stored as one string: a torrent may have a hundred thousand files, and a session ten thousand
/// torrents.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePath(Box<str>);

/// A range of bytes in one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSlice {
    /// The number of the file in [`FileMap::entries`].
    pub file: usize,
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The length in bytes; never 0.
    pub len: u64,
}

impl FileMap {
    /// Creates the map of `entries` in the order of the content. Each begins where the one before
    /// ends.
    pub(super) fn new(entries: Vec<FileEntry>) -> Self {
        Self { entries: entries.into() }
    }

    /// Returns the files in the order of the content.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Returns the total length of all files in bytes.
    pub fn total_len(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.offset + last.len)
    }

    /// Returns the ranges of files that `span` of the content covers, in order. Empty files have
    /// none. What lies after the end of the content is left out.
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
    /// The names must have been checked.
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.join(SEPARATOR.encode_utf8(&mut [0; 4])).into())
    }

    /// The names, joined by `/`, must have been checked.
    pub(super) fn joined(names: String) -> Self {
        Self(names.into())
    }

    /// Returns the path components in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split(SEPARATOR)
    }

    /// Returns the path components joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the torrent.
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
    /// Returns the path below the download root.
    pub fn relative_path(&self) -> PathBuf {
        self.path.iter().collect()
    }

    /// Returns the range of the file in the content.
    pub fn span(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }
}

/// No component contains it.
const SEPARATOR: char = '/';
