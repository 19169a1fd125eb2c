//! Blocks to upload come from a store.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::net::{BlockSource, ReadFuture, SourceError};
use crate::storage::Store;

use super::shared::Shared;

/// Reads at once what is in memory, and on the hash service's threads what is not.
pub(super) struct StoreSource {
    pub store: Arc<Store>,
    pub shared: Arc<Shared>,
}

impl BlockSource for StoreSource {
    fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError> {
        self.store.read_cached(offset, into).map_err(|error| SourceError(error.to_string()))
    }

    fn read(&self, offset: u64, into: Vec<u8>) -> ReadFuture {
        let (reply, answer) = oneshot::channel();
        self.shared.hashing.read(Arc::clone(&self.store), offset, into, move |read| {
            // Nobody waits for it any more if the link is gone.
            let _ = reply.send(read);
        });
        Box::pin(async move {
            match answer.await {
                Ok(read) => read.map_err(|error| SourceError(error.to_string())),
                Err(_) => Err(SourceError("the session is shutting down".to_owned())),
            }
        })
    }
}
