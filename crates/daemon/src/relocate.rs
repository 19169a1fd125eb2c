//! Moving and renaming the files of a torrent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::allowed_folders::AllowedFolders;
use super::entry::{Entry, Relocation, moving_error};
use super::record::FileWork;
use super::rename::RenamePlan;
use super::settings_store::SettingsStore;
use super::torrents::Torrents;
use super::{Caller, DaemonError, rename};
use crate::state::Update;
use piecework_api::{MoveRequest, RenameRequest};
use piecework_core::metainfo::FilePath;
use piecework_core::{InfoHash, printable_path};
use piecework_engine::{TorrentError, TorrentHandle};

/// Moves and renames the files of torrents.
pub(super) struct Relocator {
    pub torrents: Arc<Torrents>,
    pub folders: Arc<AllowedFolders>,
    pub store: Arc<SettingsStore>,
}

impl Relocator {
    /// Begins to move a torrent's data.
    pub(crate) async fn move_data(
        self: &Arc<Self>,
        info_hash: InfoHash,
        request: MoveRequest,
        caller: Caller,
    ) -> Result<(), DaemonError> {
        let lock = self.torrents.lock(info_hash).await;
        self.torrents.check_open()?;
        let folder = self.folders.output(Some(&request.folder), caller).await?;
        self.folders.check_reach(caller, &folder)?;
        let from = self.torrents.with(info_hash, |entry| entry.root())?;
        self.folders.check_reach(caller, &from)?;
        let handle = self.torrents.live(info_hash)?;
        self.torrents.with(info_hash, |entry| {
            if entry.moving.is_some() {
                return Err(moving_error());
            }
            if entry.record.seed && !request.find {
                return Err(served_in_place(entry, "moved"));
            }
            entry.rare.change(|rare| rare.trouble = None);
            Ok(())
        })??;
        // Nothing is moved if files are only looked for.
        if let Some(folder) = folder.to_str().filter(|_| !request.find) {
            self.begin(info_hash, FileWork::Move { folder: folder.to_owned() }).await?;
        }
        let task = self.begin_move(info_hash, handle, folder, request.find);
        self.torrents.touch(info_hash, false);
        drop(lock);
        if let Some(task) = task.filter(|_| request.find) {
            // Nothing is copied, so this ends soon, and the next request, such as a rename, is not
            // refused. If the task was aborted, the torrent is gone.
            let _ = timeout(FIND_PATIENCE, task).await;
        }
        Ok(())
    }

    /// Spawns a task that moves a torrent's data. Returns the task, unless the torrent is gone.
    pub(crate) fn begin_move(
        self: &Arc<Self>,
        info_hash: InfoHash,
        handle: TorrentHandle,
        folder: PathBuf,
        find: bool,
    ) -> Option<JoinHandle<()>> {
        let relocator = Arc::clone(self);
        let mut table = self.torrents.table();
        let mut entry = table.entries.get_mut(&info_hash)?;
        let from = entry.root();
        // The task cannot end before this lock is released.
        let task = tokio::spawn(async move {
            let moved = handle.relocate(&folder, find).await;
            relocator.finish_move(info_hash, &folder, moved).await;
        });
        entry.moving = Some(Box::new(Relocation { task: task.abort_handle(), from }));
        Some(task)
    }

    /// Records what is about to be done to a torrent's files.
    async fn begin(&self, info_hash: InfoHash, work: FileWork) -> Result<(), DaemonError> {
        self.torrents
            .with(info_hash, |entry| entry.record.common.unfinished = Some(Box::new(work)))?;
        let kept = self.torrents.keep(info_hash).await;
        if kept.is_err() {
            self.torrents.with(info_hash, |entry| {
                entry.record.common.change(|common| common.unfinished = None)
            })?;
        }
        kept
    }

    /// Records how a move ended.
    async fn finish_move(
        &self,
        info_hash: InfoHash,
        folder: &Path,
        moved: Result<(), TorrentError>,
    ) {
        let _lock = self.torrents.lock(info_hash).await;
        // A torrent that was removed meanwhile needs nothing.
        let ended = self.torrents.with(info_hash, |entry| {
            entry.record.common.change(|common| common.unfinished = None);
        });
        let text = ended.ok().and_then(|()| self.torrents.table().record_text(info_hash));
        let Some(text) = text else { return };
        let root = moved.is_ok().then(|| folder.to_owned());
        let update = Update { root, settings: Some(text), ..Update::default() };
        if let Err(error) = self.torrents.state.update(info_hash, update).await {
            self.torrents.table().notice(format!(
                "the result of moving the torrent `{info_hash}` to `{}` could not be written: {error}",
                printable_path(folder)
            ));
        }
        // Neither does one that is removed just now.
        let _ = self.torrents.with(info_hash, |entry| {
            entry.moving = None;
            // What the queue decided meanwhile was not passed on.
            entry.seen.unsure = true;
            if let Err(error) = moved {
                entry.rare.trouble = Some(error.to_string().into());
            }
        });
        self.store.keep_mounts().await;
        self.torrents.touch(info_hash, true);
    }

    /// Renames the torrent, a folder or a file in it.
    pub(crate) async fn rename(
        &self,
        info_hash: InfoHash,
        request: RenameRequest,
    ) -> Result<(), DaemonError> {
        let _lock = self.torrents.lock(info_hash).await;
        self.torrents.check_open()?;
        let handle = self.torrents.live(info_hash)?;
        let chosen = self.torrents.with(info_hash, |entry| match entry.moving {
            Some(_) => Err(moving_error()),
            None if entry.record.seed => Err(served_in_place(entry, "renamed")),
            None => Ok(entry.record.settings.clone()),
        })??;
        let (names_before, name_before) = (names_in_a_map(&chosen.renamed), chosen.name.clone());
        let RenamePlan { changes, names, name } =
            rename::plan(handle.metainfo(), &chosen, &request)?;
        let work = FileWork::Rename { names: names.clone(), name: name.clone() };
        self.begin(info_hash, work).await?;
        let back = changes.keys().map(|file| {
            let own = |path: &FilePath| path.iter().map(str::to_owned).collect();
            let entries = handle.metainfo().info().files().entries();
            (*file, names_before.get(file).cloned().unwrap_or_else(|| own(&entries[*file].path)))
        });
        let back: BTreeMap<usize, Vec<String>> = back.collect();
        let done = handle.rename(changes).await;
        self.torrents.with(info_hash, |entry| {
            entry.record.common.change(|common| common.unfinished = None);
            match &done {
                Ok(()) => {
                    entry.record.settings.renamed = names;
                    if name.is_some() {
                        entry.record.settings.name = name;
                    }
                }
                // Some may have their new names nevertheless.
                Err(_) => entry.record.settings.renamed = names_of(&handle),
            }
        })?;
        if let Err(error) = self.torrents.keep(info_hash).await {
            // A refused request must not have changed anything. If the files cannot be renamed
            // back, the next start finds them where they are.
            if done.is_ok() && handle.rename(back).await.is_ok() {
                self.torrents.with(info_hash, |entry| {
                    entry.record.settings.renamed = names_of(&handle);
                    entry.record.settings.name = name_before;
                })?;
            }
            return Err(error);
        }
        self.torrents.touch(info_hash, false);
        done.map_err(|error| DaemonError::conflict(format!("it could not be renamed: {error}")))
    }
}

fn names_in_a_map(names: &[(u32, Vec<String>)]) -> BTreeMap<usize, Vec<String>> {
    names.iter().map(|(file, path)| (*file as usize, path.clone())).collect()
}

/// Returns the paths of files that are not where the torrent says.
fn names_of(handle: &TorrentHandle) -> Vec<(u32, Vec<String>)> {
    let names = handle.names().into_iter();
    names.filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path))).collect()
}

/// Returns the error for changing files that are shared from where they are.
fn served_in_place(entry: &Entry, what: &str) -> DaemonError {
    DaemonError::conflict(format!(
        "it cannot be {what}: it was shared from `{}`, and files that are shared from where they are \
         are never changed; {what} by hand, they are found again with `--find DIR` or shared anew",
        printable_path(&entry.root().join(entry.name()))
    ))
}

/// How long a request to look for files waits for the result.
const FIND_PATIENCE: Duration = Duration::from_secs(5);
