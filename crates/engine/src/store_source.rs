//! Blocks to upload, read from a store.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::net::{BlockSource, ReadFuture, SourceError};
use piecework_storage::{HashPool, Store, Watch};

/// Reads from memory at once, and from the disk on the hash service's threads.
pub(super) struct StoreSource {
    pub store: Arc<Store>,
    pub hashing: Arc<HashPool>,
    pub watch: Arc<Watch>,
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
}
