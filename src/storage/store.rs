//! One torrent's content on disk.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{fdatasync, fstat};
use rustix::io::Errno;

use crate::base::Geometry;
use crate::metainfo::Metainfo;

use super::beneath::{Access, Root};
use super::error::{Operation, StorageError};
use super::files::Files;
use super::handles::FileHandles;

/// One torrent's content beneath one root folder, read and written by offset as if it were a
/// single stretch of bytes.
///
/// - Files are opened when they are first needed and closed when others need the handles more
///   ([`FileHandles`]). No symbolic link below the root is followed.
/// - Files grow as they are written, with holes where nothing was written yet. Nothing is ever
///   truncated or removed: a file that is longer than the torrent says is reported by
///   [`check`](super::check()) and left alone.
/// - Padding files (BEP 47) are not on disk: they read as zeros, writes to them are dropped.
/// - All methods block; they may be called from any number of threads at once.
pub struct Store {
    root: Root,
    metainfo: Arc<Metainfo>,
    handles: Arc<FileHandles>,
    id: u64,
    mode: StoreMode,
    unsynced: Mutex<Unsynced>,
}

/// What may be done to a store's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreMode {
    /// Nothing but reading: for sharing what is there already.
    ReadOnly,
    /// Files are made and written.
    ReadWrite,
}

/// What the disk does not know yet for certain.
#[derive(Default)]
struct Unsynced {
    files: BTreeSet<usize>,
    /// Folders something was made in, as names below the root.
    folders: BTreeSet<Vec<Box<str>>>,
}

impl Store {
    /// The content of `metainfo` beneath `root`. Touches no file: [`Store::prepare`] does.
    pub fn new(
        root: &Path,
        metainfo: Arc<Metainfo>,
        handles: Arc<FileHandles>,
        mode: StoreMode,
    ) -> Result<Self, StorageError> {
        // A relative root would move with the process's working folder.
        let root = std::path::absolute(root).map_err(|error| {
            StorageError::other(Operation::Open, root.to_owned(), error.to_string())
        })?;
        let id = handles.register();
        let (root, unsynced) = (Root::new(&root), Mutex::default());
        Ok(Self { root, metainfo, handles, id, mode, unsynced })
    }

    /// Makes the folders and the files, empty, that are not there yet; the root as well. Changes
    /// no file that exists. Does nothing in a read-only store.
    pub fn prepare(&self) -> Result<(), StorageError> {
        if self.mode == StoreMode::ReadOnly {
            return Ok(());
        }
        self.root.create()?;
        let folder = self.root.open()?;
        for entry in self.metainfo.info().files().entries().iter().filter(|e| !e.padding) {
            match folder.stat(&entry.path) {
                Ok(_) => continue,
                Err(StorageError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            let parents = &entry.path[..entry.path.len().saturating_sub(1)];
            let made = match folder.open(&entry.path, Access::Create) {
                Err(StorageError::Missing { .. }) => {
                    folder.create_folders(parents)?;
                    folder.open(&entry.path, Access::Create)
                }
                made => made,
            };
            made?;
            let mut unsynced = self.unsynced.lock();
            for deep in (0..=parents.len()).rev() {
                // A folder that is noted has its parents noted.
                if !unsynced.folders.insert(parents[..deep].to_vec()) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Fills `buf` with the content from byte `offset` on, over file borders, from the disk if
    /// need be.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.files().read_at(offset, buf)
    }

    /// Like [`Store::read_at`], but only if all the bytes are in memory: else false, and `buf`
    /// is arbitrary. Never waits for a disk, so it may be called where blocking is not allowed.
    ///
    /// False also for files that are not open yet (opening may wait) and on file systems that
    /// cannot tell: `read_at` on another thread is always the way out.
    pub fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StorageError> {
        self.files().read_cached(offset, buf)
    }

    /// Writes `parts`, one behind the other, from byte `offset` of the content on, over file
    /// borders, in as few calls as the system allows.
    pub fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        let files = self.files();
        let len = parts.iter().map(|part| part.len()).sum();
        let touched: Vec<usize> =
            files.slices(offset, len, Operation::Write)?.map(|slice| slice.file).collect();
        if self.mode == StoreMode::ReadOnly {
            let path = self.root.path().to_owned();
            return Err(StorageError::new(Operation::Write, path, Errno::ROFS));
        }
        let result = files.write_at(offset, parts);
        // Noted after the write, not before: a sync in between would forget a note it has not
        // kept. Noted even if it failed, for some of it may be written.
        let entries = self.metainfo.info().files().entries();
        self.unsynced.lock().files.extend(touched.into_iter().filter(|f| !entries[*f].padding));
        result
    }

    /// Waits until everything written before this call is on the disk, new files' names
    /// included. After an error, what was written since the last success must be checked again.
    pub fn sync(&self) -> Result<(), StorageError> {
        let mut todo = std::mem::take(&mut *self.unsynced.lock());
        let result = self.sync_all(&mut todo);
        if result.is_err() {
            let mut unsynced = self.unsynced.lock();
            unsynced.files.append(&mut todo.files);
            unsynced.folders.append(&mut todo.folders);
        }
        result
    }

    /// Closes the files that are open. They are opened again when needed.
    pub fn close_files(&self) {
        self.handles.close(self.id);
    }

    /// The torrent.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// How its content is cut.
    pub fn geometry(&self) -> Geometry {
        self.metainfo.info().geometry()
    }

    /// The folder the content lies in, absolute.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where file number `file` of the torrent lies.
    ///
    /// # Panics
    /// If the torrent has no such file.
    pub fn path_of(&self, file: usize) -> PathBuf {
        self.files().path_of(file)
    }

    pub(super) fn files(&self) -> Files<'_> {
        let map = self.metainfo.info().files();
        Files { root: &self.root, map, handles: &self.handles, store: self.id }
    }

    fn sync_all(&self, todo: &mut Unsynced) -> Result<(), StorageError> {
        let files = self.files();
        while let Some(file) = todo.files.first().copied() {
            let fault = |errno| StorageError::new(Operation::Sync, files.path_of(file), errno);
            let open = files.open(file, false)?;
            fdatasync(&open.file).map_err(fault)?;
            // Written to, but removed meanwhile: the bytes are nowhere anybody could find them.
            if fstat(&open.file).map_err(fault)?.st_nlink == 0 {
                return Err(fault(Errno::NOENT));
            }
            todo.files.pop_first();
        }
        while let Some(folder) = todo.folders.first() {
            self.root.open()?.sync(folder)?;
            todo.folders.pop_first();
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close_files();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root).field("mode", &self.mode).finish()
    }
}
