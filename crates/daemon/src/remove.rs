//! Removing torrents.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use super::allowed_folders::{AllowedFolders, check_output};
use super::background::blocking;
use super::catalogue::CatalogueTracker;
use super::entry::{BodyView, Entry, unix_now};
use super::reason::Reason;
use super::torrents::Torrents;
use super::unhashed::UnhashedTorrent;
use super::{Caller, DaemonError, torrent_files};
use piecework_api::RemoveRequest;
use piecework_core::{InfoHash, printable, printable_path};
use piecework_engine::Session;

/// Removes torrents.
pub(super) struct Remover {
    pub torrents: Arc<Torrents>,
    pub session: Session,
    pub folders: Arc<AllowedFolders>,
    /// The folder of `.torrent` files.
    pub folder: PathBuf,
}

impl Remover {
    /// Removes a torrent.
    pub(crate) async fn remove(
        &self,
        info_hash: InfoHash,
        request: RemoveRequest,
        caller: Caller,
    ) -> Result<(), DaemonError> {
        let (_lock, info_hash) = self.torrents.lock_listed(info_hash).await;
        self.torrents.check_open()?;
        let (root, file, tracker, through_links) = self.torrents.with(info_hash, |entry| {
            // A torrent whose files are not hashed yet may have no `.torrent`.
            let file = Some(entry.file()).filter(|file| !file.is_empty());
            let file = file.map(|file| self.folder.join(&*file));
            let common = &entry.record.common;
            (entry.root(), file, common.tracker.clone(), common.through_links)
        })?;
        if request.delete_data {
            if through_links {
                return Err(DaemonError::conflict(THROUGH_LINKS.to_owned()));
            }
            // Otherwise whoever may share a file could delete it.
            let roots = self.folders.output_roots();
            let root = blocking(move || check_output(&root, &roots, caller)).await??;
            self.folders.check_reach(caller, &root)?;
        }
        if request.unregister
            && let (Some(tracker), Some(file)) = (tracker, &file)
        {
            // Tests first that the state can be written, since a tracker does not restore what it
            // has forgotten.
            self.torrents.keep(info_hash).await?;
            CatalogueTracker::named(&tracker)?.unregister(info_hash, file).await?;
        }
        self.torrents.state.remove(info_hash).await?;
        let entry = self.torrents.table().take(info_hash, unix_now());
        self.torrents.events.removed(info_hash);
        self.torrents.wake.notify_one();
        let Some(entry) = entry else { return Ok(()) };
        if let Some(moving) = &entry.moving {
            moving.task.abort();
        }
        let deleted = self.end(info_hash, &entry, request.delete_data).await;
        if let Some(file) = file {
            remove_files(file).await?;
        }
        deleted
    }

    /// Ends the work on a torrent that was removed, and deletes its data if `delete_data`.
    async fn end(
        &self,
        info_hash: InfoHash,
        entry: &Entry,
        delete_data: bool,
    ) -> Result<(), DaemonError> {
        let stay = |why: String| Err(DaemonError::conflict(why));
        match entry.body.view() {
            BodyView::Live(handle) => {
                let deleted = if delete_data { handle.remove_data().await } else { Ok(()) };
                self.session.remove(info_hash).await;
                deleted.map_err(|error| DaemonError::conflict(Reason::of(error)))
            }
            BodyView::Broken(_) if !delete_data => Ok(()),
            BodyView::Broken(broken) => stay(match broken.taken {
                Some(_) => format!("its files stay: {}", broken.error),
                None => format!(
                    "its files stay, because it is not known which they are: {}",
                    broken.error
                ),
            }),
            BodyView::Unhashed(unhashed) => {
                cancel_hashing(unhashed);
                match delete_data {
                    true => stay("its files stay: they were not shared yet".to_owned()),
                    false => Ok(()),
                }
            }
            BodyView::Linked(linked) => {
                linked.work.cancel();
                linked.work.tell(&Err(DaemonError::conflict(format!(
                    "`{}` was removed before its metadata was here",
                    printable(&linked.name)
                ))));
                Ok(())
            }
        }
    }
}

fn cancel_hashing(unhashed: &UnhashedTorrent) {
    unhashed.work.cancel();
    unhashed.work.tell(&Err(DaemonError::conflict(format!(
        "`{}` was removed before it was hashed, so it is not shared",
        printable(&unhashed.name)
    ))));
}

/// Removes the `.torrent` in `file`, and the token beside it.
async fn remove_files(file: PathBuf) -> Result<(), DaemonError> {
    blocking(move || {
        for path in [torrent_files::token_path(&file), file] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(%error, "could not remove `{}`", printable_path(&path));
                }
                _ => {}
            }
        }
    })
    .await
}

/// Why the files of a torrent are not removed with it.
const THROUGH_LINKS: &str = "its files are not removed: symbolic links led to some of them when it was \
     shared, and what they led to may be used elsewhere; remove it without its data, and then what is \
     not needed any more";
