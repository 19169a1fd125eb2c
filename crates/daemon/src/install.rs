//! Putting a torrent into the torrents folder, the state, the engine and the table.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use super::background::blocking;
use super::entry::{Body, Entry, unix_now};
use super::hooks::{Hook, Hooks};
use super::loader::{LoadHints, TorrentLoader};
use super::reason::Reason;
use super::record::TorrentRecord;
use super::settings_store::SettingsStore;
use super::torrents::Torrents;
use super::{DaemonError, space, torrent_files};
use crate::state::{Counters, Saved};
use piecework_api::Added;
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, printable_path};
use piecework_proto::announce;

/// A torrent to be installed.
pub(super) struct Installation {
    pub metainfo: Arc<Metainfo>,
    pub root: PathBuf,
    pub record: TorrentRecord,
    pub hints: LoadHints,
    /// Its place in the list if it has one already.
    pub placeholder: Option<Placeholder>,
}

/// The place in the list of a torrent whose files were hashed first, or of which only the magnet link was known.
pub(super) struct Placeholder {
    /// The info-hash in the list. That of a link is the torrent's own.
    pub provisional: InfoHash,
    pub added_at: i64,
    /// What the state keeps under the torrent's own info-hash until now.
    pub before: Option<Saved>,
}

/// Installs torrents.
pub(super) struct TorrentInstaller {
    pub torrents: Arc<Torrents>,
    pub loader: Arc<TorrentLoader>,
    pub store: Arc<SettingsStore>,
    pub hooks: Arc<Hooks>,
    /// The folder of `.torrent` files.
    pub folder: PathBuf,
}

impl TorrentInstaller {
    /// Installs a torrent.
    pub(crate) async fn install(&self, new: Installation) -> Result<Added, DaemonError> {
        let _lock = self.torrents.lock(new.metainfo.info_hash()).await;
        self.install_locked(new).await
    }

    /// Installs a torrent. The caller has locked it, and its placeholder if it has one.
    pub(crate) async fn install_locked(&self, new: Installation) -> Result<Added, DaemonError> {
        let metainfo = Arc::clone(&new.metainfo);
        let info_hash = metainfo.info_hash();
        self.torrents.check_open()?;
        let is_listed = new.placeholder.as_ref().is_some_and(|at| at.provisional == info_hash);
        if !is_listed && let Some(added) = self.torrents.duplicate(info_hash) {
            return Ok(added);
        }
        let file = self.write_file(&metainfo).await?;
        let (id, name) = self.enlist(new, file).await?;
        self.store.keep_mounts().await;
        self.torrents.events.changed(info_hash);
        self.torrents.wake.notify_one();
        self.hooks.run(Hook::Added, info_hash);
        let shortage = space::lack_of_room(&self.torrents, info_hash).await;
        let mut warnings: Vec<String> = shortage.into_iter().collect();
        warnings.extend(announce::unusable(metainfo.trackers()));
        match blocking(move || metainfo.notices()).await? {
            Ok(notices) => warnings.extend(notices),
            Err(error) => tracing::warn!(%error, "could not read what was repaired in a torrent"),
        }
        Ok(Added { info_hash, id, name, duplicate: false, tracker: None, warnings })
    }

    /// Puts the `.torrent` into its folder and returns the name it has there.
    async fn write_file(&self, metainfo: &Arc<Metainfo>) -> Result<String, DaemonError> {
        let (folder, metainfo) = (self.folder.clone(), Arc::clone(metainfo));
        blocking(move || torrent_files::put(&folder, &metainfo)).await?.map_err(|error| {
            let folder = printable_path(&self.folder);
            let sentence = format!("the torrent cannot be kept in `{folder}`: {error}");
            DaemonError::torrent_file(Reason::with_cause(sentence, error))
        })
    }

    /// Puts a torrent into the state, the engine and the table; `file` is its `.torrent`. Returns its
    /// number and name. Removes `file` again if that fails.
    async fn enlist(&self, new: Installation, file: String) -> Result<(u64, String), DaemonError> {
        let Installation { metainfo, root, mut record, hints, placeholder } = new;
        let info_hash = metainfo.info_hash();
        // The place is taken before anything that takes time, so that ranks follow the order of the
        // calls.
        {
            let mut table = self.torrents.table();
            if placeholder.is_none() {
                record.rank = table.order.push(info_hash);
            }
            let suffix = table.settings.incomplete_suffix.clone();
            record.common.change(|common| common.suffix = Some(suffix.into()));
        }
        let rank = record.rank;
        let saved = Saved {
            info_hash,
            file,
            root,
            added_at: placeholder.as_ref().map_or_else(unix_now, |place| place.added_at),
            done_at: None,
            settings: record.to_text(),
            checkpoint: None,
            counters: Counters::default(),
        };
        let before = placeholder.as_ref().and_then(|place| place.before.as_ref());
        match self.save_and_load(&metainfo, &saved, &record, hints, before).await {
            Ok(body) => Ok(self.enter(&saved, record, body, placeholder.as_ref())),
            Err(error) => {
                if placeholder.is_none() {
                    self.torrents.table().order.remove(rank);
                }
                // A file that remains does no harm.
                let _ = std::fs::remove_file(self.folder.join(&saved.file));
                Err(error)
            }
        }
    }

    async fn save_and_load(
        &self,
        metainfo: &Arc<Metainfo>,
        saved: &Saved,
        record: &TorrentRecord,
        hints: LoadHints,
        before: Option<&Saved>,
    ) -> Result<Body, DaemonError> {
        self.torrents.state.put(saved.clone()).await?;
        match self.loader.load(metainfo, saved, record, hints).await {
            Ok(body) => Ok(body),
            Err(broken) => {
                let undone = match before {
                    Some(before) => self.torrents.state.put(before.clone()).await,
                    None => self.torrents.state.remove(saved.info_hash).await,
                };
                if let Err(error) = undone {
                    tracing::warn!(%error, "a torrent that could not be added stays in the state");
                }
                Err(DaemonError::Conflict(broken.error))
            }
        }
    }

    fn enter(
        &self,
        saved: &Saved,
        record: TorrentRecord,
        body: Body,
        placeholder: Option<&Placeholder>,
    ) -> (u64, String) {
        let info_hash = saved.info_hash;
        let mut table = self.torrents.table();
        let before = placeholder.and_then(|place| table.entries.get(&place.provisional));
        let before = before.map(|entry| entry.id);
        let id = before.unwrap_or_else(|| table.new_id());
        let entry = Box::new(Entry::new(id, saved, record, body, Instant::now()));
        let name = entry.name().to_owned();
        match placeholder {
            Some(place) => table.settle(place.provisional, info_hash, entry),
            None => table.enter(info_hash, entry),
        }
        table.totals.added += 1;
        table.fresh.push(info_hash);
        (id, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_that_cannot_be_asked_are_named() {
        let urls = ["http://t.example/announce", "wss://t.example", "no\u{1b} address", ""];
        let tiers = [urls.map(str::to_owned).to_vec()];
        let told = announce::unusable(&tiers);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("its tracker `wss://t.example` is not used: "), "{told:?}");
        assert!(told.iter().all(|sentence| !sentence.contains('\u{1b}')));
    }
}
