//! A torrent on disk: layout, verify, write, read; and the hash service.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::AtomicBool;
//! use piecework_storage::{CreateOptions, FileHandles, Store, StoreMode, create, verify};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("linux.iso");
//! std::fs::write(&file, vec![7; 100_000])?;
//! let cancel = AtomicBool::new(false);
//! let made = create(&file, CreateOptions::default(), 2, |_| {}, &cancel)?;
//!
//! std::fs::write(&file, vec![8; 100_000])?;
//! let handles = Arc::new(FileHandles::new(16));
//! let store = Store::new(folder.path(), Arc::new(made.metainfo), handles, StoreMode::ReadOnly)?;
//! let (right, files) = verify(&store, |_| {}, &cancel)?;
//! assert_eq!(right.count(), 0);
//! assert_eq!(files[0].found_len, Some(100_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - A [`Store`] is one torrent's content beneath one folder. It opens its files when they are
//!   needed, never through a symbolic link, and shares a bounded number of open files with all
//!   other stores ([`FileHandles`]).
//! - A [`HashPool`] hashes pieces that are whole and writes those that are right, in one go. Only
//!   pieces too long to be kept in memory are written before they are verified.
//! - [`check()`] finds out which pieces are there already, [`verify`] which files are damaged,
//!   [`create()`] makes a torrent: each with all cores.
//!
//! Everything blocks and may be called from many threads. Every failure is a [`StorageError`]
//! that says what one can do about it, and is never a peer's fault. Nothing is truncated
//! or replaced; content is removed by [`Store::remove_data`] and, once a copy of it was verified,
//! by moving it.

#![warn(missing_docs)]

mod alter;
mod audit;
mod backlog;
mod beneath;
mod check;
mod collect;
mod company;
mod create;
mod damage;
mod desks;
mod disk_names;
mod error;
mod file_paths;
mod files;
mod folder;
mod handles;
mod hash;
mod jobs;
mod mounts;
mod names;
mod places;
mod pool;
mod relocate;
mod renaming;
mod resume;
mod room;
mod roots;
mod store;
mod strangers;
mod sweep;
mod watch;
mod whole_file;

pub use audit::Extent;
pub use check::{CheckProgress, Checked, check, check_step_by_step};
pub use create::{
    CreateError, CreateOptions, CreateProgress, Created, LeftOut, LeftOutReason, Selection, create,
};
pub use damage::{FileReport, file_reports, verify};
pub use disk_names::{content_names, disk_names, may_be_called};
pub use error::{Operation, StorageError};
pub use file_paths::{FilePath, FolderIdentity};
pub use folder::{FolderEntries, FolderEntry, folder_entries};
pub use handles::FileHandles;
pub use hash::hashing_notice;
pub use mounts::mount_point;
pub use pool::{FinishPiece, Finished, HashPool, PoolLoad};
pub use relocate::{MoveProgress, relocate};
pub use renaming::rename_new;
pub use resume::{Survey, survey};
pub use room::{Room, free_space, room};
pub use roots::AllowedRoots;
pub use store::{INCOMPLETE_SUFFIX, Store, StoreMode, StoreOptions};
pub use watch::Watch;
pub use whole_file::{write_new, write_whole};

#[cfg(test)]
mod tests;
