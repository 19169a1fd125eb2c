//! The files of a database: creating and renaming them, and whether their disk accepts writes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Identifies a file by its device and inode, which a rename does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// Returns the file that lies at `path` now.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// Returns whether the file system of the file at `path` is mounted read-only, or has become
/// read-only after an error.
///
/// SQLite maps the index of its log into memory. Writing to it on such a file system kills the
/// program (`SIGBUS`), so ask before writing.
pub fn is_read_only(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let looked = rustix::fs::statvfs(folder.unwrap_or(Path::new(".")));
    looked.is_ok_and(|it| it.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Creates a file that only its owner can read. If there is one already, leaves it as it is and returns
/// its length.
///
/// SQLite gives the files beside a database the same permissions.
///
/// # Errors
/// If it cannot be created.
pub fn create_private(path: &Path) -> io::Result<Option<u64>> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Some(path.metadata()?.len())),
        Err(error) => Err(error),
    }
}

/// Writes and removes a file of `len` bytes beside `path`, to find out whether its disk has room.
///
/// # Errors
/// If it cannot be written or removed.
pub fn probe(path: &Path, len: usize) -> io::Result<()> {
    let beside = with_suffix(path, &format!(".probe-{}", std::process::id()));
    let made = std::fs::write(&beside, vec![0; len]);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => made.and(Err(error)),
        _ => made,
    }
}

/// Renames a damaged file at `path`, and the files that SQLite put beside it, to
/// `<path>.damaged-<seconds>`. Returns the new path.
///
/// If this is interrupted, SQLite discards the log that then lies beside a new database.
///
/// # Errors
/// If it cannot be renamed.
pub fn set_aside(path: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut aside = with_suffix(path, &format!(".damaged-{}", since.as_secs()));
    let mut number = 1;
    while aside.symlink_metadata().is_ok() {
        aside = with_suffix(path, &format!(".damaged-{}-{number}", since.as_secs()));
        number += 1;
    }
    std::fs::rename(path, &aside)?;
    for end in ["-wal", "-shm", "-journal"] {
        match std::fs::rename(with_suffix(path, end), with_suffix(&aside, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Calls [`set_aside`] if `file` still lies at `path`. Returns `None` if another program has done
/// so before, or somebody has removed the file.
///
/// # Errors
/// If it cannot be renamed.
pub fn set_aside_if(path: &Path, file: FileId, now: SystemTime) -> io::Result<Option<PathBuf>> {
    let is_there = || match FileId::of(path) {
        Ok(there) => Ok(there == file),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    if !is_there()? {
        return Ok(None);
    }
    // If two programs find the damage at once, the second must not rename the new database of the
    // first.
    let lock = File::open(path)?;
    lock.lock()?;
    if !is_there()? {
        return Ok(None);
    }
    set_aside(path, now).map(Some)
}

/// Appends `suffix` to the file name of `path`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Bytes of the index that SQLite creates beside a database.
pub(crate) const INDEX_LEN: usize = 32 << 10;
