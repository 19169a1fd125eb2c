//! Layer 3: the record of who gave which piece when, and who asked the tracker what.
//!
//! A [`Journal`] is an SQLite database that a thread of its own writes in batches. Before it stands
//! a bounded queue: whoever records something takes a short lock and never waits for the disk; what
//! there is no room for is dropped, the oldest first, and counted. `docs/journal.md` describes the
//! tables for people who ask with SQL, a [`Reader`] asks for our own programs.

mod database;
mod pieces;
mod queue;
mod read;
mod record;
mod requests;
mod timeline;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use database::{Database, shown};
use queue::{Queue, now_ms};

pub use pieces::{
    Giver, GiverTotal, LogSummary, PieceLog, PieceRecord, PieceResponse, TorrentName, Verdict,
};
pub use read::{Filter, Owners, Reader, TorrentRow, rfc3339};
pub use record::{Failed, Fate, Given, Judged, Record, Sent};
pub use requests::{HandedList, RequestEvent, RequestLog, RequestRecord, Via};

/// An open journal. Dropping it writes what waits.
pub struct Journal {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Each with the file it reads, counted from the one that was opened first.
    readers: Mutex<Vec<(u64, Reader)>>,
    path: PathBuf,
    notice: Option<String>,
    run: i64,
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
    #[error("the journal `{}` cannot be used: {reason}", shown(.path))]
    Sqlite {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not what was written into it.
    #[error("the journal `{}` is damaged: {reason}", shown(.path))]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// How SQLite found out.
        reason: String,
    },
    /// There is no such file.
    #[error("there is no journal `{}`", shown(.path))]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is something else.
    #[error("`{}` is no journal", shown(.path))]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// It has tables that this program does not know.
    #[error("the journal `{}` has version `{found}`, which this program does not know", shown(.path))]
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

    /// Opens the journal or begins one; a damaged one is set aside, see [`Journal::notice`].
    ///
    /// # Errors
    /// If there can be no database there.
    pub fn open(options: &JournalOptions) -> Result<Self, JournalError> {
        let path = &options.path;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| JournalError::io(path, &error))?;
        }
        let database = Database::open(path)?;
        database
            .connection
            .execute(
                "INSERT INTO runs (program, started_at) VALUES (?1, ?2)",
                rusqlite::params![options.program, now_ms()],
            )
            .map_err(|error| JournalError::new(path, &error))?;
        let run = database.connection.last_insert_rowid();
        let notice = database.notice.clone();
        let queue = Arc::new(Queue::default());
        let thread = {
            let (queue, options) = (Arc::clone(&queue), options.clone());
            std::thread::Builder::new()
                .name("journal".to_owned())
                .spawn(move || queue.run(database, &options, run))
                .map_err(|error| JournalError::io(path, &error))?
        };
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
            readers: Mutex::default(),
            path: path.clone(),
            notice,
            run,
        })
    }

    /// Has something written within a second or so. Never waits for the disk.
    pub fn record(&self, record: Record) {
        self.queue.push(record);
    }

    /// Counts records that were not even offered.
    pub fn skipped(&self, count: u64) {
        self.queue.skipped(count);
    }

    /// Looks something up, all that was recorded before included. Blocks.
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
        let spare = {
            let mut readers = self.readers.lock();
            readers.retain(|(of, _)| *of == file);
            readers.pop()
        };
        let reader = match spare {
            Some((_, reader)) => reader,
            None => Reader::open(&self.path).inspect_err(|error| {
                if error.tells_of_damage() {
                    self.queue.damaged(file, error);
                }
            })?,
        };
        let found = look(&reader);
        match &found {
            Ok(_) => {
                let mut readers = self.readers.lock();
                if readers.len() < READERS {
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
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the journal has panicked");
        }
    }

    /// What people should know: a damaged journal was set aside.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Records dropped since it was opened.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Records written since it was opened.
    pub fn written(&self) -> u64 {
        self.queue.kept()
    }

    /// The number of this program's run in the file.
    pub fn run(&self) -> i64 {
        self.run
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
    fn new(path: &Path, error: &rusqlite::Error) -> Self {
        let reason = match error {
            rusqlite::Error::SqliteFailure(_, Some(reason)) => reason.clone(),
            error => error.to_string(),
        };
        match database::is_damage(error) {
            true => Self::Damaged { path: path.to_owned(), reason },
            false => Self::Sqlite { path: path.to_owned(), reason },
        }
    }

    /// Whether a journal that was sound when it was opened no longer is, or no longer is there.
    fn tells_of_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Foreign { .. } | Self::Missing { .. })
    }

    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Sqlite { path: path.to_owned(), reason: error.to_string() }
    }
}

/// Connections for reading that are kept.
const READERS: usize = 2;
