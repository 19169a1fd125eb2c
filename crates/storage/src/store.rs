//! One torrent's content on disk.

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

/// One torrent's content beneath one root folder, read and written by offset as if it were a
/// single stretch of bytes.
///
/// - Files are opened when they are first needed and closed when others need the handles more
///   ([`FileHandles`]). No symbolic link below the root is followed.
/// - Files grow as they are written, with holes where nothing was written yet. Nothing is ever
///   truncated or replaced: a file that is longer than the torrent says is reported by
///   [`check`](super::check()) and left alone. Only [`Store::remove_data`] removes content.
/// - Padding files (BEP 47) are not on disk: they read as zeros, writes to them are dropped.
/// - Files may have other names than the torrent gives them, and an ending until they are finished
///   ([`StoreOptions`]); both may change while they are read and written.
/// - All methods block; they may be called from any number of threads at once.
/// - A process with a limit on the length of files (`RLIMIT_FSIZE`) is killed by the signal
///   `SIGXFSZ` when it writes beyond it, unless it ignores that signal: then the write fails with
///   [`StorageError::Full`].
pub struct Store {
    pub(super) layout: SharedLayout,
    metainfo: Arc<Metainfo>,
    handles: Arc<FileHandles>,
    id: u32,
    /// The device its root lies on, folded; 0 as long as that is not known.
    device: AtomicU32,
    mode: StoreMode,
    /// Most torrents of many are only read.
    pub(super) notes: Mutex<BoxedDefault<Notes>>,
    /// Held by whoever moves, renames or removes files, so that only one does.
    pub(super) altering: Mutex<()>,
    /// Held while files are hurried, until what came of that is noted.
    writing_back: Mutex<()>,
}

/// What may be done to a store's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StoreMode {
    /// Nothing but reading: for sharing what is there already.
    ReadOnly,
    /// Files are made and written.
    #[default]
    ReadWrite,
}

/// How a torrent's files are named, and what may be done to them. By default they are written,
/// under the names the torrent gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreOptions {
    /// Whether they may be written.
    pub mode: StoreMode,
    /// What the name of a file ends with until [`Store::finish_file`]; `None` for nothing. A file
    /// that has its final name already keeps it. Without this, unfinished files that have the
    /// ending [`INCOMPLETE_SUFFIX`] are found all the same, so it may be switched on and off.
    ///
    /// Empty files never have it, nor those whose name with it would be another file's of the
    /// torrent, or too long.
    pub incomplete_suffix: Option<String>,
    /// Instead of the torrent's name, for its folder. Not for a torrent of a single file: its
    /// name is in `names`.
    pub top_name: Option<String>,
    /// Files that lie elsewhere than the torrent says: for the number of a file, the names that
    /// lead to it beneath the root. Held to the same rules as a torrent's paths, but for a store that
    /// only reads, in which several files may lie in one place. A name that is not UTF-8 is written as
    /// [`text_of_name`](piecework_core::text_of_name) does.
    pub names: BTreeMap<usize, Vec<String>>,
    /// Folders below which no symbolic link is followed even on the way to the root: what others
    /// put there is not the user's word. Paths are compared as they are written.
    pub keep_to: Arc<Vec<PathBuf>>,
}

/// What has been done to the files.
#[derive(Default, PartialEq)]
pub(super) struct Notes {
    /// Files written to, and not on the disk for certain.
    pub unsynced: BTreeSet<usize>,
    /// The same as far as there is something to be done about it before they are synced.
    pub write_back: WriteBackThrottle,
    /// A file that could not be written to the disk when it was hurried, and why: the next sync is
    /// to tell.
    pub lost: Option<(usize, Errno)>,
    /// Folders something was made in, as names below the root, likewise.
    pub folders: BTreeSet<Vec<String>>,
    /// A bit for each file that was there or was made: should it be missing later, somebody else
    /// has removed it. Empty before anything was made.
    pub made: BitVec,
}

impl Store {
    /// The content of `metainfo` beneath `root`, named as the torrent says. Touches no file:
    /// [`Store::prepare`] does.
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
    /// [`StorageError::Forbidden`] if a name is not safe to store, or belongs to another file of
    /// the torrent already.
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

    /// Makes the folders and the files, empty, that are not there yet; the root as well. Changes
    /// no file that exists. Does nothing in a read-only store.
    pub fn prepare(&self) -> Result<(), StorageError> {
        self.prepare_wanted(|_| true)
    }

    /// The same for those files alone whose number is `wanted`. Any other is made when something
    /// is first written to it: a piece that lies in a wanted file as well.
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
        self.files().read_cached(offset, buf, None)
    }

    /// Like [`Store::read_at`] for whoever serves what was verified before: files are looked at by
    /// `watch` first, if it is time to.
    ///
    /// # Errors
    /// [`StorageError::Altered`] and [`StorageError::Changed`] if a file is not as it was left:
    /// what it holds now is not to be sent.
    pub fn serve(&self, offset: u64, buf: &mut [u8], watch: &Watch) -> Result<(), StorageError> {
        let files = self.files();
        for slice in files.slices(offset, buf.len(), Operation::Read)? {
            files.look_if_due(slice.file, watch)?;
        }
        files.read_at(offset, buf)
    }

    /// The same as [`Store::read_cached`] is to [`Store::read_at`]: false also if a file is to be
    /// looked at.
    pub fn serve_cached(
        &self,
        offset: u64,
        buf: &mut [u8],
        watch: &Watch,
    ) -> Result<bool, StorageError> {
        self.files().read_cached(offset, buf, Some(watch))
    }

    /// Has the disk begin to read from byte `offset` on to the end of the piece, or 4 MiB of it. A
    /// head that has to move there reads longer than it moves, whoever else is served meanwhile.
    pub(super) fn read_ahead(&self, offset: u64) {
        let geometry = self.geometry();
        let piece = offset / u64::from(geometry.piece_len());
        let end = (piece + 1).saturating_mul(u64::from(geometry.piece_len()));
        let end = end.min(offset.saturating_add(READ_AHEAD)).min(geometry.total_len());
        self.files().will_need(offset.min(end)..end);
    }

    /// Writes `parts`, one behind the other, from byte `offset` of the content on, over file
    /// borders, in as few calls as the system allows.
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
            // Another thread may have made what was missing meanwhile: tried again in any case.
            self.make_unprepared(&touched)?;
            result = files.write_at(offset, parts);
        }
        // Noted after the write, not before: a sync in between would forget a note it has not
        // kept. Noted even if it failed, for some of it may be written.
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

    /// Waits until everything written before this call is on the disk, new files' names
    /// included. After an error, what was written since the last success must be checked again.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.sync_and_measure().map(drop)
    }

    /// The same; says of each file that was written to how much there is of it now.
    pub fn sync_and_measure(&self) -> Result<Vec<(usize, Extent)>, StorageError> {
        let written = self.sync_files()?;
        if self.notes.lock().folders.is_empty() {
            return Ok(written);
        }
        // Folders are noted by name, and these must not change now.
        let _altering = self.altering.lock();
        self.sync_folders()?;
        Ok(written)
    }

    /// Returns whether anything written may not be on the disk yet.
    pub fn is_unsynced(&self) -> bool {
        let notes = self.notes.lock();
        !notes.unsynced.is_empty() || !notes.folders.is_empty() || notes.lost.is_some()
    }

    /// Whether the file was written to since the last sync.
    pub fn is_written(&self, file: usize) -> bool {
        self.notes.lock().unsynced.contains(&file)
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

    /// The folder the content lies in now, absolute.
    pub fn root(&self) -> PathBuf {
        self.layout.root()
    }

    /// How it is opened and named now: with these options it is found again.
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

    /// Each file as it is now, in order; `None` for those that are missing and for padding.
    /// Renaming or moving a file leaves it the same.
    pub fn fingerprints(&self) -> Result<Vec<Option<Fingerprint>>, StorageError> {
        let stats = self.files().stats()?.into_iter();
        let mut prints: Vec<_> = stats.map(|stat| stat.as_ref().map(fingerprint)).collect();
        // Collected in place of what is nine times as long, and kept as long as the torrent.
        prints.shrink_to_fit();
        Ok(prints)
    }

    /// Where file number `file` of the torrent lies when it is finished. Until then its name may
    /// have an ending.
    ///
    /// # Panics
    /// If the torrent has no such file.
    pub fn path_of(&self, file: usize) -> PathBuf {
        self.files().path_of(file)
    }

    /// The number of the file that lies at `path`, finished or not, if one does.
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

    /// What it shares with all that lies on the same device: where it was when its files were last
    /// prepared, its own number before that.
    pub(super) fn disk(&self) -> Disk {
        match self.device.load(Ordering::Relaxed) {
            0 => Disk(u64::from(self.id) | 1 << 32),
            device => Disk(device.into()),
        }
    }

    /// Its number, unlike any other's that shares its handles.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The open files it shares with others.
    pub(super) fn handles(&self) -> &Arc<FileHandles> {
        &self.handles
    }

    pub(super) fn files(&self) -> Files<'_> {
        Files { layout: &self.layout, map: self.map(), handles: &self.handles, store: self.id }
    }

    /// The torrent's bytes, in which the piece hashes are. May read them from the disk.
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

    /// An error unless files may be changed.
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
                // Written to, but removed meanwhile: the bytes are nowhere anybody could find
                // them.
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
        // Whoever hurries files meanwhile may have been told of what the calls above were then not.
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

    /// Has the disk begin with what was written, after it is through with what it began before.
    fn start_write_back(&self, window: &WriteBackWindow) {
        let _writing_back = self.writing_back.lock();
        for (file, step) in window.files() {
            // Closed, it is one of thousands of small ones: to open all those again costs more than
            // the system's doing it by itself.
            let Some(open) = self.handles.get(FileKey { store: self.id, file }, false) else {
                continue;
            };
            if let Err(errno) = step.apply(&open.file) {
                self.notes.lock().lost.get_or_insert((file, errno));
            }
        }
    }

    /// For those that hold `altering`.
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

    /// Makes those of `files` that are missing, and were neither made before nor found.
    fn make_unprepared(&self, files: &[usize]) -> Result<(), StorageError> {
        let entries = self.map().entries();
        let real = files.iter().copied().filter(|file| !entries[*file].padding);
        let notes = self.notes.lock();
        let unmade: Vec<usize> =
            real.filter(|file| !notes.made.get(*file).is_some_and(|bit| *bit)).collect();
        drop(notes);
        if unmade.is_empty() {
            // Removed with all they held, or their disk is gone: not to be begun anew unnoticed.
            return Ok(());
        }
        let layout = self.layout.read();
        let prepared_on = self.device.load(Ordering::Relaxed);
        if prepared_on != 0 && prepared_on != folded(disk_space(&self.root())?.device) {
            let reason = "the disk on which the torrent was begun is not there any more";
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
            // Nobody finishes a file that has no bytes.
            Ok(made) if self.map().entries()[file].len == 0 => self.allow_running(file, &made)?,
            // Another thread was faster.
            Ok(_) | Err(StorageError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        self.note_made(file, &names);
        Ok(())
    }

    /// Notes that a file is there; and if it is new, that the folders its `names` lead through
    /// have to be forced to the disk.
    pub(super) fn note_made<S: AsRef<str>>(&self, file: usize, names: &[S]) {
        let mut notes = self.notes.lock();
        if notes.made.is_empty() {
            // Not `resize`, which keeps room for more.
            notes.made = BitVec::repeat(false, self.map().entries().len());
        }
        notes.made.set(file, true);
        notes.note_folders(names);
    }
}

shared_default!(Notes);

impl Notes {
    /// The folders `names` lead through have changed.
    pub fn note_folders<S: AsRef<str>>(&mut self, names: &[S]) {
        for deep in (0..names.len()).rev() {
            let folder = names[..deep].iter().map(|name| name.as_ref().to_owned()).collect();
            // A folder that is noted has its parents noted.
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

/// What is read ahead for one peer at most: a second of a slow disk's work is 50 MiB or more.
const READ_AHEAD: u64 = 4 << 20;

/// A device's number in half the bits.
fn folded(device: u64) -> u32 {
    (device ^ device >> 32) as u32
}
