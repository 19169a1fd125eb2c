//! Each path has one owner: a torrent claims paths before it touches files, and gives them up
//! afterwards.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use piecework_core::InfoHash;
use piecework_storage::{FilePath, FolderIdentity, Store};
use piecework_swarm::lifecycle::ContentState;

use super::claims::{ClaimId, Claims, NO_CLAIM, Neighbour, Overlap};
use super::entry::Entry;
use super::error::{PathConflict, PathTaken};

/// Which torrent of a session has which paths.
#[derive(Default)]
pub(super) struct PathOwners {
    claims: Mutex<Claims<Weak<Entry>>>,
    /// Held between a look at the claims and a new claim.
    claiming: Mutex<()>,
}

/// Another torrent that has some of a torrent's paths.
pub(super) struct Rival {
    pub entry: Arc<Entry>,
    pub leaving: bool,
    /// The paths in question: ours, and whether both have it as a file of the same length.
    pub paths: Vec<(FilePath, bool)>,
}

/// The claims of a move or rename while it goes on.
pub(super) struct PlannedPaths {
    store: Store,
    id: ClaimId,
}

/// Returns the same as [`FolderIdentity::of`], looked up on a thread that may block. If a disk does
/// not answer within two seconds, the folder is taken to be where its path says.
pub async fn folder_identity(path: &Path) -> FolderIdentity {
    let looked = path.to_owned();
    let job = tokio::task::spawn_blocking(move || FolderIdentity::of(&looked));
    match tokio::time::timeout(LOOK, job).await {
        Ok(Ok(identity)) => identity,
        Ok(Err(_)) | Err(_) => FolderIdentity::unseen(path.to_owned()),
    }
}

impl PathOwners {
    /// Claims the paths of a torrent that is added. `reads` says that it writes to none of its
    /// files as long as others have them.
    pub(crate) fn claim(
        &self,
        entry: &Arc<Entry>,
        folder: &FolderIdentity,
        reads: bool,
    ) -> Result<(), Box<PathTaken>> {
        let id = self.claim_for(entry, &entry.store(), folder, reads)?;
        entry.claim.store(id.to_number(), Ordering::Relaxed);
        Ok(())
    }

    /// Gives up the paths of a torrent that is gone.
    pub(crate) fn give_up(&self, entry: &Entry) {
        if let Some(id) = ClaimId::from_number(entry.claim.swap(NO_CLAIM, Ordering::Relaxed)) {
            self.claims.lock().remove(id, &entry.store().top_names());
        }
    }

    /// Notes that the torrent's paths are free soon.
    pub(crate) fn leave_paths(&self, entry: &Entry) {
        if let Some(id) = ClaimId::from_number(entry.claim.load(Ordering::Relaxed)) {
            self.claims.lock().set_leaving(id);
        }
    }

    /// Returns the other torrents that have paths of this torrent.
    pub(crate) fn rivals(&self, entry: &Arc<Entry>) -> Vec<Rival> {
        let store = entry.store();
        let names = store.top_names();
        let id = ClaimId::from_number(entry.claim.load(Ordering::Relaxed));
        let mut claims = self.claims.lock();
        let Some(folder) = id.and_then(|id| claims.folder_of(id)) else { return Vec::new() };
        let neighbours = claims.neighbours(&folder, &names);
        drop(claims);
        self.compare(entry, &store, neighbours)
    }

    /// Notes that the torrent's files are about to be removed. Returns the paths of files that stay
    /// because others have them.
    pub(crate) fn keep_for_others(&self, entry: &Arc<Entry>) -> BTreeSet<Vec<String>> {
        // If two go at the same time, the second removes the shared files.
        self.leave_paths(entry);
        let staying = self.rivals(entry).into_iter().filter(|rival| !rival.leaving);
        staying.flat_map(|rival| rival.paths).map(|(path, _)| path.names).collect()
    }

    /// Fails if another torrent has paths to which this one is about to write.
    pub(crate) fn may_write(&self, entry: &Arc<Entry>) -> Result<(), PathConflict> {
        let writes = |path: &FilePath, same: bool| path.len > 0 || !same;
        for rival in self.rivals(entry) {
            if let Some((path, _)) = rival.paths.iter().find(|(path, same)| writes(path, *same)) {
                let path = path.beneath(&entry.store().root());
                return Err(PathConflict::WouldWrite { path, owner: rival.entry.named() });
            }
        }
        Ok(())
    }

    /// Claims the future paths of the files of `entry` before they are moved there. Nobody else may
    /// have them, unless `reads`; and nobody else may have the present ones.
    pub(crate) fn plan(
        &self,
        entry: &Arc<Entry>,
        planned: Store,
        folder: &FolderIdentity,
        reads: bool,
    ) -> Result<PlannedPaths, PathConflict> {
        if !reads && let Some(rival) = self.rivals(entry).first() {
            let first = rival.paths.first().map(|(path, _)| path.beneath(Path::new("")));
            let path = entry.store().root().join(first.unwrap_or_default());
            return Err(PathConflict::WouldLose { path, owner: rival.entry.named() });
        }
        let id = self.claim_for(entry, &planned, folder, reads);
        let id = id.map_err(PathConflict::Taken)?;
        Ok(PlannedPaths { store: planned, id })
    }

    /// Gives up the claims that are no longer needed, depending on whether the work was done.
    pub(crate) fn settle_plan(
        &self,
        entry: &Arc<Entry>,
        before: &BTreeSet<String>,
        plan: PlannedPaths,
        done: bool,
    ) {
        if !done {
            self.claims.lock().remove(plan.id, &plan.store.top_names());
            return;
        }
        let old = entry.claim.swap(plan.id.to_number(), Ordering::Relaxed);
        if let Some(old) = ClaimId::from_number(old) {
            self.claims.lock().remove(old, before);
        }
    }

    fn claim_for(
        &self,
        entry: &Arc<Entry>,
        store: &Store,
        folder: &FolderIdentity,
        reads: bool,
    ) -> Result<ClaimId, Box<PathTaken>> {
        let names = store.top_names();
        // Nobody else may claim between the look and the claim.
        let _claiming = self.claiming.lock();
        let neighbours = self.claims.lock().neighbours(folder, &names);
        for rival in self.compare(entry, store, neighbours) {
            // A torrent may be added again while it leaves: its files are the same.
            if rival.leaving && rival.entry.info_hash() == entry.info_hash() {
                continue;
            }
            let whole = rival.entry.is_whole();
            let harmless = |(path, same): &(FilePath, bool)| *same && (path.len == 0);
            let shared = |path: &(FilePath, bool)| harmless(path) || (path.1 && whole);
            let can_be_shared = !rival.leaving && rival.paths.iter().all(shared);
            if can_be_shared && (reads || rival.paths.iter().all(harmless)) {
                continue;
            }
            let taken = rival.paths.iter().find(|path| !harmless(path));
            let path = taken.map(|(path, _)| path.beneath(Path::new("")));
            return Err(Box::new(PathTaken {
                torrent: entry.named(),
                owner: rival.entry.named(),
                path: store.root().join(path.unwrap_or_default()),
                can_be_shared,
                leaving: rival.leaving,
            }));
        }
        Ok(self.claims.lock().insert(Arc::downgrade(entry), folder, &names))
    }

    fn compare(
        &self,
        entry: &Arc<Entry>,
        store: &Store,
        neighbours: Vec<Neighbour<Weak<Entry>>>,
    ) -> Vec<Rival> {
        let mut ours = None;
        let mut rivals = Vec::new();
        for neighbour in neighbours {
            let Some(other) = neighbour.owner.upgrade().filter(|it| !Arc::ptr_eq(it, entry)) else {
                continue;
            };
            let ours = ours.get_or_insert_with(|| store.file_paths());
            let theirs = other.store().file_paths();
            let same = |overlap: &Overlap| {
                let (a, b) = (&ours[overlap.ours], &theirs[overlap.theirs]);
                overlap.same && a.len == b.len && a.unfinished == b.unfinished
            };
            let at = |root: PathBuf, path: &FilePath| path.beneath(&root);
            let mut overlaps = neighbour.overlaps(ours, &theirs);
            // This is rare enough to ask the disk whether both names are one file.
            overlaps.retain(|it| {
                let (a, b) = (&ours[it.ours], &theirs[it.theirs]);
                !it.by_case || is_one_file(&at(store.root(), a), &at(other.store().root(), b))
            });
            let paths: Vec<_> =
                overlaps.iter().map(|it| (ours[it.ours].clone(), same(it))).collect();
            if !paths.is_empty() {
                rivals.push(Rival { entry: other, leaving: neighbour.leaving, paths });
            }
        }
        rivals
    }
}

impl Entry {
    /// Returns its name in the metainfo, and its info-hash.
    fn named(&self) -> (String, InfoHash) {
        (self.metainfo.info().name().to_owned(), self.info_hash())
    }

    /// Returns whether all its content was there when that was last known.
    fn is_whole(&self) -> bool {
        let known = self.asleep(|record| match record.life.content() {
            ContentState::Ready => record.have.is_none(),
            // It was all there a moment ago, and is surveyed for the first time.
            ContentState::Surveying if record.upload_only && record.kept.is_none() => true,
            _ => record.was_whole(),
        });
        known.unwrap_or_else(|| {
            let pieces = self.metainfo.info().geometry().pieces();
            self.shown().pieces_have == pieces
        })
    }
}

/// Returns whether both paths lead to one existing file.
fn is_one_file(a: &Path, b: &Path) -> bool {
    let of = |path: &Path| path.symlink_metadata().ok().map(|it| (it.dev(), it.ino()));
    of(a).is_some_and(|a| Some(a) == of(b))
}

/// Time for a disk to say where a folder lies.
const LOOK: Duration = Duration::from_secs(2);
