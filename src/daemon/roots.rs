//! Folders that requests may name.

use std::path::{Component, Path, PathBuf};

use super::DaemonError;
use crate::base::printable_bytes;

/// `folder`, if it lies in one of `roots` and no link leads out of there. Blocks.
pub(super) fn check(folder: &Path, roots: &[PathBuf]) -> Result<PathBuf, DaemonError> {
    let refuse = |why: &str| {
        let shown = shown(folder);
        Err(DaemonError::Forbidden(format!("the folder `{shown}` may not be used: {why}")))
    };
    if !folder.is_absolute() {
        return refuse("it is not absolute");
    }
    if folder.components().any(|part| matches!(part, Component::ParentDir)) {
        return refuse("`..` is in it");
    }
    let beneath = roots.iter().find_map(|root| {
        let real = root.canonicalize().unwrap_or_else(|_| root.clone());
        let below = folder.strip_prefix(root).or_else(|_| folder.strip_prefix(&real)).ok()?;
        Some((root, below))
    });
    let Some((root, below)) = beneath else {
        return refuse("it lies in none of the folders that the configuration allows");
    };
    let mut path = root.clone();
    for part in below.components() {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => {
                return refuse(&format!("`{}` is a symbolic link", self::shown(&path)));
            }
            Ok(meta) if !meta.is_dir() => {
                return refuse(&format!("`{}` is no folder", self::shown(&path)));
            }
            // What is not there yet can be made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return refuse(&error.to_string()),
            Ok(_) => {}
        }
    }
    Ok(root.join(below))
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
