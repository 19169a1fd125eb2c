//! An open journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::error::JournalError;
use super::options::JournalOptions;
use super::queue::{MissingRecords, Queue};
use super::read::Reader;
use super::record::Record;
use super::run::OwnRun;
use super::writer::Writer;
use piecework_core::{InfoHash, printable_path};
use piecework_database::{WriterThread, is_read_only};

/// An open journal. Dropping it writes what waits.
pub struct Journal {
    queue: Arc<Queue>,
    thread: WriterThread,
    /// Each with the file it reads, counted from the one that was opened first.
    readers: Mutex<Vec<(u64, Reader)>>,
    path: PathBuf,
    notice: Option<String>,
}

impl Journal {
    /// How long rows are kept unless told otherwise: 90 days.
    pub const DEFAULT_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

    /// Bytes of the file unless told otherwise: 256 MiB, some five million responses.
    pub const DEFAULT_SIZE: u64 = 256 << 20;

    /// Opens the journal or begins one; a damaged one is set aside, see [`Journal::notice`]. If
    /// its disk is full or read-only, or the system is short of descriptors, records wait in memory and
    /// the file is opened later, see [`Journal::notices`].
    ///
    /// # Errors
    /// If there can be no database there.
    pub fn open(options: &JournalOptions) -> Result<Self, JournalError> {
        Self::start(Writer::new(options))
    }

    pub(super) fn start(mut writer: Writer) -> Result<Self, JournalError> {
        let opened = match writer.open() {
            Err(error) if !error.may_pass() => return Err(error),
            opened => opened,
        };
        let notice = writer.notice().map(str::to_owned);
        let path = writer.path().to_owned();
        let queue = Arc::new(Queue::new(opened));
        let thread = {
            let queue = Arc::clone(&queue);
            WriterThread::spawn("journal", "the journal", move || queue.run(writer))
                .map_err(|error| JournalError::new(&path, error))?
        };
        Ok(Self { queue, thread, readers: Mutex::default(), path, notice })
    }

    /// Has something written within a second or so. Never waits for the disk.
    pub fn record(&self, record: Record) {
        self.queue.push(record);
    }

    /// Counts records that were not even offered.
    pub fn skipped(&self, count: u64) {
        self.queue.skipped(count);
    }

    /// Looks something up, all that was recorded before included, unless the file cannot be written
    /// (see [`Journal::unwritten`]). While no file could be opened, what an earlier program wrote
    /// is read, or an empty journal. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read. One that turns out to be damaged is set aside before the error
    /// is given, so that the next look is at a new one.
    pub fn read<T>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.flush();
        let file = self.queue.file();
        if self.queue.own_run().is_none() {
            let reader = Reader::open(&self.path).or_else(|_| Reader::empty(&self.path))?;
            return look(&reader);
        }
        let spare = {
            let mut readers = self.readers.lock();
            let is_read_only = is_read_only(&self.path);
            readers.retain(|(of, _)| *of == file && !is_read_only);
            readers.pop()
        };
        let reader = match spare {
            Some((_, reader)) => reader,
            None => match Reader::open(&self.path) {
                Ok(reader) => reader,
                // It was taken away, and there is no room for another.
                Err(_) if self.queue.trouble().is_some() => Reader::empty(&self.path)?,
                Err(error) => {
                    if error.tells_of_damage() {
                        self.queue.damaged(file, &error);
                    }
                    return Err(error);
                }
            },
        };
        let found = look(&reader);
        match &found {
            Ok(_) => {
                let mut readers = self.readers.lock();
                // One that is not live would never see what is new.
                if readers.len() < READERS && reader.is_live() {
                    readers.push((file, reader));
                }
            }
            // A file that is read as if nobody wrote it may look damaged while somebody does.
            Err(error) if error.tells_of_damage() && reader.is_live() => {
                drop(reader);
                self.queue.damaged(file, error);
            }
            Err(_) => {}
        }
        found
    }

    /// Waits until what was recorded before is written, but not for ever. Blocks.
    pub fn flush(&self) {
        self.queue.flush();
    }

    /// Writes what waits and ends the thread. Blocks.
    pub fn close(&self) {
        self.queue.close();
        self.thread.join();
    }

    /// What people should know: a damaged journal was set aside.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// What people should know about it now: it cannot be written, and why; how many records were
    /// lost since it was opened. Safe to show.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        let records = |count: u64| if count == 1 { "record" } else { "records" };
        if let Some((error, waiting)) = self.queue.trouble() {
            notices.push(match waiting {
                0 => error.to_string(),
                waiting => format!(
                    "{error}; `{waiting}` {} wait in memory and will be written as soon as that \
                     is possible",
                    records(waiting)
                ),
            });
        }
        let lost = self.queue.missing();
        if lost > 0 {
            notices.push(format!(
                "`{lost}` {} of the journal `{}` are lost, because it could not be written in time",
                records(lost),
                printable_path(&self.path)
            ));
        }
        notices
    }

    /// How many records wait because the file cannot be written; `None` if it can.
    pub fn waiting(&self) -> Option<u64> {
        self.queue.trouble().map(|(_, waiting)| waiting)
    }

    /// What of a torrent is not in the file: records that wait because it cannot be written, and
    /// lost ones of which it does not tell yet.
    pub fn unwritten(&self, info_hash: InfoHash) -> MissingRecords {
        self.queue.unwritten(info_hash)
    }

    /// Records dropped since it was opened.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Records written since it was opened.
    pub fn written(&self) -> u64 {
        self.queue.kept()
    }

    /// Records that were to be written and were lost since it was opened.
    pub fn lost(&self) -> u64 {
        self.queue.missing()
    }

    /// This program's run in the file; `None` while no file could be opened.
    pub fn run(&self) -> Option<OwnRun> {
        self.queue.own_run()
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Connections for reading that are kept.
const READERS: usize = 2;
