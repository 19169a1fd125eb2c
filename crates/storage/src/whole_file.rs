//! Files that are written completely or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::CWD;

use super::renaming::rename_new;

/// Replaces the file at `path` by `bytes`, completely or not at all, and syncs it to the disk.
///
/// # Errors
/// If it cannot be written; then the old file remains.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write(path, bytes, mode, true)
}

/// Writes `bytes` to a new file at `path`.
///
/// # Errors
/// If the path exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o644, false)
}

fn write(path: &Path, bytes: &[u8], mode: u32, replaces: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{}.{:x}.part", std::process::id(), fresh()));
    let result = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| match replaces {
            true => std::fs::rename(&beside, path),
            false => Ok(rename_new(CWD, &*beside, CWD, path)?),
        })
        .and_then(|()| File::open(folder)?.sync_all());
    if result.is_err() {
        // The first error is what matters; what remains is a few bytes.
        let _ = std::fs::remove_file(&beside);
    }
    result
}

/// Returns a number that no other temporary file of this process has.
fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::renaming::able::lacking;

    #[test]
    fn where_the_file_system_cannot_promise_it_nothing_is_replaced_either() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let errno = rustix::io::Errno::INVAL;
        lacking(errno, Some(rustix::io::Errno::PERM), || {
            write_new(&path, b"first").unwrap();
            let taken = write_new(&path, b"second").unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&path).unwrap(), b"first");
            write_whole(&path, b"third", 0o600).unwrap();
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
