//! The content that a swarm moves, and the folder for the copies.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use piecework_core::Rng;
use piecework_core::metainfo::FileMap;

/// A folder for temporary files. It is removed with its content when dropped.
#[derive(Debug)]
pub struct TempFolder {
    path: PathBuf,
}

/// SHA-256 over all files of a torrent in order, each preceded by its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub [u8; 32]);

impl TempFolder {
    /// Creates a folder in `parent`.
    ///
    /// # Errors If it cannot be created.
    pub fn new(parent: &Path) -> io::Result<Self> {
        for number in 0..u32::MAX {
            let path = parent.join(format!("torrent-sim-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("every name is taken"))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        let result = fs::remove_dir_all(&self.path);
        std::mem::forget(self);
        result
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a temporary folder is left behind");
        }
    }
}

impl Content {
    /// Reads the files of `map` beneath `root`. Calls `progress` with the number of bytes read
    /// since the last call.
    ///
    /// # Errors
    /// If one cannot be read, or `progress` returns an error.
    pub fn of(
        root: &Path,
        map: &FileMap,
        mut progress: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        for entry in map.entries().iter().filter(|entry| !entry.padding) {
            let mut file = File::open(root.join(entry.relative_path()))?;
            hasher.update(file.metadata()?.len().to_be_bytes());
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => {
                        hasher.update(&buffer[..read]);
                        progress(read as u64)?;
                    }
                }
            }
        }
        Ok(Self(hasher.finalize().into()))
    }
}

/// Writes `len` bytes to `path` that do not compress and are the same every time. Calls `progress`
/// with the number of bytes written.
///
/// # Errors
/// If they cannot be written, or `progress` returns an error.
pub(super) fn write_pseudo_random(
    path: &Path,
    len: u64,
    mut progress: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut rng = Rng::from_seed(SEED);
    let mut out = BufWriter::with_capacity(CHUNK, File::create(path)?);
    let mut left = len;
    while left > 0 {
        if (len - left).is_multiple_of(CHUNK as u64) {
            progress(len - left)?;
        }
        let bytes = rng.next_u64().to_le_bytes();
        let take = left.min(8);
        out.write_all(&bytes[..take as usize])?;
        left -= take;
    }
    out.flush()
}

const CHUNK: usize = 1 << 20;
const SEED: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_content_is_the_same_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write_pseudo_random(&a, 100_003, |_| Ok(())).unwrap();
        write_pseudo_random(&b, 100_003, |_| Ok(())).unwrap();
        let content = fs::read(&a).unwrap();
        assert_eq!(content.len(), 100_003);
        assert_eq!(content, fs::read(&b).unwrap());
    }

    #[test]
    fn temporary_folders_differ_and_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (TempFolder::new(dir.path()).unwrap(), TempFolder::new(dir.path()).unwrap());
        assert_ne!(a.path(), b.path());
        fs::write(a.path().join("x"), b"x").unwrap();
        drop(a);
        b.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
