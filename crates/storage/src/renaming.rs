//! Giving something a name that nothing may have, on whatever file system it lies.

use std::os::fd::AsFd;

use rustix::fs::{self as sys, AtFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

/// Renames `name` in the folder `from` to `new_name` in the folder `to`, of the same file system.
/// Whatever has the new name already stays.
///
/// The system is asked to see to that in the same step. Some file systems cannot (FUSE ones without
/// the call, such as exFAT's; NFS; SMB): there a file gets the new name as a second one, which is
/// refused if something has it, and then loses the old one. On those that know no second names
/// either, and for folders, it is looked whether the new name is free before the plain rename: who
/// takes the name in between loses what it has put there. Between us that does not happen, because
/// whoever renames a torrent's files holds its store's lock.
///
/// # Errors
/// [`Errno::EXIST`] if something has the new name, others as the system says.
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
        // Not known here, or not in a sandbox; what is not allowed at all is refused below as well.
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
                // It keeps the name it had, and only that.
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

/// Gives a file a second name, which nothing may have.
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

/// Whether this answer to the wish for a second name says that there are none here, not for this
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

    pub fn to_rename_only() -> Result<(), Errno> {
        Ok(())
    }

    pub fn to_link() -> Result<(), Errno> {
        Ok(())
    }
}

/// What the file system can do, for tests to say.
#[cfg(test)]
pub(crate) mod able {
    use std::cell::Cell;

    use rustix::io::Errno;

    thread_local! {
        static LACKING: Cell<(Option<Errno>, Option<Errno>)> = const { Cell::new((None, None)) };
    }

    /// Does `work` on a file system that answers `rename` to a rename that is not to replace
    /// anything, and `link` to a second name; on this thread.
    pub(crate) fn lacking<T>(rename: Errno, link: Option<Errno>, work: impl FnOnce() -> T) -> T {
        LACKING.set((Some(rename), link));
        let done = work();
        LACKING.set((None, None));
        done
    }

    pub fn to_rename_only() -> Result<(), Errno> {
        LACKING.get().0.map_or(Ok(()), Err)
    }

    pub fn to_link() -> Result<(), Errno> {
        LACKING.get().1.map_or(Ok(()), Err)
    }
}
