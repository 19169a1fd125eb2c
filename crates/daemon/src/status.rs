//! Totals of the daemon, and lists of its torrents.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::entries::Tally;
use super::entry::unix_now;
use super::settings_store::SettingsStore;
use super::table::TorrentTable;
use super::torrents::Torrents;
use piecework_api::{Counts, Overview, State};
use piecework_core::InfoHash;
use piecework_engine::{Session, SessionFigures};
use piecework_journal::PieceLog;

/// Figures of the daemon as a whole.
#[derive(Debug, Clone, Copy)]
pub struct DaemonFigures {
    /// What the engine has done since it started, and what waits.
    pub session: SessionFigures,
    /// Number of torrents in each state, in the order of [`State::ALL`].
    pub torrents: [u64; State::ALL.len()],
    /// Payload received by all torrents, in bytes a second over the last seconds.
    pub download_rate: u64,
    /// Payload sent by all torrents, in bytes a second over the last seconds.
    pub upload_rate: u64,
    /// Number of records that were written into the journal.
    pub journal_written: u64,
    /// Number of records that were dropped.
    pub journal_dropped: u64,
}

/// Sums up torrents, session and journal.
pub(super) struct DaemonStatus {
    pub torrents: Arc<Torrents>,
    pub session: Session,
    pub store: Arc<SettingsStore>,
    pub log: Arc<PieceLog>,
}

impl DaemonStatus {
    /// Returns figures about the daemon, for metrics.
    pub(crate) fn figures(&self) -> DaemonFigures {
        let table = self.counted();
        let (torrents, rates) = (table.entries.tally().states(), table.entries.tally().rates());
        drop(table);
        DaemonFigures {
            session: self.session.figures(),
            torrents,
            download_rate: rates.0,
            upload_rate: rates.1,
            journal_written: self.log.journal().map_or(0, |journal| journal.written()),
            journal_dropped: self.log.dropped(),
        }
    }

    /// Locks the table after counting all torrents in their current states.
    fn counted(&self) -> MutexGuard<'_, TorrentTable> {
        // The others were counted when their changes were recorded.
        let changed = self.session.changed_now();
        let mut table = self.torrents.table();
        table.entries.recount(&changed);
        table
    }

    /// Returns the daemon's totals, without its torrents.
    pub(crate) fn summary(&self) -> Overview {
        let uptime = self.store.uptime();
        let table = self.counted();
        let counts = counts(table.entries.tally());
        let (download_rate, upload_rate) = table.entries.tally().rates();
        let totals = table.totals;
        drop(table);
        Overview {
            time: unix_now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime,
            listen: self.session.listen_addrs().to_vec(),
            download_rate,
            upload_rate,
            counts,
            downloaded: totals.run.0,
            uploaded: totals.run.1,
            downloaded_ever: totals.downloaded,
            uploaded_ever: totals.uploaded,
            seconds_ever: totals.seconds + uptime,
            starts: totals.starts,
            added_ever: totals.added,
            notices: self.notices(),
            removed: None,
            torrents: Vec::new(),
        }
    }

    /// Returns all torrents and the daemon's totals.
    pub(crate) fn overview(&self) -> Overview {
        let torrents = self.torrents.table().show_all();
        self.tidy_after(torrents.len());
        Overview { torrents, ..self.summary() }
    }

    /// Returns notices for users: what happened since the daemon started, and what cannot be
    /// written now.
    pub(crate) fn notices(&self) -> Vec<String> {
        let mut notices = self.torrents.table().notices.clone();
        notices.extend(self.torrents.state.last_error());
        if let Some(journal) = self.log.journal() {
            notices.extend(journal.notices());
        }
        notices
    }

    /// Has unused memory returned after a list of so many torrents was built.
    pub(crate) fn tidy_after(&self, torrents: usize) {
        if torrents >= MANY {
            self.torrents.wake.notify_one();
        }
    }

    /// Returns `limit` torrents in the order of the queue, from the one at `offset`.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<InfoHash> {
        self.torrents.table().order.page(offset, limit)
    }

    /// Returns the torrents that changed since `then`, in seconds since 1970, in the order of the
    /// queue.
    pub(crate) fn changed_since(&self, then: i64) -> Vec<InfoHash> {
        let table = self.torrents.table();
        if let Some(changed) = table.recent.since(then) {
            return in_order(&table, changed);
        }
        let is_meant = |info_hash: &InfoHash| {
            table.entries.get(info_hash).is_some_and(|entry| entry.changed_at >= then)
        };
        table.order.iter().filter(is_meant).collect()
    }

    /// Returns the torrents that were removed since `then`, in seconds since 1970, and the numbers
    /// they had.
    pub(crate) fn removed_since(&self, then: i64) -> Vec<(InfoHash, Option<u64>)> {
        let table = self.torrents.table();
        let went = table.removed.iter().filter(|removed| removed.at >= then);
        went.map(|removed| (removed.info_hash, removed.id)).collect()
    }

    /// Returns those of `hashes` that are here, once each, in the order of the queue.
    pub(crate) fn in_order(&self, hashes: impl IntoIterator<Item = InfoHash>) -> Vec<InfoHash> {
        in_order(&self.torrents.table(), hashes)
    }
}

fn counts(tally: &Tally) -> Counts {
    // There are fewer than 2^32 torrents.
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let mut counts = Counts { active: small(tally.active() as u64), ..Counts::default() };
    for (state, torrents) in State::ALL.into_iter().zip(tally.states()) {
        let place = match state {
            State::Checking | State::Moving | State::Hashing => &mut counts.checking,
            State::Downloading | State::Metadata => &mut counts.downloading,
            State::Seeding => &mut counts.seeding,
            State::QueuedCheck | State::QueuedDownload | State::QueuedSeed | State::QueuedHash => {
                &mut counts.queued
            }
            State::Paused => &mut counts.paused,
            State::Failed => &mut counts.failed,
        };
        *place += small(torrents);
        counts.all += small(torrents);
    }
    counts
}

fn in_order(table: &TorrentTable, hashes: impl IntoIterator<Item = InfoHash>) -> Vec<InfoHash> {
    let ranked = |hash: InfoHash| Some((table.entries.get(&hash)?.record.rank, hash));
    let mut ranked: Vec<_> = hashes.into_iter().filter_map(ranked).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().map(|(_, hash)| hash).collect()
}

/// A list of so many torrents takes about a MiB.
const MANY: usize = 1_000;
