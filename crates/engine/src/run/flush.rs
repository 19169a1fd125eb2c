//! Flushes what was verified, keeps checkpoints, and gives whole files their final names.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use piecework_core::{Bitfield, Geometry, PieceIndex, Priority};
use piecework_swarm::Event;
use piecework_swarm::lifecycle::LifecycleEvent;

use super::super::doubt::{Doubt, about, minus};
use super::super::ownership::Ownership;
use super::super::record::KeptCheckpoint;
use super::super::torrent::broke_off;
use super::super::{TorrentError, TorrentEvent};
use super::flushing::{EVERY, Flush, FlushOutcome, FlushResult, FlushWork};
use super::{Reason, Run};

impl Run<'_> {
    /// Takes in that a piece was written, as far as the system has told.
    pub(super) fn piece_done(&mut self, piece: PieceIndex) {
        let now = self.torrent.means.now();
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

    /// Takes in that nothing wanted is missing any more.
    pub(super) fn finished(&mut self) {
        self.changed = true;
        self.flushing.finished = true;
        self.torrent.record_mut().set_trouble(None);
    }

    /// Begins the work that is due.
    pub(super) fn flush_if_due(&mut self) {
        if self.flushing.completed && !self.is_finishing() {
            self.completed();
        }
        let now = self.torrent.means.now();
        if self.leeching {
            self.flushing.samples.settle(now, self.swarm.have());
        }
        let flushing = &mut self.flushing;
        if flushing.work.is_some() {
            return;
        }
        let sent = self.swarm.progress().uploaded;
        if flushing.keeps && sent != flushing.told.0 && now.since(flushing.told.1) >= TELL_EVERY {
            // A seed flushes nothing, but what it has sent must survive a crash too.
            flushing.told = (sent, now);
            let moved = self.moved();
            self.torrent.keep(moved);
        }
        let flushing = &mut self.flushing;
        if !flushing.to_finish.is_empty() {
            return self.name_files();
        }
        let received = self.swarm.progress().downloaded;
        let is_written = flushing.unkept > 0
            && (now.since(flushing.since) >= EVERY || flushing.unkept >= MANY_BYTES);
        // A file that is written to long after the last checkpoint would not be recognized as ours.
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

    /// Takes in that other pieces are wanted. If something is to be written for them, a checkpoint
    /// says so first.
    pub(super) fn want(&mut self, priorities: Arc<[Priority]>) {
        let wants = |piece: PieceIndex| {
            priorities.get(piece.0 as usize).is_none_or(|priority| priority.is_wanted())
        };
        let lacks = self.swarm.have().missing().any(wants);
        self.flushing.wants = None;
        // Files that were not wanted before are checked and made before they are written to.
        let mut entries = self.torrent.entry.metainfo.info().files().entries().iter();
        // No piece comes for an empty file.
        let makes = lacks || entries.any(|file| file.len == 0 && !file.padding);
        if makes && !self.torrent.record().upload_only {
            self.flushing.wants = Some(priorities);
        } else {
            self.tell(Event::Wants { priorities });
        }
    }

    /// Gives whole files their final names, if they are still as they must be.
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
            let mut outcome = FlushOutcome::default();
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
        self.flushing.work = Some(FlushWork { job, have, writing: true, naming: true });
    }

    fn begin_flush(&mut self) {
        let flushing = &mut self.flushing;
        let begins = flushing.wants.is_some();
        let writing = (begins || !self.swarm.is_finished())
            && !self.torrent.record().upload_only
            && !self.ending;
        let wanted = begins.then(|| self.torrent.entry.options.lock().files.clone());
        let may_write = !begins || self.torrent.paths.may_write(&self.torrent.entry).is_ok();
        let store = self.torrent.entry.store();
        // With an ending for unfinished files, those that are ours can be told from others.
        let ownership = match self.torrent.record().files {
            Ownership::Ours if store.options().incomplete_suffix.is_some() => Ownership::Unfinished,
            other => other,
        };
        let record = self.torrent.record();
        let kept_files = |kept: Option<&KeptCheckpoint>| kept.map(|kept| kept.files().to_vec());
        let flush = Flush {
            mounts: Arc::clone(&self.torrent.means.mounts),
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
        (flushing.unkept, flushing.since) = (0, self.torrent.means.now());
        let job = tokio::task::spawn_blocking(move || flush.run());
        let have = self.swarm.have().clone();
        self.flushing.work = Some(FlushWork { job, have, writing, naming: false });
    }

    /// Takes in the end of work on files, and keeps what was flushed.
    pub(super) fn flushed(&mut self, flushed: FlushResult) -> Result<(), TorrentError> {
        let Some(work) = self.flushing.work.take() else { return Ok(()) };
        let flushed = match flushed {
            Ok(flushed) => flushed,
            Err(panic) => Err(broke_off(&self.torrent.entry.store(), &panic)),
        };
        self.changed = true;
        if work.naming {
            self.flushing.naming = false;
            let outcome = flushed.map_err(TorrentError::from)?;
            self.doubt_files(&outcome.doubted);
            return Ok(());
        }
        let outcome = flushed.map_err(|error| {
            // What was verified since the last checkpoint is in doubt and is checked again.
            self.unsure = true;
            TorrentError::from(error)
        })?;
        if outcome.changed {
            // Somebody has changed what is held, or has files of these names. That is looked into
            // before anything is written again.
            self.flushing.wants = None;
            if self.torrent.record().files == Ownership::Ours {
                self.torrent.record_mut().files = Ownership::Unfinished;
            }
            if !self.ending && self.reason.is_none() {
                // It is prepared again, which decides that.
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
            let metainfo = Arc::clone(&self.torrent.entry.metainfo);
            let record = self.torrent.record_mut();
            record.set_unproven(unproven);
            record.note_kept(&metainfo, have, outcome.files, work.writing);
            self.torrent.keep(moved);
            self.torrent.pass(LifecycleEvent::Checkpointed);
        }
        // Those of a later change are still to be kept.
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

    /// Returns whether whole files have not got their final names yet.
    pub(super) fn is_finishing(&self) -> bool {
        self.flushing.is_finishing() || self.proofs.is_finishing()
    }

    /// Announces that every piece is there and every file has its name.
    fn completed(&mut self) {
        if self.doubt.is_some() {
            return;
        }
        self.flushing.completed = false;
        self.observe(&TorrentEvent::Completed);
        // Publish what is left first: announces read it.
        self.publish(true);
        self.torrent.scheduler.complete(self.torrent.entry.info_hash());
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
            self.torrent.keep(moved);
        }
        Ok(())
    }
}

/// Returns the bytes of a piece.
fn span_of(geometry: &Geometry, piece: PieceIndex) -> Range<u64> {
    let start = geometry.piece_offset(piece);
    start..start + u64::from(geometry.piece_size(piece))
}

/// Bytes at most that may have to be hashed again after a crash.
const MANY_BYTES: u64 = 256 << 20;
/// How old the totals in a checkpoint may be, and so be lost in a crash.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// One in so many received bytes may be hashed again before files get their final names.
const SAMPLE_SHARE: u64 = 64;
/// A survey takes a change for our own within 30 s of the last checkpoint.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);
