//! A bounded number of open files, shared by all torrents.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

/// The open files of all stores of a process. If there are too many, the least recently used one is
/// closed, so an idle torrent holds none.
///
/// The bound applies to the handles kept here. A file that is closed here while in use stays open
/// until its user is done, so there may be one more for each thread that reads or writes.
#[derive(Debug)]
pub struct FileHandles {
    kept: Mutex<OpenFiles>,
    capacity: usize,
    next_store: AtomicU32,
    /// The folders of the stores, each once.
    paths: Mutex<Paths>,
    /// Whether files are locked while they are open.
    locks: bool,
}

/// A file of a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct FileKey {
    pub store: u32,
    /// The index in the torrent's list of files.
    pub file: usize,
}

#[derive(Debug)]
pub(super) struct OpenFile {
    pub file: File,
    pub writable: bool,
    probe: AtomicU8,
}

/// How to read data that is in memory without waiting for a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// Not tried yet, or the kernel supports reads that do not wait.
    Ask,
    /// The file system is in memory.
    Always,
    /// It is not possible.
    Never,
}

#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<FileKey, Slot, foldhash::fast::FixedState>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Paths {
    known: HashSet<Arc<Path>, foldhash::fast::FixedState>,
    /// The number of paths left after the last cleanup.
    tidied: usize,
}

#[derive(Debug)]
struct Slot {
    file: Arc<OpenFile>,
    used: u64,
}

impl FileHandles {
    /// Well below the usual limit of 1,024 descriptors per process, which sockets need as well.
    pub const DEFAULT_CAPACITY: usize = 256;

    /// Keeps at most `capacity` files open, but at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            kept: Mutex::default(),
            capacity: capacity.max(1),
            next_store: AtomicU32::new(0),
            paths: Mutex::default(),
            locks: false,
        }
    }

    /// The same, but files are locked while they are open, so that programs that also lock never
    /// write to the same file: a writer has it exclusively. The locks are advisory (`flock`) and
    /// need no descriptors of their own.
    pub fn with_locks(capacity: usize) -> Self {
        Self { locks: true, ..Self::new(capacity) }
    }

    pub(super) fn locks(&self) -> bool {
        self.locks
    }

    /// Closes the file if it is open for reading only. Current readers finish first.
    pub(super) fn forget_reader(&self, key: FileKey) {
        let mut kept = self.kept.lock();
        let is_reader = kept.files.get(&key).is_some_and(|slot| !slot.file.writable);
        let slot = if is_reader { kept.files.remove(&key) } else { None };
        // Closing may take time.
        drop(kept);
        drop(slot);
    }

    /// Returns the number of open files.
    pub fn open_files(&self) -> usize {
        self.kept.lock().files.len()
    }

    /// Returns a number for a new store.
    pub(super) fn register(&self) -> u32 {
        self.next_store.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the path in memory that all holders of the same path share.
    pub(super) fn shared_path(&self, path: &Path) -> Arc<Path> {
        let mut paths = self.paths.lock();
        if let Some(shared) = paths.known.get(path) {
            return Arc::clone(shared);
        }
        // Unused paths are dropped whenever the number of paths has doubled.
        if paths.known.len() >= paths.tidied * 2 {
            paths.known.retain(|path| Arc::strong_count(path) > 1);
            paths.tidied = paths.known.len().max(FEW_PATHS);
        }
        let shared: Arc<Path> = path.into();
        paths.known.insert(Arc::clone(&shared));
        shared
    }

    /// Returns the file if it is open (for writing, if `write`).
    pub(super) fn get(&self, key: FileKey, write: bool) -> Option<Arc<OpenFile>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let slot = kept.files.get_mut(&key).filter(|slot| slot.file.writable || !write)?;
        slot.used = now;
        Some(Arc::clone(&slot.file))
    }

    /// Keeps a newly opened file. If another thread was faster, its handle is kept instead, unless
    /// it is read-only and this one is not.
    pub(super) fn keep(&self, key: FileKey, file: File, writable: bool) -> Arc<OpenFile> {
        let new = Arc::new(OpenFile { file, writable, probe: AtomicU8::new(0) });
        // Closing may take time, so removed handles are dropped after the lock is released.
        let mut closed = Vec::new();
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        if let Some(slot) = kept.files.get_mut(&key) {
            slot.used = now;
            if writable && !slot.file.writable {
                closed.push(std::mem::replace(&mut slot.file, Arc::clone(&new)));
            }
            let file = Arc::clone(&slot.file);
            drop(kept);
            return file;
        }
        if kept.files.len() >= self.capacity {
            // Several are closed at a time, so that not every open has to search all files.
            let many = (self.capacity / CLOSED_AT_A_TIME).max(1);
            let mut ages: Vec<(u64, FileKey)> =
                kept.files.iter().map(|(key, slot)| (slot.used, *key)).collect();
            let (oldest, last, _) = ages.select_nth_unstable_by_key(many - 1, |(used, _)| *used);
            for (_, key) in oldest.iter().chain([&*last]) {
                closed.extend(kept.files.remove(key).map(|slot| slot.file));
            }
        }
        kept.files.insert(key, Slot { file: Arc::clone(&new), used: now });
        drop(kept);
        new
    }

    /// Closes the file if it is open. Current readers go on.
    pub(super) fn close_file(&self, key: FileKey) {
        let closed = self.kept.lock().files.remove(&key);
        drop(closed);
    }

    /// Closes all files.
    pub fn close_all(&self) {
        let closed = std::mem::take(&mut self.kept.lock().files);
        // Closing may take time.
        drop(closed);
    }

    /// Closes every file of `store`.
    pub(super) fn close(&self, store: u32) {
        let mut kept = self.kept.lock();
        let closed: Vec<Slot> =
            kept.files.extract_if(|key, _| key.store == store).map(|(_, slot)| slot).collect();
        drop(kept);
        drop(closed);
    }
}

impl Default for FileHandles {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CAPACITY)
    }
}

impl OpenFile {
    pub(crate) fn probe(&self) -> Probe {
        match self.probe.load(Ordering::Relaxed) {
            0 => Probe::Ask,
            1 => Probe::Always,
            _ => Probe::Never,
        }
    }

    pub(crate) fn set_probe(&self, probe: Probe) {
        let code = match probe {
            Probe::Ask => 0,
            Probe::Always => 1,
            Probe::Never => 2,
        };
        self.probe.store(code, Ordering::Relaxed);
    }
}

/// This fraction of the open files is closed when there are too many.
const CLOSED_AT_A_TIME: usize = 16;

/// Below this number of paths, no cleanup is worthwhile.
const FEW_PATHS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(store: u32, file: usize) -> FileKey {
        FileKey { store, file }
    }

    fn any_file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn the_least_recently_used_file_is_closed_first() {
        let handles = FileHandles::new(2);
        handles.keep(key(0, 0), any_file(), false);
        handles.keep(key(0, 1), any_file(), false);
        assert!(handles.get(key(0, 0), false).is_some());
        handles.keep(key(1, 0), any_file(), false);
        assert_eq!(handles.open_files(), 2);
        assert!(handles.get(key(0, 1), false).is_none());
        assert!(handles.get(key(0, 0), false).is_some());
    }

    #[test]
    fn a_reading_handle_gives_way_to_a_writing_one() {
        let handles = FileHandles::new(4);
        handles.keep(key(0, 0), any_file(), false);
        assert!(handles.get(key(0, 0), true).is_none());
        assert!(handles.keep(key(0, 0), any_file(), true).writable);
        assert!(handles.keep(key(0, 0), any_file(), false).writable);
        assert!(handles.get(key(0, 0), true).is_some());
        assert_eq!(handles.open_files(), 1);
    }

    #[test]
    fn a_path_is_in_memory_once_as_long_as_somebody_has_it() {
        let handles = FileHandles::new(1);
        let kept = handles.shared_path(Path::new("/kept"));
        assert!(Arc::ptr_eq(&kept, &handles.shared_path(Path::new("/kept"))));
        for number in 0..1_000 {
            handles.shared_path(Path::new(&format!("/{number}")));
        }
        assert!(handles.paths.lock().known.len() <= 2 * FEW_PATHS);
        assert!(Arc::ptr_eq(&kept, &handles.shared_path(Path::new("/kept"))));
    }

    #[test]
    fn all_files_are_closed_at_once() {
        let handles = FileHandles::new(4);
        handles.keep(key(0, 0), any_file(), false);
        handles.keep(key(1, 0), any_file(), true);
        handles.close_all();
        assert_eq!(handles.open_files(), 0);
    }

    #[test]
    fn closing_a_store_leaves_the_others_open() {
        let handles = FileHandles::new(4);
        handles.keep(key(0, 0), any_file(), false);
        handles.keep(key(1, 0), any_file(), false);
        handles.close(0);
        assert!(handles.get(key(0, 0), false).is_none());
        assert!(handles.get(key(1, 0), false).is_some());
    }
}
