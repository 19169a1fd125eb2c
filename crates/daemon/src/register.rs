//! Registering torrents with trackers of our own kind.

use std::sync::Arc;

use super::catalogue::Tracker;
use super::inner::{Inner, blocking};
use super::kept::Pending;
use super::roots::shown;
use super::{DaemonError, files};
use piecework_core::InfoHash;
use piecework_core::metainfo::Metainfo;
use piecework_engine::tracker_client::REGISTER_AGAIN;
use piecework_proto::announce::catalogue::{RegisterOptions, Registered};
use piecework_storage::write_whole;

/// Tries again and again what did not work at once, as long as there is any of it.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let waiting: Vec<(InfoHash, Box<Pending>)> = {
            let book = inner.book.lock();
            let pending = book.torrents.iter();
            pending
                .filter_map(|(hash, entry)| Some((*hash, entry.kept.rare.pending.clone()?)))
                .collect()
        };
        if waiting.is_empty() {
            inner.register.notified().await;
            tokio::time::sleep(REGISTER_AGAIN).await;
            continue;
        }
        for (info_hash, pending) in waiting {
            let trouble = match inner.register(info_hash, &pending).await {
                Ok(()) => {
                    tracing::info!(torrent = %info_hash, "registered with `{}`", pending.tracker);
                    None
                }
                // Not there yet, and so nobody else's torrent either.
                Err(DaemonError::Upstream(_)) => break,
                Err(DaemonError::Unknown(_)) => continue,
                Err(error) => Some(format!("it is not registered: {error}")),
            };
            // One that was removed meanwhile needs nothing.
            let _ = inner.with(info_hash, |entry| {
                entry.kept.rare.change(|rare| rare.pending = None);
                entry.odd.change(|odd| odd.trouble = trouble.map(Into::into));
            });
            if let Err(error) = inner.keep(info_hash).await {
                tracing::warn!(torrent = %info_hash, %error, "registering is not written down");
            }
            inner.touch(info_hash, false);
        }
        tokio::time::sleep(REGISTER_AGAIN).await;
    }
}

impl Inner {
    /// Puts a torrent that is here into the catalogue of a tracker, and keeps the token that takes
    /// it out.
    ///
    /// # Errors
    /// [`DaemonError::Upstream`] if the tracker is not there now.
    pub async fn register(&self, info_hash: InfoHash, wanted: &Pending) -> Result<(), DaemonError> {
        let tracker = Tracker::named(&wanted.tracker)?;
        let torrent = self.torrent_bytes(info_hash).await?;
        let registered = tracker.register(&torrent, options(wanted)).await?;
        self.keep_registered(info_hash, wanted, registered).await?;
        // Announces that it has had so far were without a name.
        self.live(info_hash)?.reannounce().await;
        Ok(())
    }

    /// Puts a torrent that is not here yet into the catalogue.
    ///
    /// # Errors
    /// As [`Inner::register`].
    pub async fn ask_to_register(
        &self,
        metainfo: &Metainfo,
        wanted: &Pending,
    ) -> Result<Registered, DaemonError> {
        let tracker = Tracker::named(&wanted.tracker)?;
        let torrent = metainfo.bytes().map_err(|error| DaemonError::State(error.to_string()))?;
        tracker.register(&torrent, options(wanted)).await
    }

    /// Takes a torrent that came to nothing out of the catalogue again, if we put it there.
    pub async fn take_back(&self, info_hash: InfoHash, wanted: &Pending, registered: Registered) {
        let Some(token) = registered.token else { return };
        let removed = match Tracker::named(&wanted.tracker) {
            Ok(tracker) => tracker.remove(info_hash, &token).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(
                torrent = %info_hash, %error,
                "a torrent that was not added stays in the catalogue of `{}`", wanted.tracker
            );
        }
    }

    /// Keeps that a torrent is in a catalogue, and the token that takes it out.
    ///
    /// # Errors
    /// If the token or the state cannot be written.
    pub async fn keep_registered(
        &self,
        info_hash: InfoHash,
        wanted: &Pending,
        registered: Registered,
    ) -> Result<(), DaemonError> {
        let _door = self.door(info_hash).await;
        let file = self.with(info_hash, |entry| self.config.torrents.join(&*entry.file()))?;
        // No token: it was registered before, and whoever did that has it.
        if let Some(token) = registered.token {
            let path = files::token_path(&file);
            let kept = blocking(move || {
                write_whole(&path, token.as_bytes(), 0o600)
                    .map_err(|error| format!("`{}`: {error}", shown(&path)))
            });
            kept.await?.map_err(|error| {
                DaemonError::State(format!(
                    "the token to take it out of the catalogue could not be kept in {error}"
                ))
            })?;
        }
        self.with(info_hash, |entry| {
            entry.kept.rare.tracker = Some(wanted.tracker.as_str().into())
        })?;
        self.keep(info_hash).await
    }

    /// Has a torrent registered once its tracker is there, be it after a restart.
    pub async fn register_later(
        &self,
        info_hash: InfoHash,
        pending: Pending,
    ) -> Result<(), DaemonError> {
        self.with(info_hash, |entry| entry.kept.rare.pending = Some(Box::new(pending)))?;
        self.keep(info_hash).await?;
        self.register.notify_one();
        Ok(())
    }
}

fn options(wanted: &Pending) -> RegisterOptions {
    RegisterOptions {
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        unlisted: wanted.unlisted,
        unobserved: false,
    }
}
