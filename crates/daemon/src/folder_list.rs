//! Folders of this machine from which the owner chooses one, and how much room they have.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::DaemonError;
use super::allowed_folders::{AllowedFolders, check_output, check_shared, path_of};
use super::background::blocking;
use super::caller::Caller;
use piecework_api::{FolderList, FolderUse, FreeSpace};
use piecework_core::{printable_path, text_of_name};
use piecework_storage::{self as storage, FolderEntry, StorageError, folder_entries};

/// Returns what `caller` may choose for `purpose` in `folder`, or in its nearest ancestor that exists.
/// Without `folder`, lists the downloads folder or the first folder that may be shared.
///
/// # Errors
/// If a guest asks, nothing there may be chosen, or it cannot be read.
pub(super) async fn folder_list(
    folders: &AllowedFolders,
    folder: Option<&str>,
    purpose: FolderUse,
    caller: Caller,
) -> Result<FolderList, DaemonError> {
    caller.must_own("looking into folders")?;
    let downloads = folders.downloads();
    let allowed = match purpose {
        FolderUse::Output => Allowed::Output(folders.output_roots(), caller),
        FolderUse::Share => Allowed::Share(folders.share_roots().to_vec()),
    };
    let folder = match (folder, purpose) {
        (Some(folder), FolderUse::Share) => Some(path_of(Path::new(folder))),
        (Some(folder), FolderUse::Output) => Some(downloads.join(folder)),
        (None, _) => None,
    };
    blocking(move || {
        let folder = folder.unwrap_or_else(|| allowed.roots(&downloads)[0].clone());
        if !folder.is_absolute() {
            let shown = printable_path(&folder);
            return Err(DaemonError::invalid(format!("the path `{shown}` is not absolute")));
        }
        allowed.list(&folder, &downloads)
    })
    .await?
}

/// Returns the free space in `folder` or its nearest ancestor that exists.
pub(super) async fn free_space(
    folders: &AllowedFolders,
    folder: &Path,
    caller: Caller,
) -> Result<FreeSpace, DaemonError> {
    let folder = folders.output(Some(folder), caller).await?;
    blocking(move || {
        let (free, total) = storage::free_space(&folder)?;
        Ok(FreeSpace { path: folder, free, total })
    })
    .await?
}

/// Which folders may be chosen.
enum Allowed {
    /// Folders in the roots, and any folder for the owner at this machine.
    Output(Vec<PathBuf>, Caller),
    /// Files and folders in the roots; all if there are no roots.
    Share(Vec<PathBuf>),
}

impl Allowed {
    /// Returns the folder at `path` with links resolved, if it may be chosen.
    fn check(&self, path: &Path) -> Result<PathBuf, DaemonError> {
        match self {
            Self::Output(roots, caller) => check_output(path, roots, *caller),
            Self::Share(roots) => check_shared(path, roots),
        }
    }

    /// Returns the folders where choosing begins, at least one.
    fn roots(&self, downloads: &Path) -> Vec<PathBuf> {
        let (mut roots, is_any) = match self {
            Self::Output(roots, caller) => (roots.clone(), *caller == Caller::Local),
            Self::Share(roots) => (roots.clone(), roots.is_empty()),
        };
        // Downloads are shared most often, so they come first.
        if is_any || roots.is_empty() {
            roots.retain(|root| root != downloads);
            roots.insert(0, downloads.to_owned());
            roots.push(PathBuf::from("/"));
        }
        roots
    }

    fn list(&self, folder: &Path, downloads: &Path) -> Result<FolderList, DaemonError> {
        let mut refused = None;
        let mut absent = None;
        for above in folder.ancestors() {
            match self.check(above) {
                Ok(path) if path.is_dir() => {
                    let (entries, is_cut) = self.entries(&path)?;
                    return Ok(self.answer(&path, entries, is_cut, downloads));
                }
                Ok(path) => absent = Some(path),
                // Somebody may still be typing the name.
                Err(error @ DaemonError::NotFound(_)) => {
                    refused.get_or_insert(error);
                }
                Err(error) => {
                    refused.get_or_insert(error);
                    break;
                }
            }
        }
        // An output folder is created when it is needed.
        if let Some(root) = absent {
            return Ok(self.answer(&root, Vec::new(), false, downloads));
        }
        Err(refused.unwrap_or_else(|| DaemonError::not_found("no folder is there".to_owned())))
    }

    fn entries(&self, path: &Path) -> Result<(Vec<FolderEntry>, bool), StorageError> {
        // Output through links beneath a root is refused, so they are not offered.
        let (keep_to, is_kept) = match self {
            Self::Output(roots, _) => {
                (roots.clone(), roots.iter().any(|root| path.starts_with(root)))
            }
            Self::Share(_) => (Vec::new(), false),
        };
        let is_wanted = |entry: &FolderEntry| match self {
            Self::Output(..) => {
                let is_text = entry.name.to_str().is_some();
                entry.is_folder && is_text && !(is_kept && entry.is_link)
            }
            Self::Share(_) => !entry.is_link || self.check(&path.join(&entry.name)).is_ok(),
        };
        let found = folder_entries(path, keep_to, FolderList::MOST, is_wanted)?;
        Ok((found.entries, found.is_cut))
    }

    fn answer(
        &self,
        path: &Path,
        entries: Vec<FolderEntry>,
        more: bool,
        downloads: &Path,
    ) -> FolderList {
        let names = |folders: bool| {
            let kind = entries.iter().filter(move |entry| entry.is_folder == folders);
            kind.map(|entry| text_of_name(entry.name.as_bytes()).into_owned()).collect()
        };
        let parent = path.parent().filter(|parent| self.check(parent).is_ok());
        FolderList {
            path: text(path),
            parent: parent.map(text),
            roots: self.roots(downloads).iter().map(|root| text(root)).collect(),
            folders: names(true),
            files: names(false),
            more,
        }
    }
}

fn text(path: &Path) -> String {
    text_of_name(path.as_os_str().as_bytes()).into_owned()
}
