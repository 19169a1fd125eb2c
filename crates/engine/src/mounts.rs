//! Which disks the folders of a session lie on. What was written to a disk is not begun anew in the
//! bare mount point that is left when the disk is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use piecework_storage::{StorageError, mount_point};

/// The mount points of the file systems that torrents' folders lie on.
///
/// A folder that is not listed lies on the root file system, or was never looked at.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    known: Mutex<BTreeMap<PathBuf, PathBuf>>,
    changed: AtomicBool,
}

impl Mounts {
    /// Notes where `root` lies, and fails if the disk that it lay on is not mounted any more.
    /// Blocks.
    pub(crate) fn check(&self, root: &Path) -> Result<(), StorageError> {
        match self.note(root, mount_point(root)) {
            None => Ok(()),
            Some(mount) => Err(StorageError::Unmounted { path: root.to_owned(), mount }),
        }
    }

    /// Notes where `root` lies now, whatever was known. Blocks.
    pub(crate) fn accept(&self, root: &Path) {
        self.replace(root, mount_point(root));
    }

    /// Notes that `root` lies on what is mounted at `now`. If the mount point that it lay on is
    /// gone, returns that and changes nothing.
    pub(crate) fn note(&self, root: &Path, now: Option<PathBuf>) -> Option<PathBuf> {
        if let Some(before) = self.known.lock().get(root) {
            // Both are above the folder, so the longer path is the one that was mounted last.
            let is_gone = match &now {
                Some(now) => now != before && before.starts_with(now),
                None => true,
            };
            if is_gone {
                return Some(before.clone());
            }
        }
        self.replace(root, now);
        None
    }

    /// Returns all folders and mount points.
    pub(crate) fn all(&self) -> BTreeMap<PathBuf, PathBuf> {
        self.known.lock().clone()
    }

    /// Adds what an earlier session knew.
    pub(crate) fn restore(&self, known: BTreeMap<PathBuf, PathBuf>) {
        self.known.lock().extend(known);
    }

    /// Returns whether anything has changed since the last call.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    fn replace(&self, root: &Path, now: Option<PathBuf>) {
        let mut known = self.known.lock();
        let before = match &now {
            Some(mount) => known.insert(root.to_owned(), mount.clone()),
            None => known.remove(root),
        };
        if before != now {
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(mounts: &Mounts, now: &str) -> Option<PathBuf> {
        mounts.note(Path::new("/mnt/disk/films"), (now != "/").then(|| now.into()))
    }

    #[test]
    fn a_folder_whose_mount_point_is_bare_is_told_until_it_is_accepted() {
        let mounts = Mounts::default();
        assert_eq!(note(&mounts, "/mnt/disk"), None);
        assert!(mounts.take_changed() && !mounts.take_changed());
        assert_eq!(note(&mounts, "/mnt/disk"), None);
        for _ in 0..2 {
            assert_eq!(note(&mounts, "/"), Some("/mnt/disk".into()));
            assert_eq!(note(&mounts, "/mnt"), Some("/mnt/disk".into()));
        }
        assert_eq!(note(&mounts, "/mnt/disk"), None, "it is back");
        assert!(!mounts.take_changed());
        mounts.replace(Path::new("/mnt/disk/films"), None);
        assert_eq!(note(&mounts, "/"), None);
        assert!(mounts.take_changed() && mounts.all().is_empty());
    }

    #[test]
    fn a_disk_that_is_mounted_over_a_folder_is_the_folder_s_from_then_on() {
        let mounts = Mounts::default();
        assert_eq!(note(&mounts, "/"), None);
        assert_eq!(note(&mounts, "/mnt"), None);
        assert_eq!(note(&mounts, "/mnt/disk/films"), None);
        assert_eq!(note(&mounts, "/mnt"), Some("/mnt/disk/films".into()));
        // What an earlier session knew.
        let next = Mounts::default();
        next.restore(mounts.all());
        assert_eq!(note(&next, "/"), Some("/mnt/disk/films".into()));
    }
}
