//! The block list in its file.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;

use super::DaemonError;
use super::inner::{Blocked, Inner, blocking};
use super::roots::shown;
use crate::block_list::{BlockList, Parsed};

impl Inner {
    /// Reads the list if it is wanted, and, unless it is `anew`, only if its file has changed;
    /// gives the number of its ranges.
    ///
    /// # Errors
    /// If it cannot be read: then the one before holds on.
    pub async fn read_block_list(&self, anew: bool) -> Result<u64, DaemonError> {
        let path = self.config.block_list.clone();
        let Some(path) = path.filter(|_| self.book.lock().settings.block_list) else {
            self.session.set_block_list(Arc::new(|_| false));
            *self.blocked.lock() = Blocked::default();
            return Ok(0);
        };
        let before = self.blocked.lock().modified;
        let read = blocking(move || {
            let failed = |why: String| {
                DaemonError::NotFound(format!(
                    "the block list `{}` cannot be used: {why}",
                    shown(&path)
                ))
            };
            let io = |error: std::io::Error| failed(error.to_string());
            let file = std::fs::File::open(&path).map_err(io)?;
            let modified = file.metadata().and_then(|meta| meta.modified()).ok();
            if !anew && modified.is_some() && modified == before {
                return Ok(None);
            }
            let mut text = Vec::new();
            file.take(LARGEST + 1).read_to_end(&mut text).map_err(io)?;
            if text.len() as u64 > LARGEST {
                return Err(failed(format!("it is larger than `{LARGEST}` bytes")));
            }
            let parsed = BlockList::parse(&text).map_err(|error| failed(error.to_string()))?;
            if let Parsed { skipped: lines @ 1.., first_skipped: Some(first), .. } = parsed {
                let shown = shown(&path);
                tracing::warn!(
                    "`{lines}` lines of `{shown}` make no sense, the first is `{first}`"
                );
            }
            Ok(Some((parsed.list, modified)))
        });
        let Some((list, modified)) = read.await?? else { return Ok(self.blocked.lock().ranges) };
        let ranges = list.len() as u64;
        self.session.set_block_list(Arc::new(move |ip: IpAddr| list.contains(ip)));
        *self.blocked.lock() = Blocked { ranges, modified };
        tracing::info!("the block list has `{ranges}` ranges");
        Ok(ranges)
    }
}

/// Bytes of a list: five million lines of fifty.
const LARGEST: u64 = 256 << 20;
