//! The record of who gave which piece when, and who asked the tracker what.
//!
//! ```
//! use std::time::Duration;
//! use piecework_journal::{Journal, JournalOptions};
//!
//! let folder = tempfile::tempdir()?;
//! let journal = Journal::open(&JournalOptions {
//!     path: folder.path().join("journal.sqlite"),
//!     age: Duration::from_secs(90 * 86_400),
//!     size: 64 << 20,
//!     program: "example".to_owned(),
//! })?;
//! // `journal.record(…)` for each thing that happens; then:
//! assert!(journal.read(|reader| reader.torrents())?.is_empty());
//! journal.close();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Journal`] is an SQLite database that a thread of its own writes in batches. Before it stands
//! a queue that is bounded in bytes: whoever records something takes a short lock and never waits
//! for the disk. While the file cannot be written, because its disk is full for instance, records
//! wait there and are tried again; what there is no room for is dropped, the oldest first, and
//! counted by torrent. `docs/journal.md` describes the tables for people who ask with SQL, a
//! [`Reader`] asks for our own programs.

mod database;
mod pieces;
mod queue;
mod read;
mod record;
mod request_ring;
mod requests;
mod retention;
mod timeline;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_database::{Cause, Fault, OpenError, WriterThread, is_read_only};
use queue::Queue;
use writer::Writer;

pub use pieces::{
    Giver, GiverTotal, LogSummary, PieceLog, PieceRecord, PieceResponse, TorrentName, Verdict,
};
pub use queue::{OwnRun, Unwritten};
pub use read::{Filter, Owners, Reader, TorrentRow, rfc3339};
pub use record::{Failed, Fate, Given, Judged, Record, Sent};
pub use requests::{HandedList, RequestEvent, RequestLog, RequestRecord, Via};

/// An open journal. Dropping it writes what waits.
pub struct Journal {
    queue: Arc<Queue>,
    thread: WriterThread,
    /// Each with the file it reads, counted from the one that was opened first.
    readers: Mutex<Vec<(u64, Reader)>>,
    path: PathBuf,
    notice: Option<String>,
}

/// How a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// Its file. Several programs may write into one.
    pub path: PathBuf,
    /// Rows older than this are taken out.
    pub age: Duration,
    /// Bytes that the file may have; the oldest rows make room.
    pub size: u64,
    /// Which program writes, for people.
    pub program: String,
}

/// A journal could not be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// SQLite or the disk said no.
    #[error("the journal `{}` cannot be used: {source}", printable_path(.path))]
    Sqlite {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// Its disk is full or read-only.
    #[error("the journal `{}` cannot be written: {why}", printable_path(.path))]
    Unwritable {
        /// Its file.
        path: PathBuf,
        /// What its disk lacks.
        why: Unwritable,
    },
    /// The system has no descriptor or memory left just now.
    #[error("the journal `{}` cannot be written just now: {source}", printable_path(.path))]
    Scarce {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// The file is not what was written into it.
    #[error("the journal `{}` is damaged: {source}", printable_path(.path))]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// How SQLite found out.
        source: Cause,
    },
    /// There is no such file.
    #[error("there is no journal `{}`", printable_path(.path))]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is something else.
    #[error("`{}` is not a journal, but another program's database or file", printable_path(.path))]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// It has tables that this program does not know.
    #[error("the journal `{}` has version `{found}`, which this program does not know", printable_path(.path))]
    Version {
        /// The path.
        path: PathBuf,
        /// The version.
        found: i64,
    },
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

    fn start(mut writer: Writer) -> Result<Self, JournalError> {
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
    pub fn unwritten(&self, info_hash: InfoHash) -> Unwritten {
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

impl JournalOptions {
    /// Where a journal is that is configured as `journal`: a bare name lies in `folder`. `None` if
    /// there is to be none: it is empty.
    pub fn place(journal: &Path, folder: &Path) -> Option<PathBuf> {
        let is_bare = journal.components().count() == 1 && !journal.is_absolute();
        match journal.as_os_str().is_empty() {
            true => None,
            false if is_bare => Some(folder.join(journal)),
            false => Some(journal.to_owned()),
        }
    }
}

impl JournalError {
    fn new(path: &Path, cause: impl Into<Cause>) -> Self {
        let (path, source) = (path.to_owned(), cause.into());
        match source.fault(&path) {
            Fault::Unwritable(why) => Self::Unwritable { path, why },
            Fault::Damaged => Self::Damaged { path, source },
            Fault::Scarce => Self::Scarce { path, source },
            // Rows of a sound file that make no sense are no reason to give the file up.
            Fault::Busy | Fault::Mismatched | Fault::Other => Self::Sqlite { path, source },
        }
    }

    fn open(path: &Path, error: OpenError) -> Self {
        match error {
            OpenError::Foreign => Self::Foreign { path: path.to_owned() },
            OpenError::Version { found } => Self::Version { path: path.to_owned(), found },
            OpenError::Unwritable(why) => Self::Unwritable { path: path.to_owned(), why },
            OpenError::Failed(cause) => Self::new(path, cause),
        }
    }

    /// Whether it may work later, without anybody doing anything about the journal.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unwritable { .. } | Self::Scarce { .. })
    }

    /// Whether a journal that was sound when it was opened no longer is, or no longer is there.
    fn tells_of_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Foreign { .. } | Self::Missing { .. })
    }
}

/// Connections for reading that are kept.
const READERS: usize = 2;
