//! Places in the queue: moved, written down, and put back if they cannot be.

use super::DaemonError;
use super::book::{Book, unix_now};
use super::inner::Inner;
use crate::state::{Receipt, Update};
use piecework_api::QueueMove;
use piecework_core::InfoHash;

impl Inner {
    /// Moves torrents in the queue.
    pub async fn move_in_queue(
        &self,
        info_hashes: &[InfoHash],
        to: QueueMove,
    ) -> Result<(), DaemonError> {
        self.is_open()?;
        let (moved, before) = {
            let mut book = self.book.lock();
            if let Some(unknown) =
                info_hashes.iter().find(|info_hash| !book.torrents.contains_key(*info_hash))
            {
                return Err(DaemonError::Unknown(*unknown));
            }
            let before = ranks_of(&book);
            let moved = book.order.shift(info_hashes, to);
            (moved, before)
        };
        self.keep_ranks(moved, before).await
    }

    /// Keeps places in the queue that changed. If that fails, the places are again those of
    /// `before`.
    pub async fn keep_ranks(
        &self,
        moved: Vec<(InfoHash, i64)>,
        before: Vec<(InfoHash, i64)>,
    ) -> Result<(), DaemonError> {
        let mut kept = Ok(());
        for receipt in self.set_ranks(&moved) {
            kept = kept.and(receipt.await);
        }
        if kept.is_err() {
            let back: Vec<_> = {
                let mut book = self.book.lock();
                let ranks = before.into_iter().filter(|(hash, _)| book.torrents.contains_key(hash));
                let ranks: Vec<_> = ranks.collect();
                book.order.set_ranks(&ranks);
                ranks
            };
            for receipt in self.set_ranks(&back) {
                if let Err(error) = receipt.await {
                    tracing::debug!(%error, "a place in the queue may be the new one after a restart");
                }
            }
        }
        Ok(kept?)
    }

    /// Notes the ranks of torrents and has them written.
    fn set_ranks(&self, ranks: &[(InfoHash, i64)]) -> Vec<Receipt> {
        let mut receipts = Vec::with_capacity(ranks.len());
        let mut guard = self.book.lock();
        let book = &mut *guard;
        book.review = true;
        for (info_hash, rank) in ranks {
            let Some(mut entry) = book.torrents.get_mut(info_hash) else { continue };
            entry.kept.rank = *rank;
            book.recent.note(*info_hash, &mut entry.changed_at, unix_now());
            let settings = Some(entry.kept.to_text());
            receipts.push(self.state.update(*info_hash, Update { settings, ..Update::default() }));
        }
        drop(guard);
        self.wake.notify_one();
        for (info_hash, _) in ranks {
            self.ears.changed(*info_hash);
        }
        receipts
    }
}

/// The ranks of all torrents in the queue.
pub(super) fn ranks_of(book: &Book) -> Vec<(InfoHash, i64)> {
    book.order.ranks().map(|(rank, info_hash)| (info_hash, rank)).collect()
}
