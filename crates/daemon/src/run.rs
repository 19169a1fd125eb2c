//! Starting, pausing and checking torrents.

use std::path::PathBuf;
use std::sync::Arc;

use super::background::blocking;
use super::entry::{BodyView, Entry, Phase, moving_error};
use super::link_follower::LinkFollower;
use super::loader::{LoadHints, TorrentLoader};
use super::queue_driver::QueueDriver;
use super::reason::Reason;
use super::settings_store::SettingsStore;
use super::share::Sharer;
use super::torrents::Torrents;
use super::{DaemonError, torrent_files};
use crate::state::Saved;
use piecework_core::{InfoHash, printable_path};

/// Starts, pauses and checks torrents.
pub(super) struct RunControl {
    pub torrents: Arc<Torrents>,
    pub queue: Arc<QueueDriver>,
    pub loader: Arc<TorrentLoader>,
    pub store: Arc<SettingsStore>,
    pub sharer: Arc<Sharer>,
    pub links: Arc<LinkFollower>,
    /// The folder of `.torrent` files.
    pub folder: PathBuf,
}

impl RunControl {
    /// Starts a torrent when the queue gives it a turn, or at once if `forced`.
    pub(crate) async fn start(&self, info_hash: InfoHash, forced: bool) -> Result<(), DaemonError> {
        let (_lock, info_hash) = self.torrents.lock_listed(info_hash).await;
        self.torrents.check_open()?;
        self.sharer.hash_again(info_hash);
        self.mend(info_hash).await?;
        self.begin_to_run(info_hash, forced, false).await?;
        self.links.resume(info_hash);
        Ok(())
    }

    /// Starts a torrent that the caller has locked, as [`RunControl::start`] does. It may replace
    /// other files if `overwrite`.
    async fn begin_to_run(
        &self,
        info_hash: InfoHash,
        forced: bool,
        overwrite: bool,
    ) -> Result<(), DaemonError> {
        let before =
            self.torrents.with(info_hash, |entry| (entry.record.clone(), entry.seen, entry.run))?;
        self.torrents.with(info_hash, |entry| {
            entry.record.settings.paused = false;
            entry.record.settings.forced = forced;
            entry.record.rebuilt = false;
            if overwrite {
                entry.record.common.change(|common| common.overwrite = true);
            }
            // Whoever starts it again wants it to continue.
            entry.record.limits_waived |= std::mem::take(&mut entry.record.limit_reached);
            entry.forgive();
        })?;
        if let Err(error) = self.torrents.keep(info_hash).await {
            // A refused request must not have changed anything.
            self.torrents.with(info_hash, |entry| {
                let rank = entry.record.rank;
                (entry.record, entry.seen, entry.run) = before;
                entry.record.rank = rank;
            })?;
            return Err(error);
        }
        if overwrite && let Ok(handle) = self.torrents.live(info_hash) {
            handle.overwrite().await;
            // It may have been started meanwhile and have failed once more on the same files.
            self.torrents.with(info_hash, Entry::forgive)?;
        }
        self.queue.turn_now(info_hash).await;
        // If it was running already, it may be about to fail on something that was repaired since.
        let running =
            self.torrents.with(info_hash, |entry| entry.handle().cloned().filter(|_| entry.run))?;
        if let Some(handle) = running {
            handle.resume().await;
            self.torrents.with(info_hash, |entry| entry.seen.forgiven = false)?;
        }
        Ok(())
    }

    /// Lets a torrent replace files that have the names of its own but other content, and starts
    /// it.
    pub(crate) async fn overwrite(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let _lock = self.torrents.lock(info_hash).await;
        self.torrents.check_open()?;
        self.torrents.live(info_hash)?;
        let forced = self.torrents.with(info_hash, |entry| entry.record.settings.forced)?;
        self.begin_to_run(info_hash, forced, true).await
    }

    /// Pauses a torrent.
    pub(crate) async fn pause(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let (_lock, info_hash) = self.torrents.lock_listed(info_hash).await;
        self.torrents.check_open()?;
        let before = self.torrents.with(info_hash, |entry| {
            let before = (entry.record.settings.clone(), entry.record.rebuilt);
            entry.record.settings.paused = true;
            entry.record.settings.forced = false;
            entry.record.rebuilt = false;
            before
        })?;
        if let Err(error) = self.torrents.keep(info_hash).await {
            self.torrents.with(info_hash, |entry| {
                (entry.record.settings, entry.record.rebuilt) = before;
            })?;
            return Err(error);
        }
        self.links.pause(info_hash);
        self.queue.turn_now(info_hash).await;
        // A torrent that failed has no turn to lose, but the engine would try it again by itself.
        let failed = self.torrents.with(info_hash, |entry| {
            entry.handle().cloned().filter(|_| entry.seen.phase == Phase::Failed)
        })?;
        if let Some(handle) = failed {
            handle.pause().await;
        }
        Ok(())
    }

    /// Hashes all of a torrent's data on disk again.
    pub(crate) async fn recheck(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let (_lock, info_hash) = self.torrents.lock_listed(info_hash).await;
        self.torrents.check_open()?;
        if self.sharer.hash_again(info_hash) {
            return Ok(());
        }
        self.mend(info_hash).await?;
        let handle = self.torrents.live(info_hash)?;
        let runs = self.torrents.with(info_hash, |entry| match entry.moving {
            Some(_) => Err(moving_error()),
            None => Ok(entry.run),
        })??;
        handle.recheck().await;
        self.store.keep_mounts().await;
        if !runs {
            // After a check the engine runs the torrent.
            handle.pause().await;
        }
        self.torrents.touch(info_hash, true);
        Ok(())
    }

    /// Tries to repair a torrent whose `.torrent` was gone or refused.
    async fn mend(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let broken = self.torrents.with(info_hash, |entry| {
            let BodyView::Broken(broken) = entry.body.view() else { return None };
            let checkpoint = broken.checkpoint.clone();
            Some((Saved { checkpoint, ..entry.saved(info_hash) }, entry.record.clone()))
        })?;
        let Some((saved, record)) = broken else { return Ok(()) };
        let path = self.folder.join(&saved.file);
        let metainfo = blocking(move || torrent_files::read_torrent(&path)).await?;
        let metainfo =
            Arc::new(metainfo.map_err(|error| DaemonError::conflict(Reason::of(error)))?);
        if metainfo.info_hash() != info_hash {
            return Err(DaemonError::conflict(format!(
                "`{}` is another torrent now: `{}`",
                printable_path(&self.folder.join(&saved.file)),
                metainfo.info_hash()
            )));
        }
        let body = self.loader.load(&metainfo, &saved, &record, LoadHints::default()).await;
        let body = body.map_err(|broken| {
            let taken = broken.taken.map(|taken| taken.standing().into());
            DaemonError::Conflict(taken.unwrap_or(broken.error))
        })?;
        self.torrents.with(info_hash, |entry| {
            entry.body = body;
            entry.seen.phase = Phase::Waiting;
        })
    }
}
