//! Blocks to upload, read from a store, and the metadata of its torrent.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};
use tracing::debug;

use crate::net::{BlockSource, ReadFuture, SourceError, TorrentFuture};
use piecework_core::metainfo::Metainfo;
use piecework_storage::{HashPool, Store, Watch};

/// Reads from memory at once, and from the disk on the hash service's threads.
pub(super) struct StoreSource {
    pub store: Arc<Store>,
    hashing: Arc<HashPool>,
    pub watch: Arc<Watch>,
    metainfo: Arc<Metainfo>,
    /// Held while the `.torrent` is read, so that many peers cause one read.
    reading: Arc<Mutex<()>>,
}

impl StoreSource {
    pub(super) fn new(
        store: Arc<Store>,
        hashing: Arc<HashPool>,
        watch: Arc<Watch>,
        metainfo: Arc<Metainfo>,
    ) -> Self {
        Self { store, hashing, watch, metainfo, reading: Arc::default() }
    }
}

impl BlockSource for StoreSource {
    fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError> {
        Ok(self.store.serve_cached(offset, into, &self.watch)?)
    }

    fn read(&self, offset: u64, into: Vec<u8>) -> ReadFuture {
        let (reply, answer) = oneshot::channel();
        let (store, watch) = (Arc::clone(&self.store), Arc::clone(&self.watch));
        self.hashing.read(store, watch, offset, into, move |read| {
            // Nobody waits for it if the link is gone.
            let _ = reply.send(read);
        });
        Box::pin(async move {
            match answer.await {
                Ok(read) => Ok(read?),
                Err(_) => Err(SourceError::Ended),
            }
        })
    }

    fn torrent(&self) -> TorrentFuture {
        let (metainfo, reading) = (Arc::clone(&self.metainfo), Arc::clone(&self.reading));
        Box::pin(async move {
            let _reading = reading.lock().await;
            // The bytes are in memory, unless the torrent was asleep.
            let read = tokio::task::spawn_blocking(move || metainfo.bytes()).await;
            match read {
                Ok(Ok(bytes)) => Some(bytes),
                Ok(Err(error)) => {
                    debug!(%error, "the metadata cannot be given");
                    None
                }
                Err(_) => None,
            }
        })
    }
}
