//! SQLite databases that survive damage, full disks and power cuts.
//!
//! [`DatabaseOptions`] describes a database: what identifies it, how it is shared, and how its tables
//! are brought up to date. [`DatabaseOptions::open`] opens or creates one.
//! [`DatabaseOptions::open_unwritable`] and [`DatabaseOptions::open_reader`] read one without writing
//! anything. [`Fault`] says what can be done about an error, and [`set_aside`] renames
//! a damaged one. [`WriteQueue`] holds what waits to be written, for the one thread that writes it.
//!
//! ```
//! use piecework_database::{Access, DatabaseOptions, Synchronous};
//!
//! const NOTES: DatabaseOptions = DatabaseOptions {
//!     application: Some(0x4e6f_7465),
//!     version: 1,
//!     upgrade: |transaction, _from| transaction.execute_batch("CREATE TABLE notes (text TEXT)"),
//!     needs_check: |_| Ok(true),
//!     access: Access::Exclusive,
//!     requires_wal: false,
//!     synchronous: Synchronous::Full,
//!     auto_vacuum: false,
//!     cache_kib: None,
//!     log_kept: 1 << 20,
//! };
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("notes.sqlite");
//! let opened = NOTES.open(&path)?;
//! opened.connection.execute("INSERT INTO notes VALUES (?1)", ["hello"])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod fault;
mod files;
mod options;
mod write_queue;

#[cfg(test)]
mod tests;

pub use fault::{Cause, Fault, is_busy, is_damage};
pub use files::{
    FileId, create_private, is_read_only, probe, set_aside, set_aside_if, with_suffix,
};
pub use options::{Access, DatabaseOptions, OpenError, Opened, Synchronous, check, pragma};
pub use write_queue::{Backlog, Due, Ending, QueueGuard, Retry, WriteQueue, WriterThread};
