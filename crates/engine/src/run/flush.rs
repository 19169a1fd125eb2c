//! What was verified is forced to the disk and kept; files that are whole get their names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, Fingerprint, Geometry, Moment, PieceIndex, Priority, Rng};
use piecework_storage::{Extent, StorageError, Store, StoreMode};
use piecework_swarm::Event;
use piecework_swarm::lifecycle::LifecycleEvent;

use super::super::crew::{fault, make_way};
use super::super::doubt::{Doubt, about, files_of, is_whole, minus, pick};
use super::super::mounts::Mounts;
use super::super::prepare::is_changed;
use super::super::record::{Kept, Ownership};
use super::super::torrent::{Torrent, broke_off};
use super::super::{TorrentError, TorrentEvent, wants};
use super::proofs::Proofs;
use super::{Reason, Run};

/// What is to be done about a torrent's files behind its back.
pub(super) struct Flushing {
    /// There is a keeper, and so something is kept while pieces come.
    keeps: bool,
    /// Bytes verified since the last flush began.
    unkept: u64,
    /// When the first of them was, or the last flush.
    since: Moment,
    /// Whether anything has come since the last flush: pieces that take long must be told of too.
    received: u64,
    work: Option<Work>,
    /// Of each file that has an ending until it is whole, its number and the pieces it lacks.
    unfinished: Vec<(usize, u32)>,
    /// Files that are whole and have their ending still.
    to_finish: Vec<usize>,
    /// Some of them are just getting their names.
    naming: bool,
    /// The last piece has come, and nobody was told.
    completed: bool,
    /// Nothing wanted is missing, and that is not kept.
    finished: bool,
    /// What is wanted once it is kept that files are being written.
    wants: Option<Arc<[Priority]>>,
    /// How much there was of the files that were written to.
    extents: BTreeMap<usize, Extent>,
    samples: Samples,
    /// Bytes of pieces that failed their hash.
    pub corrupt: u64,
    /// Payload bytes sent when totals were kept last, and when that was.
    told: (u64, Moment),
}

struct Work {
    job: JoinHandle<Result<Outcome, StorageError>>,
    /// What was verified before it began.
    have: Bitfield,
    writing: bool,
    /// Files are named; nothing is forced to the disk.
    naming: bool,
}

/// What came of work on files.
#[derive(Default)]
pub(super) struct Outcome {
    /// What they are like now, for the keeper if there is one.
    files: Vec<Option<Fingerprint>>,
    /// Somebody has changed what is held; nothing was done.
    changed: bool,
    /// Files that do not hold what they held, or have been changed by others.
    doubted: Vec<usize>,
    /// How much there is of the files that were written to.
    extents: BTreeMap<usize, Extent>,
}

pub(super) type Flushed = Result<Result<Outcome, StorageError>, JoinError>;

/// Pieces to be hashed again before their file gets its final name.
struct Samples {
    /// Pieces that have been held for some seconds.
    settled: Bitfield,
    /// Pieces held, and since when they were.
    latest: (Moment, Bitfield),
    /// Bytes that may be hashed.
    budget: u64,
    chance: Rng,
}

impl Flushing {
    pub fn new(torrent: &Torrent, have: &Bitfield, proofs: &mut Proofs) -> Self {
        let metainfo = &torrent.entry.metainfo;
        if let Some(unproven) = torrent.record().unproven() {
            let files = unproven.iter().flat_map(|piece| files_of(metainfo, piece));
            let files: BTreeSet<usize> = files.collect();
            for file in files.into_iter().filter(|file| is_whole(metainfo, have, *file)) {
                proofs.finish(metainfo, file);
            }
        }
        let now = torrent.shared.now();
        let samples = Samples {
            settled: have.clone(),
            latest: (now, have.clone()),
            budget: SAMPLE,
            chance: torrent.shared.rng(),
        };
        Self {
            keeps: torrent.shared.config.keeper.is_some(),
            unkept: 0,
            since: now,
            received: 0,
            work: None,
            unfinished: unfinished(torrent, have),
            to_finish: Vec::new(),
            naming: false,
            completed: false,
            finished: false,
            wants: None,
            extents: BTreeMap::new(),
            samples,
            corrupt: 0,
            told: (0, now),
        }
    }

    /// The last piece has come.
    pub fn complete(&mut self) {
        self.completed = true;
    }

    pub fn is_working(&self) -> bool {
        self.work.is_some()
    }

    /// Whether files that are whole have not got their names yet.
    pub fn is_finishing(&self) -> bool {
        !self.to_finish.is_empty() || self.naming
    }

    /// All of the file is held and known to be right: it gets its name.
    pub fn finish(&mut self, file: usize) {
        self.to_finish.push(file);
    }

    /// Waits for what is under way.
    pub async fn done(&mut self) -> Flushed {
        match &mut self.work {
            Some(work) => (&mut work.job).await,
            None => std::future::pending().await,
        }
    }

    /// When the next flush is due; `None` while one is under way.
    pub fn due(&self) -> Option<Moment> {
        if self.work.is_some() || !self.keeps {
            return None;
        }
        (self.unkept > 0).then(|| self.since + EVERY)
    }
}

impl Run<'_> {
    /// A piece is on the disk, as far as the system has told.
    pub(super) fn piece_done(&mut self, piece: PieceIndex) {
        let now = self.torrent.shared.now();
        let flushing = &mut self.flushing;
        if flushing.unkept == 0 {
            flushing.since = now;
        }
        let bytes = u64::from(self.torrent.geometry.piece_size(piece));
        flushing.unkept += bytes;
        flushing.samples.budget += bytes / SAMPLE_SHARE;
        if flushing.unfinished.is_empty() {
            return;
        }
        let span = span_of(&self.torrent.geometry, piece);
        let files = self.torrent.entry.metainfo.info().files();
        for slice in files.slices(span) {
            if let Ok(at) = flushing.unfinished.binary_search_by_key(&slice.file, |(file, _)| *file)
            {
                let (file, left) = &mut flushing.unfinished[at];
                *left = left.saturating_sub(1);
                if *left == 0 {
                    let file = *file;
                    flushing.unfinished.remove(at);
                    if self.proofs.finish(&self.torrent.entry.metainfo, file) {
                        flushing.to_finish.push(file);
                    }
                }
            }
        }
    }

    /// Nothing that is wanted is missing any more.
    pub(super) fn finished(&mut self) {
        self.changed = true;
        self.flushing.finished = true;
        self.torrent.record_mut().set_trouble(None);
    }

    /// Begins what is due.
    pub(super) fn flush_if_due(&mut self) {
        if self.flushing.completed && !self.is_finishing() {
            self.completed();
        }
        let now = self.torrent.shared.now();
        if self.leeching {
            self.flushing.samples.settle(now, self.swarm.have());
        }
        let flushing = &mut self.flushing;
        if flushing.work.is_some() {
            return;
        }
        let sent = self.swarm.progress().uploaded;
        if flushing.keeps && sent != flushing.told.0 && now.since(flushing.told.1) >= TELL_EVERY {
            // A seed flushes nothing, and what it has sent counts after a crash too.
            flushing.told = (sent, now);
            let moved = self.moved();
            self.torrent.change(|record, torrent| record.keep(torrent, moved));
        }
        let flushing = &mut self.flushing;
        if !flushing.to_finish.is_empty() {
            return self.name_files();
        }
        let received = self.swarm.progress().downloaded;
        let is_written = flushing.unkept > 0
            && (now.since(flushing.since) >= EVERY || flushing.unkept >= MANY_BYTES);
        // A file that was touched long after the last word of it would not be taken for ours.
        let is_long = flushing.received != received && now.since(flushing.since) >= AT_LEAST_EVERY;
        let is_kept = flushing.keeps && (is_written || is_long);
        let finished = std::mem::take(&mut flushing.finished);
        if finished || is_kept || flushing.wants.is_some() {
            flushing.received = received;
            self.begin_flush();
        }
        if finished {
            self.publish(true);
        }
    }

    /// Other pieces are wanted. If something is to be written for them, this is kept before.
    pub(super) fn want(&mut self, priorities: Arc<[Priority]>) {
        let wants = |piece: PieceIndex| {
            priorities.get(piece.0 as usize).is_none_or(|priority| priority.is_wanted())
        };
        let lacks = self.swarm.have().missing().any(wants);
        self.flushing.wants = None;
        // Files that were not wanted are looked at before they are written to, and made.
        let mut entries = self.torrent.entry.metainfo.info().files().entries().iter();
        // No piece comes for an empty file.
        let makes = lacks || entries.any(|file| file.len == 0 && !file.padding);
        if makes && !self.torrent.record().upload_only {
            self.flushing.wants = Some(priorities);
        } else {
            self.tell(Event::Wants { priorities });
        }
    }

    /// Gives files that are whole their names, if they are still as they must be.
    fn name_files(&mut self) {
        let files = std::mem::take(&mut self.flushing.to_finish);
        let (store, watch) = (Arc::clone(&self.source.store), Arc::clone(&self.source.watch));
        let names = store.options().incomplete_suffix.is_some();
        let is_last = self.flushing.unfinished.is_empty();
        let samples = &mut self.flushing.samples;
        let metainfo = &self.torrent.entry.metainfo;
        let samples: Vec<_> =
            files.iter().map(|file| samples.of_file(metainfo, *file, is_last)).collect();
        let have = self.swarm.have().clone();
        let job = tokio::task::spawn_blocking(move || {
            let mut outcome = Outcome::default();
            for (file, sample) in files.into_iter().zip(samples) {
                if !store.is_sound(file, &have, &sample)? {
                    outcome.doubted.push(file);
                    continue;
                }
                if names {
                    store.finish_file(file)?;
                } else {
                    store.make_executable(file)?;
                }
                watch.finished(file);
            }
            Ok(outcome)
        });
        let have = Bitfield::empty(0);
        self.flushing.naming = true;
        self.flushing.work = Some(Work { job, have, writing: true, naming: true });
    }

    fn begin_flush(&mut self) {
        let flushing = &mut self.flushing;
        let begins = flushing.wants.is_some();
        let writing = (begins || !self.swarm.is_finished())
            && !self.torrent.record().upload_only
            && !self.ending;
        let wanted = begins.then(|| self.torrent.entry.options.lock().files.clone());
        let may_write = !begins || self.torrent.shared.may_write(&self.torrent.entry).is_ok();
        let store = self.torrent.entry.store();
        // With an ending for unfinished files, those that are ours can be told from others.
        let ownership = match self.torrent.record().files {
            Ownership::Ours if store.options().incomplete_suffix.is_some() => Ownership::Unfinished,
            other => other,
        };
        let record = self.torrent.record();
        let kept_files = |kept: Option<&Kept>| kept.map(|kept| kept.files().to_vec());
        let flush = Flush {
            mounts: Arc::clone(&self.torrent.shared.mounts),
            store,
            keeps: flushing.keeps,
            wanted,
            may_write,
            ownership,
            unwritten: kept_files(record.kept_unwritten().filter(|_| begins)),
            before: kept_files(record.kept_writing()).unwrap_or_default(),
            extents: std::mem::take(&mut flushing.extents),
            have: self.swarm.have().clone(),
        };
        (flushing.unkept, flushing.since) = (0, self.torrent.shared.now());
        let job = tokio::task::spawn_blocking(move || flush.run());
        let have = self.swarm.have().clone();
        self.flushing.work = Some(Work { job, have, writing, naming: false });
    }

    /// What was flushed is kept.
    pub(super) fn flushed(&mut self, flushed: Flushed) -> Result<(), TorrentError> {
        let Some(work) = self.flushing.work.take() else { return Ok(()) };
        let flushed = match flushed {
            Ok(flushed) => flushed,
            Err(panic) => Err(broke_off(&self.torrent.entry.store(), &panic)),
        };
        self.changed = true;
        if work.naming {
            self.flushing.naming = false;
            let outcome = flushed.map_err(|error| fault(&error))?;
            self.doubt_files(&outcome.doubted);
            return Ok(());
        }
        let outcome = flushed.map_err(|error| {
            // What was verified since the last word is in doubt: it is looked at again.
            self.unsure = true;
            fault(&error)
        })?;
        if outcome.changed {
            // Somebody has changed what is held, or has files of these names: that is looked at
            // before anything is written again.
            self.flushing.wants = None;
            if self.torrent.record().files == Ownership::Ours {
                self.torrent.record_mut().files = Ownership::Unfinished;
            }
            if !self.ending && self.reason.is_none() {
                // It is prepared again, where that is decided.
                self.torrent.wants_changed = true;
                self.reason = Some(Reason::Stopped);
            }
            return Ok(());
        }
        self.flushing.extents = outcome.extents;
        self.doubt_files(&outcome.doubted);
        if self.flushing.keeps {
            self.source.watch.keep(&outcome.files);
            let doubted =
                self.doubt.as_ref().map(|doubt| doubt.pieces(&self.torrent.entry.metainfo));
            let have = match doubted {
                Some(doubted) => minus(&work.have, &doubted),
                None => work.have,
            };
            let have = Some(have).filter(|have| !have.is_full());
            let (moved, unproven) = (self.moved(), self.proofs.unproven().cloned());
            self.torrent.change(|record, torrent| {
                record.set_unproven(unproven);
                record.note_kept(&torrent.entry.metainfo, have, outcome.files, work.writing);
                record.keep(torrent, moved);
                record.pass(torrent, LifecycleEvent::Checkpointed)
            });
        }
        // Those of a later choice are still to be kept.
        if let Some(priorities) = self.flushing.wants.take_if(|_| work.writing) {
            self.tell(Event::Wants { priorities });
        }
        Ok(())
    }

    fn doubt_files(&mut self, files: &[usize]) {
        let Some(first) = files.first() else { return };
        let path = self.source.store.path_of(*first);
        let why = about(&path, "was changed by another program");
        let watch = &self.source.watch;
        let files = files.iter().map(|file| (*file, watch.is_unfinished(*file))).collect();
        self.doubt(Doubt { files, why });
    }

    /// Whether files that are whole have not got their names yet.
    pub(super) fn is_finishing(&self) -> bool {
        self.flushing.is_finishing() || self.proofs.is_finishing()
    }

    /// Every piece is there and every file has its name.
    fn completed(&mut self) {
        if self.doubt.is_some() {
            return;
        }
        self.flushing.completed = false;
        self.observe(&TorrentEvent::Completed);
        // First what is left, then that it is complete: announces read the former.
        self.publish(true);
        self.torrent.shared.hub.complete(self.torrent.entry.info_hash());
    }

    /// Flushes and keeps what is left at the end of this swarm.
    pub(super) async fn last_flush(&mut self) -> Result<(), TorrentError> {
        self.flushing.wants = None;
        if self.flushing.is_working() {
            let flushed = self.flushing.done().await;
            self.flushed(flushed)?;
        }
        if !self.flushing.to_finish.is_empty() {
            self.name_files();
            let flushed = self.flushing.done().await;
            self.flushed(flushed)?;
        }
        if self.flushing.completed && !self.proofs.is_finishing() {
            self.completed();
        }
        if self.unsure {
            return Ok(());
        }
        let record = self.torrent.record();
        let writing = record.kept_writing().is_some();
        if self.flushing.unkept > 0 || self.flushing.finished || writing {
            self.begin_flush();
            let flushed = self.flushing.done().await;
            return self.flushed(flushed);
        }
        let (moved, then) = (self.moved(), record.earlier());
        if (moved.downloaded, moved.uploaded) != (then.downloaded, then.uploaded) {
            self.torrent.change(|record, torrent| record.keep(torrent, moved));
        }
        Ok(())
    }
}

/// What was written is to be forced to the disk.
struct Flush {
    mounts: Arc<Mounts>,
    store: Arc<Store>,
    keeps: bool,
    /// Files that are wanted, if they are to be made before.
    wanted: Option<Vec<Priority>>,
    /// No other torrent has its paths.
    may_write: bool,
    ownership: Ownership,
    /// What the files were like when nobody wrote: if that is not so any more, nothing is done.
    unwritten: Option<Vec<Option<Fingerprint>>>,
    /// What they were like after the last flush.
    before: Vec<Option<Fingerprint>>,
    extents: BTreeMap<usize, Extent>,
    have: Bitfield,
}

impl Flush {
    fn run(mut self) -> Result<Outcome, StorageError> {
        let unwritten = self.unwritten.take();
        let store = &self.store;
        if self.keeps
            && let Some(unwritten) = unwritten.filter(|files| !files.is_empty())
            && is_changed(&unwritten, &store.fingerprints()?)
        {
            return Ok(Outcome { changed: true, ..Outcome::default() });
        }
        if let Some(wanted) = &self.wanted {
            let pieces = wants::of_pieces(store.metainfo(), wanted);
            let is_wanted = |piece: PieceIndex| {
                pieces.get(piece.0 as usize).is_none_or(|piece| piece.is_wanted())
            };
            let way = make_way(store, &self.have, is_wanted, self.ownership)?;
            if self.keeps && (!self.may_write || way.is_err()) {
                return Ok(Outcome { changed: true, ..Outcome::default() });
            }
            self.mounts.check(&store.root())?;
            store.prepare_wanted(|file| wanted.get(file).is_none_or(|file| file.is_wanted()))?;
        }
        let written = store.sync_and_measure()?;
        let mut outcome = Outcome::default();
        let mut suspects = BTreeSet::new();
        for (file, extent) in &written {
            let before = self.extents.insert(*file, *extent);
            if before.is_some_and(|before| extent.has_shrunk(&before)) {
                suspects.insert(*file);
            }
        }
        if self.keeps {
            outcome.files = store.fingerprints()?;
            suspects.extend(self.changed_by_others(&outcome.files, &written));
        }
        for file in suspects {
            let sample = self.held_in(file);
            if !self.store.is_sound(file, &self.have, &sample)? {
                outcome.doubted.push(file);
            }
        }
        outcome.extents = self.extents;
        Ok(outcome)
    }

    /// Files that have changed since the last flush though we have not written to them.
    fn changed_by_others(
        &self,
        now: &[Option<Fingerprint>],
        written: &[(usize, Extent)],
    ) -> Vec<usize> {
        let is_ours = |file: &usize| {
            written.binary_search_by_key(file, |(file, _)| *file).is_ok()
                || self.store.is_written(*file)
        };
        let pairs = self.before.iter().zip(now).enumerate();
        let changed = pairs.filter(|(_, (then, now))| {
            then.is_some_and(|then| !then.is_unsure()) && now.is_some() && then != now
        });
        let mut changed: Vec<usize> = changed.map(|(file, _)| file).collect();
        changed.retain(|file| !is_ours(file));
        if !changed.is_empty() {
            // Whoever has just written to one may not have noted that yet.
            std::thread::sleep(NOTING);
            changed.retain(|file| !is_ours(file));
        }
        changed
    }

    /// Pieces of a file to hash.
    fn held_in(&self, file: usize) -> Vec<PieceIndex> {
        let (geometry, entry) =
            (self.store.geometry(), &self.store.metainfo().info().files().entries()[file]);
        let pieces = geometry.pieces_of(entry.span()).map(PieceIndex);
        let pieces = pieces.filter(|piece| self.have.contains(*piece)).collect();
        pick(&geometry, pieces, SAMPLE, &mut Rng::from_seed(file as u64))
    }
}

impl Samples {
    /// Notes what is held at `now`.
    fn settle(&mut self, now: Moment, have: &Bitfield) {
        if now.since(self.latest.0) >= SETTLING {
            let before = std::mem::replace(&mut self.latest, (now, have.clone()));
            self.settled = before.1;
        }
    }

    /// Some pieces of the file that were verified long enough ago for somebody else to have
    /// overwritten them since; more of the last file.
    fn of_file(&mut self, metainfo: &Metainfo, file: usize, is_last: bool) -> Vec<PieceIndex> {
        let (geometry, entry) =
            (metainfo.info().geometry(), &metainfo.info().files().entries()[file]);
        let share = if is_last { self.budget } else { self.budget / 2 };
        if share < u64::from(geometry.piece_len()) {
            return Vec::new();
        }
        let pieces = geometry.pieces_of(entry.span()).map(PieceIndex);
        let pieces = pieces.filter(|piece| self.settled.contains(*piece)).collect();
        let picked = pick(&geometry, pieces, share, &mut self.chance);
        let bytes = picked.len() as u64 * u64::from(geometry.piece_len());
        self.budget = self.budget.saturating_sub(bytes);
        picked
    }
}

/// The bytes of a piece.
fn span_of(geometry: &Geometry, piece: PieceIndex) -> Range<u64> {
    let start = geometry.piece_offset(piece);
    start..start + u64::from(geometry.piece_size(piece))
}

/// Files that are looked at, and may get another name, once they are whole.
fn unfinished(torrent: &Torrent, have: &Bitfield) -> Vec<(usize, u32)> {
    let store = torrent.entry.store();
    if store.options().mode == StoreMode::ReadOnly || have.is_full() {
        return Vec::new();
    }
    let files = torrent.entry.metainfo.info().files().entries().iter().enumerate();
    files
        .filter(|(_, entry)| !entry.padding)
        .map(|(file, entry)| {
            let pieces = torrent.geometry.pieces_of(entry.span()).map(PieceIndex);
            (file, pieces.filter(|piece| !have.contains(*piece)).count() as u32)
        })
        .filter(|(_, lacks)| *lacks > 0)
        .collect()
}

/// How much may have to be hashed anew after a crash: what comes in so long or so many bytes.
const EVERY: Duration = Duration::from_secs(3);
const MANY_BYTES: u64 = 256 << 20;
/// How much of what was sent may be forgotten after a crash.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long a piece is held before it may be hashed again.
const SETTLING: Duration = Duration::from_secs(2);
/// What may be hashed again of a download before its files get their names: this many bytes, and
/// one in so many of those that came.
const SAMPLE: u64 = 32 << 20;
const SAMPLE_SHARE: u64 = 64;
/// A write that is done is noted within microseconds, unless the thread has to wait.
const NOTING: Duration = Duration::from_millis(100);
/// A survey takes a change for our own within 30 s of the last word.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);
