//! Renames without replacing, on any file system.

use std::os::fd::AsFd;

use rustix::fs::{self as sys, AtFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

/// Renames `name` in the folder `from` to `new_name` in the folder `to` of the same file system.
/// Nothing is replaced.
///
/// Normally the system guarantees this in one step. Some file systems cannot (FUSE without the
/// call, such as exFAT's; NFS; SMB). There a file first gets the new name as a hard link, which
/// fails if the name exists, and then loses the old one. If the file system has no hard links
/// either, and for folders, the new name is looked up before a plain rename. A file that another
/// program creates in between is then replaced. Between our own threads this cannot happen, because
/// the lock of the store is held.
///
/// # Errors
/// [`Errno::EXIST`] if the new name exists, otherwise as the system says.
pub fn rename_new<A: Arg + Copy, B: Arg + Copy>(
    from: impl AsFd,
    name: A,
    to: impl AsFd,
    new_name: B,
) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let renamed = match able::to_rename_only() {
        Ok(()) => {
            retry_on_intr(|| sys::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE))
        }
        Err(errno) => Err(errno),
    };
    match renamed {
        // Not supported here, or not in a sandbox. What is not permitted at all fails below as
        // well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {}
        renamed => return renamed,
    }
    let linked = match able::to_link() {
        Ok(()) => retry_on_intr(|| sys::linkat(from, name, to, new_name, AtFlags::empty())),
        Err(errno) => Err(errno),
    };
    match linked {
        Ok(()) => {
            let removed = sys::unlinkat(from, name, AtFlags::empty());
            if removed.is_err() {
                // The file keeps only its old name.
                sys::unlinkat(to, new_name, AtFlags::empty())?;
            }
            return removed;
        }
        Err(errno) if is_no_link(errno) => {}
        Err(errno) => return Err(errno),
    }
    match retry_on_intr(|| sys::statat(to, new_name, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => retry_on_intr(|| sys::renameat(from, name, to, new_name)),
        Err(errno) => Err(errno),
    }
}

/// Gives a file a second name (a hard link). Fails if the name exists.
pub(super) fn link_new<A: Arg + Copy, B: Arg + Copy>(
    from: impl AsFd,
    name: A,
    to: impl AsFd,
    new_name: B,
) -> Result<(), Errno> {
    able::to_link()?;
    let (from, to) = (from.as_fd(), to.as_fd());
    retry_on_intr(|| sys::linkat(from, name, to, new_name, AtFlags::empty()))
}

/// Returns whether this error of a hard link means that the file system has none, not for this
/// file, or no more of them.
pub(super) fn is_no_link(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::INVAL | Errno::ACCESS
    )
}

#[cfg(not(test))]
mod able {
    use rustix::io::Errno;

    pub(super) fn to_rename_only() -> Result<(), Errno> {
        Ok(())
    }

    pub(super) fn to_link() -> Result<(), Errno> {
        Ok(())
    }
}

/// The capabilities of the file system, set by tests.
#[cfg(test)]
pub(crate) mod able {
    use std::cell::Cell;

    use rustix::io::Errno;

    thread_local! {
        static LACKING: Cell<(Option<Errno>, Option<Errno>)> = const { Cell::new((None, None)) };
    }

    /// Runs `work` on this thread as on a file system that answers `rename` to a rename without
    /// replacing, and `link` to a hard link.
    pub(crate) fn lacking<T>(rename: Errno, link: Option<Errno>, work: impl FnOnce() -> T) -> T {
        LACKING.set((Some(rename), link));
        let done = work();
        LACKING.set((None, None));
        done
    }

    pub(crate) fn to_rename_only() -> Result<(), Errno> {
        LACKING.get().0.map_or(Ok(()), Err)
    }

    pub(crate) fn to_link() -> Result<(), Errno> {
        LACKING.get().1.map_or(Ok(()), Err)
    }
}
