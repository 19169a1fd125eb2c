//! Changing the settings of a torrent.

use std::sync::Arc;

use tokio::time::Instant;

use super::checks::{check_settings, check_words, parse_tiers, priorities_of, visible_files};
use super::engine_settings::torrent_options;
use super::queue_driver::QueueDriver;
use super::queue_position::{keep_ranks, ranks_of};
use super::record::TorrentRecord;
use super::torrents::Torrents;
use super::trackers::TrackerPolicy;
use super::{Caller, DaemonError};
use piecework_api::{Torrent, TorrentChange, TorrentSettings};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, Priority};

/// Changes the settings of torrents.
pub(super) struct TorrentEditor {
    pub torrents: Arc<Torrents>,
    pub trackers: Arc<TrackerPolicy>,
    pub queue: Arc<QueueDriver>,
}

impl TorrentEditor {
    /// Changes the settings of a torrent.
    pub(crate) async fn change(
        &self,
        info_hash: InfoHash,
        change: TorrentChange,
        caller: Caller,
    ) -> Result<Torrent, DaemonError> {
        let (_lock, info_hash) = self.torrents.lock_listed(info_hash).await;
        self.torrents.check_open()?;
        let (before, metainfo, bytes_have) = self.torrents.with(info_hash, |entry| {
            let have = entry.handle().map_or(0, |handle| handle.status().bytes_have);
            (entry.record.clone(), entry.metainfo().cloned(), have)
        })?;
        let position = change.queue_position;
        let settings = changed(&before.settings, change, metainfo.as_deref())?;
        match &metainfo {
            Some(metainfo) => check_settings(metainfo, &settings)?,
            None => check_words(&settings)?,
        }
        let named = named_anew(&before, &settings, metainfo.as_deref(), caller);
        self.set(info_hash, settings, named, bytes_have)?;
        if let Err(error) = self.keep(info_hash, position).await {
            self.put_back(info_hash, &before)?;
            if position.is_some()
                && let Err(error) = self.torrents.keep(info_hash).await
            {
                tracing::debug!(%error, "refused settings may be in the state nevertheless");
            }
            return Err(error);
        }
        let (handle, after) = self
            .torrents
            .with(info_hash, |entry| (entry.handle().cloned(), entry.record.clone()))?;
        if let (Some(handle), Some(metainfo)) = (handle, metainfo) {
            let wanted = torrent_options(&metainfo, &after.settings);
            if wanted != torrent_options(&metainfo, &before.settings) {
                handle.set_options(wanted).await;
            }
            if after.settings.trackers != before.settings.trackers {
                handle.set_trackers(self.trackers.tiers(&metainfo, &after)).await;
            }
        }
        self.queue.turn_now(info_hash).await;
        self.torrents.show(info_hash)
    }

    /// Puts new settings into the table, and the trackers that the owner `named`, if those changed.
    fn set(
        &self,
        info_hash: InfoHash,
        settings: TorrentSettings,
        named: Option<Vec<Box<str>>>,
        bytes_have: u64,
    ) -> Result<(), DaemonError> {
        let limits = |it: &TorrentSettings| (it.seed_ratio, it.seed_time, it.seed_idle);
        let mut table = self.torrents.table();
        let session = table.settings.clone();
        let mut entry = table.entries.get_mut(&info_hash).ok_or(DaemonError::Unknown(info_hash))?;
        let limits_changed = limits(&settings) != limits(&entry.record.settings);
        // The rest of the record stays: its rank may have changed meanwhile.
        entry.record.settings = settings.into();
        if let Some(named) = named {
            entry.record.common.change(|common| common.named = Some(named));
        }
        if limits_changed {
            entry.record.limits_waived = false;
            let seeded = entry.seeded(bytes_have, Instant::now());
            entry.record.limit_reached &= entry.limits(&session).reached(&seeded);
        }
        Ok(())
    }

    /// Writes the settings, and moves the torrent to `position` in the queue.
    async fn keep(&self, info_hash: InfoHash, position: Option<u32>) -> Result<(), DaemonError> {
        self.torrents.keep(info_hash).await?;
        let Some(position) = position else { return Ok(()) };
        let (moved, ranks) = {
            let mut table = self.torrents.table();
            let ranks = ranks_of(&table);
            (table.order.place(info_hash, position as usize), ranks)
        };
        keep_ranks(&self.torrents, moved, ranks).await
    }

    /// Undoes a change that could not be written.
    fn put_back(&self, info_hash: InfoHash, before: &TorrentRecord) -> Result<(), DaemonError> {
        self.torrents.with(info_hash, |entry| {
            entry.record.settings = before.settings.clone();
            entry.record.common.change(|common| common.named.clone_from(&before.common.named));
            entry.record.limits_waived = before.limits_waived;
            entry.record.limit_reached = before.limit_reached;
        })
    }
}

/// Returns `before` with this change applied.
fn changed(
    before: &TorrentSettings,
    change: TorrentChange,
    metainfo: Option<&Metainfo>,
) -> Result<TorrentSettings, DaemonError> {
    let mut after = before.clone();
    let limit = |new: Option<u64>, old| new.map_or(old, |new| Some(new).filter(|new| *new > 0));
    after.upload_limit = limit(change.upload_limit, after.upload_limit);
    after.download_limit = limit(change.download_limit, after.download_limit);
    if let Some(most) = change.max_peers {
        after.max_peers = Some(most).filter(|most| *most > 0);
    }
    set(&mut after.session_limits, change.session_limits);
    set(&mut after.bandwidth, change.bandwidth);
    set(&mut after.sequential, change.sequential);
    set(&mut after.labels, change.labels);
    set(&mut after.seed_ratio, change.seed_ratio);
    set(&mut after.seed_time, change.seed_time);
    set(&mut after.seed_idle, change.seed_idle);
    if let Some(group) = change.group {
        after.group = Some(group).filter(|group| !group.is_empty());
    }
    let about_files = change.only_files.is_some() || !change.files.is_empty();
    if about_files {
        let metainfo = metainfo.ok_or_else(|| {
            DaemonError::conflict(
                "its `.torrent` is not here, so its files are not known".to_owned(),
            )
        })?;
        let count = visible_files(metainfo);
        after.files.resize(count as usize, Priority::Normal);
        if let Some(text) = change.only_files {
            let chosen = priorities_of(metainfo, &text)?;
            for (file, wanted) in after.files.iter_mut().zip(chosen) {
                let again = wanted.is_wanted() && file.is_wanted();
                // Files that stay wanted keep their priorities.
                if !again {
                    *file = wanted;
                }
            }
        }
        for (file, priority) in change.files {
            let one = after.files.get_mut(file as usize);
            *one.ok_or_else(|| {
                DaemonError::invalid(format!(
                    "there is no file `{file}`: there are `{count}`, from 0"
                ))
            })? = priority;
        }
    }
    if let Some(tiers) = change.trackers {
        after.trackers = Some(parse_tiers(tiers)?);
    }
    Ok(after)
}

/// Returns the trackers of the torrent that the owner named, if the list of trackers changes. Those that were
/// in the list before do not count: whoever sends a list back has not named all that is in it.
fn named_anew(
    before: &TorrentRecord,
    after: &TorrentSettings,
    metainfo: Option<&Metainfo>,
    caller: Caller,
) -> Option<Vec<Box<str>>> {
    let list = after.trackers.as_ref().filter(|_| after.trackers != before.settings.trackers)?;
    let own = metainfo.map(Metainfo::trackers).unwrap_or_default();
    let known = before.settings.trackers.as_deref().unwrap_or(own);
    let has = |tiers: &[Vec<String>], url: &String| tiers.iter().flatten().any(|u| u == url);
    let was_named = |url: &String| match &before.common.named {
        Some(named) => named.iter().any(|named| **named == **url),
        None => has(known, url) && !has(own, url),
    };
    let is_named = |url: &&String| was_named(url) || (caller.is_owner() && !has(known, url));
    Some(list.iter().flatten().filter(is_named).map(|url| url.as_str().into()).collect())
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
