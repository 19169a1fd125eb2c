//! The torrent table: all torrents of the daemon, their order, and the daemon's settings.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::entries::EntryMap;
use super::entry::{Entry, unix_now};
use super::missing_bytes::MissingBytes;
use super::recent_changes::RecentChanges;
use super::record::RecordInterner;
use crate::queue::{Bounds, Order};
use piecework_api::{Settings, Torrent};
use piecework_core::InfoHash;

/// All torrents, their order, and what applies to all of them.
pub(super) struct TorrentTable {
    pub entries: EntryMap,
    pub order: Order,
    /// The current settings.
    pub settings: Settings,
    /// Settings that were changed while a daemon ran, by key. They override the configuration.
    pub changed: serde_json::Map<String, serde_json::Value>,
    /// The torrents that were removed last, oldest first.
    pub removed: VecDeque<Removal>,
    pub totals: Totals,
    pub notices: Vec<String>,
    pub recent: RecentChanges,
    /// The queue has to review all torrents.
    pub review: bool,
    /// Torrents that the queue has to review. It reviews others only if they compete for places.
    pub fresh: Vec<InfoHash>,
    /// Bytes that unfinished torrents lack.
    pub missing: MissingBytes,
    /// Whether the second pair of limits applied when the clock was last read, if there is a
    /// schedule.
    pub scheduled: Option<bool>,
    /// Number of torrents whose files are not hashed yet, or whose metadata is not here yet.
    pub pending: usize,
    /// Number of requests that are about to add such a torrent.
    pub pending_soon: usize,
    /// The last provisional info-hashes, and the info-hashes of the torrents that replaced them.
    made: VecDeque<(InfoHash, InfoHash)>,
    interner: RecordInterner,
    next_id: u64,
}

/// The torrents to review.
pub(super) enum ReviewScope {
    Nothing,
    /// Only these.
    Some(Vec<InfoHash>),
    All,
}

/// A torrent that was removed.
pub(super) struct Removal {
    pub info_hash: InfoHash,
    /// `None` if the info-hash was provisional, since the torrent itself is here.
    pub id: Option<u64>,
    /// When, seconds since 1970.
    pub at: i64,
}

/// Totals over all runs of the daemon, kept with its settings.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub downloaded: u64,
    pub uploaded: u64,
    pub seconds: u64,
    pub starts: u64,
    pub added: u64,
    /// In this run.
    #[serde(skip)]
    pub run: (u64, u64),
}

impl TorrentTable {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            entries: EntryMap::default(),
            order: Order::default(),
            settings,
            changed: serde_json::Map::new(),
            removed: VecDeque::new(),
            totals: Totals::default(),
            notices: Vec::new(),
            recent: RecentChanges::default(),
            review: true,
            fresh: Vec::new(),
            missing: MissingBytes::default(),
            scheduled: None,
            pending: 0,
            pending_soon: 0,
            made: VecDeque::new(),
            interner: RecordInterner::default(),
            next_id: 1,
        }
    }

    /// Returns a number that no torrent of this run has had.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Inserts a torrent, which has its place in the queue already.
    pub(crate) fn enter(&mut self, info_hash: InfoHash, mut entry: Box<Entry>) {
        self.recent.note(info_hash, &mut entry.changed_at, unix_now());
        self.interner.share(&mut entry.record);
        self.pending += usize::from(entry.is_pending());
        self.entries.insert(info_hash, entry);
    }

    /// Removes a torrent and remembers that it was removed.
    pub(crate) fn take(&mut self, info_hash: InfoHash, now: i64) -> Option<Box<Entry>> {
        let entry = self.entries.get(&info_hash)?;
        let (rank, id) = (entry.record.rank, entry.id);
        self.order.remove(rank);
        self.take_out(info_hash, Some(id), now)
    }

    /// Inserts a torrent in the place of its provisional entry, which may have the same info-hash.
    pub(crate) fn settle(
        &mut self,
        provisional: InfoHash,
        info_hash: InfoHash,
        mut entry: Box<Entry>,
    ) {
        if provisional == info_hash {
            return self.replace(info_hash, entry);
        }
        if let Some(before) = self.take_out(provisional, None, unix_now()) {
            entry.record.rank = before.record.rank;
            self.order.replace(before.record.rank, info_hash);
        }
        self.lead(provisional, info_hash);
        self.enter(info_hash, entry);
    }

    /// Replaces an entry by another one of the same torrent.
    fn replace(&mut self, info_hash: InfoHash, mut entry: Box<Entry>) {
        if let Some(before) = self.entries.remove(&info_hash) {
            self.pending -= usize::from(before.is_pending());
            self.recent.remove(info_hash, before.changed_at);
            entry.record.rank = before.record.rank;
        }
        self.enter(info_hash, entry);
    }

    /// Makes a provisional info-hash lead to the torrent that replaced it.
    pub(crate) fn lead(&mut self, provisional: InfoHash, info_hash: InfoHash) {
        self.made.retain(|(before, _)| *before != provisional);
        if self.made.len() >= REMOVED {
            self.made.pop_front();
        }
        self.made.push_back((provisional, info_hash));
    }

    /// Returns the info-hash under which a torrent is listed. `info_hash` may be provisional.
    pub(crate) fn listed_as(&self, info_hash: InfoHash) -> InfoHash {
        if self.entries.contains_key(&info_hash) {
            return info_hash;
        }
        let mut made = self.made.iter().rev();
        made.find(|(before, _)| *before == info_hash).map_or(info_hash, |(_, now)| *now)
    }

    fn take_out(&mut self, info_hash: InfoHash, id: Option<u64>, now: i64) -> Option<Box<Entry>> {
        let entry = self.entries.remove(&info_hash)?;
        self.pending -= usize::from(entry.is_pending());
        self.recent.remove(info_hash, entry.changed_at);
        if self.removed.len() >= REMOVED {
            self.removed.pop_front();
        }
        self.removed.push_back(Removal { info_hash, id, at: now });
        self.missing.note(info_hash, 0);
        // Others may get its place in the queue.
        self.review |= self.bounds() != Bounds::default();
        Some(entry)
    }

    /// Returns a torrent's record as text, and lets the record share memory with others.
    pub(crate) fn record_text(&mut self, info_hash: InfoHash) -> Option<String> {
        let mut entry = self.entries.get_mut(&info_hash)?;
        self.interner.share(&mut entry.record);
        Some(entry.record.to_text())
    }

    /// Returns how many torrents may be active.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { downloads: self.settings.active_downloads, seeds: self.settings.active_seeds }
    }

    /// Takes the torrents that the queue has to review.
    pub(crate) fn take_review(&mut self) -> ReviewScope {
        let fresh = std::mem::take(&mut self.fresh);
        let is_limited = |info_hash: &InfoHash| {
            let entry = self.entries.get(info_hash);
            entry.is_some_and(|entry| entry.limits(&self.settings).any())
        };
        // When limits are due is computed for all torrents together.
        let all =
            !fresh.is_empty() && self.bounds() != Bounds::default() || fresh.iter().any(is_limited);
        match std::mem::take(&mut self.review) || all {
            true => ReviewScope::All,
            false if fresh.is_empty() => ReviewScope::Nothing,
            false => ReviewScope::Some(fresh),
        }
    }

    /// Returns a torrent as the API shows it.
    pub(crate) fn show(&self, info_hash: InfoHash) -> Option<Torrent> {
        let entry = self.entries.get(&info_hash)?;
        let position = self.order.position(entry.record.rank).unwrap_or(usize::MAX);
        Some(entry.show(info_hash, position, &self.settings))
    }

    /// Returns all torrents as the API shows them, in the order of the queue.
    pub(crate) fn show_all(&self) -> Vec<Torrent> {
        let shown =
            |(position, hash)| Some(self.entries.get(&hash)?.show(hash, position, &self.settings));
        self.order.iter().enumerate().filter_map(shown).collect()
    }

    /// Adds a notice for users, once.
    pub(crate) fn notice(&mut self, notice: String) {
        // What is retried every few seconds fails in the same way each time.
        if self.notices.contains(&notice) {
            return;
        }
        tracing::warn!("{notice}");
        if self.notices.len() < NOTICES {
            self.notices.push(notice);
        }
    }

    /// Removes a notice that does not apply any more.
    pub(crate) fn withdraw(&mut self, notice: &str) {
        self.notices.retain(|told| told != notice);
    }
}

/// Maximum number of torrents that are hashed, wait for that, or wait for their metadata: each has a task and its
/// request.
pub(super) const MAX_PENDING: usize = 1_000;

/// Maximum number of removed torrents that are remembered.
const REMOVED: usize = 10_000;

/// Maximum number of notices.
const NOTICES: usize = 100;
