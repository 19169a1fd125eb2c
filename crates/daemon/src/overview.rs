//! How the daemon does as a whole.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::book::{Book, unix_now};
use super::catalogue::CatalogueRows;
use super::inner::{Inner, blocking};
use super::tally::Tally;
use super::{Caller, DaemonError, files, making};
use piecework_api::{Counts, Overview, State};
use piecework_core::InfoHash;
use piecework_engine::SessionFigures;

/// Figures of the daemon as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// What the engine has done since it started, and has to do.
    pub session: SessionFigures,
    /// Torrents by what they do, in the order of [`State::ALL`].
    pub torrents: [u64; State::ALL.len()],
    /// Payload received by all torrents, bytes a second over the last seconds.
    pub download_rate: u64,
    /// Payload sent by all torrents, bytes a second over the last seconds.
    pub upload_rate: u64,
    /// Records of who gave what that were written into the journal.
    pub journal_written: u64,
    /// Records of who gave what that had to make room for others.
    pub journal_dropped: u64,
}

impl Inner {
    /// How the daemon does, in figures.
    pub fn figures(&self) -> Figures {
        let book = self.counted();
        let (torrents, rates) = (book.torrents.tally().states(), book.torrents.tally().rates());
        drop(book);
        Figures {
            session: self.session.figures(),
            torrents,
            download_rate: rates.0,
            upload_rate: rates.1,
            journal_written: self.log.journal().map_or(0, |journal| journal.written()),
            journal_dropped: self.log.dropped(),
        }
    }

    /// The book, in which all torrents are counted as they are now.
    fn counted(&self) -> MutexGuard<'_, Book> {
        // The others were counted when their changes were taken in.
        let changed = self.session.changed_now();
        let mut book = self.book.lock();
        book.torrents.recount(&changed);
        book
    }

    /// How the daemon does, without its torrents.
    pub fn summary(&self) -> Overview {
        let uptime = self.started.elapsed().as_secs();
        let book = self.counted();
        let counts = counts(book.torrents.tally());
        let (download_rate, upload_rate) = book.torrents.tally().rates();
        let totals = book.totals;
        drop(book);
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

    /// All torrents, and how the daemon does.
    pub fn overview(&self) -> Overview {
        let torrents = self.book.lock().show_all();
        self.tidy_after(torrents.len());
        Overview { torrents, ..self.summary() }
    }

    /// What people should know: what happened since the daemon started, and what cannot be written
    /// now.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.book.lock().notices.clone();
        notices.extend(self.state.last_error());
        if let Some(journal) = self.log.journal() {
            notices.extend(journal.notices());
        }
        notices
    }

    /// A list of so many torrents was made, which took memory for a moment.
    pub fn tidy_after(&self, torrents: usize) {
        if torrents >= MANY {
            self.wake.notify_one();
        }
    }

    /// Torrents in the order of the queue: `limit` of them, from the one at `offset`.
    pub fn page(&self, offset: usize, limit: usize) -> Vec<InfoHash> {
        self.book.lock().order.page(offset, limit)
    }

    /// The torrents that changed since `then`, seconds since 1970, in the order of the queue.
    pub fn changed_since(&self, then: i64) -> Vec<InfoHash> {
        let book = self.book.lock();
        if let Some(changed) = book.recent.since(then) {
            return in_order(&book, changed);
        }
        let is_meant = |info_hash: &InfoHash| {
            book.torrents.get(info_hash).is_some_and(|entry| entry.changed_at >= then)
        };
        book.order.iter().filter(is_meant).collect()
    }

    /// The torrents that went since `then`, seconds since 1970, and the numbers they had.
    pub fn removed_since(&self, then: i64) -> Vec<(InfoHash, Option<u64>)> {
        let book = self.book.lock();
        let went = book.removed.iter().filter(|removed| removed.at >= then);
        went.map(|removed| (removed.info_hash, removed.id)).collect()
    }

    /// Those of `hashes` that are here, once each, in the order of the queue.
    pub fn in_order(&self, hashes: impl IntoIterator<Item = InfoHash>) -> Vec<InfoHash> {
        in_order(&self.book.lock(), hashes)
    }

    /// The `.torrent` as it was given, to be read in parts.
    pub async fn torrent_parts(&self, info_hash: InfoHash) -> Result<TorrentParts, DaemonError> {
        let path = self.torrent_path(info_hash)?;
        let opened = blocking(move || files::open_known(&path, info_hash)).await?;
        let (file, left) = opened.map_err(DaemonError::NotFound)?;
        Ok(TorrentParts { file, left })
    }

    /// Where a torrent's own file lies.
    fn torrent_path(&self, info_hash: InfoHash) -> Result<PathBuf, DaemonError> {
        self.with(info_hash, |entry| match entry.is_making() {
            true => Err(making::is_hashed(entry)),
            false => Ok(self.config.torrents.join(&*entry.file())),
        })?
    }

    /// The `.torrent` as it was given, whole.
    pub async fn torrent_bytes(&self, info_hash: InfoHash) -> Result<Vec<u8>, DaemonError> {
        // Not by way of the metainfo, which would have it stay in memory.
        let file = self.torrent_path(info_hash)?;
        let read = move || {
            let torrent = files::read_known(&file, info_hash)?;
            torrent.bytes().map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())
        };
        blocking(read).await?.map_err(DaemonError::NotFound)
    }

    /// What a tracker has.
    pub async fn catalogue(
        &self,
        tracker: Option<&str>,
        name: Option<&str>,
        caller: Caller,
    ) -> Result<CatalogueRows, DaemonError> {
        self.tracker_named(tracker, caller)?.list(name).await
    }
}

/// A `.torrent` that is read in parts.
#[derive(Debug)]
pub struct TorrentParts {
    file: Arc<File>,
    /// Bytes that are still to be read.
    left: u64,
}

impl TorrentParts {
    /// The next part; `None` behind the last one.
    ///
    /// # Errors
    /// If it cannot be read any more.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, DaemonError> {
        if self.left == 0 {
            return Ok(None);
        }
        let (file, len) = (Arc::clone(&self.file), self.left.min(PART));
        let part = blocking(move || {
            let mut part = Vec::new();
            (&*file).take(len).read_to_end(&mut part).map(|_| part)
        });
        let part = part.await?.map_err(|error| DaemonError::State(error.to_string()))?;
        if part.is_empty() {
            return Err(DaemonError::State("the torrent file became shorter meanwhile".to_owned()));
        }
        self.left -= part.len() as u64;
        Ok(Some(part))
    }
}

/// Bytes of a `.torrent` that are read at a time.
const PART: u64 = 64 << 10;

fn counts(tally: &Tally) -> Counts {
    // There are 2^32 torrents at most.
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let mut counts = Counts { active: small(tally.active() as u64), ..Counts::default() };
    for (state, torrents) in State::ALL.into_iter().zip(tally.states()) {
        let place = match state {
            State::Checking | State::Moving | State::Hashing => &mut counts.checking,
            State::Downloading => &mut counts.downloading,
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

fn in_order(book: &Book, hashes: impl IntoIterator<Item = InfoHash>) -> Vec<InfoHash> {
    let ranked = |hash: InfoHash| Some((book.torrents.get(&hash)?.kept.rank, hash));
    let mut ranked: Vec<_> = hashes.into_iter().filter_map(ranked).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().map(|(_, hash)| hash).collect()
}

/// A list of so many is about a MiB.
const MANY: usize = 1_000;
