//! The block list in its file.

use std::fmt::Display;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::background::blocking;
use super::reason::Reason;
use super::torrents::Torrents;
use super::{DaemonConfig, DaemonError};
use crate::block_list::{BlockList, Parsed};
use piecework_core::printable_path;
use piecework_engine::Session;

/// Reads the block list and applies it to the session.
pub(super) struct BlockListFile {
    torrents: Arc<Torrents>,
    session: Session,
    path: Option<PathBuf>,
    loaded: Mutex<LoadedList>,
}

/// The block list in use.
#[derive(Default)]
struct LoadedList {
    ranges: u64,
    /// Modification time of the file.
    modified: Option<SystemTime>,
}

impl BlockListFile {
    pub(crate) fn new(config: &DaemonConfig, torrents: Arc<Torrents>, session: Session) -> Self {
        Self { torrents, session, path: config.block_list.clone(), loaded: Mutex::default() }
    }

    /// Returns the number of ranges in use.
    pub(crate) fn ranges(&self) -> u64 {
        self.loaded.lock().ranges
    }

    /// Reads the list if the settings enable it, and returns the number of its ranges. Reads an
    /// unchanged file again only if `anew`.
    ///
    /// # Errors
    /// If it cannot be read. The previous list stays in use then.
    pub(crate) async fn read(&self, anew: bool) -> Result<u64, DaemonError> {
        let path = self.path.clone();
        let Some(path) = path.filter(|_| self.torrents.table().settings.block_list) else {
            self.session.set_block_list(Arc::new(|_| false));
            *self.loaded.lock() = LoadedList::default();
            return Ok(0);
        };
        let before = self.loaded.lock().modified;
        let read = blocking(move || {
            let sentence = |why: &dyn Display| {
                format!("the block list `{}` cannot be used: {why}", printable_path(&path))
            };
            let io = |error: std::io::Error| {
                DaemonError::not_found(Reason::with_cause(sentence(&error), error))
            };
            let file = std::fs::File::open(&path).map_err(io)?;
            let modified = file.metadata().and_then(|meta| meta.modified()).ok();
            if !anew && modified.is_some() && modified == before {
                return Ok(None);
            }
            let mut text = Vec::new();
            file.take(LARGEST + 1).read_to_end(&mut text).map_err(io)?;
            if text.len() as u64 > LARGEST {
                let why = format!("it is larger than `{LARGEST}` bytes");
                return Err(DaemonError::not_found(sentence(&why)));
            }
            let parsed = BlockList::parse(&text).map_err(|error| {
                DaemonError::not_found(Reason::with_cause(sentence(&error), error))
            })?;
            if let Parsed { skipped: lines @ 1.., first_skipped: Some(first), .. } = parsed {
                let shown = printable_path(&path);
                tracing::warn!(
                    "`{lines}` lines of `{shown}` are invalid; the first is line `{first}`"
                );
            }
            Ok(Some((parsed.list, modified)))
        });
        let Some((list, modified)) = read.await?? else { return Ok(self.loaded.lock().ranges) };
        let ranges = list.len() as u64;
        self.session.set_block_list(Arc::new(move |ip: IpAddr| list.contains(ip)));
        *self.loaded.lock() = LoadedList { ranges, modified };
        tracing::info!("the block list has `{ranges}` ranges");
        Ok(ranges)
    }
}

/// Maximum length of a list in bytes: five million lines of fifty bytes.
const LARGEST: u64 = 256 << 20;
