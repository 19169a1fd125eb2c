//! Blocks to upload, read from a store.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::net::{BlockSource, ReadFuture, SourceError};
use piecework_storage::{HashPool, StorageError, Store, Watch};

/// Reads from memory at once, and from the disk on the hash service's threads.
pub(super) struct StoreSource {
    pub store: Arc<Store>,
    pub hashing: Arc<HashPool>,
    pub watch: Arc<Watch>,
    /// The first error of a read.
    pub fault: Arc<Mutex<Option<StorageError>>>,
}

/// Notes why a read failed. The network gets a sentence.
fn noted(fault: &Mutex<Option<StorageError>>, error: StorageError) -> SourceError {
    let told = SourceError(error.to_string());
    fault.lock().get_or_insert(error);
    told
}

impl BlockSource for StoreSource {
    fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError> {
        let read = self.store.serve_cached(offset, into, &self.watch);
        read.map_err(|error| noted(&self.fault, error))
    }

    fn read(&self, offset: u64, into: Vec<u8>) -> ReadFuture {
        let (reply, answer) = oneshot::channel();
        let (store, watch) = (Arc::clone(&self.store), Arc::clone(&self.watch));
        let fault = Arc::clone(&self.fault);
        self.hashing.read(store, watch, offset, into, move |read| {
            // Nobody waits for it if the link is gone.
            let _ = reply.send(read);
        });
        Box::pin(async move {
            match answer.await {
                Ok(read) => read.map_err(|error| noted(&fault, error)),
                Err(_) => Err(SourceError("the session is shutting down".to_owned())),
            }
        })
    }
}
