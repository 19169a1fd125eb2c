//! Moving, renaming and deleting a torrent's files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tracing::warn;

use piecework_storage::{self as storage, MoveProgress, StorageError, Store};
use piecework_swarm::lifecycle::{LifecycleEvent, WorkKind};

use super::background::BackgroundJob;
use super::entry::FileWork;
use super::owners::{PlannedPaths, folder_identity};
use super::torrent::{Torrent, flat};
use super::{TorrentError, TorrentState};

/// Receives the result of the work; closed when nobody waits for it any more.
type Reply = oneshot::Sender<Result<(), TorrentError>>;

impl FileWork {
    /// Returns what it is for the torrent's lifecycle.
    pub(crate) fn kind(&self) -> WorkKind {
        match self {
            Self::Move(_) | Self::Rename(_) => WorkKind::Move,
            Self::Find(_) => WorkKind::Find,
            Self::Remove => WorkKind::Remove,
        }
    }
}

impl Torrent {
    /// Does the work on files that was asked for first.
    pub(super) async fn work(&mut self) {
        let (done, asked) = match self.works.pop_front() {
            Some((work, mut reply)) => {
                let result = self.do_work(work, &mut reply).await;
                (result.is_ok(), Some((reply, result)))
            }
            None => (false, None),
        };
        self.pass(LifecycleEvent::WorkDone { done });
        if let Some((work, _)) = self.works.front() {
            let kind = work.kind();
            self.pass(LifecycleEvent::Work(kind));
        }
        self.show();
        if let Some((reply, result)) = asked {
            // The caller may be gone.
            let _ = reply.send(result);
        }
    }

    async fn do_work(&mut self, work: FileWork, reply: &mut Reply) -> Result<(), TorrentError> {
        let plan = self.plan(&work).await?;
        let store = self.entry.store();
        let (names_before, store_root) = (store.top_names(), store.root());
        let result = match work {
            FileWork::Find(root) => self.find(&root),
            FileWork::Move(root) => {
                let job = {
                    let store = Arc::clone(&store);
                    move |background: Arc<BackgroundJob>| {
                        let note = |at: MoveProgress| {
                            background.done.store(at.bytes_done, Ordering::Relaxed);
                            background.total.store(at.bytes_total, Ordering::Relaxed);
                        };
                        storage::relocate(&store, &root, note, &background.cancel)
                    }
                };
                flat(&store, self.in_background(job, moving, Some(reply)).await.0)
            }
            FileWork::Rename(names) => {
                let job = {
                    let store = Arc::clone(&store);
                    move |_| rename(&store, &names)
                };
                flat(&store, self.in_background(job, moving, None).await.0)
            }
            FileWork::Remove => {
                self.record_mut().kept = None;
                let kept = self.paths.keep_for_others(&self.entry);
                let job = {
                    let store = Arc::clone(&store);
                    move |_| store.remove_data_except(&kept)
                };
                flat(&store, self.in_background(job, moving, None).await.0)
            }
        };
        let root = self.entry.store().root();
        if root != store_root && result.is_ok() {
            // What was known of the new folder's disk came from an earlier torrent.
            let mounts = Arc::clone(&self.means.mounts);
            drop(tokio::task::spawn_blocking(move || mounts.accept(&root)).await);
        }
        if let Some(plan) = plan {
            self.paths.settle_plan(&self.entry, &names_before, plan, result.is_ok());
        }
        result.map_err(TorrentError::from)
    }

    /// Claims the paths that the files will have; `None` if they will have none.
    async fn plan(&self, work: &FileWork) -> Result<Option<PlannedPaths>, TorrentError> {
        let store = self.entry.store();
        let (root, names, reads) = match work {
            FileWork::Move(root) => (root.clone(), None, false),
            FileWork::Find(root) => (root.clone(), None, true),
            FileWork::Rename(names) => (store.root(), Some(names.clone()), false),
            FileWork::Remove => return Ok(None),
        };
        let planned = store.planned(&root, names).map_err(TorrentError::from)?;
        let folder = folder_identity(&root).await;
        Ok(Some(self.paths.plan(&self.entry, planned, &folder, reads)?))
    }

    fn find(&mut self, root: &Path) -> Result<(), StorageError> {
        let old = self.entry.store();
        let (metainfo, files) = (Arc::clone(old.metainfo()), Arc::clone(&self.means.files));
        let store = Store::with_options(root, metainfo, files, old.options())?;
        self.entry.set_store(Arc::new(store));
        self.record_mut().kept = None;
        Ok(())
    }
}

fn moving(done: u64, total: u64) -> TorrentState {
    TorrentState::Moving { done, total }
}

/// Renames files, all or none.
fn rename(store: &Store, names: &BTreeMap<usize, Vec<String>>) -> Result<(), StorageError> {
    let entries = store.metainfo().info().files().entries();
    let old = store.options().names;
    let old_names = |file: &usize| match (old.get(file), entries.get(*file)) {
        (Some(names), _) => names.clone(),
        (None, Some(entry)) => entry.path.iter().map(str::to_owned).collect(),
        (None, None) => Vec::new(),
    };
    for (at, (file, new)) in names.iter().enumerate() {
        let Err(error) = store.rename_file(*file, new) else { continue };
        for (file, _) in names.iter().take(at) {
            if let Err(error) = store.rename_file(*file, &old_names(file)) {
                warn!(%error, "a file keeps its new name although others could not be renamed");
            }
        }
        return Err(error);
    }
    Ok(())
}
