//! Moves the files of a torrent to another folder, so that one complete set remains whatever
//! happens.

use piecework_core::SaturatingFrom;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, Mode, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::fs::{fadvise, fchmod, fstat, fsync, futimens};
use rustix::io::Errno;

use super::absolute::absolute;
use super::confined::{Access, ConfinedFolder, ConfinedRoot};
use super::data_ranges::next_data;
use super::error::{Operation, StorageError};
use super::file_state::fingerprint;
use super::hash::{Digest20, Hasher};
use super::layout::Layout;
use super::names::{opened, owned};
use super::renaming::is_no_link;
use super::store::Store;
use super::write_back::{WriteBackStep, WriteBackThrottle};

/// The progress of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveProgress {
    /// Files in the new folder.
    pub files_done: usize,
    /// Files to move.
    pub files_total: usize,
    /// Bytes of the files in the new folder, holes included, and of the file being copied.
    pub bytes_done: u64,
    /// Bytes of all files to move.
    pub bytes_total: u64,
}

/// Moves all files of `store` to `new_root`, which then becomes its root. Nobody may write
/// meanwhile; reading may go on.
///
/// On the same file system each file gets a second name (a hard link). To another file system,
/// files are copied with their holes and times of modification, synced, and read back: the SHA-1 of
/// both reads must agree. Only when all files are in the new folder, the store switches to it; then
/// the old names, and folders that become empty, are removed. (If a file system has no hard links,
/// files are renamed one by one as the last step before that.)
///
/// After an error or a cancel, all files are where they were, and what was created is removed. If
/// the process dies, one of the two folders has a complete set. A file `.piecework-….moving` in the
/// new root says that the files there are ours. So calling this again, on a store opened at the
/// *old* root, completes the move, even if old files were already being removed.
///
/// Existing files in the new folder with the same content are used. `progress` is called on this
/// thread.
///
/// # Errors
/// [`StorageError::Exists`], before anything is done, if another file is in the way;
/// [`StorageError::Cancelled`] after `cancel` was set; otherwise any error of the system.
pub fn relocate(
    store: &Store,
    new_root: &Path,
    progress: impl Fn(MoveProgress),
    cancel: &AtomicBool,
) -> Result<(), StorageError> {
    relocate_by(store, new_root, true, progress, cancel)
}

/// The same; without `links` as on a file system without hard links.
pub(super) fn relocate_by(
    store: &Store,
    new_root: &Path,
    links: bool,
    progress: impl Fn(MoveProgress),
    cancel: &AtomicBool,
) -> Result<(), StorageError> {
    store.writable(Operation::Move)?;
    let _altering = store.altering.lock();
    store.sync_files()?;
    store.sync_folders()?;
    // Nobody else changes it while `altering` is held.
    let old = store.layout.read().clone();
    let new = old.root.elsewhere(&absolute(new_root)?);
    let made_roots: Vec<PathBuf> = missing_above(new.path());
    new.create()?;
    let result = move_between(store, &old, &new, links, &progress, cancel);
    if result.is_err() {
        for folder in made_roots {
            // If it is not empty, somebody else uses it by now.
            let _ = fs::remove_dir(folder);
        }
    }
    result
}

fn move_between(
    store: &Store,
    old: &Layout,
    new: &ConfinedRoot,
    links: bool,
    progress: &dyn Fn(MoveProgress),
    cancel: &AtomicBool,
) -> Result<(), StorageError> {
    let target = new.open()?;
    let hash = store.metainfo().info_hash();
    let marker = Marker { name: format!(".piecework-{hash}.moving"), old: old.root.path() };
    let resumed = marker.is_in(&target)?;
    let Some(source) = opened(old)? else {
        if !resumed {
            refuse_strangers(store, old, &target)?;
        }
        turn_to(store, new);
        marker.remove_from(&target);
        return Ok(());
    };
    let same_root = source.same_folder(&["x"], &target, &["x"]);
    if same_root.map_err(|errno| StorageError::new(Operation::Move, new.path().into(), errno))? {
        turn_to(store, new);
        return Ok(());
    }
    let at = MoveProgress { files_done: 0, files_total: 0, bytes_done: 0, bytes_total: 0 };
    let mut relocation = Relocation {
        store,
        old,
        source,
        target,
        resumed,
        links,
        at,
        progress,
        cancel,
        brought: Vec::new(),
        made_folders: BTreeSet::new(),
    };
    let plan = relocation.plan()?;
    if !relocation.resumed {
        marker.put_in(&relocation.target)?;
    }
    if let Err(error) = relocation.bring(&plan, new) {
        relocation.undo();
        // Without it, files whose old names are already removed would be taken for foreign ones.
        if !plan.iter().any(|item| item.location == Location::Gone) {
            marker.remove_from(&relocation.target);
        }
        return Err(error);
    }
    turn_to(store, new);
    relocation.remove_sources(&plan);
    marker.remove_from(&relocation.target);
    Ok(())
}

/// A move in progress.
struct Relocation<'a> {
    store: &'a Store,
    old: &'a Layout,
    source: ConfinedFolder<'a>,
    target: ConfinedFolder<'a>,
    /// It was begun by a process that died.
    resumed: bool,
    /// Whether to use hard links where possible.
    links: bool,
    at: MoveProgress,
    progress: &'a dyn Fn(MoveProgress),
    cancel: &'a AtomicBool,
    /// What to remove from the target after a failure.
    brought: Vec<Vec<String>>,
    made_folders: BTreeSet<Vec<String>>,
}

/// A file to move.
struct Item {
    file: usize,
    /// Its path components below either root.
    names: Vec<String>,
    /// Its metadata in the source, if it is there.
    stat: Option<Stat>,
    location: Location,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Location {
    /// Only in the source.
    Here,
    /// In both folders, and to be removed from the source.
    Both,
    /// Both paths are the same file.
    Stays,
    /// Only in the target.
    Gone,
}

impl Relocation<'_> {
    /// Returns what to do for each file, if nothing is in the way.
    fn plan(&mut self) -> Result<Vec<Item>, StorageError> {
        let map = self.store.map();
        let mut plan = Vec::new();
        let mut twice = Vec::new();
        let real = |file: &usize| !map.entries()[*file].padding;
        for file in (0..map.entries().len()).filter(real) {
            let here = self.old.find(map, file, &self.source)?;
            let there = self.old.find(map, file, &self.target)?;
            let (names, location) = match (&here, &there) {
                (None, None) => continue,
                (None, Some(there)) if self.resumed => (&there.names, Location::Gone),
                (Some(here), None) => (&here.names, Location::Here),
                (Some(here), Some(there)) if here.names == there.names => {
                    twice.push(plan.len());
                    (&here.names, self.both(&here.names, &here.stat, &there.stat)?)
                }
                (_, Some(there)) => return Err(exists(&self.target, &there.names)),
            };
            let names = owned(names);
            plan.push(Item { file, names, stat: here.map(|here| here.stat), location });
        }
        let wanted = || plan.iter().filter(|item| item.location == Location::Here);
        self.at.files_total = wanted().count();
        self.at.bytes_total = wanted().map(Item::len).sum();
        // This comes last, because it may take long.
        for item in twice.into_iter().map(|index: usize| &plan[index]) {
            if item.location == Location::Both && !self.same_content(&item.names)? {
                return Err(exists(&self.target, &item.names));
            }
        }
        // What a process that died has copied may be incomplete, like what this one copies.
        let copied = plan.iter().filter(|item| item.location == Location::Both && self.resumed);
        self.brought = copied.map(|item| item.names.clone()).collect();
        Ok(plan)
    }

    fn both<S: AsRef<str>>(
        &self,
        names: &[S],
        a: &Stat,
        b: &Stat,
    ) -> Result<Location, StorageError> {
        if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) {
            return Ok(Location::Both);
        }
        // Either one file with two names, or one name reached by two ways. In the latter case,
        // removing it would lose the file.
        match self.source.same_folder(names, &self.target, names) {
            Ok(true) => Ok(Location::Stays),
            Ok(false) => Ok(Location::Both),
            Err(errno) => Err(StorageError::new(Operation::Move, self.source.join(names), errno)),
        }
    }

    /// Brings all files to the new folder.
    fn bring(&mut self, plan: &[Item], new: &ConfinedRoot) -> Result<(), StorageError> {
        (self.progress)(self.at);
        let mut to_rename = Vec::new();
        for item in plan.iter().filter(|item| item.location == Location::Here) {
            self.go_on()?;
            self.make_folders(&item.names[..item.names.len() - 1])?;
            // Left by a process that died.
            self.target.remove_file(&self.temporary(item))?;
            let begun = self.at.bytes_done;
            let linked = if self.links {
                self.source.link(&item.names, &self.target, &item.names)
            } else {
                Err(Errno::OPNOTSUPP)
            };
            match linked {
                Ok(()) => self.brought.push(item.names.clone()),
                Err(Errno::EXIST) => return Err(exists(&self.target, &item.names)),
                Err(Errno::XDEV) => {
                    self.copy(item)?;
                    self.brought.push(item.names.clone());
                }
                Err(errno) if is_no_link(errno) && !self.is_elsewhere(item)? => {
                    to_rename.push(&item.names);
                }
                Err(errno) if is_no_link(errno) => {
                    self.copy(item)?;
                    self.brought.push(item.names.clone());
                }
                Err(errno) => {
                    let path = self.source.join(&item.names);
                    return Err(StorageError::new(Operation::Move, path, errno));
                }
            }
            self.at.files_done += 1;
            self.at.bytes_done = begun + item.len();
            (self.progress)(self.at);
        }
        self.go_on()?;
        self.sync_target(plan)?;
        let mut renamed = Vec::new();
        for names in to_rename {
            if let Err(error) = self.source.rename(names, &self.target, names) {
                self.rename_back(&renamed);
                return Err(error);
            }
            renamed.push(names);
        }
        if !renamed.is_empty()
            && let Err(error) = self.sync_target(plan)
        {
            self.rename_back(&renamed);
            return Err(error);
        }
        tracing::debug!(files = plan.len(), root = %new.path().display(), "torrent moved");
        Ok(())
    }

    /// Returns whether the file is on another file system than the target.
    fn is_elsewhere(&self, item: &Item) -> Result<bool, StorageError> {
        let there = self.target.device();
        let there = there.map_err(|errno| {
            StorageError::new(Operation::Move, self.target.join(&item.names), errno)
        })?;
        Ok(item.stat.as_ref().is_some_and(|stat| stat.st_dev != there))
    }

    fn rename_back(&self, renamed: &[&Vec<String>]) {
        for names in renamed {
            if let Err(error) = self.target.rename(names, &self.source, names) {
                // The next move will continue with it.
                tracing::error!(%error, "a file could not be moved back");
            }
        }
    }

    /// Copies a file to another file system, under a temporary name until it is complete.
    fn copy(&mut self, item: &Item) -> Result<(), StorageError> {
        let temporary = self.temporary(item);
        let result = self
            .copy_as(item, &temporary)
            .and_then(|()| self.target.rename(&temporary, &self.target, &item.names));
        if result.is_err()
            && let Err(error) = self.target.remove_file(&temporary)
        {
            tracing::warn!(%error, "part of a copy could not be removed");
        }
        result
    }

    /// Returns the name of the file while it is copied.
    fn temporary(&self, item: &Item) -> Vec<String> {
        let hash = self.store.metainfo().info_hash();
        let mut names = item.names.clone();
        names.pop();
        names.push(format!(".piecework-{hash}-{}.moving", item.file));
        names
    }

    fn copy_as(&mut self, item: &Item, temporary: &[String]) -> Result<(), StorageError> {
        let from = self.source.open(&item.names, Access::Read)?;
        let to = self.target.open(temporary, Access::Create)?;
        let (from_path, to_path) = (self.source.join(&item.names), self.target.join(&item.names));
        let cannot_read =
            |error: std::io::Error| StorageError::io(Operation::Read, &from_path, error);
        let cannot_write =
            |error: std::io::Error| StorageError::io(Operation::Write, &to_path, error);
        let stat = fstat(&from).map_err(|errno| cannot_read(errno.into()))?;
        let len = u64::saturating_from(stat.st_size);
        to.set_len(len).map_err(cannot_write)?;

        let begun = self.at.bytes_done;
        let (mut hasher, mut stretches) = (Hasher::default(), Vec::new());
        let mut buf = vec![0; CHUNK];
        let cannot_keep = |errno: Errno| StorageError::new(Operation::Sync, to_path.clone(), errno);
        let (mut at, mut since_step) = (0, 0);
        while let Some((start, end)) =
            next_data(&from, at).map_err(|errno| cannot_read(errno.into()))?
        {
            let stretch = (start.min(len), end.min(len));
            stretches.push(stretch);
            let mut done = stretch.0;
            while done < stretch.1 {
                self.go_on()?;
                let part = &mut buf[..usize::saturating_from((stretch.1 - done).min(CHUNK as u64))];
                from.read_exact_at(part, done).map_err(cannot_read)?;
                hasher.update(part);
                to.write_all_at(part, done).map_err(cannot_write)?;
                done += part.len() as u64;
                since_step += part.len() as u64;
                if since_step >= WriteBackThrottle::WINDOW {
                    WriteBackStep { wait: true, begin: true }.apply(&to).map_err(cannot_keep)?;
                    since_step = 0;
                }
                self.at.bytes_done = begun + done;
                (self.progress)(self.at);
            }
            at = end;
        }
        let read = hasher.finish();

        if let Err(errno) = fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o777)) {
            // Some file systems have no such permissions; the content is what matters.
            tracing::debug!(%errno, "the permissions of a file could not be copied");
        }
        match keep_time(&to, &stat) {
            // Some file systems do not allow this. Then the file counts as changed at the next
            // start.
            Err(errno @ (Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)) => {
                tracing::debug!(%errno, "the time of a file could not be copied");
            }
            kept => kept.map_err(cannot_keep)?,
        }
        fsync(&to).map_err(cannot_keep)?;
        // Makes the next read come from the disk, not from memory. This is advice; reading is
        // correct in any case.
        let _ = fadvise(&to, 0, None, Advice::DontNeed);
        if self.hash_of(&to, &stretches, &mut buf).map_err(cannot_read)? != read {
            let reason = "the copy differs from the original when it is read back";
            return Err(StorageError::other(Operation::Move, to_path, reason));
        }
        let now = fstat(&from).map_err(|errno| cannot_read(errno.into()))?;
        if fingerprint(&now) != fingerprint(&stat) {
            let reason = "it was written to while it was copied";
            return Err(StorageError::other(Operation::Move, from_path, reason));
        }
        Ok(())
    }

    fn hash_of(
        &self,
        file: &File,
        stretches: &[(u64, u64)],
        buf: &mut [u8],
    ) -> std::io::Result<Digest20> {
        let mut hasher = Hasher::default();
        for (mut at, end) in stretches.iter().copied() {
            while at < end {
                let part = usize::saturating_from(end - at).min(buf.len());
                let part = &mut buf[..part];
                file.read_exact_at(part, at)?;
                hasher.update(part);
                at += part.len() as u64;
            }
        }
        Ok(hasher.finish())
    }

    /// Returns whether the files at `names` in both folders have the same bytes. If so, the one in
    /// the target gets the time of the other.
    fn same_content(&self, names: &[String]) -> Result<bool, StorageError> {
        let (a, b) =
            (self.source.open(names, Access::Read)?, self.target.open(names, Access::Read)?);
        let path = self.target.join(names);
        let unread = |error: std::io::Error| StorageError::io(Operation::Read, &path, error);
        let unknown = |errno| StorageError::new(Operation::Open, path.clone(), errno);
        let (stat, other) = (fstat(&a).map_err(unknown)?, fstat(&b).map_err(unknown)?);
        if stat.st_size != other.st_size {
            return Ok(false);
        }
        if (stat.st_dev, stat.st_ino) == (other.st_dev, other.st_ino) {
            return Ok(true);
        }
        let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
        let (mut at, len) = (0, u64::saturating_from(stat.st_size));
        while at < len {
            self.go_on()?;
            let part = usize::saturating_from((len - at).min(CHUNK as u64));
            a.read_exact_at(&mut left[..part], at).map_err(unread)?;
            b.read_exact_at(&mut right[..part], at).map_err(unread)?;
            if left[..part] != right[..part] {
                return Ok(false);
            }
            at += part as u64;
        }
        keep_time(&b, &stat).map_err(unknown)?;
        fsync(&b).map_err(unknown)?;
        Ok(true)
    }

    fn make_folders(&mut self, parents: &[String]) -> Result<(), StorageError> {
        for deep in 1..=parents.len() {
            if self.target.look(&parents[..deep])?.is_none() {
                self.made_folders.insert(parents[..deep].to_vec());
            }
        }
        self.target.create_folders(parents)
    }

    /// Syncs the folders, so that the names of the files are on the disk.
    fn sync_target(&self, plan: &[Item]) -> Result<(), StorageError> {
        let mut folders = BTreeSet::new();
        for item in plan {
            for deep in 0..item.names.len() {
                folders.insert(&item.names[..deep]);
            }
        }
        folders.into_iter().try_for_each(|folder| self.target.sync(folder))
    }

    /// The source is complete, so what was created in the target is removed.
    fn undo(&self) {
        for names in &self.brought {
            if let Err(error) = self.target.remove_file(names) {
                tracing::warn!(%error, "a copy could not be removed");
            }
        }
        for folder in self.made_folders.iter().rev() {
            self.target.remove_folder(folder);
        }
    }

    /// The target is complete, so it is not a failure if something remains.
    fn remove_sources(&self, plan: &[Item]) {
        let mut parents = BTreeSet::new();
        for item in plan {
            if matches!(item.location, Location::Here | Location::Both)
                && let Err(error) = self.source.remove_file(&item.names)
            {
                tracing::warn!(%error, "the old name of a moved file could not be removed");
            }
            parents.insert(item.names[..item.names.len() - 1].to_vec());
        }
        self.source.remove_empty(parents);
    }

    fn go_on(&self) -> Result<(), StorageError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StorageError::Cancelled { path: self.old.root.path().to_owned() });
        }
        Ok(())
    }
}

impl Item {
    fn len(&self) -> u64 {
        self.stat.as_ref().map_or(0, |stat| u64::saturating_from(stat.st_size))
    }
}

/// A file which says that the files in a folder come from an unfinished move. Its content is the
/// old root.
struct Marker<'a> {
    name: String,
    old: &'a Path,
}

impl Marker<'_> {
    fn is_in(&self, target: &ConfinedFolder<'_>) -> Result<bool, StorageError> {
        let file = match target.open(&[&self.name], Access::Read) {
            Ok(file) => file,
            Err(StorageError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(MAX_MARKER).read_to_end(&mut text).map_err(|error| {
            StorageError::io(Operation::Read, &target.join(&[&self.name]), error)
        })?;
        Ok(text == self.old.as_os_str().as_bytes())
    }

    fn put_in(&self, target: &ConfinedFolder<'_>) -> Result<(), StorageError> {
        // Left by another move that nobody has completed.
        target.remove_file(&[&self.name])?;
        let mut file = target.open(&[&self.name], Access::Create)?;
        file.write_all(self.old.as_os_str().as_bytes()).and_then(|()| file.sync_all()).map_err(
            |error| StorageError::io(Operation::Write, &target.join(&[&self.name]), error),
        )?;
        target.sync(&[] as &[&str])
    }

    fn remove_from(&self, target: &ConfinedFolder<'_>) {
        if let Err(error) = target.remove_file(&[&self.name]) {
            tracing::warn!(%error, "the marker of a move could not be removed");
        }
    }
}

/// Makes `new` the root of the store.
fn turn_to(store: &Store, new: &ConfinedRoot) {
    let mut layout = store.layout.write();
    layout.root = new.clone();
    // Files are opened under the lock, so none of the old ones stays open.
    store.close_files();
}

/// There is nothing to move, so any file in the target belongs to somebody else.
fn refuse_strangers(
    store: &Store,
    layout: &Layout,
    target: &ConfinedFolder<'_>,
) -> Result<(), StorageError> {
    let map = store.map();
    let real = |file: &usize| !map.entries()[*file].padding;
    for file in (0..map.entries().len()).filter(real) {
        if let Some(found) = layout.find(map, file, target)? {
            return Err(exists(target, &found.names));
        }
    }
    Ok(())
}

/// Returns the folder and its parents that do not exist, innermost first.
fn missing_above(folder: &Path) -> Vec<PathBuf> {
    let is_missing = |path: &&Path| fs::symlink_metadata(path).is_err();
    folder.ancestors().take_while(is_missing).map(Path::to_owned).collect()
}

fn keep_time(file: &File, stat: &Stat) -> Result<(), Errno> {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec {
        tv_sec: stat.st_mtime as _,
        tv_nsec: SaturatingFrom::saturating_from(stat.st_mtime_nsec),
    };
    futimens(file, &Timestamps { last_access, last_modification })
}

fn exists<S: AsRef<str>>(folder: &ConfinedFolder<'_>, names: &[S]) -> StorageError {
    StorageError::new(Operation::Move, folder.join(names), Errno::EXIST)
}

/// Bytes copied at a time: so many that the cost of a call does not matter, and so few that a
/// cancel takes effect soon.
const CHUNK: usize = 1 << 20;

/// The longest path, and one more byte to recognize a longer text.
const MAX_MARKER: u64 = 4096 + 1;
