//! `.torrent` files in their folder.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::roots::shown;
use piecework_core::InfoHash;
use piecework_core::metainfo::{
    Metainfo, ParseLimits, TorrentSource, torrent_file_stem, torrent_len,
};
use piecework_proto::announce::catalogue::MAX_TORRENT_LEN;
use piecework_storage::{write_new, write_whole};

/// Where the token that deletes the torrent of `file` from its tracker is kept.
pub fn token_path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".token");
    path.into()
}

/// The torrent in the file `path`.
///
/// # Errors
/// A sentence that names the file: it cannot be read, is too large, or no torrent.
pub fn read_torrent(path: &Path) -> Result<Metainfo, String> {
    let bytes = read_bounded(path)?;
    Metainfo::parse(&bytes, &ParseLimits::default())
        .map_err(|error| format!("`{}`: {error}", shown(path)))
}

/// The torrent `info_hash`, which was put into the file `path`.
///
/// # Errors
/// A sentence that names the file, also if it is another torrent now.
pub(super) fn read_known(path: &Path, info_hash: InfoHash) -> Result<Metainfo, String> {
    let metainfo = read_torrent(path)?;
    match metainfo.info_hash() {
        same if same == info_hash => Ok(metainfo),
        other => Err(format!(
            "`{}` is another torrent now, `{other}`: put the right one there and start the daemon \
             anew",
            shown(path)
        )),
    }
}

/// The file `path`, at its beginning, if the torrent `info_hash` is in it, and how many bytes that has.
///
/// # Errors
/// A sentence that names the file, also if it is another torrent now.
pub(super) fn open_known(path: &Path, info_hash: InfoHash) -> Result<(Arc<File>, u64), String> {
    let mut file = open(path)?;
    let found = torrent_len(BufReader::with_capacity(64 << 10, &file), info_hash);
    let len = found.and_then(|len| file.rewind().map(|()| len));
    match len.map_err(|error| unreadable(path, &error))? {
        Some(len) => Ok((Arc::new(file), len)),
        None => Err(format!(
            "`{}` is not the torrent `{info_hash}` any more: put the right one there and start the \
             daemon anew",
            shown(path)
        )),
    }
}

/// Opens the file `path`, which must be one.
fn open(path: &Path) -> Result<File, String> {
    // Opening a pipe would wait for whoever writes into it, and a terminal could become ours.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path);
    let file = file.map_err(|error| unreadable(path, &error))?;
    match file.metadata().map_err(|error| unreadable(path, &error))?.is_file() {
        true => Ok(file),
        false => Err(format!("`{}` is not a file", shown(path))),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("the torrent file `{}` cannot be read: {error}", shown(path))
}

/// The bytes of the file `path`, if there are no more than a `.torrent` may have.
///
/// # Errors
/// A sentence that names the file.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let file = open(path)?;
    let limit = MAX_TORRENT_LEN as u64;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(format!(
            "`{}` is larger than the `{limit}` bytes that a torrent file may have",
            shown(path)
        ));
    }
    Ok(bytes)
}

/// The name a torrent has in the folder unless another was faster.
pub(super) fn first_name(name: &str) -> String {
    let (first, name) = stem(name);
    format!("{first}{name}.torrent")
}

/// The names a torrent may have in the folder, in the order in which they are tried: its own, and
/// two that tell it from others of that name.
pub(super) fn file_names(name: &str, info_hash: InfoHash) -> [String; 3] {
    let (first, name) = stem(name);
    let hash = info_hash.to_string();
    [
        format!("{first}{name}.torrent"),
        format!("{first}{name}.{}.torrent", &hash[..8]),
        format!("{first}{name}.{hash}.torrent"),
    ]
}

/// What the names of a torrent's file begin with.
fn stem(name: &str) -> (&'static str, String) {
    let name = torrent_file_stem(name);
    // A name that begins with a dot would be passed over when the folder is read.
    let first = if name.starts_with('.') { "_" } else { "" };
    (first, name)
}

/// Puts a torrent into the folder and gives the name it has there.
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
                    // Another torrent's, or something that is not ours to replace.
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

/// Where a torrent's own file lies.
pub(super) struct TorrentFile {
    folder: Arc<Path>,
    /// Its name, if it is not the one it gets first.
    name: Option<Box<str>>,
}

impl TorrentFile {
    /// Of torrents that have their first names in `folder`.
    pub fn usual(folder: &Path) -> Self {
        Self { folder: folder.into(), name: None }
    }

    /// Has the torrent be read again from `file`, a name in the folder, when it was let go of.
    pub fn keeps(self: &Arc<Self>, metainfo: &Metainfo, file: &str) {
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
            assert!(read_bounded(path).unwrap_err().contains("is not a file"), "{path:?}");
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
