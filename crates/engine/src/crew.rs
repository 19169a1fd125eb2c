//! Looking at disks, for few torrents at a time: a crew that compares files with checkpoints, and
//! turns for those that must be hashed.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use piecework_core::{Bitfield, Checkpoint, Fingerprint, PieceIndex, Rng, printable_bytes};
use piecework_storage::{self as storage, Checked, StorageError, Store, StoreMode};

use super::TorrentError;
use super::doubt::{self, Doubt};
use super::entry::{Call, Entry};
use super::lifecycle::TorrentRef;
use super::mounts::Mounts;
use super::record::Ownership;
use super::shared::Shared;

/// What was found of a torrent's files without hashing.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    /// Held; `None` is everything.
    pub trusted: Option<Bitfield>,
    /// To be hashed.
    pub check: Bitfield,
    /// Of `check`, pieces that stand for those of their files that are `unproven`: if one is wrong,
    /// these are hashed as well.
    pub sample: Option<Bitfield>,
    /// Of `trusted`, pieces in files that were written to after the last checkpoint.
    pub unproven: Option<Bitfield>,
    /// The files as they were before they were looked at, if they were.
    pub files: Option<Vec<Option<Fingerprint>>>,
    /// Why what was held is hashed again.
    pub doubt: Option<Doubt>,
    /// Of `check`, what was looked at before the check was cut short.
    pub checked: Option<Checked>,
    /// Pieces that the same check looked at in an earlier process.
    pub earlier: u32,
}

/// What is to be found out.
pub(super) enum Look {
    /// What is still as it was at this checkpoint.
    Since(Box<Checkpoint>),
    /// Only what the files are like: they are known to be complete.
    Complete,
}

/// Torrents whose files are to be looked at, a few at a time.
#[derive(Default)]
pub(super) struct Crew {
    state: Mutex<CrewState>,
}

#[derive(Default)]
struct CrewState {
    jobs: VecDeque<(Arc<Entry>, Look)>,
    workers: usize,
}

/// Who may hash what is on disk.
pub(super) struct Turns {
    state: Mutex<TurnsState>,
}

struct TurnsState {
    free: usize,
    waiting: VecDeque<Arc<Entry>>,
}

/// The right to hash a torrent's files, handed on when it is dropped.
pub(super) struct Turn {
    shared: Weak<Shared>,
}

impl Crew {
    /// The answer comes as [`Call::Seen`], or straight into the record of one that sleeps.
    pub fn look(&self, torrent: TorrentRef<'_>, look: Look) {
        let mut state = self.state.lock();
        state.jobs.push_back((Arc::clone(torrent.entry), look));
        if state.workers < WORKERS {
            state.workers += 1;
            // The end of a runtime waits for its threads: they must not keep the session alive.
            let shared = Arc::downgrade(torrent.shared);
            torrent.shared.runtime.spawn_blocking(move || work(&shared));
        }
    }

    /// Whatever waits is given up.
    pub fn clear(&self) {
        let jobs = std::mem::take(&mut self.state.lock().jobs);
        drop(jobs);
    }

    fn next(&self) -> Option<(Arc<Entry>, Look)> {
        let mut state = self.state.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.workers -= 1;
        }
        job
    }
}

impl Turns {
    pub fn new(turns: usize) -> Self {
        Self { state: Mutex::new(TurnsState { free: turns.max(1), waiting: VecDeque::new() }) }
    }

    /// Whether a turn is free, which is taken then; else one will come as [`Call::Turn`].
    pub fn ask(&self, entry: &Arc<Entry>) -> bool {
        let mut state = self.state.lock();
        let is_free = state.free > 0;
        match is_free {
            true => state.free -= 1,
            false => state.waiting.push_back(Arc::clone(entry)),
        }
        is_free
    }

    /// Whoever waits is given up.
    pub fn clear(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        drop(waiting);
    }

    fn next(&self) -> Option<Arc<Entry>> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.free += 1;
        }
        next
    }
}

impl Turn {
    /// Of a turn that the torrent has already.
    pub fn taken(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        while let Some(entry) = shared.turns.next() {
            let turn = Turn { shared: Weak::clone(&self.shared) };
            match entry.post_soon(&shared, Call::Turn(turn)) {
                None => return,
                Some(Call::Turn(mut turn)) => {
                    // Of one that is gone; without handing it on from within.
                    turn.shared = Weak::new();
                }
                Some(_) => return,
            }
        }
    }
}

fn work(shared: &Weak<Shared>) {
    loop {
        let Some((shared, (entry, look))) =
            shared.upgrade().and_then(|shared| shared.crew.next().map(|job| (shared, job)))
        else {
            return;
        };
        let seen =
            see(&shared.mounts, &entry.store(), look).map(Box::new).map_err(|error| fault(&error));
        let torrent = TorrentRef { shared: &shared, entry: &entry };
        if let Some(seen) =
            entry.change_asleep(seen, |record, seen| record.pass_survey(torrent, seen))
        {
            let runtime = shared.runtime.clone();
            drop(shared);
            // One that is gone needs no answer.
            runtime.block_on(entry.post(Call::Seen(seen)));
        }
    }
}

fn see(mounts: &Mounts, store: &Store, look: Look) -> Result<Seen, StorageError> {
    // Before anything else: what changes from now on is noticed another time.
    let files = store.fingerprints()?;
    let pieces = store.geometry().pieces();
    let Look::Since(checkpoint) = look else {
        return Ok(Seen::new(None, Bitfield::empty(pieces), Some(files)));
    };
    // Also if no piece was held: what was made before the disk vanished is not made again in its
    // bare mount point.
    let had_any = checkpoint.files.iter().any(Option::is_some);
    let mut pairs = checkpoint.files.iter().zip(&files);
    if had_any && pairs.all(|(before, now)| before.is_none() || now.is_some()) {
        // Brought here from another disk.
        mounts.accept(&store.root());
    }
    mounts.check(&store.root())?;
    if had_any && files.iter().all(Option::is_none) {
        // Its disk is not there, most likely: to go on would get all of it anew, into the folder
        // that stands in for the disk, and forget what is held.
        return Err(StorageError::Other {
            operation: storage::Operation::Open,
            path: store.root(),
            reason: "none of the torrent's files is there any more: bring them back, say where \
                     they are, or have it checked to get it anew"
                .to_owned(),
        });
    }
    let storage::Survey { mut trusted, mut check, doubtful } = storage::survey(store, &checkpoint)?;
    let mut chance = Rng::from_seed(checkpoint.taken_at_ns.cast_unsigned());
    let sample = doubt::sample(store.metainfo(), &doubtful, &mut chance);
    for piece in sample.iter() {
        trusted.remove(piece);
        check.insert(piece);
    }
    if check.count() == 0 {
        finish_files(store, &trusted, None)?;
    }
    let unproven = doubt::minus(&doubtful, &sample);
    let full = trusted.is_full();
    let open = checkpoint.unchecked.as_ref();
    let earlier = open.map_or(0, |_| pieces.saturating_sub(check.count()));
    Ok(Seen {
        sample: Some(sample).filter(|sample| sample.count() > 0),
        unproven: Some(unproven).filter(|unproven| unproven.count() > 0),
        earlier,
        ..Seen::new((!full).then_some(trusted), check, Some(files))
    })
}

impl Seen {
    /// What holds and what is to be hashed, without a doubt.
    pub fn new(
        trusted: Option<Bitfield>,
        check: Bitfield,
        files: Option<Vec<Option<Fingerprint>>>,
    ) -> Self {
        let (sample, unproven, doubt, checked) = (None, None, None, None);
        Self { trusted, check, sample, unproven, files, doubt, checked, earlier: 0 }
    }

    /// Returns the pieces that are still to be hashed.
    pub fn left(&self) -> Bitfield {
        match &self.checked {
            Some(checked) => doubt::minus(&self.check, &checked.looked),
            None => self.check.clone(),
        }
    }

    /// Returns how many pieces the check has looked at.
    pub fn looked(&self) -> u32 {
        self.earlier + self.checked.as_ref().map_or(0, |checked| checked.looked.count())
    }

    /// Takes in what a part of the check has found.
    pub fn add(&mut self, more: Checked) {
        match &mut self.checked {
            Some(checked) => {
                for (all, more) in
                    [(&mut checked.looked, more.looked), (&mut checked.right, more.right)]
                {
                    for piece in more.iter() {
                        all.insert(piece);
                    }
                }
            }
            None => self.checked = Some(more),
        }
    }
}

/// Gives files all of whose pieces are held, and none `unproven`, their final names, should they
/// not have them yet, and makes those of a torrent that has no pieces.
pub(super) fn finish_files(
    store: &Store,
    have: &Bitfield,
    unproven: Option<&Bitfield>,
) -> Result<(), StorageError> {
    let options = store.options();
    let writable = options.mode == StoreMode::ReadWrite;
    if writable && store.geometry().pieces() == 0 {
        // Nothing but empty files: nobody will bring a piece with which they would be made.
        return store.prepare();
    }
    if options.incomplete_suffix.is_none() || !writable || have.count() == 0 {
        return Ok(());
    }
    let geometry = store.geometry();
    let entries = store.metainfo().info().files().entries();
    for (file, entry) in entries.iter().enumerate() {
        let mut pieces = geometry.pieces_of(entry.span()).map(PieceIndex);
        let is_sure = |piece| {
            have.contains(piece) && !unproven.is_some_and(|unproven| unproven.contains(piece))
        };
        if !entry.padding && entry.len > 0 && pieces.all(is_sure) {
            store.finish_file(file)?;
        }
    }
    Ok(())
}

/// An error if files that are not the torrent's would be written to when it gets what it is to get;
/// unless they are to be replaced, and then they are removed.
pub(super) fn make_way(
    store: &Store,
    have: &Bitfield,
    wanted: impl Fn(PieceIndex) -> bool,
    files: Ownership,
) -> Result<Result<(), TorrentError>, StorageError> {
    if files == Ownership::Ours {
        return Ok(Ok(()));
    }
    // An unfinished file of which nothing is right is another torrent's of that name.
    let unfinished = matches!(files, Ownership::Unknown | Ownership::Replaced);
    let strange = store.strange_files(have, wanted, unfinished)?;
    let [first, others @ ..] = &strange[..] else { return Ok(Ok(())) };
    if files == Ownership::Replaced {
        return Ok(store.remove_files(&strange).map_err(|error| fault(&error)));
    }
    let first = store.present_path_of(*first);
    let first = printable_bytes(first.as_os_str().as_encoded_bytes());
    let what = match others.len() {
        0 => format!("`{first}` exists already and is not"),
        1 => format!("`{first}` and another file exist already and are not"),
        more => format!("`{first}` and {more} other files exist already and are not"),
    };
    Ok(Err(TorrentError::Strange(format!(
        "{what} what the torrent describes, so nothing is written: {REPLACE}"
    ))))
}

pub(super) fn fault(error: &StorageError) -> TorrentError {
    match error {
        StorageError::Full { .. } => TorrentError::Full(error.to_string()),
        StorageError::Exhausted { .. } | StorageError::InUse { .. } => {
            TorrentError::Again(format!("{error}; it is tried again by itself"))
        }
        StorageError::TooLong { .. } => TorrentError::Strange(format!("{error}: {REPLACE}")),
        _ => TorrentError::Storage(error.to_string()),
    }
}

/// What can be done about files that are not the torrent's.
const REPLACE: &str = "move it away and resume the torrent, have it replaced (`--overwrite`), or add \
                       the torrent under another name (`--rename NAME`) or in another folder";

/// Threads that look at files at a time: enough that one slow disk does not hold up all others.
const WORKERS: usize = 4;
