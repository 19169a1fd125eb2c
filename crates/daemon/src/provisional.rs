//! Torrents that are listed before they are ones: their files are not hashed yet, or only their magnet link is known.
//! The former are listed under a provisional info-hash, which is derived
//! from the request. A `.torrent` that came with the request lies in the torrents folder meanwhile, under a
//! hidden name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::DaemonError;
use super::background::blocking;
use super::entries::{EntryMap, EntryMut};
use super::entry::{Body, Entry, unix_now};
use super::pending_work::PendingWork;
use super::record::TorrentRecord;
use super::table::MAX_PENDING;
use super::torrents::Torrents;
use crate::state::{Counters, Saved};
use piecework_api::Added;
use piecework_core::figures::count;
use piecework_core::{InfoHash, printable, printable_path};

/// Lists torrents before they are ones, and removes them from the list.
pub(super) struct ProvisionalTorrents {
    pub torrents: Arc<Torrents>,
    /// The folder of `.torrent` files.
    pub folder: PathBuf,
}

impl ProvisionalTorrents {
    /// Puts a torrent into the state and the list, at the end of the queue. `file` is the hidden `.torrent` that came with
    /// the request, or empty, and is removed if this fails.
    ///
    /// # Errors
    /// If too many torrents are listed like this, or the state cannot be written.
    pub(crate) async fn list(
        &self,
        info_hash: InfoHash,
        file: String,
        root: PathBuf,
        record: TorrentRecord,
        body: Body,
    ) -> Result<Added, DaemonError> {
        let hidden = file.clone();
        let listed = match self.reserve() {
            Ok(()) => {
                let listed = self.enter(info_hash, file, root, record, body).await;
                self.torrents.table().pending_soon -= 1;
                listed
            }
            Err(error) => Err(error),
        };
        if listed.is_err() {
            self.forget_hidden(&hidden).await;
        }
        listed
    }

    /// Takes a place among the torrents that are listed before they are ones.
    fn reserve(&self) -> Result<(), DaemonError> {
        let mut table = self.torrents.table();
        let now = table.pending + table.pending_soon;
        if now >= MAX_PENDING {
            return Err(DaemonError::conflict(format!(
                "`{}` files and folders to hash, and magnet links without metadata, wait already, which is the limit: \
                 remove some of them, or add this one when some are done",
                count(now as u64)
            )));
        }
        table.pending_soon += 1;
        Ok(())
    }

    async fn enter(
        &self,
        info_hash: InfoHash,
        file: String,
        root: PathBuf,
        mut record: TorrentRecord,
        body: Body,
    ) -> Result<Added, DaemonError> {
        record.rank = self.torrents.table().order.push(info_hash);
        let saved = Saved {
            info_hash,
            file,
            root,
            added_at: unix_now(),
            done_at: None,
            settings: record.to_text(),
            checkpoint: None,
            counters: Counters::default(),
        };
        if let Err(error) = self.torrents.state.put(saved.clone()).await {
            self.torrents.table().order.remove(record.rank);
            return Err(error.into());
        }
        let listed = {
            let mut table = self.torrents.table();
            let id = table.new_id();
            let entry = Entry::new(id, &saved, record, body, Instant::now());
            let name = entry.name().to_owned();
            table.enter(info_hash, Box::new(entry));
            let (tracker, warnings) = (None, Vec::new());
            Added { info_hash, id, name, duplicate: false, tracker, warnings }
        };
        self.torrents.touch(info_hash, false);
        Ok(listed)
    }

    /// Leaves a torrent in the list with its error.
    pub(crate) fn give_up(
        &self,
        provisional: InfoHash,
        work: &Arc<PendingWork>,
        error: &DaemonError,
    ) {
        let mut table = self.torrents.table();
        if let Some(mut entry) = find(&mut table.entries, provisional, work)
            && let Some(unhashed) = entry.body.unhashed_mut()
        {
            tracing::warn!(torrent = unhashed.name, %error, "could not share files");
            unhashed.error = Some(printable(&error.to_string()).into_owned());
        }
        drop(table);
        self.torrents.touch(provisional, false);
    }

    /// Removes a torrent that could not be shared from the list. Returns whether it is gone.
    pub(crate) async fn strike(&self, provisional: InfoHash, work: &Arc<PendingWork>) -> bool {
        let _lock = self.torrents.lock(provisional).await;
        let file = {
            let mut table = self.torrents.table();
            let Some(entry) = find(&mut table.entries, provisional, work) else {
                return true;
            };
            entry.file().into_owned()
        };
        if let Err(error) = self.torrents.state.remove(provisional).await {
            tracing::debug!(%error, "an invalid request stays in the list");
            return false;
        }
        self.torrents.table().take(provisional, unix_now());
        self.torrents.events.removed(provisional);
        self.forget_hidden(&file).await;
        true
    }

    /// Removes what is left of a provisional torrent after the torrent itself was installed.
    pub(crate) async fn forget(&self, provisional: InfoHash, file: &str) {
        if let Err(error) = self.torrents.state.remove(provisional).await {
            tracing::warn!(%error, "a provisional torrent stays in the state and is hashed again after a restart");
        }
        self.torrents.events.removed(provisional);
        self.forget_hidden(file).await;
    }

    /// Removes the `.torrent` that came with a request, if there was one.
    pub(crate) async fn forget_hidden(&self, file: &str) {
        if file.is_empty() {
            return;
        }
        let path = self.folder.join(file);
        let removed = blocking(move || std::fs::remove_file(&path).map_err(|error| (path, error)));
        match removed.await {
            Ok(Err((path, error))) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "could not remove `{}`", printable_path(&path));
            }
            _ => {}
        }
    }

    /// Returns whether the torrent is listed and `work` is the current attempt.
    pub(crate) fn is_at(&self, provisional: InfoHash, work: &Arc<PendingWork>) -> bool {
        find(&mut self.torrents.table().entries, provisional, work).is_some()
    }
}

/// Removes `.torrent` files of requests that are not in the state: the process died between writing one and
/// the other. `known` are the names of files in the state.
///
/// # Errors
/// If the folder cannot be read. Files that cannot be removed are logged.
pub(super) fn sweep(folder: &Path, known: &BTreeSet<&str>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| is_hidden_name(name)) else { continue };
        if known.contains(name) {
            continue;
        }
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {
                tracing::info!("removed `{}`, which an earlier run left", printable_path(&path))
            }
            Err(error) => tracing::warn!(%error, "could not remove `{}`", printable_path(&path)),
        }
    }
    Ok(())
}

/// Returns the torrent, if `work` is the current attempt.
fn find<'a>(
    torrents: &'a mut EntryMap,
    provisional: InfoHash,
    work: &Arc<PendingWork>,
) -> Option<EntryMut<'a>> {
    let entry = torrents.get_mut(&provisional)?;
    let is_meant = Arc::ptr_eq(entry.body.pending_work()?, work);
    is_meant.then_some(entry)
}

/// Returns the name in the torrents folder of a `.torrent` whose files are not hashed yet. Readers of the
/// folder skip it.
pub(super) fn hidden_name(provisional: InfoHash) -> String {
    format!(".{provisional}.torrent")
}

/// Returns whether [`hidden_name`] returns such names.
fn is_hidden_name(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".torrent"));
    inner.and_then(|hash| hash.parse().ok()).is_some_and(|hash| hidden_name(hash) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_with_forgotten_requests_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let [known, forgotten] = [1, 2].map(|byte| hidden_name(InfoHash([byte; 20])));
        let others = [
            ".x.torrent".to_owned(),
            forgotten[1..].to_owned(),
            format!("{forgotten}.token"),
            format!(".{}.torrent", "AB".repeat(20)),
            ".1.2.part".to_owned(),
        ];
        for name in others.iter().chain([&known, &forgotten]) {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        sweep(dir.path(), &BTreeSet::from([known.as_str()])).unwrap();
        assert!(!dir.path().join(&forgotten).exists());
        for name in others.iter().chain([&known]) {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }
}
