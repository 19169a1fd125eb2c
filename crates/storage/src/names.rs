//! Renames and removes the files of a store while they are in use.

use std::collections::BTreeSet;
use std::fs::File;

use bitvec::vec::BitVec;
use rustix::fs::{Mode, fchmod, fstat};
use rustix::io::Errno;

use super::confined::{Access, ConfinedFolder};
use super::error::{Operation, StorageError};
use super::folder_changes::is_folder;
use super::layout::{Layout, check_names};
use super::store::Store;
use super::write_back::WriteBackThrottle;

impl Store {
    /// Removes the suffix of unfinished files from the name of the file. Does nothing if the file
    /// has its final name; if both names exist, both stay.
    ///
    /// # Errors
    /// [`StorageError::Exists`] if something else has the final name, even a file that appeared
    /// meanwhile: nothing is replaced. [`StorageError::Missing`] if the file does not exist.
    pub fn finish_file(&self, file: usize) -> Result<(), StorageError> {
        self.writable(Operation::Move)?;
        self.has_file(file)?;
        let _altering = self.altering.lock();
        let layout = self.layout.write();
        let folder = layout.root.open()?;
        let names = layout.names_of(self.map(), file);
        let unfinished = layout.unfinished_names_of(self.map(), file);
        // Without the option, a file with the suffix beside a finished file is not ours.
        let is_ours = layout.suffix_in_use().is_some() || folder.look(&names)?.is_none();
        match unfinished.filter(|_| is_ours) {
            Some(unfinished) if folder.look(&unfinished)?.is_some() => {
                // The file with the final name is the one that is read, so the two must not be
                // confused.
                folder.rename(&unfinished, &folder, &names)?;
                self.notes.lock().note_folders(&names);
            }
            _ => drop(folder.stat(&names)?),
        }
        if self.map().entries()[file].executable {
            self.allow_running(file, &folder.open(&names, Access::Read)?)?;
        }
        Ok(())
    }

    /// Makes the complete file executable for everyone who may read it, if the torrent says that it
    /// is executable. For files without a suffix; [`Store::finish_file`] does it too.
    ///
    /// # Errors
    /// If the file cannot be opened or changed.
    pub fn make_executable(&self, file: usize) -> Result<(), StorageError> {
        self.writable(Operation::Write)?;
        self.has_file(file)?;
        if !self.map().entries()[file].executable {
            return Ok(());
        }
        let layout = self.layout.read();
        let folder = layout.root.open()?;
        let opened = layout.open(self.map(), file, &folder, Access::Read)?;
        self.allow_running(file, &opened)
    }

    /// The same for an open file.
    pub(super) fn allow_running(&self, file: usize, opened: &File) -> Result<(), StorageError> {
        if !self.map().entries()[file].executable {
            return Ok(());
        }
        let set = || {
            let mode = Mode::from_raw_mode(fstat(opened)?.st_mode);
            // Everyone who may read it may execute it, as with a compiler's output.
            let runs = mode | Mode::from_raw_mode((mode.as_raw_mode() & 0o444) >> 2);
            if runs == mode { Ok(()) } else { fchmod(opened, runs) }
        };
        match set() {
            // The file has another owner, or the file system has no such bits. The content is right
            // anyway.
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(errno) => Err(StorageError::new(Operation::Write, self.path_of(file), errno)),
        }
    }

    /// Changes the path of the file to `names` beneath the root, and moves it if it is on the disk.
    /// It may be read and written meanwhile. Folders that become empty are removed.
    ///
    /// # Errors
    /// [`StorageError::Exists`] if something is there, [`StorageError::Forbidden`] if the names are
    /// not safe to store or belong to another file of the torrent. Then nothing has changed.
    pub fn rename_file(&self, file: usize, names: &[String]) -> Result<(), StorageError> {
        self.writable(Operation::Move)?;
        self.has_file(file)?;
        check_names(names)?;
        let _altering = self.altering.lock();
        let mut layout = self.layout.write();
        let old_names = owned(&layout.names_of(self.map(), file));
        if old_names == names {
            return Ok(());
        }
        let mut new = layout.clone();
        new.own.names.insert(file, names.to_vec());
        new.settle(self.map())?;
        if let Some(folder) = opened(&layout)? {
            let unfinished = new.unfinished_names_of(self.map(), file).map(|names| owned(&names));
            for names in std::iter::once(names.to_vec()).chain(unfinished.clone()) {
                refuse_existing(&folder, &names)?;
            }
            if let Some(found) = layout.find(self.map(), file, &folder)? {
                let is_finished = owned(&found.names) == old_names;
                let target = unfinished.filter(|_| !is_finished).unwrap_or(names.to_vec());
                folder.create_folders(&target[..target.len() - 1])?;
                folder.rename(&found.names, &folder, &target)?;
                let mut notes = self.notes.lock();
                notes.note_folders(&target);
                notes.note_folders(&old_names);
                let parents = BTreeSet::from([old_names[..old_names.len() - 1].to_vec()]);
                for gone in folder.remove_empty(parents) {
                    notes.folders.remove(&gone);
                }
            }
        }
        *layout = new;
        Ok(())
    }

    /// Renames the torrent's folder, or its single file, also on the disk: the folder at once, with
    /// everything in it.
    ///
    /// # Errors
    /// As for [`Store::rename_file`].
    pub fn rename_top(&self, name: &str) -> Result<(), StorageError> {
        let info = self.metainfo().info();
        if info.is_single_file() {
            let mut names = owned(&self.layout.read().names_of(self.map(), 0));
            names.pop();
            names.push(name.to_owned());
            return self.rename_file(0, &names);
        }
        self.writable(Operation::Move)?;
        check_names(&[name])?;
        let _altering = self.altering.lock();
        let mut layout = self.layout.write();
        let old = layout.own.top.as_deref().unwrap_or(info.name()).to_owned();
        if old == name {
            return Ok(());
        }
        let mut new = layout.clone();
        new.own.top = Some(name.into());
        for names in new.own.names.values_mut() {
            if let Some(first) = names.first_mut().filter(|first| **first == old) {
                *first = name.to_owned();
            }
        }
        new.settle(self.map())?;
        if let Some(folder) = opened(&layout)? {
            refuse_existing(&folder, &[name])?;
            match folder.look(&[&old])? {
                None => {}
                Some(stat) if is_folder(&stat) => folder.rename(&[&old], &folder, &[name])?,
                Some(_) => {
                    return Err(StorageError::new(
                        Operation::Move,
                        folder.join(&[&old]),
                        Errno::NOTDIR,
                    ));
                }
            }
            let mut notes = self.notes.lock();
            let noted = std::mem::take(&mut notes.folders);
            notes.folders = noted
                .into_iter()
                .map(|mut names| {
                    if let Some(first) = names.first_mut().filter(|first| **first == old) {
                        *first = name.to_owned();
                    }
                    names
                })
                .collect();
            notes.note_folders(&[name]);
        }
        *layout = new;
        Ok(())
    }

    /// Removes the torrent's own files, finished or not, and the folders beneath the root that
    /// become empty; the root stays. Nobody may write meanwhile.
    ///
    /// Nothing else is removed, and nothing through a symbolic link. Something that is not a file
    /// in a file's place stays and is reported, after all others were removed. A read-only store
    /// may be removed as well: the caller was asked to do so.
    pub fn remove_data(&self) -> Result<(), StorageError> {
        self.remove_data_except(&BTreeSet::new())
    }

    /// The same, except for the paths `kept`, given as components beneath the root.
    pub fn remove_data_except(&self, kept: &BTreeSet<Vec<String>>) -> Result<(), StorageError> {
        let remove = |folder: &ConfinedFolder<'_>, names: &[String]| {
            if kept.contains(names) { Ok(true) } else { folder.remove_file(names) }
        };
        let _altering = self.altering.lock();
        let layout = self.layout.write();
        self.close_files();
        let mut result = Ok(());
        if let Some(folder) = opened(&layout)? {
            let mut parents = BTreeSet::new();
            for (file, _) in self.map().entries().iter().enumerate().filter(|(_, e)| !e.padding) {
                let names = layout.names_of(self.map(), file);
                parents.insert(owned(&names[..names.len() - 1]));
                let removed = remove(&folder, &owned(&names)).and_then(|was_there| {
                    // Without the option, only a file that was in use under that name is ours.
                    let both = !was_there || layout.suffix_in_use().is_some();
                    let unfinished = layout.unfinished_names_of(self.map(), file).filter(|_| both);
                    unfinished.map_or(Ok(false), |names| remove(&folder, &owned(&names)))
                });
                result = result.and(removed.map(drop));
            }
            folder.remove_empty(parents);
        }
        let mut notes = self.notes.lock();
        notes.unsynced.clear();
        notes.write_back = WriteBackThrottle::default();
        notes.lost = None;
        notes.folders.clear();
        notes.made = BitVec::new();
        result
    }

    fn has_file(&self, file: usize) -> Result<(), StorageError> {
        match self.map().entries().get(file) {
            Some(entry) if !entry.padding => Ok(()),
            _ => Err(StorageError::other(
                Operation::Move,
                self.root(),
                format!("the torrent has no file number `{file}` on disk"),
            )),
        }
    }
}

/// Opens the root, if it exists.
pub(super) fn opened(layout: &Layout) -> Result<Option<ConfinedFolder<'_>>, StorageError> {
    match layout.root.open() {
        Ok(folder) => Ok(Some(folder)),
        Err(StorageError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn owned<S: AsRef<str>>(names: &[S]) -> Vec<String> {
    names.iter().map(|name| name.as_ref().to_owned()).collect()
}

pub(super) fn refuse_existing<S: AsRef<str>>(
    folder: &ConfinedFolder<'_>,
    names: &[S],
) -> Result<(), StorageError> {
    match folder.look(names)? {
        Some(_) => Err(StorageError::new(Operation::Move, folder.join(names), Errno::EXIST)),
        None => Ok(()),
    }
}
