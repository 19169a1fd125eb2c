//! `.torrent` files in their folder.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use piecework_core::metainfo::{
    Metainfo, MetainfoError, ParseLimits, TorrentSource, torrent_file_stem, torrent_len,
};
use piecework_core::{InfoHash, printable_path};
use piecework_proto::announce::catalogue::MAX_TORRENT_LEN;
use piecework_storage::{write_new, write_whole};

/// Returns where the token is kept that deletes the torrent in `file` from its tracker.
pub fn token_path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".token");
    path.into()
}

/// Why a `.torrent` file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TorrentFileError {
    /// It cannot be read.
    #[error("the torrent file `{}` cannot be read: {source}", printable_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("`{}` is not a file", printable_path(path))]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// It is longer than a `.torrent` may be.
    #[error(
        "`{}` is larger than the `{MAX_TORRENT_LEN}` bytes that a torrent file may have",
        printable_path(path)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no torrent.
    #[error("`{}`: {source}", printable_path(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MetainfoError,
    },
    /// It is another torrent than the one that was put there.
    #[error(
        "`{}` is another torrent now, `{found}`: put the right one there and restart the daemon",
        printable_path(path)
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The torrent that is there.
        found: InfoHash,
    },
    /// It is not the torrent that was put there any more.
    #[error(
        "`{}` is not the torrent `{wanted}` any more: put the right one there and restart the \
         daemon",
        printable_path(path)
    )]
    Replaced {
        /// The file.
        path: PathBuf,
        /// The torrent that was put there.
        wanted: InfoHash,
    },
}

/// Returns the torrent in the file `path`.
///
/// # Errors
/// If the file cannot be read, is too large, or is no torrent.
pub fn read_torrent(path: &Path) -> Result<Metainfo, TorrentFileError> {
    let bytes = read_bounded(path)?;
    Metainfo::parse(&bytes, &ParseLimits::default())
        .map_err(|source| TorrentFileError::Invalid { path: path.to_owned(), source })
}

/// Returns the torrent `info_hash`, which was put into the file `path`.
///
/// # Errors
/// As [`read_torrent`], and if it is another torrent now.
pub(super) fn read_known(path: &Path, info_hash: InfoHash) -> Result<Metainfo, TorrentFileError> {
    let metainfo = read_torrent(path)?;
    match metainfo.info_hash() {
        same if same == info_hash => Ok(metainfo),
        found => Err(TorrentFileError::Other { path: path.to_owned(), found }),
    }
}

/// Opens the file `path`, in which the torrent `info_hash` must be. Returns it at its beginning, and how
/// many bytes the torrent has.
///
/// # Errors
/// If the file cannot be read, or is another torrent now.
pub(super) fn open_known(
    path: &Path,
    info_hash: InfoHash,
) -> Result<(Arc<File>, u64), TorrentFileError> {
    let mut file = open(path)?;
    let found = torrent_len(BufReader::with_capacity(64 << 10, &file), info_hash);
    let len = found.and_then(|len| file.rewind().map(|()| len));
    match len.map_err(|error| unreadable(path, error))? {
        Some(len) => Ok((Arc::new(file), len)),
        None => Err(TorrentFileError::Replaced { path: path.to_owned(), wanted: info_hash }),
    }
}

/// Opens the file `path`, which must be one.
fn open(path: &Path) -> Result<File, TorrentFileError> {
    // Opening a pipe would wait for a writer, and a terminal could become our controlling terminal.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path);
    let file = file.map_err(|error| unreadable(path, error))?;
    match file.metadata().map_err(|error| unreadable(path, error))?.is_file() {
        true => Ok(file),
        false => Err(TorrentFileError::NotAFile { path: path.to_owned() }),
    }
}

fn unreadable(path: &Path, source: io::Error) -> TorrentFileError {
    TorrentFileError::Read { path: path.to_owned(), source }
}

/// Returns the bytes of the file `path`, if there are no more than a `.torrent` may have.
///
/// # Errors
/// If the file cannot be read or is too large.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, TorrentFileError> {
    let file = open(path)?;
    let limit = MAX_TORRENT_LEN as u64;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(TorrentFileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Returns the usual name of a torrent's file.
pub(super) fn first_name(name: &str) -> String {
    let (first, name) = stem(name);
    format!("{first}{name}.torrent")
}

/// Returns the names that a torrent's file may have, in the order in which they are tried: the usual one, and
/// two that distinguish it from others of that name.
pub(super) fn file_names(name: &str, info_hash: InfoHash) -> [String; 3] {
    let (first, name) = stem(name);
    let hash = info_hash.to_string();
    [
        format!("{first}{name}.torrent"),
        format!("{first}{name}.{}.torrent", &hash[..8]),
        format!("{first}{name}.{hash}.torrent"),
    ]
}

/// Returns the beginning of the names of a torrent's file.
fn stem(name: &str) -> (&'static str, String) {
    let name = torrent_file_stem(name);
    // Files whose names begin with a dot are skipped when the folder is read.
    let first = if name.starts_with('.') { "_" } else { "" };
    (first, name)
}

/// Writes a torrent into the folder and returns its name there.
///
/// # Errors
/// If it cannot be written.
pub(super) fn put(folder: &Path, metainfo: &Metainfo) -> io::Result<String> {
    let torrent = metainfo.bytes().map_err(io::Error::other)?;
    for name in file_names(metainfo.info().name(), metainfo.info_hash()) {
        let path = folder.join(&name);
        let written = match write_new(&path, &torrent) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let same = |other: Metainfo| other.info_hash() == metainfo.info_hash();
                if !read_torrent(&path).is_ok_and(same) {
                    // The file is another torrent's, or not ours to replace.
                    continue;
                }
                write_whole(&path, &torrent, 0o644)
            }
            written => written,
        };
        return written.map(|()| name);
    }
    Err(io::Error::other("all names it could have are taken"))
}

/// The location of a torrent's file.
pub(super) struct TorrentFile {
    folder: Arc<Path>,
    /// Its name, if that is not the usual one.
    name: Option<Box<str>>,
}

impl TorrentFile {
    /// Returns the location of torrents that have their usual names in `folder`.
    pub(crate) fn usual(folder: &Path) -> Self {
        Self { folder: folder.into(), name: None }
    }

    /// Makes a torrent that was let go of be read again from `file`, a name in the folder.
    pub(crate) fn keeps(self: &Arc<Self>, metainfo: &Metainfo, file: &str) {
        if file == first_name(metainfo.info().name()) {
            metainfo.set_source(Arc::clone(self) as _);
        } else {
            let (folder, name) = (Arc::clone(&self.folder), Some(file.into()));
            metainfo.set_source(Arc::new(Self { folder, name }));
        }
    }
}

impl TorrentSource for TorrentFile {
    fn read(&self, name: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let path = match &self.name {
            Some(file) => self.folder.join(&**file),
            None => self.folder.join(first_name(name)),
        };
        // The caller checks that it is still the same torrent.
        Ok(read_bounded(&path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    fn torrent(name: &str, len: u64) -> Metainfo {
        let builder = MetainfoBuilder::single_file(name, len);
        let pieces = builder.geometry().unwrap().pieces() as usize;
        builder.build(vec![7; pieces * 20]).unwrap()
    }

    #[test]
    fn torrents_of_one_name_get_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (torrent("a", 1), torrent("a", 2));
        assert_eq!(put(dir.path(), &one).unwrap(), "a.torrent");
        let name = put(dir.path(), &other).unwrap();
        assert_eq!(name, format!("a.{}.torrent", &other.info_hash().to_string()[..8]));
        assert_eq!(put(dir.path(), &one).unwrap(), "a.torrent");
        assert_eq!(read_torrent(&dir.path().join(&name)).unwrap().info_hash(), other.info_hash());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600))
            .unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert!(
                read_bounded(path).unwrap_err().to_string().contains("is not a file"),
                "{path:?}"
            );
        }
    }

    #[test]
    fn long_and_hidden_names_are_made_to_fit() {
        let hash = InfoHash([0xab; 20]);
        let [plain, _, own] = file_names(&"ä".repeat(127), hash);
        assert!(plain.len() <= 255 && own.len() + ".token".len() <= 255);
        assert_eq!(file_names(".x", hash)[0], "_.x.torrent");
        assert_eq!(file_names("-\u{1b}x", hash)[0], "%2D%1Bx.torrent");
    }
}
