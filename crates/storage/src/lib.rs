//! The content of torrents on disk: layout, verification, writing and reading; and the hash threads.
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
//! - A [`Store`] is the content of one torrent beneath one folder. It opens files when they are
//!   needed, never through a symbolic link, and shares a bounded number of open files with all
//!   other stores ([`FileHandles`]).
//! - A [`HashPool`] hashes complete pieces and writes those that are right, each at once. Only
//!   pieces that are too long for memory are written before they are verified.
//! - [`check()`] finds out which pieces are on disk, [`verify`] which files are damaged, and
//!   [`create()`] makes a torrent: each on all cores.
//!
//! Everything blocks and may be called from many threads. Every failure is a [`StorageError`], which
//! says what one can do about it, and is never the fault of a peer. Nothing is truncated or
//! replaced. Content is only removed by [`Store::remove_data`] and, after a copy was verified, by
//! moving it.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

mod absolute;
mod audit;
mod check;
mod collect;
mod confined;
mod create;
mod create_error;
mod damage;
mod data_ranges;
mod disk_admission;
mod disk_names;
mod error;
mod file_paths;
mod file_state;
mod files;
mod finish_piece;
mod folder;
mod folder_changes;
mod foreign_files;
mod free_space;
mod handles;
mod hash;
mod hash_batching;
mod job_queue;
mod layout;
mod mounts;
mod names;
mod piece_check;
mod pool;
mod relocate;
mod renaming;
mod resume;
mod roots;
mod store;
mod sweep;
mod watch;
mod whole_file;
mod write_back;

pub use check::{CheckProgress, CheckResult, check, check_step_by_step};
pub use collect::{Omission, OmissionReason, Selection};
pub use create::{CreateOptions, CreateProgress, CreatedTorrent, create};
pub use create_error::CreateError;
pub use damage::{FileReport, file_reports, verify};
pub use disk_names::{content_names, disk_names, may_be_called};
pub use error::{Operation, StorageError, TorrentReadError};
pub use file_paths::{FilePath, FolderIdentity};
pub use file_state::Extent;
pub use finish_piece::FinishPiece;
pub use folder::{FolderEntries, FolderEntry, folder_entries};
pub use free_space::{DiskSpace, disk_space, free_space};
pub use handles::FileHandles;
pub use hash::hashing_notice;
pub use layout::INCOMPLETE_SUFFIX;
pub use mounts::mount_point;
pub use piece_check::PieceResult;
pub use pool::{HashPool, PoolLoad};
pub use relocate::{MoveProgress, relocate};
pub use renaming::rename_new;
pub use resume::{Survey, survey};
pub use roots::AllowedRoots;
pub use store::{Store, StoreMode, StoreOptions};
pub use watch::Watch;
pub use whole_file::{write_new, write_whole};

#[cfg(test)]
mod tests;
