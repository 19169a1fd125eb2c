//! What was verified is forced to the disk and kept; files that are whole get their names.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use crate::base::{Bitfield, Fingerprint, Geometry, Moment, PieceIndex, Priority};
use crate::storage::{StorageError, StoreMode};
use crate::swarm::Event;

use super::super::crew::fault;
use super::super::entry::Call;
use super::super::record::{Kept, Phase};
use super::super::torrent::{Next, Torrent, broke_off, is_changed};
use super::super::{TorrentError, TorrentEvent};
use super::Run;

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
    /// Bytes of pieces that failed their hash.
    pub corrupt: u64,
    /// Payload bytes sent when totals were kept last, and when that was.
    told: (u64, Moment),
}

struct Work {
    job: JoinHandle<Result<Vec<Option<Fingerprint>>, StorageError>>,
    /// What was verified before it began.
    have: Bitfield,
    writing: bool,
    /// Files are named; nothing is forced to the disk.
    naming: bool,
}

pub(super) type Flushed = Result<Result<Vec<Option<Fingerprint>>, StorageError>, JoinError>;

impl Flushing {
    pub fn new(torrent: &Torrent, have: &Bitfield) -> Self {
        Self {
            keeps: torrent.shared.config.keeper.is_some(),
            unkept: 0,
            since: torrent.shared.now(),
            received: 0,
            work: None,
            unfinished: unfinished(torrent, have),
            to_finish: Vec::new(),
            naming: false,
            completed: false,
            finished: false,
            wants: None,
            corrupt: 0,
            told: (0, torrent.shared.now()),
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
        flushing.unkept += u64::from(self.torrent.geometry.piece_size(piece));
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
                    flushing.to_finish.push(*file);
                    flushing.unfinished.remove(at);
                }
            }
        }
    }

    /// Nothing that is wanted is missing any more.
    pub(super) fn finished(&mut self) {
        self.changed = true;
        self.flushing.finished = true;
    }

    /// Begins what is due.
    pub(super) fn flush_if_due(&mut self) {
        if self.flushing.completed && !self.flushing.is_finishing() {
            self.completed();
        }
        let now = self.torrent.shared.now();
        let flushing = &mut self.flushing;
        if flushing.work.is_some() {
            return;
        }
        let sent = self.swarm.progress().uploaded;
        if flushing.keeps && sent != flushing.told.0 && now.since(flushing.told.1) >= TELL_EVERY {
            // A seed flushes nothing, and what it has sent counts after a crash too.
            flushing.told = (sent, now);
            self.torrent.record().keep(&self.torrent.shared, &self.torrent.entry, self.moved());
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

    /// Other pieces are wanted. If that makes a torrent write again, this is kept before.
    pub(super) fn want(&mut self, priorities: Arc<[Priority]>) {
        let wants = |piece: PieceIndex| {
            priorities.get(piece.0 as usize).is_none_or(|priority| priority.is_wanted())
        };
        let begins = !self.leeching && self.swarm.have().missing().any(wants);
        self.flushing.wants = None;
        if begins && !self.torrent.record().upload_only {
            self.flushing.wants = Some(priorities);
        } else {
            self.tell(Event::Wants { priorities });
        }
    }

    fn name_files(&mut self) {
        let files = std::mem::take(&mut self.flushing.to_finish);
        let store = self.torrent.entry.store();
        let job = tokio::task::spawn_blocking(move || {
            files.into_iter().try_for_each(|file| store.finish_file(file))?;
            Ok(Vec::new())
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
        let (store, keeps) = (self.torrent.entry.store(), flushing.keeps);
        let kept = self.torrent.record().kept.as_ref().filter(|kept| begins && !kept.writing);
        let kept = kept.map(|kept| kept.files().to_vec()).unwrap_or_default();
        (flushing.unkept, flushing.since) = (0, self.torrent.shared.now());
        let job = tokio::task::spawn_blocking(move || {
            if keeps && !kept.is_empty() && is_changed(&kept, &store.fingerprints()?) {
                return Ok(Vec::new());
            }
            if let Some(wanted) = wanted {
                store
                    .prepare_wanted(|file| wanted.get(file).is_none_or(|file| file.is_wanted()))?;
            }
            store.sync()?;
            if keeps { store.fingerprints() } else { Ok(Vec::new()) }
        });
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
            return flushed.map(drop).map_err(|error| fault(&error));
        }
        let files = flushed.map_err(|error| {
            // What was verified since the last word is in doubt: it is looked at again.
            self.torrent.record_mut().phase = Phase::Unknown;
            fault(&error)
        })?;
        if self.flushing.keeps && files.is_empty() {
            // Somebody has changed what is held: it is looked at before it is written again.
            self.flushing.wants = None;
            if !self.ending && self.next.is_none() {
                self.next = Some(Next::Hear(Call::Options));
            }
            return Ok(());
        }
        if self.flushing.keeps {
            let have = Some(work.have).filter(|have| !have.is_full());
            let kept = Kept::new(have, files, work.writing);
            let moved = self.moved();
            self.torrent.record_mut().kept = Some(kept);
            self.torrent.record().keep(&self.torrent.shared, &self.torrent.entry, moved);
        }
        // Those of a later choice are still to be kept.
        if let Some(priorities) = self.flushing.wants.take_if(|_| work.writing) {
            self.tell(Event::Wants { priorities });
        }
        Ok(())
    }

    /// Every piece is there and every file has its name.
    fn completed(&mut self) {
        self.flushing.completed = false;
        self.observe(&TorrentEvent::Completed);
        // First what is left, then that it is complete: announces read the former.
        self.publish(true);
        self.torrent.shared.hub.complete(self.torrent.entry.info_hash());
    }

    /// The last word of this swarm: nothing is written any more.
    pub(super) async fn last_flush(&mut self, next: Next) -> Next {
        match (self.flush_all().await, next) {
            (Ok(()), next) | (Err(_), next @ Next::Fail(_)) => next,
            (Err(error), Next::Sleep) => Next::Fail(error),
            (Err(error), Next::Hear(call)) => {
                self.torrent.later.push_back(call);
                Next::Fail(error)
            }
        }
    }

    async fn flush_all(&mut self) -> Result<(), TorrentError> {
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
        if self.flushing.completed {
            self.completed();
        }
        let record = self.torrent.record();
        if matches!(record.phase, Phase::Unknown) {
            return Ok(());
        }
        let writing = record.kept.as_ref().is_some_and(|kept| kept.writing);
        if self.flushing.unkept > 0 || self.flushing.finished || writing {
            self.begin_flush();
            let flushed = self.flushing.done().await;
            return self.flushed(flushed);
        }
        let (moved, then) = (self.moved(), record.earlier);
        if (moved.downloaded, moved.uploaded) != (then.downloaded, then.uploaded) {
            record.keep(&self.torrent.shared, &self.torrent.entry, moved);
        }
        Ok(())
    }
}

/// The bytes of a piece.
fn span_of(geometry: &Geometry, piece: PieceIndex) -> Range<u64> {
    let start = geometry.piece_offset(piece);
    start..start + u64::from(geometry.piece_size(piece))
}

/// Files that get another name once they are whole.
fn unfinished(torrent: &Torrent, have: &Bitfield) -> Vec<(usize, u32)> {
    let store = torrent.entry.store();
    let options = store.options();
    if options.incomplete_suffix.is_none() || options.mode == StoreMode::ReadOnly || have.is_full()
    {
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
/// A survey takes a change for our own within 30 s of the last word.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);
