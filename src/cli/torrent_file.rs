//! Reading and writing `.torrent` files.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use piecework_core::base64;
use piecework_core::metainfo::{Metainfo, MetainfoError, ParseLimits, ParseReport, TorrentBytes};
use piecework_proto::announce::Magnet;
use piecework_proto::announce::catalogue::MAX_TORRENT_LEN;
use piecework_storage::{write_new, write_whole};

use super::CliError;
use super::format::{shown, size};

/// Reads the torrent in the file `path`, which the user knows as `named`.
///
/// # Errors If it cannot be read, is too large, or is not a torrent.
pub(super) fn read(path: &Path, named: &Path) -> Result<Metainfo, CliError> {
    Metainfo::parse(&read_bytes(path, named)?, &ParseLimits::default())
        .map_err(|error| fault(named, &error))
}

/// The same, with a report of what was ignored and repaired.
///
/// # Errors
/// As [`read`].
pub(super) fn read_reported(
    path: &Path,
    named: &Path,
) -> Result<(Metainfo, ParseReport), CliError> {
    Metainfo::parse_reported(&read_bytes(path, named)?, &ParseLimits::default())
        .map_err(|error| fault(named, &error))
}

fn fault(named: &Path, error: &MetainfoError) -> CliError {
    CliError::failed(format_args!("`{}`: {error}", shown(named)))
}

fn read_bytes(path: &Path, named: &Path) -> Result<Vec<u8>, CliError> {
    if let Some(text) = named.to_str().filter(|text| Magnet::is_meant(text)) {
        let hash = Magnet::parse(text).map_err(CliError::usage_by)?.info_hash;
        return Err(CliError::failed(format_args!(
            "a magnet link only names a torrent (`{hash}`): give the .torrent, which \
             `torrent-leech --torrent LINK` or `torrent-peer get LINK` asks its trackers and peers for"
        )));
    }
    let name = shown(named);
    let cannot = |error: std::io::Error| {
        CliError::failed(format_args!("the torrent file `{name}` cannot be read: {error}"))
            .because(error)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    let limit = MAX_TORRENT_LEN as u64;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(CliError::failed(format_args!(
            "`{name}` is larger than the {} that a torrent file may have",
            size(limit)
        )));
    }
    Ok(bytes)
}

/// Reads the torrent in the file `path`, encoded for the daemon's API.
///
/// # Errors
/// As [`read`].
pub(super) fn read_encoded(path: &Path, named: &Path) -> Result<String, CliError> {
    encode(&read(path, named)?)
}

/// Encodes a torrent for the daemon's API.
///
/// # Errors If its bytes were dropped and cannot be read again.
pub(super) fn encode(metainfo: &Metainfo) -> Result<String, CliError> {
    Ok(base64::encode(&bytes_of(metainfo)?))
}

fn bytes_of(metainfo: &Metainfo) -> Result<TorrentBytes, CliError> {
    metainfo.bytes().map_err(CliError::failed_by)
}

/// What to do with an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Keep it, unless it is the same torrent with the same trackers.
    Keep,
    /// Replace it.
    Replace,
}

impl Existing {
    /// Returns the meaning of `--force`.
    pub(super) fn forced(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }
}

/// Writes the torrent to `path`, which the user knows as `named`: completely, or not at all.
///
/// # Errors If it cannot be written, or if another file is there and must stay.
pub(super) fn write(
    path: &Path,
    named: &Path,
    metainfo: &Metainfo,
    existing: Existing,
) -> Result<(), CliError> {
    let bytes = bytes_of(metainfo)?;
    let written = match existing {
        Existing::Replace => write_whole(path, &bytes, MODE),
        Existing::Keep => match write_new(path, &bytes) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if let Some(other) = what_else(path, metainfo) {
                    return Err(stays(named, other));
                }
                write_whole(path, &bytes, MODE)
            }
            written => written,
        },
    };
    written.map_err(|error| {
        CliError::failed(format_args!("`{}` cannot be written: {error}", shown(named)))
            .because(error)
    })
}

/// Reports the error of [`write()`] for a file that is not a torrent, before much work is done.
///
/// # Errors If an existing file must stay, whatever the torrent will be.
pub(super) fn may_write(path: &Path, named: &Path, existing: Existing) -> Result<(), CliError> {
    if existing == Existing::Replace || path.symlink_metadata().is_err() {
        return Ok(());
    }
    match is_file(path) && read(path, named).is_ok() {
        true => Ok(()),
        false => Err(stays(named, "is not a torrent file")),
    }
}

/// Returns whether it is a regular file. Reading a pipe could wait forever.
fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn stays(named: &Path, what: &str) -> CliError {
    CliError::failed(format_args!(
        "`{}` exists and {what}, so it is not overwritten: name another file with --output, or \
         say --force",
        shown(named)
    ))
}

/// Returns what the file at `path` is, if it is not this torrent with these trackers.
pub(super) fn what_else(path: &Path, metainfo: &Metainfo) -> Option<&'static str> {
    if !is_file(path) {
        return Some("is not a torrent file");
    }
    match read(path, path) {
        Err(_) => Some("is not a torrent file"),
        Ok(other) if other.info_hash() != metainfo.info_hash() => Some("is another torrent"),
        Ok(other) if other.trackers() != metainfo.trackers() => Some("names other trackers"),
        Ok(_) => None,
    }
}

/// Everybody may read a torrent, as far as the umask allows.
const MODE: u32 = 0o666;

/// Writes `bytes` to `path`, readable only by the owner.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_whole(path, bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    fn torrent(len: u64, tracker: &str, comment: &str) -> Metainfo {
        let mut builder = MetainfoBuilder::single_file("a", len);
        builder = builder.trackers(vec![vec![tracker.to_owned()]]).comment(comment);
        builder.build(vec![7; 20]).unwrap()
    }

    #[test]
    fn only_the_same_torrent_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.torrent");
        let put = |metainfo: &Metainfo, existing| {
            write(&path, Path::new("a.torrent"), metainfo, existing).map_err(|e| e.to_string())
        };
        let one = torrent(1, "http://one/announce", "first");
        put(&one, Existing::Keep).unwrap();
        put(&torrent(1, "http://one/announce", "second"), Existing::Keep).unwrap();
        assert_eq!(read(&path, &path).unwrap().comment(), Some("second"));
        let others = [
            (torrent(2, "http://one/announce", ""), "is another torrent"),
            (torrent(1, "http://two/announce", ""), "names other trackers"),
        ];
        for (other, why) in &others {
            let error = put(other, Existing::Keep).unwrap_err();
            assert!(error.contains(why) && error.contains("--force"), "{error}");
            assert_eq!(read(&path, &path).unwrap().comment(), Some("second"));
        }
        put(&others[0].0, Existing::Replace).unwrap();
        assert_eq!(read(&path, &path).unwrap().info_hash(), others[0].0.info_hash());
        // Any kind: a file, a folder, a link to nothing.
        std::fs::write(&path, "my thesis").unwrap();
        assert!(put(&one, Existing::Keep).unwrap_err().contains("is not a torrent file"));
        assert_eq!(std::fs::read(&path).unwrap(), b"my thesis");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(put(&one, Existing::Keep).is_err());
        assert!(may_write(&path, &path, Existing::Keep).is_err());
        assert!(may_write(&path, &path, Existing::Replace).is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
