//! Hashing what is on the disk. A check that was cut short goes on where it stopped.

use piecework_core::SaturatingFrom;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use super::TorrentState;
use super::background::BackgroundJob;
use super::doubt::{self, Doubt, Verdict};
use super::ownership::Ownership;
use super::prepare::make_empty_files;
use super::record::to_check;
use super::survey::{Survey, finish_files};
use super::torrent::{Torrent, broke_off, flat};
use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, Fingerprint};
use piecework_storage::{self as storage, CheckProgress, CheckResult, StorageError, Store};
use piecework_swarm::lifecycle::{CheckEnd, LifecycleEvent};

/// The progress of a check.
pub(super) struct Progress {
    /// Pieces that are right so far.
    have: Bitfield,
    /// Pieces that have not been hashed yet.
    unchecked: Bitfield,
    /// The files as they were before it began.
    files: Vec<Option<Fingerprint>>,
    /// Pieces of `have` that nobody has hashed since an unclean end.
    unproven: Option<Bitfield>,
}

impl Progress {
    /// Returns the progress of a check of the pieces in `left` that has found `checked`. `held` was
    /// right before, and nobody has hashed `unproven` since.
    fn new(
        held: &Bitfield,
        left: &Bitfield,
        checked: &CheckResult,
        files: Vec<Option<Fingerprint>>,
        unproven: Option<Bitfield>,
    ) -> Self {
        let mut have = held.clone();
        for piece in checked.right.iter() {
            have.insert(piece);
        }
        Self { have, unchecked: doubt::minus(left, &checked.looked), files, unproven }
    }
}

impl Torrent {
    /// Hashes what is to be hashed. Keeps its progress now and then, so that a later process goes
    /// on from there.
    pub(crate) async fn check(&mut self) {
        let pieces = self.geometry.pieces();
        let survey = self.record_mut().take_survey();
        let total = to_check(&self.geometry, survey.as_deref());
        let before = survey.as_ref().map_or(0, |survey| survey.looked());
        let all = || Survey::new(Some(Bitfield::empty(pieces)), Bitfield::full(pieces), None);
        let mut survey = survey.unwrap_or_else(|| Box::new(all()));
        let job = HashJob {
            store: self.entry.store(),
            left: survey.left(),
            files: survey.files.clone(),
            held: known_right(&survey),
            found: survey.checked.clone(),
            unproven: survey.unproven.clone(),
            any_length: self.record().files == Ownership::Replaced,
            keep_every: self.means.config.keep_check_every,
            keeps: self.means.keeps_checkpoints(),
        };
        let shown = move |done: u64, _| TorrentState::Checking {
            done: before + u32::saturating_from(done),
            total,
        };
        let (checked, cancelled) =
            self.in_background(move |background| job.run(&background), shown, None).await;
        let store = self.entry.store();
        let checked = checked.unwrap_or_else(|panic| Err(broke_off(&store, &panic)));
        if cancelled {
            // Other work comes first, then the check goes on.
            if let Ok((checked, files)) = checked {
                let (held, left) = (known_right(&survey), survey.left());
                let unproven = survey.unproven.clone();
                let progress = Progress::new(&held, &left, &checked, files.clone(), unproven);
                survey.add(checked);
                survey.files = Some(files);
                self.keep_progress(progress);
            }
            self.record_mut().set_survey(Some(survey));
            return self.pass(LifecycleEvent::Checked(CheckEnd::Stopped));
        }
        match checked {
            Ok((checked, files)) => {
                survey.add(checked);
                let found = survey.checked.take().map(|checked| checked.right);
                let found = found.unwrap_or_else(|| Bitfield::empty(pieces));
                self.checked(*survey, found, files).await;
            }
            Err(error) => self.check_failed(&error),
        }
    }

    fn check_failed(&mut self, error: &StorageError) {
        self.pass_fault(error.clone().into(), |kind| {
            LifecycleEvent::Checked(CheckEnd::Failed(kind))
        });
    }

    /// Keeps the progress of a check.
    pub(crate) fn keep_progress(&mut self, progress: Progress) {
        if !self.means.keeps_checkpoints() {
            return;
        }
        let Progress { have, unchecked, mut files, unproven } = progress;
        if let Some(unproven) = &unproven {
            // The next start must not believe them either.
            doubt::mark_unsure(&self.entry.metainfo, &mut files, unproven);
        }
        let metainfo = Arc::clone(&self.entry.metainfo);
        self.record_mut().note_checking(&metainfo, have, files, unchecked);
        self.keep_noted();
    }

    /// Takes in the end of a check that has found the pieces in `found` to be right. `files` are as
    /// they were before it.
    async fn checked(&mut self, survey: Survey, found: Bitfield, files: Vec<Option<Fingerprint>>) {
        let entry = Arc::clone(&self.entry);
        let (store, is_all) = (entry.store(), survey.check.is_full());
        let mut have = found.clone();
        for piece in survey.trusted.iter().flat_map(Bitfield::iter) {
            have.insert(piece);
        }
        if let Some(more) = more_to_check(&survey, &found, &entry.metainfo) {
            let mut again = Survey::new(Some(doubt::minus(&have, &more)), more, Some(files));
            again.unproven = survey.unproven.map(|unproven| doubt::minus(&unproven, &again.check));
            again.doubt = survey.doubt;
            self.record_mut().set_survey(Some(Box::new(again)));
            return self.pass(LifecycleEvent::Checked(CheckEnd::Incomplete));
        }
        let doubt = survey.doubt.as_ref();
        let verdict = doubt.map(|doubt| doubt.verdict(&entry.metainfo, &survey.check, &found));
        let unproven = survey.unproven.filter(|unproven| unproven.count() > 0);
        let finished = {
            let (store, have, unproven) = (Arc::clone(&store), have.clone(), unproven.clone());
            let wants = entry.options.lock().files.clone();
            tokio::task::spawn_blocking(move || {
                finish_files(&store, &have, unproven.as_ref())?;
                if is_all && have.count() > 0 {
                    make_empty_files(&store, &wants)?;
                }
                Ok(())
            })
            .await
        };
        if let Err(error) = flat(&store, finished) {
            return self.check_failed(&error);
        }
        let record = self.record_mut();
        record.set_unproven(unproven);
        let mut fault = None;
        match verdict {
            Some(Verdict::Stop(error)) => fault = Some(error),
            Some(Verdict::Again(sentence)) => {
                warn!(torrent = %entry.info_hash(), "{sentence}");
                record.set_trouble(Some(sentence));
            }
            Some(Verdict::Right) | None => {}
        }
        let damaged = fault.as_ref().map(|error| CheckEnd::Damaged(error.kind()));
        let checked = LifecycleEvent::Checked(damaged.unwrap_or(CheckEnd::Known));
        self.pass_content(have, files, (checked, fault));
    }
}

/// A check, to be run on a thread of its own.
struct HashJob {
    store: Arc<Store>,
    left: Bitfield,
    /// The files as they were before the check began, if this is a later part of it.
    files: Option<Vec<Option<Fingerprint>>>,
    /// Pieces that are right as far as is known.
    held: Bitfield,
    /// What an earlier part of the check has found.
    found: Option<CheckResult>,
    unproven: Option<Bitfield>,
    /// Files that are too long are cut.
    any_length: bool,
    /// Bytes after which the progress is kept.
    keep_every: u64,
    keeps: bool,
}

impl HashJob {
    fn run(
        self,
        background: &BackgroundJob,
    ) -> Result<(CheckResult, Vec<Option<Fingerprint>>), StorageError> {
        let (store, left, held) = (&self.store, &self.left, &self.held);
        let files = match self.files {
            Some(files) => files,
            None => store.fingerprints()?,
        };
        let kept = Mutex::new((0, Instant::now()));
        let note = |at: CheckProgress, checked: &CheckResult| {
            background.done.store(u64::from(at.pieces_done), Ordering::Relaxed);
            let mut kept = kept.lock();
            let is_due =
                at.bytes_done >= kept.0 + self.keep_every || kept.1.elapsed() >= KEEP_CHECK;
            if self.keeps && is_due {
                *kept = (at.bytes_done, Instant::now());
                let (files, unproven) = (files.clone(), self.unproven.clone());
                let progress = Progress::new(held, left, checked, files, unproven);
                *background.progress.lock() = Some(Box::new(progress));
            }
        };
        let cancel = &background.cancel;
        let checked =
            storage::check_step_by_step(store, Some(left), self.any_length, note, cancel)?;
        if self.any_length && !cancel.load(Ordering::Relaxed) {
            let mut right = checked.right.clone();
            for piece in self.found.iter().flat_map(|found| found.right.iter()) {
                right.insert(piece);
            }
            store.cut_long_files(&right)?;
        }
        Ok((checked, files))
    }
}

/// Returns the pieces that are right as far as an unfinished check knows.
fn known_right(survey: &Survey) -> Bitfield {
    let mut right = Bitfield::empty(survey.check.len());
    let found = survey.checked.iter().map(|checked| &checked.right);
    for piece in survey.trusted.iter().chain(found).flat_map(Bitfield::iter) {
        right.insert(piece);
    }
    right
}

/// Returns what else has to be hashed because a sampled piece is wrong: the unproven pieces of its
/// files.
fn more_to_check(survey: &Survey, found: &Bitfield, metainfo: &Metainfo) -> Option<Bitfield> {
    let (sample, unproven) = (survey.sample.as_ref()?, survey.unproven.as_ref()?);
    let wrong = doubt::minus(sample, found);
    let files = wrong.iter().flat_map(|piece| doubt::files_of(metainfo, piece));
    let files = Doubt { files: files.map(|file| (file, true)).collect(), why: String::new() };
    let more = doubt::common(unproven, &files.pieces(metainfo));
    (more.count() > 0).then_some(more)
}

/// Time after which the progress of a check is kept. A fast disk reaches the number of bytes
/// earlier.
const KEEP_CHECK: Duration = Duration::from_secs(30);
