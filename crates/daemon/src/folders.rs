//! Folders of this machine from which the owner chooses one.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::DaemonError;
use super::caller::Caller;
use super::inner::{Inner, blocking};
use super::roots::{self, shown};
use super::seed;
use piecework_api::{FolderList, FolderUse};
use piecework_core::text_of_name;
use piecework_storage::{FolderEntry, StorageError, folder_entries};

impl Inner {
    /// What is in `folder`, or in the nearest one above it that is there, of what `caller` may choose for
    /// `purpose`. Without `folder` it begins where downloads go, or where things may be shared from.
    ///
    /// # Errors
    /// If a guest asks, nothing there may be chosen, or it cannot be read.
    pub async fn folder_list(
        &self,
        folder: Option<&str>,
        purpose: FolderUse,
        caller: Caller,
    ) -> Result<FolderList, DaemonError> {
        caller.must_own("looking into folders")?;
        let downloads = self.book.lock().settings.downloads.clone();
        let allowed = match purpose {
            FolderUse::Output => Allowed::Output(self.output_roots(), caller),
            FolderUse::Share => Allowed::Share(self.config.seed_roots.clone()),
        };
        let folder = match (folder, purpose) {
            (Some(folder), FolderUse::Share) => Some(seed::path_of(Path::new(folder))),
            (Some(folder), FolderUse::Output) => Some(downloads.join(folder)),
            (None, _) => None,
        };
        blocking(move || {
            let folder = folder.unwrap_or_else(|| allowed.roots(&downloads)[0].clone());
            if !folder.is_absolute() {
                let shown = shown(&folder);
                return Err(DaemonError::Invalid(format!("the path `{shown}` is not absolute")));
            }
            allowed.list(&folder, &downloads)
        })
        .await?
    }
}

/// Which folders may be chosen.
enum Allowed {
    /// Those of the roots, and any for the owner on this machine.
    Output(Vec<PathBuf>, Caller),
    /// Those of the roots, any if there are none.
    Share(Vec<PathBuf>),
}

impl Allowed {
    /// The folder at `path` without links that may be in it, if it may be chosen.
    fn check(&self, path: &Path) -> Result<PathBuf, DaemonError> {
        match self {
            Self::Output(roots, caller) => roots::check(path, roots, *caller),
            Self::Share(roots) => seed::check_input(path, roots),
        }
    }

    /// Where choosing begins; there is at least one.
    fn roots(&self, downloads: &Path) -> Vec<PathBuf> {
        let (mut roots, is_any) = match self {
            Self::Output(roots, caller) => (roots.clone(), *caller == Caller::Local),
            Self::Share(roots) => (roots.clone(), roots.is_empty()),
        };
        // Downloads are shared more often than anything else.
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
                // What is not there is what somebody is still typing.
                Err(error @ DaemonError::NotFound(_)) => {
                    refused.get_or_insert(error);
                }
                Err(error) => {
                    refused.get_or_insert(error);
                    break;
                }
            }
        }
        // A folder that downloads may go to is made when they do.
        if let Some(root) = absent {
            return Ok(self.answer(&root, Vec::new(), false, downloads));
        }
        Err(refused.unwrap_or_else(|| DaemonError::NotFound("no folder is there".to_owned())))
    }

    fn entries(&self, path: &Path) -> Result<(Vec<FolderEntry>, bool), StorageError> {
        // Links beneath a root to which output is held are refused, so they are not offered.
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
