//! Renames and removes files beneath a folder, without leaving it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rustix::fs::{self as sys, AtFlags, FileType, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::confined::ConfinedFolder;
use super::error::{Operation, StorageError};
use super::renaming::{link_new, rename_new};

impl ConfinedFolder<'_> {
    /// Returns the metadata of whatever is at `names`, without following a link; `None` if nothing
    /// is there.
    pub(crate) fn look<S: AsRef<str>>(&self, names: &[S]) -> Result<Option<Stat>, StorageError> {
        let looked = self.parent(names).and_then(|(parent, name)| {
            retry_on_intr(|| sys::statat(&parent, &*name, AtFlags::SYMLINK_NOFOLLOW))
        });
        match looked {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(StorageError::new(Operation::Open, self.join(names), errno)),
        }
    }

    /// Renames a file, or moves it to another folder of its file system. Fails if the new name
    /// exists.
    pub(crate) fn rename<S: AsRef<str>, T: AsRef<str>>(
        &self,
        names: &[S],
        target: &ConfinedFolder<'_>,
        new_names: &[T],
    ) -> Result<(), StorageError> {
        let (from, name) = self.parent(names).map_err(|errno| self.fault(names, errno))?;
        let (to, new_name) =
            target.parent(new_names).map_err(|errno| target.fault(new_names, errno))?;
        rename_new(&from, &*name, &to, &*new_name).map_err(|errno| match errno {
            Errno::EXIST => target.fault(new_names, errno),
            Errno::XDEV => {
                let reason = "its new path is on another file system";
                StorageError::other(Operation::Move, self.join(names), reason)
            }
            errno => self.fault(names, errno),
        })
    }

    /// Gives a file a second name (a hard link). Fails if the name exists.
    pub(crate) fn link<S: AsRef<str>, T: AsRef<str>>(
        &self,
        names: &[S],
        target: &ConfinedFolder<'_>,
        new_names: &[T],
    ) -> Result<(), Errno> {
        let (from, name) = self.parent(names)?;
        let (to, new_name) = target.parent(new_names)?;
        link_new(&from, &*name, &to, &*new_name)
    }

    /// Removes a file. Returns whether it existed.
    ///
    /// # Errors
    /// If it is not a regular file.
    pub(crate) fn remove_file<S: AsRef<str>>(&self, names: &[S]) -> Result<bool, StorageError> {
        match self.stat(names) {
            Ok(_) => {}
            Err(StorageError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let removed = self
            .parent(names)
            .and_then(|(parent, name)| sys::unlinkat(&parent, &*name, AtFlags::empty()));
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(StorageError::new(Operation::Remove, self.join(names), errno)),
        }
    }

    /// Removes those of `folders`, and of their parents, that are empty; never this folder. Returns
    /// which were removed.
    pub(crate) fn remove_empty(&self, folders: BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
        let mut all = BTreeSet::new();
        for folder in folders {
            for deep in 1..=folder.len() {
                all.insert(folder[..deep].to_vec());
            }
        }
        // Children come before their parents.
        all.into_iter().rev().filter(|names| self.remove_folder(names)).collect()
    }

    /// Returns whether the parent folders of two paths are the same, by whatever way they were
    /// reached.
    pub(crate) fn same_folder<S: AsRef<str>, T: AsRef<str>>(
        &self,
        names: &[S],
        other: &ConfinedFolder<'_>,
        other_names: &[T],
    ) -> Result<bool, Errno> {
        let (a, b) = (self.parent(names)?.0, other.parent(other_names)?.0);
        let (a, b) = (sys::fstat(a.as_fd())?, sys::fstat(b.as_fd())?);
        Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }

    /// Removes a folder if it is empty. Returns whether it is gone. Errors are ignored, because
    /// nobody depends on the removal.
    pub(crate) fn remove_folder(&self, names: &[String]) -> bool {
        let removed = self
            .parent(names)
            .and_then(|(parent, name)| sys::unlinkat(&parent, &*name, AtFlags::REMOVEDIR));
        matches!(removed, Ok(()) | Err(Errno::NOENT))
    }

    fn fault<S: AsRef<str>>(&self, names: &[S], errno: Errno) -> StorageError {
        StorageError::new(Operation::Move, self.join(names), errno)
    }
}

/// Returns whether it is a folder, and not a link to one.
pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
