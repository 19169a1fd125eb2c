//! Folders that requests may name.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::DaemonError;
use super::caller::Caller;
use piecework_core::printable_bytes;
use piecework_storage::AllowedRoots;

/// Returns `folder`, absolute, if it lies in one of `roots` and no link leads out of there. The owner
/// at this machine may name any other folder as well, of whose path links are resolved. Blocks.
pub(super) fn check(
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
        DaemonError::Forbidden(format!("{error}{allowed}"))
    })
}

/// Returns `folder` with the links in the part of it that is there resolved.
fn resolved(folder: &Path) -> Result<PathBuf, DaemonError> {
    let refused =
        |why: &str| DaemonError::Forbidden(format!("`{}` may not be used: {why}", shown(folder)));
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
            // A link that leads nowhere is there, and nothing can be made below it.
            Err(_) if above.is_symlink() => return Err(refused("a link in it leads nowhere")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(&error.to_string())),
        }
    }
    Err(refused("no folder above it is there"))
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
            assert_eq!(check(&root.join(good), &roots, Caller::Owner).unwrap(), root.join(good));
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
            let checked = check(bad, &roots, Caller::Owner);
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
        let local = |folder: PathBuf| check(&folder, std::slice::from_ref(&root), Caller::Local);
        assert_eq!(local(dir.join("isos")).unwrap(), dir.join("isos"));
        assert_eq!(local(dir.join("new/deep")).unwrap(), dir.join("new/deep"));
        assert_eq!(local(dir.join("link/new")).unwrap(), dir.join("isos/new"));
        assert_eq!(local(root.join("a")).unwrap(), root.join("a"));
        for bad in ["isos/../x", "file/x", "dangling", "dangling/x", "downloads/planted"] {
            assert!(matches!(local(dir.join(bad)), Err(DaemonError::Forbidden(_))), "{bad}");
        }
        assert!(matches!(local("isos".into()), Err(DaemonError::Forbidden(_))));
        for caller in [Caller::Owner, Caller::Guest] {
            let refused = check(&dir.join("isos"), std::slice::from_ref(&root), caller);
            assert!(matches!(refused, Err(DaemonError::Forbidden(_))));
        }
    }
}
