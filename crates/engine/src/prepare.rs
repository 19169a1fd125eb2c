//! Makes a torrent's files before anything is written to them.

use std::sync::Arc;
use std::time::Duration;

use piecework_core::{Fingerprint, PieceIndex, Priority};
use piecework_storage::{StorageError, Store, StoreMode};
use piecework_swarm::lifecycle::{ContentState, LifecycleEvent};

use super::ownership::{Ownership, make_way};
use super::torrent::{Torrent, broke_off, flat};
use super::{TorrentError, wants};

/// The result of preparing files.
pub(super) enum Preparation {
    /// They exist. If a checkpoint has to say that they are being written, this is what they are
    /// like.
    Files(Option<Vec<Option<Fingerprint>>>),
    /// Somebody else has written to them.
    Changed,
    /// They belong to somebody else, or to another torrent as well.
    Refused(TorrentError),
}

impl Torrent {
    /// Makes folders and wanted files before anything is written. Returns [`Preparation::Changed`]
    /// if somebody has changed what is held: then the present state of the files must not be kept.
    pub(super) async fn prepare(&mut self) -> Result<Preparation, StorageError> {
        let record = self.record();
        if record.upload_only
            || record.is_finished(&self.entry.metainfo, &self.entry.options.lock().files)
        {
            return Ok(Preparation::Files(None));
        }
        if let Err(error) = self.paths.may_write(&self.entry) {
            return Ok(Preparation::Refused(error.into()));
        }
        let reserve = self.means.config.reserve;
        let (ownership, have) = (record.files, record.bitfield(&self.entry.metainfo));
        let keeps = self.means.keeps_checkpoints();
        let written = record.kept_writing().is_some();
        let kept = record.kept_unwritten().filter(|_| keeps);
        let kept = kept.map(|kept| kept.files().to_vec()).unwrap_or_default();
        let (store, wants) = (self.entry.store(), self.entry.options.lock().files.clone());
        // Thousands of torrents that are added at once take turns, but none waits long for a disk
        // that hangs.
        let turn = tokio::time::timeout(TURN, self.means.preparing.acquire()).await;
        let mounts = Arc::clone(&self.means.mounts);
        let prepared = tokio::task::spawn_blocking(move || {
            mounts.check(&store.root())?;
            if !kept.is_empty() && is_changed(&kept, &store.fingerprints()?) {
                return Ok(Preparation::Changed);
            }
            let pieces = wants::of_pieces(store.metainfo(), &wants);
            let wanted = |piece: PieceIndex| {
                pieces.get(piece.0 as usize).is_none_or(|piece| piece.is_wanted())
            };
            if let Err(error) = make_way(&store, &have, wanted, ownership)? {
                return Ok(Preparation::Refused(error));
            }
            let is_wanted = |file: usize| wants.get(file).is_none_or(|file| file.is_wanted());
            store.prepare_wanted(is_wanted)?;
            if reserve {
                store.reserve(is_wanted)?;
            }
            let files = if keeps && !written { Some(store.fingerprints()?) } else { None };
            Ok(Preparation::Files(files))
        });
        let prepared = prepared.await;
        drop(turn);
        let prepared =
            prepared.unwrap_or_else(|panic| Err(broke_off(&self.entry.store(), &panic)))?;
        if matches!(prepared, Preparation::Files(_)) {
            self.record_mut().files = Ownership::Ours;
        }
        Ok(prepared)
    }

    /// Keeps that files, which are like this now, are being written from now on.
    pub(super) fn note_prepared(&mut self, files: Option<Vec<Option<Fingerprint>>>) {
        let Some(files) = files else { return };
        let metainfo = Arc::clone(&self.entry.metainfo);
        let record = self.record_mut();
        let have = record.have.as_deref().cloned();
        record.note_kept(&metainfo, have, files, true);
        self.keep_noted();
    }

    /// Makes the wanted empty files, for which no piece will come.
    pub(super) async fn make_wanted_empty_files(&mut self) {
        let record = self.record();
        let entries = self.entry.metainfo.info().files().entries();
        let any = entries.iter().any(|file| file.len == 0 && !file.padding);
        let is_ready = record.life.content() == ContentState::Ready && record.is_open();
        if !any
            || !is_ready
            || record.upload_only
            || record.bitfield(&self.entry.metainfo).count() == 0
        {
            return;
        }
        let (store, wants) = (self.entry.store(), self.entry.options.lock().files.clone());
        let made = tokio::task::spawn_blocking(move || make_empty_files(&store, &wants));
        if let Err(error) = flat(&self.entry.store(), made.await) {
            self.pass_fault(error.into(), LifecycleEvent::Failed);
        }
    }
}

/// Makes the wanted empty files that are missing, for which no piece will come.
pub(super) fn make_empty_files(store: &Store, wants: &[Priority]) -> Result<(), StorageError> {
    let entries = store.metainfo().info().files().entries();
    if store.options().mode == StoreMode::ReadOnly || entries.iter().all(|entry| entry.len > 0) {
        return Ok(());
    }
    store.prepare_wanted(|file| {
        entries[file].len == 0 && wants.get(file).is_none_or(|file| file.is_wanted())
    })
}

/// Returns whether any of these files has changed.
pub(super) fn is_changed(then: &[Option<Fingerprint>], now: &[Option<Fingerprint>]) -> bool {
    then.iter().zip(now).any(|(then, now)| then.is_some() && then != now)
}

/// Time that a torrent waits for its turn to make its files.
const TURN: Duration = Duration::from_secs(1);
