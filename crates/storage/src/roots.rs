//! Limits the folders into which others may store something.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::absolute::absolute;
use super::error::{Operation, StorageError};

/// The folders beneath which a path from outside must lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedRoots {
    roots: Vec<PathBuf>,
}

impl AllowedRoots {
    /// Allows `roots` and everything beneath them; nothing if there are none. Their own paths come
    /// from the user: they may lead through links, a relative one starts at the working directory,
    /// and one that cannot be made absolute allows nothing.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        let mut roots: Vec<PathBuf> =
            roots.iter().filter_map(|root| absolute(root).ok()).map(|root| normal(&root)).collect();
        // If one contains another, the inner one decides about what is below it.
        roots.sort_by_key(|root| std::cmp::Reverse(root.components().count()));
        Self { roots }
    }

    /// Returns the folder that `asked` means, absolute or relative to `base`, as a normalized
    /// absolute path. It need not exist.
    ///
    /// The check applies now: a link that is created afterwards is not noticed.
    ///
    /// # Errors
    /// [`StorageError::Forbidden`] if it contains `..` or a zero byte or is beneath none of the
    /// roots; [`StorageError::Escape`] if a symbolic link is in its path below the root.
    pub fn resolve(&self, asked: &Path, base: &Path) -> Result<PathBuf, StorageError> {
        let forbidden = |reason| Err(StorageError::Forbidden { path: asked.to_owned(), reason });
        let whole = base.join(asked);
        if whole.as_os_str().as_bytes().contains(&0) {
            return forbidden("it contains a zero byte");
        }
        if asked.as_os_str().len() > MAX_PATH {
            return forbidden("it is longer than 4096 bytes");
        }
        if asked.components().any(|part| part == Component::ParentDir) {
            return forbidden("it leads through `..`");
        }
        let whole = normal(&absolute(&whole)?);
        let Some(root) = self.roots.iter().find(|root| whole.starts_with(root)) else {
            return forbidden("it is not beneath one of the folders that are allowed");
        };
        let mut at = root.clone();
        for part in whole.components().skip(root.components().count()) {
            at.push(part);
            let fault = |errno| Err(StorageError::new(Operation::Open, at.clone(), errno));
            match fs::symlink_metadata(&at) {
                Ok(meta) if meta.is_dir() => {}
                Ok(meta) if meta.is_symlink() => return fault(Errno::LOOP),
                Ok(_) => return fault(Errno::NOTDIR),
                Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                    // What does not exist has no links below it.
                    Errno::NOENT => break,
                    errno => return fault(errno),
                },
            }
        }
        Ok(whole)
    }

    /// Returns the folders as absolute paths.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }
}

/// Removes `.`, doubled separators, and `..` with the component before it from `path`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            // At the top it has no effect.
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// The longest path that the kernel accepts (`PATH_MAX`).
const MAX_PATH: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root `root` with a folder, a file and a link out of it, beside a folder `outside`.
    fn planted() -> (tempfile::TempDir, PathBuf, AllowedRoots) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("folder")).unwrap();
        fs::create_dir_all(dir.path().join("outside/sub")).unwrap();
        fs::write(root.join("file"), b"").unwrap();
        symlink("../outside", root.join("link")).unwrap();
        symlink("nowhere", root.join("folder/dangling")).unwrap();
        let roots = AllowedRoots::new(vec![root.clone()]);
        (dir, root, roots)
    }

    #[test]
    fn folders_beneath_a_root_are_allowed_absolute_or_not() {
        let (_dir, root, roots) = planted();
        for (asked, below) in [
            ("folder", "folder"),
            ("folder/./new//deep/", "folder/new/deep"),
            ("", ""),
            (".", ""),
            ("...", "..."),
        ] {
            assert_eq!(roots.resolve(Path::new(asked), &root).unwrap(), root.join(below));
            let absolute = root.join(asked);
            let resolved = roots.resolve(&absolute, Path::new("/elsewhere")).unwrap();
            assert_eq!(resolved, root.join(below));
            assert!(!resolved.as_os_str().as_bytes().ends_with(b"/"));
        }
    }

    #[test]
    fn whatever_leads_out_is_refused() {
        let (dir, root, roots) = planted();
        let outside = dir.path().join("outside");
        let sibling = dir.path().join("root2");
        let all = [
            Path::new(".."),
            Path::new("folder/../folder"),
            Path::new("../outside"),
            Path::new("folder/\0"),
            Path::new("/"),
            Path::new("/etc"),
            &outside,
            &sibling,
            dir.path(),
        ];
        for asked in all {
            let error = roots.resolve(asked, &root).unwrap_err();
            assert!(matches!(error, StorageError::Forbidden { .. }), "{asked:?}: {error}");
        }
        let error = roots.resolve(Path::new("x"), &outside).unwrap_err();
        assert!(error.to_string().contains("not beneath one of the folders"), "{error}");
        let nothing = AllowedRoots::new(Vec::new());
        assert!(nothing.resolve(Path::new("folder"), &root).is_err());
        let long = "x/".repeat(3_000);
        assert!(roots.resolve(Path::new(&long), &root).is_err());
    }

    #[test]
    fn links_below_a_root_are_refused_and_files_are_no_folders() {
        let (_dir, root, roots) = planted();
        for asked in ["link", "link/sub", "link/new", "folder/dangling", "folder/dangling/x"] {
            let error = roots.resolve(Path::new(asked), &root).unwrap_err();
            assert!(matches!(error, StorageError::Escape { .. }), "{asked}: {error}");
        }
        assert!(roots.resolve(Path::new("file"), &root).is_err());
        assert!(roots.resolve(Path::new("file/x"), &root).is_err());
    }

    #[test]
    fn the_way_to_a_root_may_lead_through_links_also_inside_another() {
        let (_dir, root, outer) = planted();
        let link = root.join("link");
        let both = AllowedRoots::new(vec![root.join("folder/../"), link.clone()]);
        assert_eq!(both.resolve(Path::new("sub"), &link).unwrap(), link.join("sub"));
        assert_eq!(both.resolve(Path::new("x"), &root).unwrap(), root.join("x"));
        assert!(outer.resolve(Path::new("sub"), &link).is_err());
        assert_eq!(both.roots().len(), 2);
    }
}
