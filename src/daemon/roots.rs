//! Folders that requests may name.

use std::path::{Path, PathBuf};

use super::DaemonError;
use crate::base::printable_bytes;
use crate::storage::AllowedRoots;

/// `folder`, absolute, if it lies in one of `roots` and no link leads out of there. Blocks.
pub(super) fn check(folder: &Path, roots: &[PathBuf]) -> Result<PathBuf, DaemonError> {
    AllowedRoots::new(roots.to_vec()).resolve(folder, Path::new("/")).map_err(|error| {
        let allowed = match roots.iter().any(|root| folder.starts_with(root)) {
            true => "",
            false => ": the downloads folder and the daemon's `download_roots`",
        };
        DaemonError::Forbidden(format!("{error}{allowed}"))
    })
}

/// A path as it may be shown.
pub(super) fn shown(path: &Path) -> String {
    printable_bytes(path.as_os_str().as_encoded_bytes())
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
            assert_eq!(check(&root.join(good), &roots).unwrap(), root.join(good));
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
            assert!(matches!(check(bad, &roots), Err(DaemonError::Forbidden(_))), "{bad:?}");
        }
    }
}
