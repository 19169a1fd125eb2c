//! The content of a torrent as one range of bytes, across its files.

use piecework_core::SaturatingFrom;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Advice, FlockOperation, Stat, fadvise, flock, fstat};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwritev, retry_on_intr};
use smallvec::SmallVec;

use piecework_core::metainfo::{FileEntry, FileMap, FileSlice};

use super::confined::Access;
use super::error::{Operation, StorageError};
use super::handles::{FileHandles, FileKey, OpenFile, Probe};
use super::layout::SharedLayout;
use super::watch::Watch;

/// Reads and writes the content of a file map in the files of `layout`.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    pub layout: &'a SharedLayout,
    pub map: &'a FileMap,
    pub handles: &'a FileHandles,
    /// The number of the store among `handles`.
    pub store: u32,
}

/// A position in consecutive parts that are being written.
struct Cursor<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first part that are done.
    skip: usize,
}

impl Files<'_> {
    /// Fills `buf` with the bytes from `offset` on. Padding reads as zeros (BEP 47).
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let mut rest = buf;
        for slice in self.slices(offset, rest.len(), Operation::Read)? {
            let (part, behind) = rest.split_at_mut(usize::saturating_from(slice.len));
            rest = behind;
            if self.map.entries()[slice.file].padding {
                part.fill(0);
            } else {
                self.read_file(slice.file, slice.offset, part)?;
            }
        }
        Ok(())
    }

    /// The same without waiting for a disk. Returns `false` if that is not possible, or if `watch`
    /// says that a file has to be checked first.
    pub(crate) fn read_cached(
        &self,
        offset: u64,
        buf: &mut [u8],
        watch: Option<&Watch>,
    ) -> Result<bool, StorageError> {
        let mut rest = buf;
        for slice in self.slices(offset, rest.len(), Operation::Read)? {
            let (part, behind) = rest.split_at_mut(usize::saturating_from(slice.len));
            rest = behind;
            if self.map.entries()[slice.file].padding {
                part.fill(0);
                continue;
            }
            if watch.is_some_and(|watch| watch.is_due(slice.file)) {
                return Ok(false);
            }
            // Even opening a file may wait for the disk.
            let key = FileKey { store: self.store, file: slice.file };
            let Some(open) = self.handles.get(key, false) else { return Ok(false) };
            if !self.read_file_cached(&open, &slice, part)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Advises the system to read what is not in memory of `span`. Errors are ignored: a reader
    /// will meet and report them.
    pub(crate) fn will_need(&self, span: Range<u64>) {
        for slice in self.map.slices(span) {
            let long = NonZeroU64::new(slice.len).filter(|len| len.get() > READ_AT_ONCE);
            let Some(len) = long.filter(|_| !self.map.entries()[slice.file].padding) else {
                continue;
            };
            let Ok(open) = self.open(slice.file, false) else { return };
            if fadvise(&open.file, slice.offset, Some(len), Advice::WillNeed).is_err() {
                return;
            }
        }
    }

    /// Writes the consecutive `parts` from `offset` on. Bytes of padding are dropped.
    pub(crate) fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut cursor = Cursor { parts, skip: 0 };
        for slice in self.slices(offset, len, Operation::Write)? {
            if self.map.entries()[slice.file].padding {
                cursor.advance(usize::saturating_from(slice.len));
            } else {
                self.write_file(&slice, &mut cursor)?;
            }
        }
        Ok(())
    }

    /// Returns the ranges of files for `len` bytes from `offset` on, which must all exist.
    pub(crate) fn slices(
        &self,
        offset: u64,
        len: usize,
        operation: Operation,
    ) -> Result<impl Iterator<Item = FileSlice> + use<'_>, StorageError> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.map.total_len());
        let Some(end) = end else {
            let reason = format!(
                "`{len}` bytes from byte `{offset}` on go beyond its `{}` bytes",
                self.map.total_len()
            );
            return Err(StorageError::other(operation, self.layout.root(), reason));
        };
        Ok(self.map.slices(Range { start: offset, end }))
    }

    /// Returns the length of each file; `None` if it is missing. Padding has the length from the
    /// torrent.
    pub(crate) fn lengths(&self) -> Result<Vec<Option<u64>>, StorageError> {
        let entries = self.map.entries().iter();
        let length = |(entry, stat): (&FileEntry, Option<Stat>)| {
            if entry.padding {
                Some(entry.len)
            } else {
                stat.map(|stat| u64::saturating_from(stat.st_size))
            }
        };
        Ok(entries.zip(self.stats()?).map(length).collect())
    }

    /// Returns the metadata of each file; `None` for missing files and for padding.
    pub(crate) fn stats(&self) -> Result<Vec<Option<Stat>>, StorageError> {
        let layout = self.layout.read();
        let entries = self.map.entries();
        let folder = match layout.root.open() {
            Ok(folder) => folder,
            Err(StorageError::Missing { .. }) => return Ok(vec![None; entries.len()]),
            Err(error) => return Err(error),
        };
        let mut search = layout.search(self.map, &folder);
        let stat = |(file, entry): (usize, &FileEntry)| {
            if entry.padding {
                return Ok(None);
            }
            Ok(search.find(file)?.map(|found| found.stat))
        };
        entries.iter().enumerate().map(stat).collect()
    }

    /// Returns the metadata of the file, finished or not.
    pub(crate) fn stat_of(&self, file: usize) -> Result<Stat, StorageError> {
        let layout = self.layout.read();
        let folder = layout.root.open()?;
        match layout.find(self.map, file, &folder)? {
            Some(found) => Ok(found.stat),
            None => {
                let path = layout.root.join(&layout.names_of(self.map, file));
                Err(StorageError::Missing { operation: Operation::Read, path })
            }
        }
    }

    /// Returns whether another file than the open one has its name now; `stat` is the metadata of
    /// the name. If so, closes the open one.
    pub(crate) fn is_replaced(&self, file: usize, stat: &Stat) -> Result<bool, StorageError> {
        let key = FileKey { store: self.store, file };
        let Some(open) = self.handles.get(key, false) else { return Ok(false) };
        let there = fstat(&open.file)
            .map_err(|errno| StorageError::new(Operation::Read, self.path_of(file), errno))?;
        let is_other = (there.st_dev, there.st_ino) != (stat.st_dev, stat.st_ino);
        if is_other {
            self.handles.close_file(key);
        }
        Ok(is_other)
    }

    /// Checks the file, if `watch` says that it is time.
    ///
    /// # Errors
    /// [`StorageError::Altered`] if another program has changed or replaced it,
    /// [`StorageError::Missing`] if it is gone.
    pub(crate) fn look_if_due(&self, file: usize, watch: &Watch) -> Result<(), StorageError> {
        if self.map.entries()[file].padding || !watch.is_due(file) {
            return Ok(());
        }
        let stat = self.stat_of(file)?;
        if self.is_replaced(file, &stat)? || !watch.is_unchanged(file, &stat) {
            return Err(StorageError::Altered { path: self.path_of(file) });
        }
        Ok(())
    }

    /// Returns the path of the file when it is finished.
    pub(crate) fn path_of(&self, file: usize) -> PathBuf {
        let layout = self.layout.read();
        layout.root.join(&layout.names_of(self.map, file))
    }

    pub(crate) fn open(&self, file: usize, write: bool) -> Result<Arc<OpenFile>, StorageError> {
        let key = FileKey { store: self.store, file };
        if let Some(open) = self.handles.get(key, write) {
            return Ok(open);
        }
        let access = if write { Access::Write } else { Access::Read };
        // Held until the file is among the handles: a thread that moves files closes them
        // afterwards.
        let layout = self.layout.read();
        let opened = layout.open(self.map, file, &layout.root.open()?, access)?;
        if self.handles.locks()
            && let Some(ours) = self.lock(key, &opened, write)?
        {
            return Ok(ours);
        }
        Ok(self.handles.keep(key, opened, write))
    }

    /// Locks an opened file; exclusively, if it is to be written. Returns the handle of another of
    /// our threads if that has opened it meanwhile.
    fn lock(
        &self,
        key: FileKey,
        opened: &File,
        write: bool,
    ) -> Result<Option<Arc<OpenFile>>, StorageError> {
        if !write {
            // The lock may be held by a program that checks nothing, or by a download that somebody
            // looks at. Reading does no harm.
            let _ = flock(opened, FlockOperation::NonBlockingLockShared);
            return Ok(None);
        }
        // Our own reader would block the lock.
        self.handles.forget_reader(key);
        for _ in 0..LOCK_TRIES {
            match flock(opened, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => match self.handles.get(key, true) {
                    Some(ours) => return Ok(Some(ours)),
                    // Threads that read from it finish in a moment.
                    None => std::thread::sleep(LOCK_AGAIN),
                },
                // The file system has no locks.
                _ => return Ok(None),
            }
        }
        Err(StorageError::InUse { path: self.path_of_open(key.file) })
    }

    /// Returns the final path of the file. The caller holds the lock of the layout.
    fn path_of_open(&self, file: usize) -> PathBuf {
        let layout = self.layout.read_again();
        layout.root.join(&layout.names_of(self.map, file))
    }

    fn read_file(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let open = self.open(file, false)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match retry_on_intr(|| pread(&open.file, &mut buf[done..], at)) {
                Ok(0) => return Err(self.shortened(file, &open, offset + buf.len() as u64)),
                Ok(read) => done += read,
                Err(errno) => return Err(self.fault(Operation::Read, file, errno)),
            }
        }
        Ok(())
    }

    fn read_file_cached(
        &self,
        open: &OpenFile,
        slice: &FileSlice,
        buf: &mut [u8],
    ) -> Result<bool, StorageError> {
        let mut done = 0;
        while done < buf.len() {
            let at = slice.offset + done as u64;
            let read = match open.probe() {
                Probe::Never => return Ok(false),
                Probe::Always => retry_on_intr(|| pread(&open.file, &mut buf[done..], at)),
                Probe::Ask => retry_on_intr(|| {
                    let mut rest = [IoSliceMut::new(&mut buf[done..])];
                    preadv2(&open.file, &mut rest, at, ReadWriteFlags::NOWAIT)
                }),
            };
            match read {
                Ok(0) => {
                    let wanted = slice.offset + buf.len() as u64;
                    return Err(self.shortened(slice.file, open, wanted));
                }
                Ok(read) => done += read,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
                    if open.probe() == Probe::Ask =>
                {
                    open.set_probe(if is_memory(open) { Probe::Always } else { Probe::Never });
                }
                Err(errno) => return Err(self.fault(Operation::Read, slice.file, errno)),
            }
        }
        Ok(true)
    }

    fn write_file(&self, slice: &FileSlice, cursor: &mut Cursor<'_>) -> Result<(), StorageError> {
        let open = self.open(slice.file, true)?;
        let mut done = 0;
        while done < slice.len {
            let part = cursor.gather(usize::saturating_from(slice.len - done));
            match retry_on_intr(|| pwritev(&open.file, &part, slice.offset + done)) {
                Ok(0) => return Err(self.fault(Operation::Write, slice.file, Errno::IO)),
                Ok(written) => {
                    done += written as u64;
                    cursor.advance(written);
                }
                Err(errno) => return Err(self.fault(Operation::Write, slice.file, errno)),
            }
        }
        Ok(())
    }

    fn shortened(&self, file: usize, open: &OpenFile, wanted: u64) -> StorageError {
        match fstat(&open.file) {
            Ok(stat) => {
                let (path, len) = (self.path_of(file), u64::saturating_from(stat.st_size));
                StorageError::Changed { path, len, wanted }
            }
            Err(errno) => self.fault(Operation::Read, file, errno),
        }
    }

    fn fault(&self, operation: Operation, file: usize, errno: Errno) -> StorageError {
        StorageError::new(operation, self.path_of(file), errno)
    }
}

impl<'a> Cursor<'a> {
    /// Returns the next `len` bytes, or as much as one call takes.
    fn gather(&self, len: usize) -> SmallVec<[IoSlice<'a>; 64]> {
        let (mut left, mut skip) = (len, self.skip);
        let mut gathered = SmallVec::new();
        for part in self.parts {
            if left == 0 || gathered.len() == IOV_MAX {
                break;
            }
            let part = &part[skip..];
            let part = &part[..part.len().min(left)];
            skip = 0;
            left -= part.len();
            if !part.is_empty() {
                gathered.push(IoSlice::new(part));
            }
        }
        gathered
    }

    fn advance(&mut self, bytes: usize) {
        self.skip += bytes;
        while let Some((first, behind)) = self.parts.split_first()
            && self.skip >= first.len()
        {
            self.skip -= first.len();
            self.parts = behind;
        }
    }
}

fn is_memory(open: &OpenFile) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    // The width and sign of `f_type` differ between machines; the magic number has 32 bits.
    rustix::fs::fstatfs(&open.file)
        .is_ok_and(|stat| matches!(u64::saturating_from(stat.f_type) & 0xffff_ffff, TMPFS | RAMFS))
}

/// What the system reads ahead by default. To open files for less than that, before they are
/// needed, would only push out other handles.
const READ_AT_ONCE: u64 = 128 << 10;

/// How often and at what interval a lock is tried: for a second in total.
const LOCK_TRIES: u32 = 50;
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// The most parts that one `pwritev` takes (`UIO_MAXIOV` in Linux).
const IOV_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(gathered: &[IoSlice<'_>]) -> Vec<u8> {
        gathered.iter().flat_map(|part| part.iter().copied()).collect()
    }

    #[test]
    fn a_cursor_goes_on_in_the_middle_of_a_part() {
        let parts: [&[u8]; 4] = [b"abc", b"", b"de", b"f"];
        let mut cursor = Cursor { parts: &parts, skip: 0 };
        assert_eq!(flat(&cursor.gather(4)), b"abcd");
        cursor.advance(2);
        assert_eq!(flat(&cursor.gather(100)), b"cdef");
        cursor.advance(1);
        assert_eq!(flat(&cursor.gather(1)), b"d");
        cursor.advance(3);
        assert!(cursor.gather(1).is_empty());
    }

    #[test]
    fn one_call_takes_no_more_parts_than_the_kernel() {
        let parts = vec![&b"x"[..]; 3000];
        let cursor = Cursor { parts: &parts, skip: 0 };
        assert_eq!(cursor.gather(3000).len(), IOV_MAX);
    }
}
