//! Identifies the file system of a folder by its mount point.
//!
//! Device numbers change when a machine restarts, and so do those of file systems without a device.
//! A mount point stays: if nothing is mounted there, the disk is missing.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, stat, statx};

use super::absolute::absolute;

/// Returns the mount point of the file system that contains `folder`, or would contain it: if the
/// folder does not exist, its nearest existing parent counts. Blocks.
///
/// Returns `None` for the root file system, which always exists, and if the mount point cannot be
/// determined.
pub fn mount_point(folder: &Path) -> Option<PathBuf> {
    let folder = absolute(folder).ok()?;
    let real = folder.ancestors().find_map(|above| above.canonicalize().ok())?;
    let mount = real.ancestors().find(|above| is_mount_point(above))?;
    (mount != Path::new("/")).then(|| mount.to_owned())
}

fn is_mount_point(folder: &Path) -> bool {
    let Some(above) = folder.parent() else { return true };
    // The dot triggers an automount.
    let looked = statx(CWD, folder.join("."), AtFlags::empty(), StatxFlags::empty());
    if let Ok(found) = looked
        && found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    // Linux before 5.8 does not tell.
    stat(folder).is_ok_and(|here| stat(above).is_ok_and(|above| above.st_dev != here.st_dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lies_where_the_nearest_mount_point_above_it_is() {
        // Linux always has these two.
        assert_eq!(mount_point(Path::new("/proc/self/fd")), Some("/proc".into()));
        assert_eq!(mount_point(Path::new("/proc/sys/not/there")), Some("/proc".into()));
        assert_eq!(mount_point(Path::new("/")), None);
        assert_eq!(mount_point(Path::new("/not/there")), None);
    }

    #[test]
    fn a_link_leads_to_where_it_points() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/self", dir.path().join("link")).unwrap();
        assert_eq!(mount_point(&dir.path().join("link/fd")), Some("/proc".into()));
        assert_eq!(mount_point(dir.path()), mount_point(&dir.path().join("new")));
    }
}
