//! Opening files beneath one folder without ever leaving it.
//!
//! A torrent's paths come from strangers, and whoever can write in the download folder can put a
//! symbolic link where one of its files or folders belongs. So no link is followed below the
//! root: the kernel sees to it in one `openat2`, and where it cannot (before Linux 5.6, or in a
//! sandbox that forbids the call) every component is opened by itself. The root's own path is
//! the user's word and may lead through links.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::error::{Operation, StorageError};

/// The folder beneath which everything of one torrent lies. Holds nothing open.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
}

/// The same folder, opened.
pub(super) struct Folder<'a> {
    fd: OwnedFd,
    path: &'a Path,
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    /// Reading and writing.
    Write,
    /// Reading and writing a file that does not exist yet.
    Create,
}

impl Root {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file lies, for messages.
    pub fn join<S: AsRef<str>>(&self, names: &[S]) -> PathBuf {
        let mut path = self.path.clone();
        path.extend(names.iter().map(AsRef::as_ref));
        path
    }

    pub fn open(&self) -> Result<Folder<'_>, StorageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| sys::open(&self.path, flags, Mode::empty()))
            .map_err(|errno| StorageError::new(Operation::Open, self.path.clone(), errno))?;
        Ok(Folder { fd, path: &self.path })
    }

    /// Makes the folder, and those above it, if they are not there.
    pub fn create(&self) -> Result<(), StorageError> {
        std::fs::create_dir_all(&self.path).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            StorageError::new(Operation::Create, self.path.clone(), errno)
        })
    }
}

impl Folder<'_> {
    /// Opens the regular file `names` lead to.
    pub fn open<S: AsRef<str>>(&self, names: &[S], access: Access) -> Result<File, StorageError> {
        let fd = self
            .open_any(names, access.flags())
            .map_err(|errno| StorageError::new(access.operation(), self.join(names), errno))?;
        let file = File::from(fd);
        self.regular(names, file.as_fd())?;
        Ok(file)
    }

    /// What the system knows of the regular file `names` lead to. Needs no right to read it.
    pub fn stat<S: AsRef<str>>(&self, names: &[S]) -> Result<Stat, StorageError> {
        let fd = self
            .open_any(names, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
            .map_err(|errno| StorageError::new(Operation::Open, self.join(names), errno))?;
        self.regular(names, fd.as_fd())
    }

    /// Makes the folders `names` lead through, those that are not there.
    pub fn create_folders<S: AsRef<str>>(&self, names: &[S]) -> Result<(), StorageError> {
        let fault = |errno, deep: usize| {
            StorageError::new(Operation::Create, self.join(&names[..=deep]), errno)
        };
        let mut above: Option<OwnedFd> = None;
        for (deep, name) in names.iter().enumerate() {
            let name = plain_name(name.as_ref()).map_err(|errno| fault(errno, deep))?;
            let parent = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            // Like mkdir(1): what others may do is the umask's business.
            match sys::mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(fault(errno, deep)),
            }
            above = Some(step_into(parent, name).map_err(|errno| fault(errno, deep))?);
        }
        Ok(())
    }

    /// Forces the folder `names` lead to (this one, if there are none) to the disk: which files
    /// are in it, not what is in them.
    pub fn sync<S: AsRef<str>>(&self, names: &[S]) -> Result<(), StorageError> {
        let fault = |errno| StorageError::new(Operation::Sync, self.join(names), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = if names.is_empty() {
            retry_on_intr(|| sys::openat(&self.fd, ".", flags, Mode::empty()))
        } else {
            self.open_any(names, flags)
        };
        match retry_on_intr(|| sys::fsync(fd.as_ref().map_err(|errno| *errno)?)) {
            // Some file systems have nothing to force for a folder and say so this way.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(fault(errno)),
        }
    }

    /// Where something lies, for messages.
    pub fn join<S: AsRef<str>>(&self, names: &[S]) -> PathBuf {
        let mut path = self.path.to_owned();
        path.extend(names.iter().map(AsRef::as_ref));
        path
    }

    /// The folder that holds the last of `names`, opened, and the last of them.
    pub fn parent<'n, S: AsRef<str>>(&self, names: &'n [S]) -> Result<(OwnedFd, &'n str), Errno> {
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
            // No such call, forbidden by a sandbox, could not be sure because something was
            // renamed meanwhile, longer than PATH_MAX: go step by step instead.
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
            above = Some(step_into(parent, plain_name(name.as_ref())?)?);
        }
        let parent = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        let last = plain_name(last.as_ref())?;
        retry_on_intr(|| sys::openat(parent, last, flags | OFlags::NOFOLLOW, NEW_FILE))
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
        // NONBLOCK: opening a pipe that somebody put there must not wait for its other end. It
        // means nothing for regular files, and only those are kept.
        let always = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self {
            Self::Read => OFlags::RDONLY | always,
            Self::Write => OFlags::RDWR | always,
            Self::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | always,
        }
    }
}

fn step_into(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match retry_on_intr(|| sys::openat(parent, name, flags, Mode::empty())) {
        // The kernel says the same of a link as of a file: neither is a folder.
        Err(Errno::NOTDIR) if is_link(parent, name) => Err(Errno::LOOP),
        result => result,
    }
}

fn is_link(parent: BorrowedFd<'_>, name: &str) -> bool {
    sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Metainfo refuses such names already. Here they would leave the root, so they are held a
/// second time.
fn plain_name(name: &str) -> Result<&str, Errno> {
    let plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    if plain { Ok(name) } else { Err(Errno::XDEV) }
}

/// Like any program's new files: what others may do is the umask's business.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn outside_and_root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("outside/sub")).unwrap();
        std::fs::write(dir.path().join("outside/sub/secret"), b"secret").unwrap();
        std::fs::create_dir_all(dir.path().join("root/real")).unwrap();
        symlink(dir.path().join("outside/sub"), dir.path().join("root/link")).unwrap();
        symlink("../../outside/sub/secret", dir.path().join("root/real/file")).unwrap();
        let root = Root::new(&dir.path().join("root"));
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
    fn only_regular_files_are_opened_and_a_pipe_does_not_block() {
        let (dir, root) = outside_and_root();
        let pipe = dir.path().join("root/pipe");
        sys::mkfifoat(sys::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        let folder = root.open().unwrap();
        for name in ["pipe", "real"] {
            let error = folder.open(&[name], Access::Read).unwrap_err();
            assert!(matches!(error, StorageError::Other { .. }), "{error}");
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
