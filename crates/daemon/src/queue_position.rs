//! Moving torrents in the queue. Moves that cannot be written are undone.

use super::DaemonError;
use super::entry::unix_now;
use super::queue_settings::shift;
use super::table::TorrentTable;
use super::torrents::Torrents;
use crate::state::{Receipt, Update};
use piecework_api::QueueMove;
use piecework_core::InfoHash;

/// Moves torrents in the queue.
pub(super) async fn move_in_queue(
    torrents: &Torrents,
    info_hashes: &[InfoHash],
    to: QueueMove,
) -> Result<(), DaemonError> {
    torrents.check_open()?;
    let (moved, before) = {
        let mut table = torrents.table();
        if let Some(unknown) =
            info_hashes.iter().find(|info_hash| !table.entries.contains_key(*info_hash))
        {
            return Err(DaemonError::Unknown(*unknown));
        }
        let before = ranks_of(&table);
        let moved = table.order.shift(info_hashes, shift(to));
        (moved, before)
    };
    keep_ranks(torrents, moved, before).await
}

/// Writes changed places in the queue. If that fails, restores the ranks in `before`.
pub(super) async fn keep_ranks(
    torrents: &Torrents,
    moved: Vec<(InfoHash, i64)>,
    before: Vec<(InfoHash, i64)>,
) -> Result<(), DaemonError> {
    let mut kept = Ok(());
    for receipt in set_ranks(torrents, &moved) {
        kept = kept.and(receipt.await);
    }
    if kept.is_err() {
        let back: Vec<_> = {
            let mut table = torrents.table();
            let ranks = before.into_iter().filter(|(hash, _)| table.entries.contains_key(hash));
            let ranks: Vec<_> = ranks.collect();
            table.order.set_ranks(&ranks);
            ranks
        };
        for receipt in set_ranks(torrents, &back) {
            if let Err(error) = receipt.await {
                tracing::debug!(%error, "a place in the queue may be the new one after a restart");
            }
        }
    }
    Ok(kept?)
}

/// Sets the ranks of torrents and begins to write them.
fn set_ranks(torrents: &Torrents, ranks: &[(InfoHash, i64)]) -> Vec<Receipt> {
    let mut receipts = Vec::with_capacity(ranks.len());
    let mut guard = torrents.table();
    let table = &mut *guard;
    table.review = true;
    for (info_hash, rank) in ranks {
        let Some(mut entry) = table.entries.get_mut(info_hash) else { continue };
        entry.record.rank = *rank;
        table.recent.note(*info_hash, &mut entry.changed_at, unix_now());
        let settings = Some(entry.record.to_text());
        receipts.push(torrents.state.update(*info_hash, Update { settings, ..Update::default() }));
    }
    drop(guard);
    torrents.wake.notify_one();
    for (info_hash, _) in ranks {
        torrents.events.changed(*info_hash);
    }
    receipts
}

/// Returns the ranks of all torrents in the queue.
pub(super) fn ranks_of(table: &TorrentTable) -> Vec<(InfoHash, i64)> {
    table.order.ranks().map(|(rank, info_hash)| (info_hash, rank)).collect()
}
