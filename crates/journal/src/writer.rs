//! Writes to the file of a journal, and replaces it if it is damaged or missing.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{TransactionBehavior, params};

use super::database::{Database, aside_notice};
use super::error::JournalError;
use super::losses::Losses;
use super::options::JournalOptions;
use super::record::Record;
use super::run::OwnRun;
use super::time::{millis, now_ms};
use super::write::RowWriter;
use piecework_core::{Unwritable, printable_path};
use piecework_database::{FileId, is_damage, is_read_only, pragma, set_aside_if};

/// The writer of a journal.
pub(super) struct Writer {
    options: JournalOptions,
    /// `None` while it cannot be opened.
    database: Option<Database>,
    /// The file that was opened last.
    file: Option<FileId>,
    /// How the file is damaged, until it is set aside.
    damage: Option<String>,
    /// How often another file was opened.
    files: u64,
    run: Option<OwnRun>,
    rows: RowWriter,
    /// Changes when another program writes to the file.
    version: i64,
    started: Instant,
    pruned: Option<Instant>,
    /// A notice for the user about how the file was first opened.
    notice: Option<String>,
    /// Whether the disk has room.
    #[cfg(test)]
    room: Option<std::sync::Arc<std::sync::atomic::AtomicBool>>,
}

/// Why a batch was not written.
pub(super) enum WriteError {
    Sqlite(rusqlite::Error),
    /// There is no file to write to.
    Open(JournalError),
}

impl Writer {
    /// Creates a writer that has not opened its file yet.
    pub(crate) fn new(options: &JournalOptions) -> Self {
        Self {
            options: options.clone(),
            database: None,
            file: None,
            damage: None,
            files: 0,
            run: None,
            rows: RowWriter::new(0),
            version: 0,
            started: Instant::now(),
            pruned: None,
            notice: None,
            #[cfg(test)]
            room: None,
        }
    }

    /// Opens the file at the path, which may be another one than before.
    pub(crate) fn open(&mut self) -> Result<OwnRun, JournalError> {
        #[cfg(test)]
        self.look_for_room()?;
        let path = &self.options.path;
        if is_read_only(path) {
            let (path, why) = (path.clone(), Unwritable::ReadOnly);
            return Err(JournalError::Unwritable { path, why });
        }
        if let (Some(why), Some(file)) = (&self.damage, self.file) {
            let aside = set_aside_if(path, file, SystemTime::now())
                .map_err(|error| JournalError::new(path, error))?;
            if let Some(aside) = aside {
                tracing::warn!("{}", aside_notice(path, &aside, why));
            }
            self.damage = None;
        }
        let database = Database::open(path)?;
        let run = self.begin_run(&database).map_err(|error| JournalError::new(path, error))?;
        if let Some(notice) = &database.notice {
            match self.file {
                None => self.notice = Some(notice.clone()),
                Some(_) => tracing::warn!("{notice}"),
            }
        }
        if self.file.is_some() {
            self.files += 1;
        }
        self.file = Some(database.file);
        self.run = Some(run);
        self.rows.run = run.id;
        self.database = Some(database);
        Ok(run)
    }

    /// Returns a notice for the user about how the file was opened.
    pub(crate) fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Returns how often another file was opened.
    pub(crate) fn files(&self) -> u64 {
        self.files
    }

    /// Returns this program's run in the file.
    pub(crate) fn own_run(&self) -> Option<OwnRun> {
        self.run
    }

    /// Returns the path of the file, safe to show.
    pub(crate) fn shown(&self) -> String {
        printable_path(&self.options.path)
    }

    /// Writes a batch and the losses before it: all or nothing.
    pub(crate) fn write(&mut self, records: &[Record], lost: &Losses) -> Result<(), WriteError> {
        let mut written = self.try_write(records, lost);
        if let Err(WriteError::Sqlite(error)) = &written
            && is_damage(error)
        {
            self.found_damaged(&error.to_string());
            written = self.try_write(records, lost);
        }
        if written.is_err() {
            // Ids from a transaction that was rolled back are invalid.
            self.rows.forget();
        }
        written
    }

    /// Converts an error for the user.
    pub(crate) fn error(&self, fault: WriteError) -> JournalError {
        match fault {
            WriteError::Sqlite(error) => JournalError::new(&self.options.path, error),
            WriteError::Open(error) => error,
        }
    }

    /// Closes the file, which is damaged even if another check says otherwise. The next open sets
    /// it aside.
    pub(crate) fn found_damaged(&mut self, why: &str) {
        self.database = None;
        self.damage = Some(why.to_owned());
        self.rows.forget();
    }

    /// Prunes the file by a bounded amount, if that was not done recently.
    pub(crate) fn prune_if_due(&mut self) {
        if self.pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE_EVERY) {
            self.prune();
        }
    }

    /// Prunes the file by a bounded amount.
    pub(crate) fn prune(&mut self) {
        self.pruned = Some(Instant::now());
        let pruned = self.try_prune();
        if let Err(error) = pruned {
            if is_damage(&error) {
                self.found_damaged(&error.to_string());
            } else {
                tracing::debug!(%error, "old rows of the journal could not be removed");
            }
        }
        if self.database.as_mut().is_some_and(|database| std::mem::take(&mut database.swept)) {
            self.rows.forget();
        }
    }

    /// Records the end of this run.
    pub(crate) fn end(&mut self) {
        let (age, clocks) = (millis(self.options.age), self.clocks());
        let Some(database) = &mut self.database else { return };
        if is_read_only(&self.options.path) {
            // Otherwise closing the connection would try it.
            let option = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = database.connection.set_db_config(option, true) {
                tracing::debug!(%error, "the journal's log may be moved into it on a read-only disk");
            }
            return;
        }
        let ended = database.expired(age, clocks, true).and_then(|_| {
            database.connection.execute(
                "UPDATE runs SET ended_at = ?2 WHERE id = ?1",
                params![self.rows.run, now_ms()],
            )
        });
        if let Err(error) = ended {
            tracing::debug!(%error, "the end of this run could not be recorded in the journal");
        }
    }

    /// Makes everything fail while `room` is false, as on a full disk.
    #[cfg(test)]
    pub(crate) fn only_while(&mut self, room: std::sync::Arc<std::sync::atomic::AtomicBool>) {
        self.room = Some(room);
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    #[cfg(test)]
    fn look_for_room(&self) -> Result<(), JournalError> {
        let has = |room: &std::sync::Arc<std::sync::atomic::AtomicBool>| {
            room.load(std::sync::atomic::Ordering::Relaxed)
        };
        match self.room.as_ref().is_none_or(has) {
            true => Ok(()),
            false => Err(JournalError::Unwritable {
                path: self.options.path.clone(),
                why: Unwritable::Full,
            }),
        }
    }

    fn try_write(&mut self, records: &[Record], lost: &Losses) -> Result<(), WriteError> {
        #[cfg(test)]
        self.look_for_room().map_err(WriteError::Open)?;
        let path = &self.options.path;
        if is_read_only(path) {
            let (path, why) = (path.clone(), Unwritable::ReadOnly);
            return Err(WriteError::Open(JournalError::Unwritable { path, why }));
        }
        let is_there = || {
            let there = FileId::of(&self.options.path).ok();
            there.is_some() && there == self.file
        };
        if self.database.is_some() && !is_there() {
            // Another program has set it aside, or somebody has removed it: nobody would read what
            // is written to it.
            self.database = None;
            self.rows.forget();
        }
        if self.database.is_none() {
            self.open().map_err(WriteError::Open)?;
        }
        if records.is_empty() && lost.is_empty() {
            return Ok(());
        }
        let Some(database) = &mut self.database else { return Ok(()) };
        let transaction =
            database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // This must come after the transaction has begun: until then others may write.
        let version: i64 = pragma(&transaction, "data_version")?;
        if version != self.version {
            self.version = version;
            self.rows.forget();
        }
        self.rows.write(&transaction, records)?;
        self.rows.write_lost(&transaction, lost, now_ms())?;
        transaction.commit()?;
        Ok(())
    }

    /// Gives this run its number: the one it had in an earlier file, if that is free.
    fn begin_run(&self, database: &Database) -> rusqlite::Result<OwnRun> {
        let connection = &database.connection;
        let last = |table| {
            let sql = format!("SELECT ifnull(max(id), 0) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0))
        };
        let (given, bad) = (last("given_rows")?, last("bad_rows")?);
        connection.execute(
            "INSERT OR IGNORE INTO runs (id, program, started_at) VALUES (?1, ?2, ?3)",
            params![self.run.map(|run| run.id), self.options.program, now_ms()],
        )?;
        let id = self.run.map_or_else(|| connection.last_insert_rowid(), |run| run.id);
        Ok(OwnRun { id, given, bad })
    }

    fn try_prune(&mut self) -> rusqlite::Result<()> {
        let (age, clocks) = (millis(self.options.age), self.clocks());
        let Some(database) = &mut self.database else { return Ok(()) };
        if is_read_only(&self.options.path) {
            return Ok(());
        }
        let expired = database.expired(age, clocks, false)?;
        for _ in 0..PRUNES {
            if !database.prune(self.options.size, &expired)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns the wall clock and a monotonic one, in milliseconds.
    fn clocks(&self) -> (i64, i64) {
        (now_ms(), millis(self.started.elapsed()))
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The time between two checks of the size and age of the file.
const PRUNE_EVERY: Duration = Duration::from_secs(2);

/// Pruning steps per check: 50,000 rows, some 100 ms, which keeps up with writing.
const PRUNES: usize = 10;
