//! The folder of `.torrent` files, and each torrent's file in it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use super::background::blocking;
use super::entry::pending_error;
use super::reason::Reason;
use super::torrents::Torrents;
use super::{DaemonError, torrent_files};
use piecework_core::InfoHash;

/// Reads the `.torrent` files of the daemon's torrents.
pub(super) struct TorrentFolder {
    pub torrents: Arc<Torrents>,
    pub folder: PathBuf,
}

impl TorrentFolder {
    /// Opens the original `.torrent`, to be read in parts.
    pub(crate) async fn parts(&self, info_hash: InfoHash) -> Result<TorrentParts, DaemonError> {
        let path = self.path(info_hash)?;
        let opened = blocking(move || torrent_files::open_known(&path, info_hash)).await?;
        let (file, left) = opened.map_err(|error| DaemonError::not_found(Reason::of(error)))?;
        Ok(TorrentParts { file, left })
    }

    /// Returns the path of a torrent's file.
    fn path(&self, info_hash: InfoHash) -> Result<PathBuf, DaemonError> {
        self.torrents.with(info_hash, |entry| match entry.is_pending() {
            true => Err(pending_error(entry)),
            false => Ok(self.folder.join(&*entry.file())),
        })?
    }

    /// Returns the original `.torrent`.
    pub(crate) async fn bytes(&self, info_hash: InfoHash) -> Result<Vec<u8>, DaemonError> {
        // Not read through the metainfo, which would keep it in memory.
        let file = self.path(info_hash)?;
        let read = move || {
            let torrent = torrent_files::read_known(&file, info_hash).map_err(Reason::of)?;
            torrent.bytes().map(|bytes| bytes.to_vec()).map_err(Reason::of)
        };
        blocking(read).await?.map_err(DaemonError::NotFound)
    }
}

/// A `.torrent` that is read in parts.
#[derive(Debug)]
pub struct TorrentParts {
    file: Arc<File>,
    /// Bytes that are still to be read.
    left: u64,
}

impl TorrentParts {
    /// Returns the next part; `None` after the last one.
    ///
    /// # Errors
    /// If it cannot be read any more.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, DaemonError> {
        if self.left == 0 {
            return Ok(None);
        }
        let (file, len) = (Arc::clone(&self.file), self.left.min(PART));
        let part = blocking(move || {
            let mut part = Vec::new();
            (&*file).take(len).read_to_end(&mut part).map(|_| part)
        });
        let part = part.await?.map_err(|error| DaemonError::torrent_file(Reason::of(error)))?;
        if part.is_empty() {
            return Err(DaemonError::torrent_file(
                "the torrent file became shorter meanwhile".to_owned(),
            ));
        }
        self.left -= part.len() as u64;
        Ok(Some(part))
    }
}

/// Number of bytes that are read at a time.
const PART: u64 = 64 << 10;
