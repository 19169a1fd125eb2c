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

/// An open journal. Dropping it writes what is queued.
pub struct Journal {
    queue: Arc<Queue>,
    thread: WriterThread,
    /// Idle readers, each with the number of the file it reads, counted from the one opened first.
    readers: Mutex<Vec<(u64, Reader)>>,
    path: PathBuf,
    notice: Option<String>,
}

impl Journal {
    /// The default time for which rows are kept: 90 days.
    pub const DEFAULT_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

    /// The default size limit of the file: 256 MiB, some five million responses.
    pub const DEFAULT_SIZE: u64 = 256 << 20;

    /// Opens or creates the journal. A damaged one is set aside, see [`Journal::notice`]. If the
    /// disk is full or read-only, or the system has no descriptors left, records wait in memory and
    /// the file is opened later, see [`Journal::notices`].
    ///
    /// # Errors
    /// If there cannot be a database at the path.
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

    /// Queues a record, which is written within about a second. Never waits for the disk.
    pub fn record(&self, record: Record) {
        self.queue.push(record);
    }

    /// Counts records that were not even passed to [`Journal::record`].
    pub fn skipped(&self, count: u64) {
        self.queue.skipped(count);
    }

    /// Reads from the journal, including everything recorded before, unless the file cannot be
    /// written (see [`Journal::unwritten`]). While no file could be opened, reads what an earlier
    /// program wrote, or an empty journal. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read. A damaged file is set aside before the error is returned, so the
    /// next call reads a new one.
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
                // The file was removed, and there is no room for another.
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
                // A reader that is not live would never see new rows.
                if readers.len() < READERS && reader.is_live() {
                    readers.push((file, reader));
                }
            }
            // A file read without locks may look damaged while another program writes to it.
            Err(error) if error.tells_of_damage() && reader.is_live() => {
                drop(reader);
                self.queue.damaged(file, error);
            }
            Err(_) => {}
        }
        found
    }

    /// Waits until what was recorded before is written, for a limited time. Blocks.
    pub fn flush(&self) {
        self.queue.flush();
    }

    /// Writes what is queued and ends the thread. Blocks.
    pub fn close(&self) {
        self.queue.close();
        self.thread.join();
    }

    /// Returns a notice for the user: a damaged journal was set aside.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Returns current notices for the user: why the journal cannot be written, and how many
    /// records were lost since it was opened. Safe to show.
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

    /// Returns how many records wait because the file cannot be written; `None` if it can.
    pub fn waiting(&self) -> Option<u64> {
        self.queue.trouble().map(|(_, waiting)| waiting)
    }

    /// Returns how many records of a torrent are not in the file: those that wait because it cannot
    /// be written, and lost ones that it does not mention yet.
    pub fn unwritten(&self, info_hash: InfoHash) -> MissingRecords {
        self.queue.unwritten(info_hash)
    }

    /// Returns the number of records dropped since it was opened.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Returns the number of records written since it was opened.
    pub fn written(&self) -> u64 {
        self.queue.kept()
    }

    /// Returns the number of records lost since it was opened that should have been written.
    pub fn lost(&self) -> u64 {
        self.queue.missing()
    }

    /// Returns this program's run in the file; `None` while no file could be opened.
    pub fn run(&self) -> Option<OwnRun> {
        self.queue.own_run()
    }

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

/// Idle readers that are kept.
const READERS: usize = 2;
