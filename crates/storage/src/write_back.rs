//! Keeps the amount of written data short that waits in memory for the disk.
//!
//! The system keeps written data in memory, by default a fifth of it, before it makes writers wait.
//! For a slow disk that is minutes of work, and everyone who writes to the disk or syncs waits for
//! it, other programs included. So the disk is told to begin after every few MiB, and the writer
//! waits until the few MiB before those are written. Then only the torrent is slow, and with it its
//! network traffic.
//!
//! The only `unsafe` call passes numbers to the system, no memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::mem::take;

use rustix::io::Errno;

/// The files that were written, in windows of [`WriteBackThrottle::WINDOW`] bytes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct WriteBackThrottle {
    /// Bytes written in this window.
    bytes: u64,
    /// Files written in this window.
    written: BTreeSet<usize>,
    /// Files of the previous window, which the disk was told to write.
    in_flight: BTreeSet<usize>,
}

/// A full window.
#[derive(Debug, PartialEq)]
pub(super) struct WriteBackWindow {
    /// Files that the disk has to begin to write.
    pub written: BTreeSet<usize>,
    /// Files to wait for before that.
    pub in_flight: BTreeSet<usize>,
}

impl WriteBackThrottle {
    /// Records that `bytes` were written to `files`. Returns the window if it is full.
    pub(crate) fn add(
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

    /// Enough work for a disk: a second for a slow one. A torrent has up to twice as much written
    /// data in memory.
    pub(crate) const WINDOW: u64 = 32 << 20;
}

impl WriteBackWindow {
    /// Returns the files of the window with the step for each.
    pub(crate) fn files(&self) -> impl Iterator<Item = (usize, WriteBackStep)> {
        self.in_flight.union(&self.written).map(|file| {
            let (wait, begin) = (self.in_flight.contains(file), self.written.contains(file));
            (*file, WriteBackStep { wait, begin })
        })
    }
}

/// What to do about the bytes of a file that are not on the disk yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteBackStep {
    /// Wait for those that are being written.
    pub wait: bool,
    /// Then start writing the others, without waiting for them.
    pub begin: bool,
}

impl WriteBackStep {
    /// Carries out the step. This guarantees nothing; only `fsync` does. But an error is reported
    /// only once: a later `fsync` through the same handle does not report it again.
    pub(crate) fn apply(self, file: &File) -> Result<(), Errno> {
        match self.ask_for(file) {
            // The file system does not support this.
            Err(Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::OPNOTSUPP) => Ok(()),
            // It does not matter whether it was begun.
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
        // SAFETY: the call takes numbers and touches no memory of ours. The descriptor stays open
        // while `file` is borrowed. Offset 0 and length 0 mean the whole file.
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
