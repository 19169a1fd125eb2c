//! Lists a folder, for a user who chooses one.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as sys, AtFlags, Dir, FileType};
use rustix::io::{Errno, retry_on_intr};

use super::confined::ConfinedRoot;
use super::error::{Operation, StorageError};

/// The entries of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FolderEntries {
    /// Folders and regular files, sorted by name.
    pub entries: Vec<FolderEntry>,
    /// Whether there are more.
    pub is_cut: bool,
}

/// A folder or a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// The file name.
    pub name: OsString,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Whether it is a symbolic link to one.
    pub is_link: bool,
}

/// Returns at most `most` folders and regular files in `folder` for which `is_wanted` is true,
/// sorted by name without regard to case. On the path to it, no link is followed below the nearest
/// of `keep_to`. A link in the folder counts as what it leads to.
///
/// # Errors
/// If it cannot be read.
pub fn folder_entries(
    folder: &Path,
    keep_to: Vec<PathBuf>,
    most: usize,
    is_wanted: impl Fn(&FolderEntry) -> bool,
) -> Result<FolderEntries, StorageError> {
    let fault = |errno| StorageError::new(Operation::Read, folder.to_owned(), errno);
    let root = ConfinedRoot::keeping_to(folder.into(), Arc::new(keep_to));
    let fd = root.open()?.listing().map_err(fault)?;
    let mut seen = 0;
    let mut found = FolderEntries::default();
    for entry in Dir::read_from(&fd).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        seen += 1;
        if seen > MOST_SEEN {
            found.is_cut = true;
            break;
        }
        if let Some(entry) = kind_of(fd.as_fd(), name, entry.file_type())
            && is_wanted(&entry)
        {
            found.entries.push(entry);
        }
    }
    found.entries.sort_by_cached_key(|entry| (entry.name.to_ascii_lowercase(), entry.name.clone()));
    found.is_cut |= found.entries.len() > most;
    found.entries.truncate(most);
    Ok(found)
}

/// Returns the entry `name` of the folder `above`, if it is a folder or regular file, or leads to
/// one.
fn kind_of(above: BorrowedFd<'_>, name: &OsStr, told: FileType) -> Option<FolderEntry> {
    let look = |flags: AtFlags| -> Result<FileType, Errno> {
        let stat = retry_on_intr(|| sys::statat(above, name, flags))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    };
    // Some file systems do not tell the type.
    let own = match told {
        FileType::Unknown => look(AtFlags::SYMLINK_NOFOLLOW).ok()?,
        told => told,
    };
    let is_link = own == FileType::Symlink;
    let kind = if is_link { look(AtFlags::empty()).ok()? } else { own };
    let is_folder = kind == FileType::Directory;
    let name = OsString::from_vec(name.as_bytes().to_vec());
    (is_folder || kind == FileType::RegularFile).then_some(FolderEntry { name, is_folder, is_link })
}

/// The most entries that are read: with names of 255 bytes they take 10 MB.
const MOST_SEEN: usize = 20_000;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::Mode;

    use super::*;

    fn names(found: &FolderEntries) -> Vec<String> {
        let end = |entry: &FolderEntry| if entry.is_folder { "/" } else { "" };
        let name = |entry: &FolderEntry| format!("{}{}", entry.name.display(), end(entry));
        found.entries.iter().map(name).collect()
    }

    #[test]
    fn folders_and_files_are_told_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["b", "A", ".hidden"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("a.bin"), b"").unwrap();
        symlink("b", dir.path().join("to b")).unwrap();
        symlink("a.bin", dir.path().join("to a")).unwrap();
        symlink("nowhere", dir.path().join("to nothing")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let pipe = dir.path().join("pipe");
        sys::mkfifoat(sys::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        let all = folder_entries(dir.path(), Vec::new(), 100, |_| true).unwrap();
        assert_eq!(names(&all), [".hidden/", "A/", "a.bin", "b/", "to a", "to b/"]);
        assert!(!all.is_cut);
        let few = folder_entries(dir.path(), Vec::new(), 2, |it| it.is_folder).unwrap();
        assert_eq!((names(&few), few.is_cut), (vec![".hidden/".to_owned(), "A/".to_owned()], true));
        let own =
            folder_entries(dir.path(), Vec::new(), 4, |it| it.is_folder && !it.is_link).unwrap();
        assert_eq!((own.entries.len(), own.is_cut), (3, false));
    }

    #[test]
    fn no_link_below_a_folder_to_keep_to_is_followed_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/sub")).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        symlink("../outside", dir.path().join("root/link")).unwrap();
        let list = |folder: &str, keep_to: Vec<PathBuf>| {
            folder_entries(&dir.path().join(folder), keep_to, 100, |_| true)
        };
        let root = vec![dir.path().join("root")];
        assert!(matches!(list("root/link", root.clone()), Err(StorageError::Escape { .. })));
        assert_eq!(names(&list("root/link", Vec::new()).unwrap()), ["sub/"]);
        assert_eq!(names(&list("root", root.clone()).unwrap()), ["link/"]);
        assert!(matches!(list("root/none", root), Err(StorageError::Missing { .. })));
    }
}
