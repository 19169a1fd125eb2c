//! Opens files beneath one folder without ever leaving it.
//!
//! The paths in a torrent are untrusted, and anyone who can write in the download folder can
//! replace a file or folder by a symbolic link. So no link is followed below the root, nor on the
//! way to a root from a folder listed in `keep_to`. The kernel enforces this in one `openat2`.
//! Where it cannot (before Linux 5.6, or in a sandbox that forbids the call), every component is
//! opened by itself. The path of the root is given by the user and may lead through links.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use piecework_core::name_of_text;

use super::error::{Operation, StorageError};

/// The folder that contains all files of one torrent. Holds no descriptor.
#[derive(Debug, Clone)]
pub(super) struct ConfinedRoot {
    /// Shared by all stores in the same folder: there may be tens of thousands.
    path: Arc<Path>,
    /// No link is followed below the nearest of these folders above the path.
    keep_to: Arc<Vec<PathBuf>>,
}

/// The same folder, opened.
pub(super) struct ConfinedFolder<'a> {
    fd: OwnedFd,
    path: &'a Path,
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    /// Reading and writing an existing file.
    Write,
    /// Reading and writing a file that does not exist yet.
    Create,
}

impl ConfinedRoot {
    pub(crate) fn new(path: &Path) -> Self {
        Self::keeping_to(path.into(), Arc::default())
    }

    /// The same, but no link is followed below the nearest of the folders `keep_to` above it, if
    /// there is one: somebody may have put a link there since the path was checked.
    pub(crate) fn keeping_to(path: Arc<Path>, keep_to: Arc<Vec<PathBuf>>) -> Self {
        Self { path, keep_to }
    }

    /// Returns another folder with the same `keep_to`.
    pub(crate) fn elsewhere(&self, path: &Path) -> Self {
        Self::keeping_to(path.into(), Arc::clone(&self.keep_to))
    }

    pub(crate) fn keep_to(&self) -> &Arc<Vec<PathBuf>> {
        &self.keep_to
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file, for messages.
    pub(crate) fn join<S: AsRef<str>>(&self, names: &[S]) -> PathBuf {
        joined(&self.path, names)
    }

    pub(crate) fn open(&self) -> Result<ConfinedFolder<'_>, StorageError> {
        let fd = self
            .step_down(|_, _| Ok(()))
            .map_err(|errno| StorageError::new(Operation::Open, self.path.to_path_buf(), errno))?;
        Ok(ConfinedFolder { fd, path: &self.path })
    }

    /// Creates the folder and its parents if they do not exist.
    pub(crate) fn create(&self) -> Result<(), StorageError> {
        let fault = |errno| StorageError::new(Operation::Create, self.path.to_path_buf(), errno);
        std::fs::create_dir_all(self.trusted_part())
            .map_err(|error| fault(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let make = |parent: BorrowedFd<'_>, name: &OsStr| match sys::mkdirat(
            parent,
            name,
            Mode::from_raw_mode(0o777),
        ) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        };
        self.step_down(make).map(drop).map_err(fault)
    }

    /// Returns how many components of the path may lead through links; `None` for all.
    fn trusted(&self) -> Option<usize> {
        let above = self.keep_to.iter().filter(|above| self.path.starts_with(above));
        above.map(|above| above.components().count()).max()
    }

    /// Returns the part of the path whose links are followed.
    fn trusted_part(&self) -> PathBuf {
        self.path.components().take(self.trusted().unwrap_or(usize::MAX)).collect()
    }

    /// Opens the folder, one component at a time where no link may be followed. Calls `before`
    /// ahead of each such step, with the parent folder and the next name.
    fn step_down(
        &self,
        before: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(trusted) = self.trusted() else {
            return retry_on_intr(|| sys::open(&*self.path, flags, Mode::empty()));
        };
        let part = self.trusted_part();
        let mut fd = retry_on_intr(|| sys::open(&part, flags, Mode::empty()))?;
        for component in self.path.components().skip(trusted) {
            let Component::Normal(name) = component else { return Err(Errno::XDEV) };
            before(fd.as_fd(), name)?;
            fd = step_into(fd.as_fd(), name)?;
        }
        Ok(fd)
    }
}

impl ConfinedFolder<'_> {
    /// Opens the regular file at `names`.
    pub(crate) fn open<S: AsRef<str>>(
        &self,
        names: &[S],
        access: Access,
    ) -> Result<File, StorageError> {
        let fd = self
            .open_any(names, access.flags())
            .map_err(|errno| StorageError::new(access.operation(), self.join(names), errno))?;
        let file = File::from(fd);
        self.regular(names, file.as_fd())?;
        Ok(file)
    }

    /// Returns the metadata of the regular file at `names`. Needs no permission to read it.
    pub(crate) fn stat<S: AsRef<str>>(&self, names: &[S]) -> Result<Stat, StorageError> {
        let fd = self
            .open_any(names, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
            .map_err(|errno| StorageError::new(Operation::Open, self.join(names), errno))?;
        self.regular(names, fd.as_fd())
    }

    /// Returns whether nothing exists at `names`. Any other problem is reported when it is opened.
    pub(crate) fn lacks<S: AsRef<str>>(&self, names: &[S]) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        matches!(self.open_any(names, flags), Err(Errno::NOENT))
    }

    /// Creates the missing folders on the path `names`.
    pub(crate) fn create_folders<S: AsRef<str>>(&self, names: &[S]) -> Result<(), StorageError> {
        let fault = |errno, deep: usize| {
            StorageError::new(Operation::Create, self.join(&names[..=deep]), errno)
        };
        let mut above: Option<OwnedFd> = None;
        for (deep, name) in names.iter().enumerate() {
            let name = plain_name(name.as_ref()).map_err(|errno| fault(errno, deep))?;
            let parent = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            // Like mkdir(1), leaves the permissions to the umask.
            match sys::mkdirat(parent, &*name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(fault(errno, deep)),
            }
            above = Some(step_into(parent, &name).map_err(|errno| fault(errno, deep))?);
        }
        Ok(())
    }

    /// Syncs the folder at `names` (this one, if empty): which files are in it, not their content.
    pub(crate) fn sync<S: AsRef<str>>(&self, names: &[S]) -> Result<(), StorageError> {
        let fault = |errno| StorageError::new(Operation::Sync, self.join(names), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = if names.is_empty() {
            retry_on_intr(|| sys::openat(&self.fd, ".", flags, Mode::empty()))
        } else {
            self.open_any(names, flags)
        };
        match retry_on_intr(|| sys::fsync(fd.as_ref().map_err(|errno| *errno)?)) {
            // Some file systems report that there is nothing to sync for a folder in this way.
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(fault(errno)),
        }
    }

    /// Opens the folder again, to read its entries.
    pub(crate) fn listing(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        retry_on_intr(|| sys::openat(&self.fd, ".", flags, Mode::empty()))
    }

    /// Returns the number of its device.
    pub(crate) fn device(&self) -> Result<u64, Errno> {
        Ok(sys::fstat(&self.fd)?.st_dev)
    }

    /// Returns the path of something in the folder, for messages.
    pub(crate) fn join<S: AsRef<str>>(&self, names: &[S]) -> PathBuf {
        joined(self.path, names)
    }

    /// Opens the parent folder of `names`. Also returns the last of the names.
    pub(crate) fn parent<'n, S: AsRef<str>>(
        &self,
        names: &'n [S],
    ) -> Result<(OwnedFd, Cow<'n, OsStr>), Errno> {
        let (last, parents) = names.split_last().ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = if parents.is_empty() {
            retry_on_intr(|| sys::openat(&self.fd, ".", flags, Mode::empty()))
        } else {
            self.open_any(parents, flags)
        };
        Ok((fd?, plain_name(last.as_ref())?))
    }

    fn open_any<S: AsRef<str>>(&self, names: &[S], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut path = PathBuf::new();
        for name in names {
            path.push(plain_name(name.as_ref())?);
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mode = if flags.contains(OFlags::CREATE) { NEW_FILE } else { Mode::empty() };
        match retry_on_intr(|| sys::openat2(&self.fd, &path, flags, mode, resolve)) {
            // The call does not exist, is forbidden by a sandbox, could not be sure because of a
            // concurrent rename, or the path is longer than PATH_MAX. Go step by step instead.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NAMETOOLONG) => {
                self.open_stepwise(names, flags)
            }
            result => result,
        }
    }

    fn open_stepwise<S: AsRef<str>>(&self, names: &[S], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (last, parents) = names.split_last().ok_or(Errno::NOENT)?;
        let mut above: Option<OwnedFd> = None;
        for name in parents {
            let parent = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            above = Some(step_into(parent, &plain_name(name.as_ref())?)?);
        }
        let parent = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        let last = plain_name(last.as_ref())?;
        retry_on_intr(|| sys::openat(parent, &*last, flags | OFlags::NOFOLLOW, NEW_FILE))
    }

    fn regular<S: AsRef<str>>(
        &self,
        names: &[S],
        fd: BorrowedFd<'_>,
    ) -> Result<Stat, StorageError> {
        let stat = sys::fstat(fd)
            .map_err(|errno| StorageError::new(Operation::Open, self.join(names), errno))?;
        let reason = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(stat),
            FileType::Symlink => {
                let path = self.join(names);
                return Err(StorageError::Escape { operation: Operation::Open, path });
            }
            FileType::Directory => "it is a folder where a file should be",
            _ => "it is not a regular file",
        };
        Err(StorageError::other(Operation::Open, self.join(names), reason))
    }
}

impl Access {
    fn operation(self) -> Operation {
        match self {
            Self::Read => Operation::Read,
            Self::Write => Operation::Write,
            Self::Create => Operation::Create,
        }
    }

    fn flags(self) -> OFlags {
        // NONBLOCK: opening a pipe must not wait for its other end. It has no effect on regular
        // files, and only those are kept.
        let always = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self {
            Self::Read => OFlags::RDONLY | always,
            Self::Write => OFlags::RDWR | always,
            Self::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | always,
        }
    }
}

fn step_into(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match retry_on_intr(|| sys::openat(parent, name, flags, Mode::empty())) {
        // The kernel reports the same error for a link as for a file: neither is a folder.
        Err(Errno::NOTDIR) if is_link(parent, name) => Err(Errno::LOOP),
        result => result,
    }
}

fn is_link(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Metainfo refuses such names already. Here they would leave the root, so they are checked again.
fn plain_name(name: &str) -> Result<Cow<'_, OsStr>, Errno> {
    let plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    if plain { Ok(disk_name(name)) } else { Err(Errno::XDEV) }
}

/// Returns the file name that `name` stands for, with its byte marks replaced by the bytes.
pub(super) fn disk_name(name: &str) -> Cow<'_, OsStr> {
    match name_of_text(name) {
        Cow::Borrowed(bytes) => OsStr::from_bytes(bytes).into(),
        Cow::Owned(bytes) => OsString::from_vec(bytes).into(),
    }
}

/// Returns the path of `names` in `folder`.
pub(super) fn joined<S: AsRef<str>>(folder: &Path, names: &[S]) -> PathBuf {
    let mut path = folder.to_owned();
    path.extend(names.iter().map(|name| disk_name(name.as_ref())));
    path
}

/// Like the new files of any program: the umask decides about permissions.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn outside_and_root() -> (tempfile::TempDir, ConfinedRoot) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("outside/sub")).unwrap();
        std::fs::write(dir.path().join("outside/sub/secret"), b"secret").unwrap();
        std::fs::create_dir_all(dir.path().join("root/real")).unwrap();
        symlink(dir.path().join("outside/sub"), dir.path().join("root/link")).unwrap();
        symlink("../../outside/sub/secret", dir.path().join("root/real/file")).unwrap();
        let root = ConfinedRoot::new(&dir.path().join("root"));
        (dir, root)
    }

    fn errno_of(result: Result<OwnedFd, Errno>) -> Errno {
        result.unwrap_err()
    }

    #[test]
    fn links_are_not_followed_in_one_step_or_many() {
        let (_dir, root) = outside_and_root();
        let folder = root.open().unwrap();
        for names in [&["link", "secret"][..], &["real", "file"], &["link"]] {
            for access in [Access::Read, Access::Write] {
                let error = folder.open(names, access).unwrap_err();
                assert!(matches!(error, StorageError::Escape { .. }), "{names:?}: {error}");
                let stepwise = errno_of(folder.open_stepwise(names, access.flags()));
                assert_eq!(stepwise, Errno::LOOP, "{names:?}");
            }
            assert!(matches!(folder.stat(names), Err(StorageError::Escape { .. })));
        }
        let made = folder.open(&["link", "new"], Access::Create).unwrap_err();
        assert!(matches!(made, StorageError::Escape { .. }));
        let made = folder.create_folders(&["link", "new"]).unwrap_err();
        assert!(matches!(made, StorageError::Escape { .. }), "{made}");
    }

    #[test]
    fn names_that_lead_out_are_refused_both_ways() {
        let (_dir, root) = outside_and_root();
        let folder = root.open().unwrap();
        for names in [&["..", "outside"][..], &["/etc", "passwd"], &[""], &["real", "."], &["a\0"]]
        {
            let error = folder.open(names, Access::Create).unwrap_err();
            assert!(matches!(error, StorageError::Escape { .. }), "{names:?}: {error}");
            let stepwise = errno_of(folder.open_stepwise(names, Access::Read.flags()));
            assert_eq!(stepwise, Errno::XDEV, "{names:?}");
            assert!(folder.create_folders(names).is_err());
        }
    }

    #[test]
    fn both_ways_make_open_and_measure_a_nested_file() {
        let (_dir, root) = outside_and_root();
        let folder = root.open().unwrap();
        let names = ["real", "ä", "文件"];
        assert!(matches!(folder.stat(&names), Err(StorageError::Missing { .. })));
        folder.create_folders(&names[..2]).unwrap();
        folder.create_folders(&names[..2]).unwrap();
        let fd = folder.open_stepwise(&names, Access::Create.flags()).unwrap();
        rustix::io::pwrite(&fd, b"abc", 0).unwrap();
        assert_eq!(folder.stat(&names).unwrap().st_size, 3);
        assert!(folder.open(&names, Access::Create).is_err(), "it exists already");
        folder.open(&names, Access::Write).unwrap();
        folder.open_stepwise(&names, Access::Read.flags()).unwrap();
    }

    #[test]
    fn on_the_way_from_a_folder_to_keep_to_no_link_is_followed() {
        let (dir, _) = outside_and_root();
        let (above, outside) = (dir.path().join("root"), dir.path().join("outside/sub"));
        let keeping = |path: &str| {
            ConfinedRoot::keeping_to(above.join(path).into(), Arc::new(vec![above.clone()]))
        };
        let before = std::fs::read_dir(&outside).unwrap().count();
        for path in ["link", "link/new"] {
            for error in
                [keeping(path).open().map(drop).unwrap_err(), keeping(path).create().unwrap_err()]
            {
                assert!(matches!(error, StorageError::Escape { .. }), "{path}: {error}");
            }
            assert!(
                ConfinedRoot::new(&above.join("link")).open().is_ok(),
                "elsewhere it is the user's word"
            );
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), before);
        assert!(matches!(keeping("none").open().map(drop), Err(StorageError::Missing { .. })));
        for path in ["", "real", "new/and/deep", "new"] {
            keeping(path).create().unwrap();
            keeping(path).open().unwrap();
        }
        // The folder itself may be a link, and the nearest one counts.
        let link = above.join("link");
        let both = Arc::new(vec![above.clone(), link.clone()]);
        ConfinedRoot::keeping_to(link.join("made").into(), both).create().unwrap();
        assert!(outside.join("made").is_dir());
        assert!(keeping("real/../link").open().is_err());
    }

    #[test]
    fn only_regular_files_are_opened_and_a_pipe_does_not_block() {
        let (dir, root) = outside_and_root();
        let pipe = dir.path().join("root/pipe");
        sys::mkfifoat(sys::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        let folder = root.open().unwrap();
        for name in ["pipe", "real"] {
            let error = folder.open(&[name], Access::Read).unwrap_err();
            assert!(
                matches!(error, StorageError::Other { .. } | StorageError::System { .. }),
                "{error}"
            );
            assert!(folder.stat(&[name]).is_err());
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_at_once_is_opened_stepwise() {
        let (_dir, root) = outside_and_root();
        let folder = root.open().unwrap();
        let names = vec!["n".repeat(250); 20];
        folder.create_folders(&names[..19]).unwrap();
        folder.open(&names, Access::Create).unwrap();
        assert_eq!(folder.stat(&names).unwrap().st_size, 0);
    }
}
