//! Changing what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::add::{check_settings, check_trackers, check_words, only, parse_tracker, shown_files};
use super::book::{BodyView, Entry, Moving, Phase, unix_now};
use super::catalogue::Tracker;
use super::inner::{Inner, blocking, options};
use super::kept::Kept;
use super::ranks::ranks_of;
use super::rename::Renamed;
use super::roots::{self, shown};
use super::start::Extra;
use super::unfinished::Unfinished;
use super::{Caller, DaemonError, files, rename};
use crate::state::{Saved, Update};
use piecework_api::{
    MoveRequest, RemoveRequest, RenameRequest, Torrent, TorrentChange, TorrentSettings,
};
use piecework_core::metainfo::{FilePath, Metainfo};
use piecework_core::{InfoHash, Priority};
use piecework_engine::TorrentHandle;
use piecework_engine::tracker_client::tier_texts;

impl Inner {
    /// Takes a torrent out.
    pub async fn remove(
        &self,
        info_hash: InfoHash,
        request: RemoveRequest,
        caller: Caller,
    ) -> Result<(), DaemonError> {
        let (_door, info_hash) = self.door_of(info_hash).await;
        self.is_open()?;
        let (root, file, tracker, through_links) = self.with(info_hash, |entry| {
            // One that is hashed first need not have a file.
            let file = Some(entry.file()).filter(|file| !file.is_empty());
            let file = file.map(|file| self.config.torrents.join(&*file));
            let rare = &entry.kept.rare;
            (entry.root(), file, rare.tracker.clone(), rare.through_links)
        })?;
        if request.delete_data && through_links {
            return Err(DaemonError::Conflict(THROUGH_LINKS.to_owned()));
        }
        if request.delete_data {
            // Otherwise whoever may share a file could have it deleted.
            let roots = self.output_roots();
            let root = blocking(move || roots::check(&root, &roots, caller)).await??;
            self.check_reach(caller, &root)?;
        }
        if request.unregister
            && let (Some(tracker), Some(file)) = (tracker, &file)
        {
            // What cannot be written to the state is not begun: a tracker does not give back what
            // it has forgotten.
            self.keep(info_hash).await?;
            Tracker::named(&tracker)?.unregister(info_hash, file).await?;
        }
        self.state.remove(info_hash).await?;
        let entry = self.book.lock().take(info_hash, unix_now());
        self.ears.removed(info_hash);
        self.wake.notify_one();
        let Some(entry) = entry else { return Ok(()) };
        if let Some(moving) = &entry.moving {
            moving.task.abort();
        }
        let mut deleted = Ok(());
        match entry.body.view() {
            BodyView::Live(handle) => {
                if request.delete_data {
                    deleted = handle.remove_data().await.map_err(|error| error.to_string());
                }
                self.session.remove(info_hash).await;
            }
            BodyView::Broken(broken) if request.delete_data => {
                deleted = Err(match broken.taken {
                    Some(_) => format!("its files stay: {}", broken.error),
                    None => {
                        format!("its files stay, for it is not known which: {}", broken.error)
                    }
                });
            }
            BodyView::Broken(_) => {}
            BodyView::Making(making) => {
                making.work.cancel();
                making.work.tell(&Err(DaemonError::Conflict(format!(
                    "`{}` was removed before it was hashed, so it is not shared",
                    piecework_core::printable(&making.name)
                ))));
                if request.delete_data {
                    deleted = Err("its files stay: they were not shared yet".to_owned());
                }
            }
        }
        let Some(file) = file else { return deleted.map_err(DaemonError::Conflict) };
        blocking(move || {
            for path in [files::token_path(&file), file] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!(%error, "`{}` stays behind", shown(&path));
                    }
                    _ => {}
                }
            }
        })
        .await?;
        deleted.map_err(DaemonError::Conflict)
    }

    /// Starts a torrent when it is its turn; at once if `forced`.
    pub async fn start_torrent(
        self: &Arc<Self>,
        info_hash: InfoHash,
        forced: bool,
    ) -> Result<(), DaemonError> {
        let (_door, info_hash) = self.door_of(info_hash).await;
        self.is_open()?;
        self.hash_again(info_hash);
        self.mend(info_hash).await?;
        self.begin_to_run(info_hash, forced, false).await
    }

    /// Does what [`Inner::start_torrent`] promises, for whoever is at the torrent's door; has files
    /// of others replaced if `overwrite`.
    async fn begin_to_run(
        &self,
        info_hash: InfoHash,
        forced: bool,
        overwrite: bool,
    ) -> Result<(), DaemonError> {
        let before = self.with(info_hash, |entry| (entry.kept.clone(), entry.seen, entry.run))?;
        self.with(info_hash, |entry| {
            entry.kept.settings.paused = false;
            entry.kept.settings.forced = forced;
            entry.kept.rebuilt = false;
            if overwrite {
                entry.kept.rare.change(|rare| rare.overwrite = true);
            }
            // Whoever starts it again wants it to go on.
            entry.kept.limits_waived |= std::mem::take(&mut entry.kept.limit_reached);
            entry.forgive();
        })?;
        if let Err(error) = self.keep(info_hash).await {
            // What is refused has not been done.
            self.with(info_hash, |entry| {
                let rank = entry.kept.rank;
                (entry.kept, entry.seen, entry.run) = before;
                entry.kept.rank = rank;
            })?;
            return Err(error);
        }
        if overwrite && let Ok(handle) = self.live(info_hash) {
            handle.overwrite().await;
            // It may have been started meanwhile and have failed once more, on the same files.
            self.with(info_hash, Entry::forgive)?;
        }
        self.turn_now(info_hash).await;
        // One that was at it already may be about to fail on what has been mended since.
        let running =
            self.with(info_hash, |entry| entry.handle().cloned().filter(|_| entry.run))?;
        if let Some(handle) = running {
            handle.resume().await;
            self.with(info_hash, |entry| entry.seen.forgiven = false)?;
        }
        Ok(())
    }

    /// Replaces files that have the names of a torrent's files and are not its own, and starts it.
    pub async fn overwrite(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let _door = self.door(info_hash).await;
        self.is_open()?;
        self.live(info_hash)?;
        let forced = self.with(info_hash, |entry| entry.kept.settings.forced)?;
        self.begin_to_run(info_hash, forced, true).await
    }

    /// Pauses a torrent.
    pub async fn pause(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let (_door, info_hash) = self.door_of(info_hash).await;
        self.is_open()?;
        let before = self.with(info_hash, |entry| {
            let before = (entry.kept.settings.clone(), entry.kept.rebuilt);
            entry.kept.settings.paused = true;
            entry.kept.settings.forced = false;
            entry.kept.rebuilt = false;
            before
        })?;
        if let Err(error) = self.keep(info_hash).await {
            self.with(info_hash, |entry| {
                (entry.kept.settings, entry.kept.rebuilt) = before;
            })?;
            return Err(error);
        }
        self.turn_now(info_hash).await;
        // One that has failed has no turn that it could lose, and would try again by itself.
        let failed = self.with(info_hash, |entry| {
            entry.handle().cloned().filter(|_| entry.seen.phase == Phase::Failed)
        })?;
        if let Some(handle) = failed {
            handle.pause().await;
        }
        Ok(())
    }

    /// Hashes what is on disk anew.
    pub async fn recheck(self: &Arc<Self>, info_hash: InfoHash) -> Result<(), DaemonError> {
        let (_door, info_hash) = self.door_of(info_hash).await;
        self.is_open()?;
        if self.hash_again(info_hash) {
            return Ok(());
        }
        self.mend(info_hash).await?;
        let handle = self.live(info_hash)?;
        let runs = self.with(info_hash, |entry| match entry.moving {
            Some(_) => Err(moving()),
            None => Ok(entry.run),
        })??;
        handle.recheck().await;
        self.keep_mounts().await;
        if !runs {
            // A check goes on with the torrent when it is over.
            handle.pause().await;
        }
        self.touch(info_hash, true);
        Ok(())
    }

    /// Changes what was chosen for a torrent.
    pub async fn change(
        &self,
        info_hash: InfoHash,
        change: TorrentChange,
        caller: Caller,
    ) -> Result<Torrent, DaemonError> {
        let (_door, info_hash) = self.door_of(info_hash).await;
        self.is_open()?;
        let (before, metainfo, bytes_have) = self.with(info_hash, |entry| {
            let have = entry.handle().map_or(0, |handle| handle.status().bytes_have);
            (entry.kept.clone(), entry.metainfo().cloned(), have)
        })?;
        let position = change.queue_position;
        let settings = changed(&before.settings, change, metainfo.as_deref())?;
        match &metainfo {
            Some(metainfo) => check_settings(metainfo, &settings)?,
            None => check_words(&settings)?,
        }
        let limits = |kept: &TorrentSettings| (kept.seed_ratio, kept.seed_time, kept.seed_idle);
        let limits_changed = limits(&settings) != limits(&before.settings);
        {
            let mut book = self.book.lock();
            let session = book.settings.clone();
            let mut entry =
                book.torrents.get_mut(&info_hash).ok_or(DaemonError::Unknown(info_hash))?;
            let named = named_anew(&before, &settings, metainfo.as_deref(), caller);
            // Nothing else: its rank may have changed meanwhile.
            entry.kept.settings = settings.into();
            if let Some(named) = named {
                entry.kept.rare.change(|rare| rare.named = Some(named));
            }
            if limits_changed {
                entry.kept.limits_waived = false;
                let seeded = entry.seeded(bytes_have, Instant::now());
                entry.kept.limit_reached &= entry.limits(&session).reached(&seeded);
            }
        }
        let mut done = self.keep(info_hash).await;
        if let (Ok(()), Some(position)) = (&done, position) {
            let (moved, ranks) = {
                let mut book = self.book.lock();
                let ranks = ranks_of(&book);
                (book.order.place(info_hash, position as usize), ranks)
            };
            done = self.keep_ranks(moved, ranks).await;
        }
        if let Err(error) = done {
            self.with(info_hash, |entry| {
                entry.kept.settings = before.settings;
                entry.kept.rare.change(|rare| rare.named.clone_from(&before.rare.named));
                entry.kept.limits_waived = before.limits_waived;
                entry.kept.limit_reached = before.limit_reached;
            })?;
            if position.is_some()
                && let Err(error) = self.keep(info_hash).await
            {
                tracing::debug!(%error, "settings that were not taken may be kept all the same");
            }
            return Err(error);
        }
        let (handle, after) =
            self.with(info_hash, |entry| (entry.handle().cloned(), entry.kept.clone()))?;
        if let (Some(handle), Some(metainfo)) = (handle, metainfo) {
            let wanted = options(&metainfo, &after.settings);
            if wanted != options(&metainfo, &before.settings) {
                handle.set_options(wanted).await;
            }
            if after.settings.trackers != before.settings.trackers {
                handle.set_trackers(self.tiers(&metainfo, &after)).await;
            }
        }
        self.turn_now(info_hash).await;
        self.show(info_hash)
    }

    /// Begins to move a torrent's data.
    pub async fn move_data(
        self: &Arc<Self>,
        info_hash: InfoHash,
        request: MoveRequest,
        caller: Caller,
    ) -> Result<(), DaemonError> {
        let door = self.door(info_hash).await;
        self.is_open()?;
        let folder = self.output_folder(Some(&request.folder), caller).await?;
        self.check_reach(caller, &folder)?;
        let from = self.with(info_hash, |entry| entry.root())?;
        self.check_reach(caller, &from)?;
        let handle = self.live(info_hash)?;
        self.with(info_hash, |entry| {
            if entry.moving.is_some() {
                return Err(moving());
            }
            if entry.kept.seed && !request.find {
                return Err(served_in_place(entry, "moved"));
            }
            entry.odd.change(|odd| odd.trouble = None);
            Ok(())
        })??;
        // Nothing is brought anywhere to find what is there.
        if let Some(folder) = folder.to_str().filter(|_| !request.find) {
            self.begin(info_hash, Unfinished::Move { folder: folder.to_owned() }).await?;
        }
        let task = self.begin_move(info_hash, handle, folder, request.find);
        self.touch(info_hash, false);
        drop(door);
        if let Some(task) = task.filter(|_| request.find) {
            // Nothing is copied, so it is soon over, and whoever asks for the next thing at once, such
            // as a new name, is not refused. If the task was ended, the torrent is gone.
            let _ = timeout(FIND_PATIENCE, task).await;
        }
        Ok(())
    }

    /// Has a task move a torrent's data. Returns the task, unless the torrent is gone.
    pub fn begin_move(
        self: &Arc<Self>,
        info_hash: InfoHash,
        handle: TorrentHandle,
        folder: PathBuf,
        find: bool,
    ) -> Option<JoinHandle<()>> {
        let inner = Arc::clone(self);
        let mut book = self.book.lock();
        let mut entry = book.torrents.get_mut(&info_hash)?;
        let from = entry.root();
        // The task cannot end before this lock is free.
        let task = tokio::spawn(async move {
            let moved = handle.relocate(&folder, find).await;
            inner.moved(info_hash, &folder, moved.map_err(|error| error.to_string())).await;
        });
        entry.moving = Some(Box::new(Moving { task: task.abort_handle(), from }));
        Some(task)
    }

    /// Writes down what is about to be done to a torrent's files.
    async fn begin(&self, info_hash: InfoHash, work: Unfinished) -> Result<(), DaemonError> {
        self.with(info_hash, |entry| entry.kept.rare.unfinished = Some(Box::new(work)))?;
        let kept = self.keep(info_hash).await;
        if kept.is_err() {
            self.with(info_hash, |entry| entry.kept.rare.change(|rare| rare.unfinished = None))?;
        }
        kept
    }

    /// Data was moved, or not.
    async fn moved(&self, info_hash: InfoHash, folder: &Path, moved: Result<(), String>) {
        let _door = self.door(info_hash).await;
        // One that was removed meanwhile needs nothing.
        let ended = self.with(info_hash, |entry| {
            entry.kept.rare.change(|rare| rare.unfinished = None);
        });
        let text = ended.ok().and_then(|()| self.book.lock().kept_text(info_hash));
        let Some(text) = text else { return };
        let root = moved.is_ok().then(|| folder.to_owned());
        let update = Update { root, settings: Some(text), ..Update::default() };
        if let Err(error) = self.state.update(info_hash, update).await {
            self.book.lock().notice(format!(
                "how the move of the torrent `{info_hash}` to `{}` ended could not be kept: {error}",
                shown(folder)
            ));
        }
        // Nor does one that is removed just now.
        let _ = self.with(info_hash, |entry| {
            entry.moving = None;
            // What the queue said meanwhile was not passed on.
            entry.seen.unsure = true;
            if let Err(error) = moved {
                entry.odd.trouble = Some(error.into());
            }
        });
        self.keep_mounts().await;
        self.touch(info_hash, true);
    }

    /// Renames the torrent, a folder or a file in it.
    pub async fn rename(
        &self,
        info_hash: InfoHash,
        request: RenameRequest,
    ) -> Result<(), DaemonError> {
        let _door = self.door(info_hash).await;
        self.is_open()?;
        let handle = self.live(info_hash)?;
        let chosen = self.with(info_hash, |entry| match entry.moving {
            Some(_) => Err(moving()),
            None if entry.kept.seed => Err(served_in_place(entry, "renamed")),
            None => Ok(entry.kept.settings.clone()),
        })??;
        let (names_before, name_before) = (names_in_a_map(&chosen.renamed), chosen.name.clone());
        let Renamed { changes, names, name } = rename::plan(handle.metainfo(), &chosen, &request)?;
        let work = Unfinished::Rename { names: names.clone(), name: name.clone() };
        self.begin(info_hash, work).await?;
        let back = changes.keys().map(|file| {
            let own = |path: &FilePath| path.iter().map(str::to_owned).collect();
            let entries = handle.metainfo().info().files().entries();
            (*file, names_before.get(file).cloned().unwrap_or_else(|| own(&entries[*file].path)))
        });
        let back: BTreeMap<usize, Vec<String>> = back.collect();
        let done = handle.rename(changes).await;
        self.with(info_hash, |entry| {
            entry.kept.rare.change(|rare| rare.unfinished = None);
            match &done {
                Ok(()) => {
                    entry.kept.settings.renamed = names;
                    if name.is_some() {
                        entry.kept.settings.name = name;
                    }
                }
                // Some may have kept their new names for all that.
                Err(_) => entry.kept.settings.renamed = names_of(&handle),
            }
        })?;
        if let Err(error) = self.keep(info_hash).await {
            // What is refused has not been done; if the files do not go back, the next start finds
            // them where they are.
            if done.is_ok() && handle.rename(back).await.is_ok() {
                self.with(info_hash, |entry| {
                    entry.kept.settings.renamed = names_of(&handle);
                    entry.kept.settings.name = name_before;
                })?;
            }
            return Err(error);
        }
        self.touch(info_hash, false);
        done.map_err(|error| DaemonError::Conflict(format!("it could not be renamed: {error}")))
    }

    /// Looks at the queue now, so that whoever asked sees what came of it.
    async fn turn_now(&self, info_hash: InfoHash) {
        self.touch(info_hash, true);
        let mut unused = None;
        self.review(&mut unused).await;
        // The watching task has to know when it is next to be looked at.
        self.book.lock().fresh.push(info_hash);
        self.wake.notify_one();
    }

    /// Tries to bring back a torrent whose `.torrent` was gone or refused.
    async fn mend(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let broken = self.with(info_hash, |entry| {
            let BodyView::Broken(broken) = entry.body.view() else { return None };
            let checkpoint = broken.checkpoint.clone();
            Some((Saved { checkpoint, ..entry.saved(info_hash) }, entry.kept.clone()))
        })?;
        let Some((saved, kept)) = broken else { return Ok(()) };
        let path = self.config.torrents.join(&saved.file);
        let metainfo = blocking(move || files::read_torrent(&path)).await?;
        let metainfo = Arc::new(metainfo.map_err(DaemonError::Conflict)?);
        if metainfo.info_hash() != info_hash {
            return Err(DaemonError::Conflict(format!(
                "`{}` is another torrent now: `{}`",
                shown(&self.config.torrents.join(&saved.file)),
                metainfo.info_hash()
            )));
        }
        let body = self.enter(&metainfo, &saved, &kept, Extra::default()).await;
        let body = body.map_err(|broken| {
            let taken = broken.taken.map(|taken| taken.standing());
            DaemonError::Conflict(taken.unwrap_or(broken.error))
        })?;
        self.with(info_hash, |entry| {
            entry.body = body;
            entry.seen.phase = Phase::Waiting;
        })
    }
}

/// `before` with this change.
fn changed(
    before: &TorrentSettings,
    change: TorrentChange,
    metainfo: Option<&Metainfo>,
) -> Result<TorrentSettings, DaemonError> {
    let mut after = before.clone();
    let limit = |new: Option<u64>, old| new.map_or(old, |new| Some(new).filter(|new| *new > 0));
    after.upload_limit = limit(change.upload_limit, after.upload_limit);
    after.download_limit = limit(change.download_limit, after.download_limit);
    if let Some(most) = change.max_peers {
        after.max_peers = Some(most).filter(|most| *most > 0);
    }
    set(&mut after.session_limits, change.session_limits);
    set(&mut after.bandwidth, change.bandwidth);
    set(&mut after.sequential, change.sequential);
    set(&mut after.labels, change.labels);
    set(&mut after.seed_ratio, change.seed_ratio);
    set(&mut after.seed_time, change.seed_time);
    set(&mut after.seed_idle, change.seed_idle);
    if let Some(group) = change.group {
        after.group = Some(group).filter(|group| !group.is_empty());
    }
    let about_files = change.only_files.is_some() || !change.files.is_empty();
    if about_files {
        let metainfo = metainfo.ok_or_else(|| {
            DaemonError::Conflict("its `.torrent` is gone, so its files are not known".to_owned())
        })?;
        let count = shown_files(metainfo);
        after.files.resize(count as usize, Priority::Normal);
        if let Some(text) = change.only_files {
            let chosen = only(metainfo, &text)?;
            for (file, wanted) in after.files.iter_mut().zip(chosen) {
                let again = wanted.is_wanted() && file.is_wanted();
                // Those that stay keep their place among each other.
                if !again {
                    *file = wanted;
                }
            }
        }
        for (file, priority) in change.files {
            let one = after.files.get_mut(file as usize);
            *one.ok_or_else(|| {
                DaemonError::Invalid(format!(
                    "there is no file `{file}`: there are `{count}`, from 0"
                ))
            })? = priority;
        }
    }
    if let Some(tiers) = change.trackers {
        after.trackers = Some(parse_tiers(tiers)?);
    }
    Ok(after)
}

/// The trackers of the torrent that the owner named, if this changes: those that were not in the
/// list before. Whoever sends a list back has not named all that is in it.
fn named_anew(
    before: &Kept,
    after: &TorrentSettings,
    metainfo: Option<&Metainfo>,
    caller: Caller,
) -> Option<Vec<Box<str>>> {
    let list = after.trackers.as_ref().filter(|_| after.trackers != before.settings.trackers)?;
    let own = metainfo.map(Metainfo::trackers).unwrap_or_default();
    let known = before.settings.trackers.as_deref().unwrap_or(own);
    let has = |tiers: &[Vec<String>], url: &String| tiers.iter().flatten().any(|u| u == url);
    let was_named = |url: &String| match &before.rare.named {
        Some(named) => named.iter().any(|named| **named == **url),
        None => has(known, url) && !has(own, url),
    };
    let is_named = |url: &&String| was_named(url) || (caller.is_owner() && !has(known, url));
    Some(list.iter().flatten().filter(is_named).map(|url| url.as_str().into()).collect())
}

/// Trackers by tier as they were named; a bare address stands for its tiers.
pub(super) fn parse_tiers(tiers: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, DaemonError> {
    check_trackers(tiers.iter().map(Vec::len).sum())?;
    let mut parsed = Vec::new();
    for tier in tiers {
        let mut urls = Vec::new();
        for name in tier {
            match name.parse::<piecework_proto::announce::TrackerUrl>() {
                Ok(url) => urls.push(url.as_str().to_owned()),
                Err(_) => parsed.extend(tier_texts(&parse_tracker(&name)?)),
            }
        }
        if !urls.is_empty() {
            parsed.push(urls);
        }
    }
    Ok(parsed)
}

fn names_in_a_map(names: &[(u32, Vec<String>)]) -> BTreeMap<usize, Vec<String>> {
    names.iter().map(|(file, path)| (*file as usize, path.clone())).collect()
}

/// Where files lie that are elsewhere than the torrent says.
fn names_of(handle: &TorrentHandle) -> Vec<(u32, Vec<String>)> {
    let names = handle.names().into_iter();
    names.filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path))).collect()
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A torrent that was made of what is here: its files are their owner's.
fn served_in_place(entry: &Entry, what: &str) -> DaemonError {
    DaemonError::Conflict(format!(
        "it cannot be {what}: it was shared from `{}`, and files that are shared from where they are \
         are never changed; {what} by hand, they are found again with `--find DIR` or shared anew",
        shown(&entry.root().join(entry.name()))
    ))
}

/// Why the files of a torrent are not removed with it.
const THROUGH_LINKS: &str = "its files are not removed: symbolic links led to some of them when it was \
     shared, and what they led to may be used elsewhere; remove it without its data, and then what is \
     not needed any more";

/// How long a request that has files found where they are waits for that.
const FIND_PATIENCE: Duration = Duration::from_secs(5);

fn moving() -> DaemonError {
    DaemonError::Conflict("its data is being moved: wait until that is over".to_owned())
}
