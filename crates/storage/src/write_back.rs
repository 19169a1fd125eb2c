//! What waits in memory to be written to the disk, kept short.
//!
//! The system takes what is written into memory, a fifth of it by default, before it has anybody
//! wait. With a slow disk that is minutes of its work, for which everybody waits who writes to it
//! or wants to be sure of a write: other programs, too. So the disk is told to begin after every
//! few MiB, and whoever has written those waits until the few MiB before them are through: then
//! it is the torrent that is slow, and with it its network.
//!
//! The one `unsafe` call hands the system numbers, no memory of ours.

use std::collections::BTreeSet;
use std::fs::File;
use std::mem::take;

use rustix::io::Errno;

/// Which files were written to, a window of [`WriteBackThrottle::WINDOW`] bytes at a time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct WriteBackThrottle {
    /// Bytes written in this window.
    bytes: u64,
    /// Files written to in this window.
    written: BTreeSet<usize>,
    /// Files written to in the window before, which the disk has been told to take.
    in_flight: BTreeSet<usize>,
}

/// A window that is full.
#[derive(Debug, PartialEq)]
pub(super) struct WriteBackWindow {
    /// Files the disk is to be told to take.
    pub written: BTreeSet<usize>,
    /// Files that are waited for before.
    pub in_flight: BTreeSet<usize>,
}

impl WriteBackThrottle {
    /// Notes that `bytes` were written to `files`. Gives the window if that fills it.
    pub fn add(
        &mut self,
        files: impl IntoIterator<Item = usize>,
        bytes: u64,
    ) -> Option<WriteBackWindow> {
        self.written.extend(files);
        self.bytes += bytes;
        if self.bytes < Self::WINDOW {
            return None;
        }
        self.bytes = 0;
        let written = take(&mut self.written);
        let in_flight = std::mem::replace(&mut self.in_flight, written.clone());
        Some(WriteBackWindow { written, in_flight })
    }

    /// Enough for a disk to have something to do for a while, a second for a slow one. Twice that
    /// is what a torrent has in memory of what it has written.
    pub const WINDOW: u64 = 32 << 20;
}

impl WriteBackWindow {
    /// The files in it, and for each how it is to be hurried.
    pub fn files(&self) -> impl Iterator<Item = (usize, WriteBackStep)> {
        self.in_flight.union(&self.written).map(|file| {
            let (wait, begin) = (self.in_flight.contains(file), self.written.contains(file));
            (*file, WriteBackStep { wait, begin })
        })
    }
}

/// What is done about a file's bytes that are not on the disk yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteBackStep {
    /// Wait for those that are on their way.
    pub wait: bool,
    /// Then have the others begin theirs, without waiting for them.
    pub begin: bool,
}

impl WriteBackStep {
    /// Does it. It makes nothing certain, which only `fsync` does; but an error is told this once,
    /// and a later `fsync` through the same handle does not tell it again.
    pub fn apply(self, file: &File) -> Result<(), Errno> {
        match self.ask_for(file) {
            // The file system knows no such thing.
            Err(Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::OPNOTSUPP) => Ok(()),
            // Begun or not is all the same.
            Err(Errno::INTR) => Ok(()),
            result => result,
        }
    }

    #[cfg(target_os = "linux")]
    fn ask_for(self, file: &File) -> Result<(), Errno> {
        use std::os::fd::AsRawFd;

        let mut flags = 0;
        if self.wait {
            flags |= libc::SYNC_FILE_RANGE_WAIT_BEFORE;
        }
        if self.begin {
            flags |= libc::SYNC_FILE_RANGE_WRITE;
        }
        // SAFETY: the call takes numbers and touches no memory of ours; the descriptor is open as
        // long as `file` is borrowed. From byte 0, of length 0: all of the file.
        let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
        if result == 0 {
            return Ok(());
        }
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }

    #[cfg(not(target_os = "linux"))]
    fn ask_for(self, _: &File) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const HALF: u64 = WriteBackThrottle::WINDOW / 2;

    #[test]
    fn each_window_waits_for_the_one_before() {
        let mut throttle = WriteBackThrottle::default();
        assert_eq!(throttle.add([1], HALF), None);
        let window = throttle.add([2], HALF).unwrap();
        assert_eq!(window, WriteBackWindow { written: [1, 2].into(), in_flight: [].into() });
        assert_eq!(throttle.add([2], HALF), None);
        let window = throttle.add([3], HALF + 1).unwrap();
        let step = |wait, begin| WriteBackStep { wait, begin };
        let expected = [(1, step(true, false)), (2, step(true, true)), (3, step(false, true))];
        assert_eq!(window.files().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn hurrying_changes_nothing_about_a_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        for (wait, begin) in [(false, true), (true, true), (true, false)] {
            assert_eq!(WriteBackStep { wait, begin }.apply(&file), Ok(()));
        }
        assert_eq!(file.metadata().unwrap().len(), 7);
    }
}
