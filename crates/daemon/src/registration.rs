//! Registering torrents with Piecework trackers.

use std::sync::Arc;

use tokio::sync::Notify;

use super::background::blocking;
use super::catalogue::CatalogueTracker;
use super::reason::Reason;
use super::record::Registration;
use super::torrent_folder::TorrentFolder;
use super::torrents::Torrents;
use super::{DaemonError, torrent_files};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, printable_path};
use piecework_engine::tracker_client::REGISTER_AGAIN;
use piecework_proto::announce::catalogue::{RegisterOptions, Registered};
use piecework_storage::write_whole;

/// Registers torrents with trackers.
pub(super) struct Registrar {
    torrents: Arc<Torrents>,
    folder: Arc<TorrentFolder>,
    /// There is something to register later.
    more: Notify,
}

impl Registrar {
    pub(crate) fn new(torrents: Arc<Torrents>, folder: Arc<TorrentFolder>) -> Self {
        Self { torrents, folder, more: Notify::new() }
    }

    /// Registers torrents for which that failed before, again and again.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let waiting: Vec<(InfoHash, Box<Registration>)> = {
                let table = self.torrents.table();
                let pending = table.entries.iter();
                pending
                    .filter_map(|(hash, entry)| Some((*hash, entry.record.common.pending.clone()?)))
                    .collect()
            };
            if waiting.is_empty() {
                self.more.notified().await;
                tokio::time::sleep(REGISTER_AGAIN).await;
                continue;
            }
            for (info_hash, pending) in waiting {
                let trouble = match self.register(info_hash, &pending).await {
                    Ok(()) => {
                        tracing::info!(torrent = %info_hash, "registered with `{}`", pending.tracker);
                        None
                    }
                    // The tracker cannot be reached, so other torrents have to wait as well.
                    Err(DaemonError::Upstream(_)) => break,
                    Err(DaemonError::Unknown(_)) => continue,
                    Err(error) => Some(format!("it is not registered: {error}")),
                };
                // A torrent that was removed meanwhile needs nothing.
                let _ = self.torrents.with(info_hash, |entry| {
                    entry.record.common.change(|common| common.pending = None);
                    entry.rare.change(|rare| rare.trouble = trouble.map(Into::into));
                });
                if let Err(error) = self.torrents.keep(info_hash).await {
                    tracing::warn!(torrent = %info_hash, %error, "could not record that a torrent is registered");
                }
                self.torrents.touch(info_hash, false);
            }
            tokio::time::sleep(REGISTER_AGAIN).await;
        }
    }

    /// Registers a torrent that is here, and keeps the token that removes it from the catalogue.
    ///
    /// # Errors
    /// [`DaemonError::Upstream`] if the tracker is not there now.
    pub(crate) async fn register(
        &self,
        info_hash: InfoHash,
        wanted: &Registration,
    ) -> Result<(), DaemonError> {
        let tracker = CatalogueTracker::named(&wanted.tracker)?;
        let torrent = self.folder.bytes(info_hash).await?;
        let registered = tracker.register(&torrent, options(wanted)).await?;
        self.keep_registered(info_hash, wanted, registered).await?;
        // Its announces so far were without a name.
        self.torrents.live(info_hash)?.reannounce().await;
        Ok(())
    }

    /// Registers a torrent that is not here yet.
    ///
    /// # Errors
    /// As [`Registrar::register`].
    pub(crate) async fn ask_to_register(
        &self,
        metainfo: &Metainfo,
        wanted: &Registration,
    ) -> Result<Registered, DaemonError> {
        let tracker = CatalogueTracker::named(&wanted.tracker)?;
        let torrent =
            metainfo.bytes().map_err(|error| DaemonError::torrent_file(Reason::of(error)))?;
        tracker.register(&torrent, options(wanted)).await
    }

    /// Removes a torrent that could not be added from the catalogue again, if we registered it.
    pub(crate) async fn take_back(
        &self,
        info_hash: InfoHash,
        wanted: &Registration,
        registered: Registered,
    ) {
        let Some(token) = registered.token else { return };
        let removed = match CatalogueTracker::named(&wanted.tracker) {
            Ok(tracker) => tracker.remove(info_hash, &token).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(
                torrent = %info_hash, %error,
                "a torrent that could not be added stays in the catalogue of `{}`", wanted.tracker
            );
        }
    }

    /// Records that a torrent is registered, and keeps the token that removes it from the
    /// catalogue.
    ///
    /// # Errors
    /// If the token or the state cannot be written.
    pub(crate) async fn keep_registered(
        &self,
        info_hash: InfoHash,
        wanted: &Registration,
        registered: Registered,
    ) -> Result<(), DaemonError> {
        let _lock = self.torrents.lock(info_hash).await;
        let file =
            self.torrents.with(info_hash, |entry| self.folder.folder.join(&*entry.file()))?;
        // Without a token it was registered before, and whoever did that has the token.
        if let Some(token) = registered.token {
            let path = torrent_files::token_path(&file);
            let shown = printable_path(&path);
            let kept = blocking(move || write_whole(&path, token.as_bytes(), 0o600)).await?;
            kept.map_err(|error| {
                let sentence = format!(
                    "the token to take it out of the catalogue could not be kept in `{shown}`: {error}"
                );
                DaemonError::torrent_file(Reason::with_cause(sentence, error))
            })?;
        }
        self.torrents.with(info_hash, |entry| {
            entry.record.common.tracker = Some(wanted.tracker.as_str().into())
        })?;
        self.torrents.keep(info_hash).await
    }

    /// Records that a torrent is to be registered once its tracker can be reached, also after a
    /// restart.
    pub(crate) async fn register_later(
        &self,
        info_hash: InfoHash,
        pending: Registration,
    ) -> Result<(), DaemonError> {
        self.torrents
            .with(info_hash, |entry| entry.record.common.pending = Some(Box::new(pending)))?;
        self.torrents.keep(info_hash).await?;
        self.more.notify_one();
        Ok(())
    }
}

fn options(wanted: &Registration) -> RegisterOptions {
    RegisterOptions {
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        unlisted: wanted.unlisted,
        unobserved: false,
    }
}
