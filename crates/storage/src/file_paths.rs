//! The paths of a store's files, from which claims on paths are made: no two torrents may share
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::absolute::absolute;
use super::confined::joined;
use super::error::{Operation, StorageError};
use super::mounts::mount_point;
use super::names::owned;
use super::store::{Store, StoreMode, StoreOptions};

/// A path that a file of a store has, or has until it is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    /// The path components beneath the root of the store.
    pub names: Vec<String>,
    /// The length of the complete file in bytes.
    pub len: u64,
    /// Whether this is the name with the suffix of unfinished files.
    pub unfinished: bool,
}

impl FilePath {
    /// Returns the path if the root of the store is `root`.
    pub fn beneath(&self, root: &Path) -> PathBuf {
        joined(root, &self.names)
    }
}

/// A folder, identified by its real location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderIdentity {
    /// The absolute path. Its existing part contains no symbolic link.
    pub path: PathBuf,
    /// Device and inode, if the folder exists. Two mounts of one folder have the same.
    pub inode: Option<(u64, u64)>,
    /// The mount point of its file system, see [`mount_point`].
    pub mount: Option<PathBuf>,
}

impl Store {
    /// Returns every path that a file of the store has, or would have while it is unfinished.
    /// Padding has no path, and a read-only store has no unfinished files.
    pub fn file_paths(&self) -> Vec<FilePath> {
        let reads = self.options().mode == StoreMode::ReadOnly;
        let layout = self.layout.read();
        let mut paths = Vec::new();
        for (file, entry) in self.map().entries().iter().enumerate().filter(|(_, e)| !e.padding) {
            let names = owned(&layout.names_of(self.map(), file));
            paths.push(FilePath { names, len: entry.len, unfinished: false });
            if let Some(names) = layout.unfinished_names_of(self.map(), file).filter(|_| !reads) {
                paths.push(FilePath { names: owned(&names), len: entry.len, unfinished: true });
            }
        }
        paths
    }

    /// Returns the first components of the paths in [`Store::file_paths`], each once.
    pub fn top_names(&self) -> BTreeSet<String> {
        let is_plain = self.layout.read().own.names.is_empty();
        let entries = self.map().entries();
        if is_plain && !self.metainfo().info().is_single_file() {
            // All files lie in the torrent's folder, however many there are.
            let first = entries.iter().position(|entry| !entry.padding);
            let layout = self.layout.read();
            let names = first.map(|file| owned(&layout.names_of(self.map(), file)));
            return names.and_then(|names| names.into_iter().next()).into_iter().collect();
        }
        self.file_paths().into_iter().filter_map(|path| path.names.into_iter().next()).collect()
    }

    /// Reserves disk space for the files whose number is `wanted`, at their full lengths, without
    /// changing their current lengths. Does nothing on a file system that cannot reserve space.
    ///
    /// # Errors
    /// [`StorageError::Full`] if there is not enough space.
    pub fn reserve(&self, wanted: impl Fn(usize) -> bool) -> Result<(), StorageError> {
        self.writable(Operation::Write)?;
        for (file, entry) in self.map().entries().iter().enumerate() {
            if entry.padding || entry.len == 0 || !wanted(file) {
                continue;
            }
            let open = self.files().open(file, true)?;
            match fallocate(&open.file, FallocateFlags::KEEP_SIZE, 0, entry.len) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(errno) => {
                    return Err(StorageError::new(Operation::Write, self.path_of(file), errno));
                }
            }
        }
        Ok(())
    }

    /// Returns the allocated bytes of the files, without holes, and for each file at most its
    /// length in the torrent.
    ///
    /// # Errors
    /// If a file cannot be accessed.
    pub fn bytes_on_disk(&self) -> Result<u64, StorageError> {
        let stats = self.files().stats()?;
        let entries = self.map().entries().iter().zip(stats);
        let bytes = entries.filter_map(|(entry, stat)| {
            let blocks = u64::try_from(stat?.st_blocks).unwrap_or(0);
            Some(entry.len.min(blocks.saturating_mul(512)))
        });
        Ok(bytes.sum())
    }

    /// Returns a store for the same content beneath `root`, with `names` in place of the current
    /// ones that differ from the torrent. Touches no file.
    ///
    /// # Errors
    /// As [`Store::with_options`].
    pub fn planned(
        &self,
        root: &Path,
        names: Option<BTreeMap<usize, Vec<String>>>,
    ) -> Result<Self, StorageError> {
        let mut options: StoreOptions = self.options();
        if let Some(names) = names {
            options.names.extend(names);
        }
        Self::with_options(root, Arc::clone(self.metainfo()), Arc::clone(self.handles()), options)
    }
}

impl FolderIdentity {
    /// Returns the identity of the folder `path`, which need not exist. Blocks.
    ///
    /// If the folder cannot be accessed, its path is taken as it is.
    pub fn of(path: &Path) -> Self {
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        for above in path.ancestors() {
            let Ok(real) = above.canonicalize() else { continue };
            let Ok(rest) = path.strip_prefix(above) else { continue };
            if !rest.as_os_str().is_empty() {
                let path = real.join(rest);
                return Self { mount: mount_point(&path), path, inode: None };
            }
            let stat = real.metadata().ok();
            let inode = stat.map(|stat| (stat.dev(), stat.ino()));
            return Self { inode, mount: mount_point(&real), path: real };
        }
        Self::unseen(path)
    }

    /// Returns the identity of a folder without accessing it.
    pub fn unseen(path: PathBuf) -> Self {
        Self { path, inode: None, mount: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileHandles;
    use piecework_core::metainfo::MetainfoBuilder;

    #[test]
    fn a_folder_reached_through_a_link_is_the_same_folder() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(
            FolderIdentity::of(&dir.path().join("link")),
            FolderIdentity::of(&real.join("."))
        );
        assert!(FolderIdentity::of(&real).inode.is_some());
        let missing = FolderIdentity::of(&dir.path().join("link/not/yet"));
        assert_eq!(missing, FolderIdentity::of(&real.join("not/yet")));
        assert_eq!(missing.inode, None);
    }

    #[test]
    fn room_that_is_reserved_is_taken_and_changes_no_length() {
        let dir = tempfile::tempdir().unwrap();
        let builder = MetainfoBuilder::single_file("f", 1 << 20);
        let pieces = builder.geometry().unwrap().pieces() as usize;
        let metainfo = Arc::new(builder.build(vec![7; 20 * pieces]).unwrap());
        let handles = Arc::new(FileHandles::default());
        let store = Store::new(dir.path(), metainfo, handles, StoreMode::ReadWrite).unwrap();
        store.prepare().unwrap();
        store.reserve(|_| true).unwrap();
        let stat = dir.path().join("f").metadata().unwrap();
        assert_eq!(stat.len(), 0);
        // Some file systems cannot.
        assert!(stat.blocks() == 0 || store.bytes_on_disk().unwrap() == 1 << 20);
    }

    #[test]
    fn a_store_tells_both_names_of_each_file_and_where_they_begin() {
        let dir = tempfile::tempdir().unwrap();
        let path = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let files = vec![(path("a/x"), 1), (path("empty"), 0)];
        let metainfo = MetainfoBuilder::folder("t", files).build(vec![7; 20]).unwrap();
        let options = StoreOptions {
            incomplete_suffix: Some(".part".to_owned()),
            names: BTreeMap::from([(1, path("other/e"))]),
            ..StoreOptions::default()
        };
        let handles = Arc::new(FileHandles::default());
        let store = Store::with_options(dir.path(), Arc::new(metainfo), handles, options).unwrap();
        let paths: Vec<String> =
            store.file_paths().iter().map(|path| path.names.join("/")).collect();
        assert_eq!(paths, ["t/a/x", "t/a/x.part", "other/e"]);
        assert_eq!(Vec::from_iter(store.top_names()), ["other", "t"]);
        let planned = store.planned(&dir.path().join("new"), None).unwrap();
        assert_eq!(planned.file_paths(), store.file_paths());
        let renamed = BTreeMap::from([(0, path("u/x"))]);
        let planned = store.planned(dir.path(), Some(renamed)).unwrap();
        assert_eq!(Vec::from_iter(planned.top_names()), ["other", "u"]);
    }
}
