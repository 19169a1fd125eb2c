//! Hashing what is on the disk: a check that goes on where an earlier one was cut short.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use super::crew::{Seen, finish_files};
use super::doubt::{self, Doubt, Verdict};
use super::record::{Ownership, Phase, to_check};
use super::torrent::{Aside, CheckScope, Torrent, broke_off, flat, make_empty_files};
use super::{TorrentError, TorrentState};
use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, Fingerprint};
use piecework_storage::{self as storage, CheckProgress, Checked, StorageError};

/// How far a check is.
pub(super) struct Progress {
    /// Pieces that are right.
    have: Bitfield,
    /// Pieces that it has not looked at.
    unchecked: Bitfield,
    /// The files as they were before it began.
    files: Vec<Option<Fingerprint>>,
    /// Of `have`, pieces that nobody has hashed since an unclean end.
    unproven: Option<Bitfield>,
}

impl Progress {
    /// Of a check of the pieces in `left` that has found `checked`, where `held` was right before and
    /// nobody has hashed `unproven` since.
    fn new(
        held: &Bitfield,
        left: &Bitfield,
        checked: &Checked,
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
    /// Hashes what is to be hashed. How far it is is kept now and then, so that a later process goes
    /// on from there.
    pub async fn check(&mut self) {
        let pieces = self.geometry.pieces();
        let Phase::Doubtful(seen) = &mut self.record_mut().phase else { return };
        let seen = seen.take();
        let total = to_check(&self.geometry, &seen);
        let before = seen.as_ref().map_or(0, |seen| seen.looked());
        let all = || Seen::new(Some(Bitfield::empty(pieces)), Bitfield::full(pieces), None);
        let mut seen = seen.unwrap_or_else(|| Box::new(all()));
        let any_length = self.record().files == Ownership::Replaced;
        let scope = if seen.check.is_full() { CheckScope::All } else { CheckScope::Part };
        let every = self.shared.config.keep_check_every;
        let (keeps, store) = (self.shared.config.keeper.is_some(), self.entry.store());
        let job = {
            let (store, left, then) = (Arc::clone(&store), seen.left(), seen.files.clone());
            let (held, found) = (known_right(&seen), seen.checked.clone());
            let unproven = seen.unproven.clone();
            move |aside: Arc<Aside>| -> Result<_, StorageError> {
                let files = match then {
                    Some(files) => files,
                    None => store.fingerprints()?,
                };
                let kept = Mutex::new((0, Instant::now()));
                let note = |at: CheckProgress, checked: &Checked| {
                    aside.done.store(u64::from(at.pieces_done), Ordering::Relaxed);
                    let mut kept = kept.lock();
                    let is_due = at.bytes_done >= kept.0 + every || kept.1.elapsed() >= KEEP_CHECK;
                    if keeps && is_due {
                        *kept = (at.bytes_done, Instant::now());
                        let (files, unproven) = (files.clone(), unproven.clone());
                        let progress = Progress::new(&held, &left, checked, files, unproven);
                        *aside.progress.lock() = Some(Box::new(progress));
                    }
                };
                let (left, cancel) = (Some(&left), &aside.cancel);
                let checked = storage::check_step_by_step(&store, left, any_length, note, cancel)?;
                if any_length && !cancel.load(Ordering::Relaxed) {
                    let mut right = checked.right.clone();
                    for piece in found.iter().flat_map(|found| found.right.iter()) {
                        right.insert(piece);
                    }
                    store.cut_long_files(&right)?;
                }
                Ok((checked, files))
            }
        };
        let shown =
            move |done: u64, _| TorrentState::Checking { done: before + done as u32, total };
        let (checked, cancelled) = self.aside(job, shown, Some(scope), None).await;
        let checked = match checked {
            Ok(Ok((checked, files))) => Ok((checked, files)),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(broke_off(&store, &panic)),
        };
        if cancelled {
            // What comes in between comes first, then it goes on.
            if let Ok((checked, files)) = checked {
                let (held, left) = (known_right(&seen), seen.left());
                let unproven = seen.unproven.clone();
                let progress = Progress::new(&held, &left, &checked, files.clone(), unproven);
                seen.add(checked);
                seen.files = Some(files);
                self.keep_progress(progress);
            }
            self.record_mut().phase = Phase::Doubtful(Some(seen));
            return;
        }
        match checked {
            Ok((checked, files)) => {
                seen.add(checked);
                let found = seen.checked.take().map(|checked| checked.right);
                let found = found.unwrap_or_else(|| Bitfield::empty(pieces));
                self.checked(*seen, found, files).await;
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Has it kept how far a check is.
    pub fn keep_progress(&mut self, progress: Progress) {
        if self.shared.config.keeper.is_none() {
            return;
        }
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        let Progress { have, unchecked, mut files, unproven } = progress;
        if let Some(unproven) = &unproven {
            // So that the next start does not believe them either.
            doubt::mark_unsure(&entry.metainfo, &mut files, unproven);
        }
        let record = self.record_mut();
        record.note_checking(&entry.metainfo, have, files, unchecked);
        record.keep(&shared, &entry, record.earlier);
    }

    /// Of what was to be hashed `found` is right; `files` are as they were before.
    async fn checked(&mut self, seen: Seen, found: Bitfield, files: Vec<Option<Fingerprint>>) {
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        let (store, is_all) = (entry.store(), seen.check.is_full());
        let mut have = found.clone();
        for piece in seen.trusted.iter().flat_map(Bitfield::iter) {
            have.insert(piece);
        }
        if let Some(more) = more_to_check(&seen, &found, &entry.metainfo) {
            let mut again = Seen::new(Some(doubt::minus(&have, &more)), more, Some(files));
            again.unproven = seen.unproven.map(|unproven| doubt::minus(&unproven, &again.check));
            again.doubt = seen.doubt;
            self.record_mut().phase = Phase::Doubtful(Some(Box::new(again)));
            return;
        }
        let doubt = seen.doubt.as_ref();
        let verdict = doubt.map(|doubt| doubt.verdict(&entry.metainfo, &seen.check, &found));
        let unproven = seen.unproven.filter(|unproven| unproven.count() > 0);
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
            return self.fail(&error);
        }
        let record = self.record_mut();
        record.set_unproven(unproven);
        match verdict {
            Some(Verdict::Stop(sentence)) => {
                record.set_paused(Some(TorrentError::Storage(sentence)))
            }
            Some(Verdict::Again(sentence)) => {
                warn!(torrent = %entry.info_hash(), "{sentence}");
                record.set_trouble(Some(sentence));
            }
            Some(Verdict::Right) | None => {}
        }
        record.know(&shared, &entry, Some(have), Some(files));
        if let Some(error) = record.fault().cloned() {
            record.fail(&shared, &entry, error);
        }
    }
}

/// What is right as far as a check that was cut short knows.
fn known_right(seen: &Seen) -> Bitfield {
    let mut right = Bitfield::empty(seen.check.len());
    let found = seen.checked.iter().map(|checked| &checked.right);
    for piece in seen.trusted.iter().chain(found).flat_map(Bitfield::iter) {
        right.insert(piece);
    }
    right
}

/// What else is to be hashed because a piece that stood for others is wrong: those in its files.
fn more_to_check(seen: &Seen, found: &Bitfield, metainfo: &Metainfo) -> Option<Bitfield> {
    let (sample, unproven) = (seen.sample.as_ref()?, seen.unproven.as_ref()?);
    let wrong = doubt::minus(sample, found);
    let files = wrong.iter().flat_map(|piece| doubt::files_of(metainfo, piece));
    let files = Doubt { files: files.map(|file| (file, true)).collect(), why: String::new() };
    let more = doubt::common(unproven, &files.pieces(metainfo));
    (more.count() > 0).then_some(more)
}

/// How far a check is is kept so often, and more often if the disk is fast.
const KEEP_CHECK: Duration = Duration::from_secs(30);
