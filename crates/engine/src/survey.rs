//! Surveys: what a torrent's files tell without hashing, compared with its last checkpoint.

use piecework_core::{Bitfield, Checkpoint, Fingerprint, PieceIndex, Rng};
use piecework_storage::{self as storage, CheckResult, StorageError, Store, StoreMode};

use super::TorrentError;
use super::doubt::{self, Doubt};
use super::mounts::Mounts;

/// What is known of a torrent's files without hashing.
#[derive(Debug, PartialEq)]
pub(super) struct Survey {
    /// Pieces held; `None` means all.
    pub trusted: Option<Bitfield>,
    /// Pieces to be hashed.
    pub check: Bitfield,
    /// Pieces of `check` that are samples of the `unproven` pieces of their files. If one is wrong,
    /// these are hashed as well.
    pub sample: Option<Bitfield>,
    /// Pieces of `trusted` in files that were written to after the last checkpoint.
    pub unproven: Option<Bitfield>,
    /// The files as they were before the survey, if there was one.
    pub files: Option<Vec<Option<Fingerprint>>>,
    /// Why what was held is hashed again.
    pub doubt: Option<Doubt>,
    /// Pieces of `check` that were hashed before the check was cut short.
    pub checked: Option<CheckResult>,
    /// Number of pieces that the same check hashed in an earlier process.
    pub earlier: u32,
}

/// What a survey compares the files with.
pub(super) enum SurveyBasis {
    /// This checkpoint.
    Checkpoint(Box<Checkpoint>),
    /// Nothing: the files are known to be complete, and only their fingerprints are taken.
    Complete,
}

/// Compares the files of `store` with `basis`. Blocks.
pub(super) fn survey(
    mounts: &Mounts,
    store: &Store,
    basis: SurveyBasis,
) -> Result<Survey, TorrentError> {
    // First, so that what changes from now on is noticed another time.
    let files = store.fingerprints()?;
    let pieces = store.geometry().pieces();
    let SurveyBasis::Checkpoint(checkpoint) = basis else {
        return Ok(Survey::new(None, Bitfield::empty(pieces), Some(files)));
    };
    // Even if no piece was held: files that were made before the disk vanished must not be made
    // again in its bare mount point.
    let had_any = checkpoint.files.iter().any(Option::is_some);
    let mut pairs = checkpoint.files.iter().zip(&files);
    if had_any && pairs.all(|(before, now)| before.is_none() || now.is_some()) {
        // The files were brought here from another disk.
        mounts.accept(&store.root());
    }
    mounts.check(&store.root())?;
    if had_any && files.iter().all(Option::is_none) {
        // Most likely their disk is not there. Going on would download all of it again, into the
        // folder that stands in for the disk, and forget what is held.
        return Err(TorrentError::AllMissing { root: store.root() });
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
    Ok(Survey {
        sample: Some(sample).filter(|sample| sample.count() > 0),
        unproven: Some(unproven).filter(|unproven| unproven.count() > 0),
        earlier,
        ..Survey::new((!full).then_some(trusted), check, Some(files))
    })
}

impl Survey {
    /// Returns a survey without samples or doubt.
    pub(crate) fn new(
        trusted: Option<Bitfield>,
        check: Bitfield,
        files: Option<Vec<Option<Fingerprint>>>,
    ) -> Self {
        let (sample, unproven, doubt, checked) = (None, None, None, None);
        Self { trusted, check, sample, unproven, files, doubt, checked, earlier: 0 }
    }

    /// Returns the pieces that are still to be hashed.
    pub(crate) fn left(&self) -> Bitfield {
        match &self.checked {
            Some(checked) => doubt::minus(&self.check, &checked.looked),
            None => self.check.clone(),
        }
    }

    /// Returns how many pieces the check has hashed.
    pub(crate) fn looked(&self) -> u32 {
        self.earlier + self.checked.as_ref().map_or(0, |checked| checked.looked.count())
    }

    /// Adds the result of a part of the check.
    pub(crate) fn add(&mut self, more: CheckResult) {
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

/// Gives files their final names if all of their pieces are held and none is `unproven`. Makes the
/// files of a torrent that has no pieces.
pub(super) fn finish_files(
    store: &Store,
    have: &Bitfield,
    unproven: Option<&Bitfield>,
) -> Result<(), StorageError> {
    let options = store.options();
    let writable = options.mode == StoreMode::ReadWrite;
    if writable && store.geometry().pieces() == 0 {
        // It has only empty files, for which no piece will come.
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
