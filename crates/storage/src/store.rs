//! One torrent's content on disk.

use piecework_core::low_half;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bitvec::vec::BitVec;
use parking_lot::Mutex;
use rustix::fs::{fdatasync, fstat};
use rustix::io::Errno;

use piecework_core::metainfo::{FileMap, Metainfo, MetainfoError, TorrentBytes};
use piecework_core::{BoxedDefault, Fingerprint, Geometry, shared_default};

use super::absolute::absolute;
use super::confined::{Access, ConfinedFolder, ConfinedRoot};
use super::disk_admission::Disk;
use super::error::{Operation, StorageError};
use super::file_state::{Extent, fingerprint};
use super::files::Files;
use super::free_space::disk_space;
use super::handles::{FileHandles, FileKey};
use super::layout::{INCOMPLETE_SUFFIX, Layout, SharedLayout, Suffix};
use super::watch::Watch;
use super::write_back::{WriteBackThrottle, WriteBackWindow};

/// The content of one torrent beneath one root folder, read and written by offset like one range of
/// bytes.
///
/// - Files are opened when they are first needed, and closed when others need the handles more
///   ([`FileHandles`]). No symbolic link below the root is followed.
/// - Files grow as they are written, with holes where nothing has been written. Nothing is ever
///   truncated or replaced: a file that is longer than in the torrent is reported by
///   [`check`](super::check()) and left alone. Only [`Store::remove_data`] removes content.
/// - Padding files (BEP 47) are not on disk: they read as zeros, and writes to them are dropped.
/// - Files may have other names than in the torrent, and a suffix until they are finished
///   ([`StoreOptions`]). Both may change while the files are read and written.
/// - All methods block. They may be called from any number of threads at once.
/// - If a process has a limit on the length of files (`RLIMIT_FSIZE`) and writes beyond it, the signal
///   `SIGXFSZ` kills it, unless it ignores that signal: then the write fails with
///   [`StorageError::Full`].
pub struct Store {
    pub(super) layout: SharedLayout,
    metainfo: Arc<Metainfo>,
    handles: Arc<FileHandles>,
    id: u32,
    /// The device of the root, folded into 32 bits; 0 while it is not known.
    device: AtomicU32,
    mode: StoreMode,
    /// Most torrents of many are only read.
    pub(super) notes: Mutex<BoxedDefault<Notes>>,
    /// Held while files are moved, renamed or removed, so that only one thread does so.
    pub(super) altering: Mutex<()>,
    /// Held during write-back, until its result is recorded.
    writing_back: Mutex<()>,
}

/// What may be done to the files of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StoreMode {
    /// They are only read: to share what is there.
    ReadOnly,
    /// They are created and written.
    #[default]
    ReadWrite,
}

/// How the files of a torrent are named, and what may be done to them. By default they are written
/// under the names in the torrent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreOptions {
    /// Whether files may be written.
    pub mode: StoreMode,
    /// The suffix of a file's name until [`Store::finish_file`]; `None` for no suffix. A file that
    /// already has its final name keeps it. Without this option, unfinished files with the suffix
    /// [`INCOMPLETE_SUFFIX`] are still found, so it may be switched on and off.
    ///
    /// Empty files never have the suffix. Neither do files whose name with it would be too long or
    /// belong to another file of the torrent.
    pub incomplete_suffix: Option<String>,
    /// The name of the torrent's folder, in place of the torrent's name. Not for a single-file
    /// torrent: its name is in `names`.
    pub top_name: Option<String>,
    /// Files that have other paths than in the torrent: for the number of a file, the path
    /// components below the root. The same rules apply as for paths in a torrent. Only in a
    /// read-only store may several files have the same path. A name that is not UTF-8 is written as
    /// by [`text_of_name`](piecework_core::text_of_name).
    pub names: BTreeMap<usize, Vec<String>>,
    /// Folders below which no symbolic link is followed, even on the way to the root: other users
    /// may have put links there. Paths are compared as they are written.
    pub keep_to: Arc<Vec<PathBuf>>,
}

/// What has been done to the files.
#[derive(Default, PartialEq)]
pub(super) struct Notes {
    /// Files with writes that may not be on the disk yet.
    pub unsynced: BTreeSet<usize>,
    /// The written files that write-back has to push to the disk.
    pub write_back: WriteBackThrottle,
    /// A file whose write-back failed, and why. The next sync reports it.
    pub lost: Option<(usize, Errno)>,
    /// Folders in which something was created, as path components below the root; they may not be
    /// on the disk yet.
    pub folders: BTreeSet<Vec<String>>,
    /// A bit for each file that existed or was created. If such a file is missing later, somebody
    /// else has removed it. Empty before anything was created.
    pub made: BitVec,
}

impl Store {
    /// Creates a store for the content of `metainfo` beneath `root`, named as in the torrent.
    /// Touches no file; [`Store::prepare`] does.
    ///
    /// # Errors
    /// If `root` cannot be made absolute.
    pub fn new(
        root: &Path,
        metainfo: Arc<Metainfo>,
        handles: Arc<FileHandles>,
        mode: StoreMode,
    ) -> Result<Self, StorageError> {
        Self::with_options(root, metainfo, handles, StoreOptions { mode, ..Default::default() })
    }

    /// The same, named as `options` say.
    ///
    /// # Errors
    /// [`StorageError::Forbidden`] if a name is not safe to store or belongs to another file of the
    /// torrent.
    pub fn with_options(
        root: &Path,
        metainfo: Arc<Metainfo>,
        handles: Arc<FileHandles>,
        options: StoreOptions,
    ) -> Result<Self, StorageError> {
        let StoreOptions { mode, incomplete_suffix, top_name, names, keep_to } = options;
        let in_use = incomplete_suffix.is_some();
        let text = incomplete_suffix.map_or(INCOMPLETE_SUFFIX.into(), Cow::from);
        let root = ConfinedRoot::keeping_to(handles.shared_path(&absolute(root)?), keep_to);
        let map = metainfo.info().files();
        let top = top_name.filter(|_| !metainfo.info().is_single_file()).map(Into::into);
        let reads = mode == StoreMode::ReadOnly;
        let layout = Layout::new(root, map, top, names, Suffix { text, in_use }, reads)?;
        let (layout, id) = (SharedLayout::new(layout), handles.register());
        let (notes, altering, writing_back) = Default::default();
        let device = AtomicU32::new(0);
        Ok(Self { layout, metainfo, handles, id, device, mode, notes, altering, writing_back })
    }

    /// Creates the root, and the missing folders and files; the files are empty. Changes no
    /// existing file. Does nothing in a read-only store.
    pub fn prepare(&self) -> Result<(), StorageError> {
        self.prepare_wanted(|_| true)
    }

    /// The same, only for files whose number is `wanted`. Any other file is created when something
    /// is first written to it, for instance a piece that also lies in a wanted file.
    pub fn prepare_wanted(&self, wanted: impl Fn(usize) -> bool) -> Result<(), StorageError> {
        if self.mode == StoreMode::ReadOnly {
            return Ok(());
        }
        let layout = self.layout.read();
        layout.root.create()?;
        let folder = layout.root.open()?;
        let device = folder.device().unwrap_or_default();
        self.device.store(folded(device), Ordering::Relaxed);
        let entries = self.map().entries().iter().enumerate();
        let mut search = layout.search(self.map(), &folder);
        for file in entries.filter(|(_, entry)| !entry.padding).map(|(file, _)| file) {
            if search.find(file)?.is_some() {
                self.note_made(file, &[] as &[&str]);
            } else if wanted(file) {
                self.make(&layout, &folder, file)?;
            }
        }
        Ok(())
    }

    /// Fills `buf` with the content from byte `offset` on, across files. Reads from the disk if
    /// necessary.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.files().read_at(offset, buf)
    }

    /// Like [`Store::read_at`], but only if all bytes are in memory. Otherwise returns `false`, and
    /// `buf` is arbitrary. Never waits for a disk, so it may be called where blocking is not
    /// allowed.
    ///
    /// Also returns `false` for files that are not open (opening may block), and on file systems
    /// that cannot tell. Then use `read_at` on another thread.
    pub fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StorageError> {
        self.files().read_cached(offset, buf, None)
    }

    /// Like [`Store::read_at`], for content that was verified before and is sent to a peer. Checks
    /// files first if `watch` says that it is time.
    ///
    /// # Errors
    /// [`StorageError::Altered`] and [`StorageError::Changed`] if another program has changed a
    /// file: its content must not be sent.
    pub fn serve(&self, offset: u64, buf: &mut [u8], watch: &Watch) -> Result<(), StorageError> {
        let files = self.files();
        for slice in files.slices(offset, buf.len(), Operation::Read)? {
            files.look_if_due(slice.file, watch)?;
        }
        files.read_at(offset, buf)
    }

    /// Like [`Store::read_cached`], for [`Store::serve`]. Also returns `false` if a file has to be
    /// checked first.
    pub fn serve_cached(
        &self,
        offset: u64,
        buf: &mut [u8],
        watch: &Watch,
    ) -> Result<bool, StorageError> {
        self.files().read_cached(offset, buf, Some(watch))
    }

    /// Makes the disk read from byte `offset` to the end of the piece, but at most 4 MiB. So a disk
    /// head reads for longer than it moves, even if others are served in between.
    pub(super) fn read_ahead(&self, offset: u64) {
        let geometry = self.geometry();
        let piece = offset / u64::from(geometry.piece_len());
        let end = (piece + 1).saturating_mul(u64::from(geometry.piece_len()));
        let end = end.min(offset.saturating_add(READ_AHEAD)).min(geometry.total_len());
        self.files().will_need(offset.min(end)..end);
    }

    /// Writes the consecutive `parts` from byte `offset` of the content on, across files, in as few
    /// calls as the system allows.
    pub fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        let files = self.files();
        let len = parts.iter().map(|part| part.len()).sum();
        let touched: Vec<usize> =
            files.slices(offset, len, Operation::Write)?.map(|slice| slice.file).collect();
        if self.mode == StoreMode::ReadOnly {
            return Err(StorageError::new(Operation::Write, self.root(), Errno::ROFS));
        }
        let mut result = files.write_at(offset, parts);
        if matches!(result, Err(StorageError::Missing { .. })) {
            // Another thread may have created the missing files meanwhile, so this is tried again
            // in any case.
            self.make_unprepared(&touched)?;
            result = files.write_at(offset, parts);
        }
        // Recorded after the write, not before: a sync in between would remove a note that does not
        // apply yet. Recorded even if the write failed, because a part may have been written.
        let entries = self.metainfo.info().files().entries();
        let real = touched.iter().copied().filter(|file| !entries[*file].padding);
        let mut notes = self.notes.lock();
        notes.unsynced.extend(real.clone());
        let full = notes.write_back.add(real, len as u64);
        drop(notes);
        if let Some(window) = full {
            self.start_write_back(&window);
        }
        result
    }

    /// Waits until everything written before this call is on the disk, including the names of new
    /// files. After an error, everything written since the last success must be checked again.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.sync_and_measure().map(drop)
    }

    /// The same. Returns for each file that was written how much of it there is now.
    pub fn sync_and_measure(&self) -> Result<Vec<(usize, Extent)>, StorageError> {
        let written = self.sync_files()?;
        if self.notes.lock().folders.is_empty() {
            return Ok(written);
        }
        // Folders are recorded by name, so names must not change now.
        let _altering = self.altering.lock();
        self.sync_folders()?;
        Ok(written)
    }

    /// Returns whether anything written may not be on the disk yet.
    pub fn is_unsynced(&self) -> bool {
        let notes = self.notes.lock();
        !notes.unsynced.is_empty() || !notes.folders.is_empty() || notes.lost.is_some()
    }

    /// Returns whether the file was written since the last sync.
    pub fn is_written(&self, file: usize) -> bool {
        self.notes.lock().unsynced.contains(&file)
    }

    /// Closes the open files. They are opened again when needed.
    pub fn close_files(&self) {
        self.handles.close(self.id);
    }

    /// Returns the torrent.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// Returns how the content is divided into pieces.
    pub fn geometry(&self) -> Geometry {
        self.metainfo.info().geometry()
    }

    /// Returns the folder that contains the files now, as an absolute path.
    pub fn root(&self) -> PathBuf {
        self.layout.root()
    }

    /// Returns the options with which this store is found again as it is now.
    pub fn options(&self) -> StoreOptions {
        let layout = self.layout.read();
        StoreOptions {
            mode: self.mode,
            incomplete_suffix: layout.suffix_in_use().map(str::to_owned),
            top_name: layout.own.top.as_deref().map(str::to_owned),
            names: layout.own.names.clone(),
            keep_to: Arc::clone(layout.root.keep_to()),
        }
    }

    /// Returns the state of each file, in order; `None` for missing files and for padding. Renaming
    /// or moving a file does not change it.
    pub fn fingerprints(&self) -> Result<Vec<Option<Fingerprint>>, StorageError> {
        let stats = self.files().stats()?.into_iter();
        let mut prints: Vec<_> = stats.map(|stat| stat.as_ref().map(fingerprint)).collect();
        // Collected in the memory of a vector nine times as large, and kept as long as the torrent.
        prints.shrink_to_fit();
        Ok(prints)
    }

    /// Returns the final path of file number `file`. Until the file is finished, its name may have
    /// a suffix.
    ///
    /// # Panics
    /// If the torrent has no such file.
    pub fn path_of(&self, file: usize) -> PathBuf {
        self.files().path_of(file)
    }

    /// Returns the number of the file at `path`, finished or not; `None` if it belongs to no file.
    pub fn file_at(&self, path: &Path) -> Option<usize> {
        let layout = self.layout.read();
        let below = path.strip_prefix(layout.root.path()).ok()?;
        let names: Vec<&str> = below.iter().map(|name| name.to_str()).collect::<Option<_>>()?;
        let is_it = |file: &usize| {
            layout.names_of(self.map(), *file) == names
                || layout.unfinished_names_of(self.map(), *file).is_some_and(|own| own == names)
        };
        (0..self.map().entries().len())
            .filter(|file| !self.map().entries()[*file].padding)
            .find(is_it)
    }

    /// Returns what it shares with everything on the same device: the device when files were last
    /// prepared, before that its own number.
    pub(super) fn disk(&self) -> Disk {
        match self.device.load(Ordering::Relaxed) {
            0 => Disk(u64::from(self.id) | 1 << 32),
            device => Disk(device.into()),
        }
    }

    /// Returns its number, unique among the stores that share its handles.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Returns the open files that it shares with other stores.
    pub(super) fn handles(&self) -> &Arc<FileHandles> {
        &self.handles
    }

    pub(super) fn files(&self) -> Files<'_> {
        Files { layout: &self.layout, map: self.map(), handles: &self.handles, store: self.id }
    }

    /// Returns the bytes of the torrent with the piece hashes. May read them from the disk.
    pub(super) fn torrent(&self) -> Result<TorrentBytes, StorageError> {
        let failed = |error: MetainfoError| StorageError::Torrent {
            path: self.root(),
            reason: error.into(),
        };
        self.metainfo.bytes().map_err(failed)
    }

    pub(super) fn map(&self) -> &FileMap {
        self.metainfo.info().files()
    }

    /// Fails unless files may be changed.
    pub(super) fn writable(&self, operation: Operation) -> Result<(), StorageError> {
        match self.mode {
            StoreMode::ReadWrite => Ok(()),
            StoreMode::ReadOnly => Err(StorageError::new(operation, self.root(), Errno::ROFS)),
        }
    }

    pub(super) fn sync_files(&self) -> Result<Vec<(usize, Extent)>, StorageError> {
        let files = self.files();
        let mut notes = self.notes.lock();
        if notes.unsynced.is_empty() && notes.lost.is_none() {
            return Ok(Vec::new());
        }
        let mut todo = std::mem::take(&mut notes.unsynced);
        notes.write_back = WriteBackThrottle::default();
        drop(notes);
        let sync = |todo: &mut BTreeSet<usize>| {
            let mut written = Vec::with_capacity(todo.len());
            while let Some(file) = todo.first().copied() {
                let fault = |errno| StorageError::new(Operation::Sync, files.path_of(file), errno);
                let open = files.open(file, false)?;
                fdatasync(&open.file).map_err(fault)?;
                // Written, but removed meanwhile: nobody could find the bytes.
                let stat = fstat(&open.file).map_err(fault)?;
                if stat.st_nlink == 0 {
                    return Err(fault(Errno::NOENT));
                }
                written.push((file, Extent::of(&stat)));
                todo.pop_first();
            }
            Ok(written)
        };
        let result = sync(&mut todo);
        // A concurrent write-back may have received the error that the calls above did not.
        let _writing_back = self.writing_back.lock();
        let mut notes = self.notes.lock();
        notes.unsynced.append(&mut todo);
        let lost = notes.lost.take();
        drop(notes);
        match lost {
            Some((file, errno)) => {
                Err(StorageError::new(Operation::Sync, files.path_of(file), errno))
            }
            None => result,
        }
    }

    /// Makes the disk begin to write the files of `window`, after it has finished what it began
    /// before.
    fn start_write_back(&self, window: &WriteBackWindow) {
        let _writing_back = self.writing_back.lock();
        for (file, step) in window.files() {
            // A closed file is one of thousands of small ones. To open all of those again costs
            // more than to leave them to the system.
            let Some(open) = self.handles.get(FileKey { store: self.id, file }, false) else {
                continue;
            };
            if let Err(errno) = step.apply(&open.file) {
                self.notes.lock().lost.get_or_insert((file, errno));
            }
        }
    }

    /// The caller holds `altering`.
    pub(super) fn sync_folders(&self) -> Result<(), StorageError> {
        let mut todo = std::mem::take(&mut self.notes.lock().folders);
        let layout = self.layout.read();
        let sync = |todo: &mut BTreeSet<Vec<String>>| {
            while let Some(folder) = todo.first() {
                layout.root.open()?.sync(folder)?;
                todo.pop_first();
            }
            Ok(())
        };
        let result = sync(&mut todo);
        self.notes.lock().folders.append(&mut todo);
        result
    }

    /// Creates those of `files` that are missing and were neither created nor found before.
    fn make_unprepared(&self, files: &[usize]) -> Result<(), StorageError> {
        let entries = self.map().entries();
        let real = files.iter().copied().filter(|file| !entries[*file].padding);
        let notes = self.notes.lock();
        let unmade: Vec<usize> =
            real.filter(|file| !notes.made.get(*file).is_some_and(|bit| *bit)).collect();
        drop(notes);
        if unmade.is_empty() {
            // The files were removed, or their disk is gone. They must not be started anew
            // unnoticed.
            return Ok(());
        }
        let layout = self.layout.read();
        let prepared_on = self.device.load(Ordering::Relaxed);
        if prepared_on != 0 && prepared_on != folded(disk_space(&self.root())?.device) {
            let reason = "the disk on which the torrent was started is missing";
            return Err(StorageError::other(Operation::Create, self.root(), reason));
        }
        layout.root.create()?;
        let folder = layout.root.open()?;
        for file in unmade {
            if layout.find(self.map(), file, &folder)?.is_none() {
                self.make(&layout, &folder, file)?;
            }
        }
        Ok(())
    }

    fn make(
        &self,
        layout: &Layout,
        folder: &ConfinedFolder<'_>,
        file: usize,
    ) -> Result<(), StorageError> {
        let names = layout.new_names_of(self.map(), file);
        let parents = &names[..names.len().saturating_sub(1)];
        let made = match folder.open(&names, Access::Create) {
            Err(StorageError::Missing { .. }) => {
                folder.create_folders(parents)?;
                folder.open(&names, Access::Create)
            }
            made => made,
        };
        match made {
            // An empty file has no finish step.
            Ok(made) if self.map().entries()[file].len == 0 => self.allow_running(file, &made)?,
            // Another thread was faster.
            Ok(_) | Err(StorageError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        self.note_made(file, &names);
        Ok(())
    }

    /// Records that a file exists; and, if it is new, that the folders of its path have to be
    /// synced.
    pub(super) fn note_made<S: AsRef<str>>(&self, file: usize, names: &[S]) {
        let mut notes = self.notes.lock();
        if notes.made.is_empty() {
            // `resize` would allocate more than needed.
            notes.made = BitVec::repeat(false, self.map().entries().len());
        }
        notes.made.set(file, true);
        notes.note_folders(names);
    }
}

shared_default!(Notes);

impl Notes {
    /// Records that the folders on the path `names` have changed.
    pub(crate) fn note_folders<S: AsRef<str>>(&mut self, names: &[S]) {
        for deep in (0..names.len()).rev() {
            let folder = names[..deep].iter().map(|name| name.as_ref().to_owned()).collect();
            // If a folder is recorded, its parents are recorded too.
            if !self.folders.insert(folder) {
                break;
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close_files();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root()).field("mode", &self.mode).finish()
    }
}

/// The most that is read ahead for one peer. A slow disk takes a second for 50 MiB.
const READ_AHEAD: u64 = 4 << 20;

/// Folds a device number into 32 bits.
fn folded(device: u64) -> u32 {
    low_half(device ^ device >> 32)
}
