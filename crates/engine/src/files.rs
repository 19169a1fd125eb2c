//! What is done to a torrent's files besides reading and writing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use piecework_storage::{self as storage, StorageError, Store};

use super::TorrentState;
use super::entry::{Call, Entry};
use super::shared::Shared;

/// Renames files, all or none.
pub(super) fn rename(
    store: &Store,
    names: &BTreeMap<usize, Vec<String>>,
) -> Result<(), StorageError> {
    let entries = store.metainfo().info().files().entries();
    let old = store.options().names;
    let old_names = |file: &usize| match (old.get(file), entries.get(*file)) {
        (Some(names), _) => names.clone(),
        (None, Some(entry)) => entry.path.iter().map(str::to_owned).collect(),
        (None, None) => Vec::new(),
    };
    for (at, (file, new)) in names.iter().enumerate() {
        let Err(error) = store.rename_file(*file, new) else { continue };
        for (file, _) in names.iter().take(at) {
            if let Err(error) = store.rename_file(*file, &old_names(file)) {
                warn!(%error, "a file keeps its new name though others could not be renamed");
            }
        }
        return Err(error);
    }
    Ok(())
}

/// Has a torrent whose disk is full go on when there is room again, for as long as it is paused
/// for that; and one that met a fault that passes try again.
pub(super) fn retry_when_free(shared: &Arc<Shared>, entry: &Arc<Entry>) {
    if entry.retrying.swap(true, Ordering::AcqRel) {
        // It was started in vain meanwhile: one is enough.
        return;
    }
    let (entry, weak) = (Arc::downgrade(entry), Arc::downgrade(shared));
    shared.runtime.spawn(async move {
        loop {
            tokio::time::sleep(RETRY).await;
            let (Some(entry), Some(shared)) = (entry.upgrade(), weak.upgrade()) else { return };
            let is_full = || {
                let shown = entry.shown();
                let passes = matches!(
                    shown.fault.as_deref(),
                    Some(super::TorrentError::Full(_) | super::TorrentError::Again(_))
                );
                (passes && matches!(shown.state, TorrentState::Paused { .. })).then_some(shown)
            };
            let Some(shown) = is_full() else {
                entry.retrying.store(false, Ordering::Release);
                // It may have failed again just before that.
                if is_full().is_some() {
                    retry_when_free(&shared, &entry);
                }
                return;
            };
            if matches!(shown.fault.as_deref(), Some(super::TorrentError::Again(_))) {
                entry.retrying.store(false, Ordering::Release);
                entry.post(Call::Retry).await;
                return;
            }
            let root = entry.store().root();
            let free = tokio::task::spawn_blocking(move || storage::free_space(&root)).await;
            let Ok(Ok((free, _))) = free else { continue };
            let pieces = 16 * u64::from(entry.metainfo.info().geometry().piece_len());
            let left = shown.bytes_wanted - shown.bytes_wanted_have;
            if free >= left.min(pieces.max(ROOM)) {
                // It fails again, and is looked after again, if that was not enough.
                entry.retrying.store(false, Ordering::Release);
                entry.post(Call::Retry).await;
                return;
            }
        }
    });
}

const RETRY: Duration = Duration::from_secs(30);
/// Less would be used up within a second.
const ROOM: u64 = 64 << 20;
