//! Work on a torrent's files while its swarm is alive: what is due, what is under way, and the jobs
//! themselves.

use piecework_core::SaturatingFrom;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, Fingerprint, Moment, PieceIndex, Priority, Rng};
use piecework_storage::{Extent, StorageError, Store, StoreMode};

use super::super::doubt::{files_of, is_whole, pick};
use super::super::mounts::Mounts;
use super::super::ownership::{Ownership, make_way};
use super::super::prepare::is_changed;
use super::super::torrent::Torrent;
use super::super::wants;
use super::proofs::Proofs;

/// The state of work on a torrent's files.
pub(super) struct Flushing {
    /// Whether checkpoints are kept.
    pub keeps: bool,
    /// Bytes verified since the last flush began.
    pub unkept: u64,
    /// When the first of these bytes was verified, or when the last flush began.
    pub since: Moment,
    /// Payload bytes received when the last flush began. Pieces that take long must be noticed too.
    pub received: u64,
    pub work: Option<FlushWork>,
    /// Files with an ending until they are whole, with the number of pieces they lack.
    pub unfinished: Vec<(usize, u32)>,
    /// Files that are whole and still have their ending.
    pub to_finish: Vec<usize>,
    /// Whether files are getting their names at the moment.
    pub naming: bool,
    /// The last piece has come, and nobody was told.
    pub completed: bool,
    /// Nothing wanted is missing, and no checkpoint says so.
    pub finished: bool,
    /// Priorities that apply once a checkpoint says that files are being written.
    pub wants: Option<Arc<[Priority]>>,
    /// The extents of the files that were written to.
    pub extents: BTreeMap<usize, Extent>,
    pub samples: Samples,
    /// Bytes of pieces that failed their hash.
    pub corrupt: u64,
    /// Payload bytes sent when totals were last kept, and when that was.
    pub told: (u64, Moment),
}

pub(super) struct FlushWork {
    pub job: JoinHandle<Result<FlushOutcome, StorageError>>,
    /// What was verified before the work began.
    pub have: Bitfield,
    pub writing: bool,
    /// Whether files get names, and nothing is flushed.
    pub naming: bool,
}

/// The result of work on files.
#[derive(Default)]
pub(super) struct FlushOutcome {
    /// The fingerprints now, if checkpoints are kept.
    pub files: Vec<Option<Fingerprint>>,
    /// Somebody has changed what is held, so nothing was done.
    pub changed: bool,
    /// Files that do not hold what they held, or were changed by others.
    pub doubted: Vec<usize>,
    /// The extents of the files that were written to.
    pub extents: BTreeMap<usize, Extent>,
}

pub(super) type FlushResult = Result<Result<FlushOutcome, StorageError>, JoinError>;

/// Pieces to be hashed again before their file gets its final name.
pub(super) struct Samples {
    /// Pieces that have been held for some seconds.
    settled: Bitfield,
    /// Pieces held, and when that was noted.
    latest: (Moment, Bitfield),
    /// Bytes that may be hashed.
    pub budget: u64,
    chance: Rng,
}

impl Flushing {
    pub(super) fn new(torrent: &Torrent, have: &Bitfield, proofs: &mut Proofs) -> Self {
        let metainfo = &torrent.entry.metainfo;
        if let Some(unproven) = torrent.record().unproven() {
            let files = unproven.iter().flat_map(|piece| files_of(metainfo, piece));
            let files: BTreeSet<usize> = files.collect();
            for file in files.into_iter().filter(|file| is_whole(metainfo, have, *file)) {
                proofs.finish(metainfo, file);
            }
        }
        let now = torrent.means.now();
        let samples = Samples {
            settled: have.clone(),
            latest: (now, have.clone()),
            budget: SAMPLE,
            chance: torrent.means.rng(),
        };
        Self {
            keeps: torrent.means.keeps_checkpoints(),
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

    /// Notes that the last piece has come.
    pub(super) fn complete(&mut self) {
        self.completed = true;
    }

    pub(super) fn is_working(&self) -> bool {
        self.work.is_some()
    }

    /// Returns whether whole files have not got their final names yet.
    pub(super) fn is_finishing(&self) -> bool {
        !self.to_finish.is_empty() || self.naming
    }

    /// Queues a file for its final name: all of it is held and known to be right.
    pub(super) fn finish(&mut self, file: usize) {
        self.to_finish.push(file);
    }

    /// Waits for the work that is under way.
    pub(super) async fn done(&mut self) -> FlushResult {
        match &mut self.work {
            Some(work) => (&mut work.job).await,
            None => std::future::pending().await,
        }
    }

    /// Returns when the next flush is due; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.work.is_some() || !self.keeps {
            return None;
        }
        (self.unkept > 0).then(|| self.since + EVERY)
    }
}

/// A job that flushes what was written.
pub(super) struct Flush {
    pub mounts: Arc<Mounts>,
    pub store: Arc<Store>,
    pub keeps: bool,
    /// Priorities of the files to be made before, if there are any.
    pub wanted: Option<Vec<Priority>>,
    /// Whether no other torrent has its paths.
    pub may_write: bool,
    pub ownership: Ownership,
    /// Fingerprints of the last checkpoint, if it says that nobody writes. If they do not hold any
    /// more, nothing is done.
    pub unwritten: Option<Vec<Option<Fingerprint>>>,
    /// Fingerprints after the last flush.
    pub before: Vec<Option<Fingerprint>>,
    pub extents: BTreeMap<usize, Extent>,
    pub have: Bitfield,
}

impl Flush {
    pub(super) fn run(mut self) -> Result<FlushOutcome, StorageError> {
        let unwritten = self.unwritten.take();
        let store = &self.store;
        if self.keeps
            && let Some(unwritten) = unwritten.filter(|files| !files.is_empty())
            && is_changed(&unwritten, &store.fingerprints()?)
        {
            return Ok(FlushOutcome { changed: true, ..FlushOutcome::default() });
        }
        if let Some(wanted) = &self.wanted {
            let pieces = wants::of_pieces(store.metainfo(), wanted);
            let is_wanted = |piece: PieceIndex| {
                pieces.get(piece.0 as usize).is_none_or(|piece| piece.is_wanted())
            };
            let way = make_way(store, &self.have, is_wanted, self.ownership)?;
            if self.keeps && (!self.may_write || way.is_err()) {
                return Ok(FlushOutcome { changed: true, ..FlushOutcome::default() });
            }
            self.mounts.check(&store.root())?;
            store.prepare_wanted(|file| wanted.get(file).is_none_or(|file| file.is_wanted()))?;
        }
        let written = store.sync_and_measure()?;
        let mut outcome = FlushOutcome::default();
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

    /// Returns files that have changed since the last flush though we have not written to them.
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
            // A thread may have just written to one and not noted that yet.
            std::thread::sleep(NOTING);
            changed.retain(|file| !is_ours(file));
        }
        changed
    }

    /// Returns the pieces of a file to hash.
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
    pub(super) fn settle(&mut self, now: Moment, have: &Bitfield) {
        if now.since(self.latest.0) >= SETTLING {
            let before = std::mem::replace(&mut self.latest, (now, have.clone()));
            self.settled = before.1;
        }
    }

    /// Picks pieces of the file that were verified long enough ago for somebody else to have
    /// overwritten them since; more of the last file.
    pub(super) fn of_file(
        &mut self,
        metainfo: &Metainfo,
        file: usize,
        is_last: bool,
    ) -> Vec<PieceIndex> {
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

/// Returns the files that are checked, and may get another name, once they are whole.
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
            (file, u32::saturating_from(pieces.filter(|piece| !have.contains(*piece)).count()))
        })
        .filter(|(_, lacks)| *lacks > 0)
        .collect()
}

/// Time whose downloads may have to be hashed again after a crash.
pub(super) const EVERY: Duration = Duration::from_secs(3);
/// Time that a piece is held before it may be hashed again.
const SETTLING: Duration = Duration::from_secs(2);
/// Bytes of a download that may be hashed again before its files get their names, beside a part of
/// the bytes that came.
const SAMPLE: u64 = 32 << 20;
/// A finished write is noted within microseconds, unless the thread has to wait.
const NOTING: Duration = Duration::from_millis(100);
