//! Folders that requests may name: for output, and for files to share.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::background::blocking;
use super::caller::Caller;
use super::reason::Reason;
use super::torrents::Torrents;
use super::{DaemonConfig, DaemonError};
use piecework_core::{name_of_text, printable_path};
use piecework_storage::AllowedRoots;

/// The folders that the configuration and the settings allow.
pub(super) struct AllowedFolders {
    torrents: Arc<Torrents>,
    /// The downloads folder of the configuration.
    downloads: PathBuf,
    download_roots: Vec<PathBuf>,
    share_roots: Vec<PathBuf>,
}

impl AllowedFolders {
    pub(crate) fn new(config: &DaemonConfig, torrents: Arc<Torrents>) -> Self {
        Self {
            torrents,
            downloads: config.settings.downloads.clone(),
            download_roots: config.download_roots.clone(),
            share_roots: config.seed_roots.clone(),
        }
    }

    /// Returns the current downloads folder.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.torrents.downloads()
    }

    /// Returns the downloads folder of the configuration. Guests may choose folders beneath it.
    pub(crate) fn configured_downloads(&self) -> &Path {
        &self.downloads
    }

    /// Returns the folders whose files may be shared. If there are none, all may.
    pub(crate) fn share_roots(&self) -> &[PathBuf] {
        &self.share_roots
    }

    /// Returns the folders that requests may name for output: those of the configuration, whose own
    /// paths may contain links. A downloads folder that a request chose beneath one of them is not
    /// a root itself: a link planted in its place must not be followed.
    pub(crate) fn output_roots(&self) -> Vec<PathBuf> {
        let configured = std::iter::once(&self.downloads);
        let mut roots: Vec<PathBuf> = configured.chain(&self.download_roots).cloned().collect();
        let downloads = self.downloads();
        // A folder that was chosen while the configuration had other roots remains allowed.
        if !roots.iter().any(|root| downloads.starts_with(root)) {
            roots.push(downloads);
        }
        roots
    }

    /// Returns `folder`, absolute or beneath the downloads folder, if output of `caller` may go there.
    pub(crate) async fn output(
        &self,
        folder: Option<&Path>,
        caller: Caller,
    ) -> Result<PathBuf, DaemonError> {
        let downloads = self.downloads();
        let folder = folder.map_or_else(|| downloads.clone(), |folder| downloads.join(folder));
        let roots = self.output_roots();
        blocking(move || check_output(&folder, &roots, caller)).await?
    }

    /// Refuses guests a folder that is not the downloads folder or beneath it. `folder` was checked
    /// for links before.
    pub(crate) fn check_reach(&self, caller: Caller, folder: &Path) -> Result<(), DaemonError> {
        // Both count: the folder that the owner chose last, and the configured one.
        if folder.starts_with(self.downloads()) || folder.starts_with(&self.downloads) {
            return Ok(());
        }
        caller.must_own(format!(
            "reaching `{}`, which is outside the downloads folder,",
            printable_path(folder)
        ))
    }
}

/// Returns `folder`, which must be absolute, if it lies in one of `roots` and no link leads out of it. The
/// owner at this machine may name any other folder as well; links in its path are resolved. Blocks.
pub(super) fn check_output(
    folder: &Path,
    roots: &[PathBuf],
    caller: Caller,
) -> Result<PathBuf, DaemonError> {
    let inside = roots.iter().any(|root| folder.starts_with(root));
    if caller == Caller::Local && !inside && folder.is_absolute() {
        return resolved(folder);
    }
    AllowedRoots::new(roots.to_vec()).resolve(folder, Path::new("/")).map_err(|error| {
        let allowed = match inside {
            true => "",
            false => {
                ": the downloads folder and the daemon's `download_roots`. Only the tools of the \
                 daemon's user on its machine may name others"
            }
        };
        DaemonError::forbidden(Reason::with_cause(format!("{error}{allowed}"), error))
    })
}

/// Returns `folder` with links resolved in the part of its path that exists.
fn resolved(folder: &Path) -> Result<PathBuf, DaemonError> {
    let refused = |why: &str| {
        DaemonError::forbidden(format!("`{}` may not be used: {why}", printable_path(folder)))
    };
    if folder.components().any(|part| part == Component::ParentDir) {
        return Err(refused("it leads through `..`"));
    }
    for above in folder.ancestors() {
        match above.canonicalize() {
            Ok(real) if real.is_dir() => {
                let rest = folder.strip_prefix(above).unwrap_or(Path::new(""));
                return Ok(real.join(rest).components().collect());
            }
            Ok(_) => return Err(refused("it leads through a file")),
            // A dangling link exists itself, so nothing can be created below it.
            Err(_) if above.is_symlink() => return Err(refused("a link in it leads nowhere")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let sentence = format!("`{}` may not be used: {error}", printable_path(folder));
                return Err(DaemonError::forbidden(Reason::with_cause(sentence, error)));
            }
        }
    }
    Err(refused("no folder above it is there"))
}

/// Returns the path that a text stands for. Bytes that are not UTF-8 are marked in the text.
pub(super) fn path_of(text: &Path) -> PathBuf {
    match text.to_str().map(name_of_text) {
        Some(Cow::Owned(name)) => OsString::from_vec(name).into(),
        _ => text.to_owned(),
    }
}

/// Returns the file or folder at `input` with links resolved, if it exists and lies in one of `roots`. If
/// there are no roots, it may lie anywhere. Blocks.
pub(super) fn check_shared(input: &Path, roots: &[PathBuf]) -> Result<PathBuf, DaemonError> {
    let real = input.canonicalize().map_err(|error| {
        let sentence = format!("`{}` cannot be read: {error}", printable_path(input));
        DaemonError::not_found(Reason::with_cause(sentence, error))
    })?;
    let inside = |root: &PathBuf| real.starts_with(root.canonicalize().as_ref().unwrap_or(root));
    if roots.is_empty() || roots.iter().any(inside) {
        return Ok(real);
    }
    Err(DaemonError::forbidden(format!(
        "`{}` may not be shared: it lies in none of the folders that the configuration allows as \
         `seed_roots`",
        printable_path(input)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_a_root_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("downloads");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("link")).unwrap();
        let roots = [root.clone()];
        for good in ["", "a", "a/new/deep"] {
            assert_eq!(
                check_output(&root.join(good), &roots, Caller::Owner).unwrap(),
                root.join(good)
            );
        }
        let beside = dir.path().join("downloads2");
        for bad in [
            &root.join("../x"),
            &root.join("link"),
            &root.join("link/downloads"),
            &root.join("file"),
            &beside,
            dir.path(),
            Path::new("downloads/a"),
        ] {
            let checked = check_output(bad, &roots, Caller::Owner);
            assert!(matches!(checked, Err(DaemonError::Forbidden(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_owner_at_this_machine_names_any_folder_but_no_link_beneath_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let root = dir.join("downloads");
        std::fs::create_dir_all(dir.join("isos")).unwrap();
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        std::os::unix::fs::symlink(dir.join("isos"), dir.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.join("nowhere"), dir.join("dangling")).unwrap();
        std::os::unix::fs::symlink(dir.join("isos"), root.join("planted")).unwrap();
        let local =
            |folder: PathBuf| check_output(&folder, std::slice::from_ref(&root), Caller::Local);
        assert_eq!(local(dir.join("isos")).unwrap(), dir.join("isos"));
        assert_eq!(local(dir.join("new/deep")).unwrap(), dir.join("new/deep"));
        assert_eq!(local(dir.join("link/new")).unwrap(), dir.join("isos/new"));
        assert_eq!(local(root.join("a")).unwrap(), root.join("a"));
        for bad in ["isos/../x", "file/x", "dangling", "dangling/x", "downloads/planted"] {
            assert!(matches!(local(dir.join(bad)), Err(DaemonError::Forbidden(_))), "{bad}");
        }
        assert!(matches!(local("isos".into()), Err(DaemonError::Forbidden(_))));
        for caller in [Caller::Owner, Caller::Guest] {
            let refused = check_output(&dir.join("isos"), std::slice::from_ref(&root), caller);
            assert!(matches!(refused, Err(DaemonError::Forbidden(_))));
        }
    }
}
