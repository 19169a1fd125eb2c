//! What outlives a torrent's swarms. It is all there is of a torrent that sleeps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use piecework_core::metainfo::Metainfo;
use piecework_core::{
    Bitfield, BoxedDefault, Checkpoint, Fingerprint, Geometry, Moment, PieceIndex, Priority,
    shared_default,
};
use piecework_swarm::lifecycle::{ContentState, Lifecycle, LifecycleStatus, Workload};
use piecework_swarm::{Blame, Cause, HeardAddress, PeerSource, PieceStage, WaitTimes};

use super::complaints::Complaints;
use super::doubt::{self, Doubt};
use super::ownership::Ownership;
use super::status::StatusView;
use super::survey::Survey;
use super::wants;
use super::{TorrentError, TorrentState};

/// The state of a torrent beside its swarm.
pub(super) struct Record {
    /// Decides what the torrent does.
    pub life: Lifecycle,
    /// Pieces held; `None` means all. Empty while that is not known.
    pub have: Option<Box<Bitfield>>,
    pub rare: BoxedDefault<RecordRare>,
    /// Payload bytes received and sent in earlier swarms.
    downloaded: u64,
    uploaded: u64,
    /// The last checkpoint.
    pub kept: Option<KeptCheckpoint>,
    pub next_peer: u32,
    /// Whether the last checkpoint says that files are being written to.
    writing: bool,
    /// Whether everything was there before the check began that is under way.
    was_whole: bool,
    pub upload_only: bool,
    /// Who owns the files that have the names of the torrent's files.
    pub files: Ownership,
}

/// Payload bytes transferred.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TransferTotals {
    pub downloaded: u64,
    pub uploaded: u64,
    pub corrupt: u64,
}

/// State that few torrents have.
#[derive(Default, PartialEq)]
pub(super) struct RecordRare {
    /// Addresses of peers that users and links named.
    pub user: Vec<HeardAddress>,
    /// Addresses for the next swarm: peers we had dialled, and what trackers said.
    pub lost: Vec<HeardAddress>,
    /// What its swarms have waited for. A download that sleeps goes on waiting for peers.
    pub waited: Option<Arc<WaitTimes>>,
    /// What its swarms know against peers.
    pub blame: Option<Box<Blame>>,
    /// The fault that it has stopped on.
    fault: Option<Box<TorrentError>>,
    /// What is left to be hashed, and what is known so far. `None` means that everything is.
    survey: Option<Box<Survey>>,
    /// Bytes of pieces that failed their hash in earlier swarms.
    corrupt: u64,
    /// Pieces of `have` in files that were written to between the last checkpoint and an unclean
    /// end: nobody has hashed them since.
    unproven: Option<Bitfield>,
    /// Pieces of the last checkpoint that a check had not hashed yet.
    unchecked: Option<Bitfield>,
    /// Peers that may have found a piece of ours wrong.
    pub complaints: Option<Box<Complaints>>,
    /// A sentence about something that has happened and does not stop the torrent.
    pub trouble: Option<Box<str>>,
}

/// A checkpoint without its totals. Every torrent has one as long as it is there.
pub(super) struct KeptCheckpoint {
    /// `None` means all pieces.
    have: Option<Box<Bitfield>>,
    files: Fingerprints,
    taken_at_ns: i64,
}

/// The files' fingerprints. Most torrents are one file.
#[derive(PartialEq, Eq)]
enum Fingerprints {
    One(Option<Fingerprint>),
    Many(Box<[Option<Fingerprint>]>),
}

impl Record {
    /// Returns the record of a new torrent.
    pub(crate) fn new(life: Lifecycle, pieces: u32, upload_only: bool) -> Self {
        Self {
            life,
            have: Some(Box::new(Bitfield::empty(pieces))),
            rare: BoxedDefault::default(),
            downloaded: 0,
            uploaded: 0,
            kept: None,
            next_peer: 0,
            writing: false,
            was_whole: false,
            upload_only,
            files: Ownership::Unknown,
        }
    }

    /// Restores what an earlier session has kept.
    pub(crate) fn restore(&mut self, checkpoint: &Checkpoint) {
        self.kept = Some(KeptCheckpoint::of(checkpoint));
        self.writing = checkpoint.writing;
        self.set_unchecked(checkpoint.unchecked.clone());
    }

    /// Notes what is held and, if checkpoints are kept, what the files were like when that was
    /// found. Returns whether this has to be kept because it differs from the last checkpoint.
    pub(crate) fn note_known(
        &mut self,
        metainfo: &Metainfo,
        have: Option<Bitfield>,
        files: Option<Vec<Option<Fingerprint>>>,
    ) -> bool {
        self.set_have(have);
        self.set_survey(None);
        let Some(files) = files else { return true };
        let was_checking = self.rare.unchecked.is_some();
        let (old, was_writing) = (self.kept.take().filter(|_| !was_checking), self.writing);
        self.note_kept(metainfo, self.have.as_deref().cloned(), files, false);
        let same = old.zip(self.kept.as_ref()).is_some_and(|(old, new)| old.is_same(new));
        !same || was_writing != self.writing
    }

    /// Ends the waiting of a download that slept. Returns the cause, and the time that has not been
    /// counted.
    pub(crate) fn stop_waiting(&mut self, now: Moment) -> Option<(Cause, Duration)> {
        let waiting = self.rare.waited.as_ref()?;
        let (cause, since) = (waiting.bottleneck()?.cause, waiting.since());
        self.rare.change(|rare| {
            if let Some(waiting) = &mut rare.waited {
                Arc::make_mut(waiting).note(now, None);
            }
        });
        Some((cause, now.since(since)))
    }

    /// Notes that files may not hold any more what they held, and have to be hashed.
    pub(crate) fn doubt(&mut self, metainfo: &Metainfo, doubt: Doubt) {
        let have = self.bitfield(metainfo);
        let check = doubt::common(&have, &doubt.pieces(metainfo));
        let trusted = doubt::minus(&have, &check);
        let unproven = self.unproven().map(|unproven| doubt::minus(unproven, &check));
        let mut survey = Survey::new(Some(trusted.clone()), check, None);
        survey.unproven = unproven.filter(|unproven| unproven.count() > 0);
        survey.doubt = Some(doubt);
        self.set_have(Some(trusted));
        self.set_survey(Some(Box::new(survey)));
    }

    /// Notes that nothing is known to be held any more.
    pub(crate) fn forget(&mut self, pieces: u32) {
        self.set_have(Some(Bitfield::empty(pieces)));
        self.set_survey(None);
        self.set_unproven(None);
    }

    /// Notes a checkpoint: `files` are as they were when the pieces of `have` were known. `None`
    /// means all pieces.
    pub(crate) fn note_kept(
        &mut self,
        metainfo: &Metainfo,
        have: Option<Bitfield>,
        mut files: Vec<Option<Fingerprint>>,
        writing: bool,
    ) {
        let unproven = self.unproven();
        if let Some(unproven) = unproven {
            // The next start must not believe them either.
            doubt::mark_unsure(metainfo, &mut files, unproven);
        }
        self.writing = writing || unproven.is_some();
        self.kept = Some(KeptCheckpoint::new(have, &files));
        self.set_unchecked(None);
    }

    /// Notes the progress of a check: `have` is right, `unchecked` has not been hashed yet, and
    /// `files` are as they were before.
    pub(crate) fn note_checking(
        &mut self,
        metainfo: &Metainfo,
        have: Bitfield,
        files: Vec<Option<Fingerprint>>,
        unchecked: Bitfield,
    ) {
        let was_whole = self.was_whole();
        // Files that are ours stay so when a later process goes on with the check.
        self.note_kept(metainfo, Some(have), files, self.files == Ownership::Ours);
        self.set_unchecked(Some(unchecked));
        self.was_whole = was_whole;
    }

    /// Notes that everything is to be hashed, so that a later session goes on with it. Returns
    /// whether that has to be kept: without a checkpoint everything is hashed in any case.
    pub(crate) fn note_recheck(&mut self, metainfo: &Metainfo) -> bool {
        let Some(kept) = &self.kept else { return false };
        let (files, pieces) = (kept.files().to_vec(), metainfo.info().geometry().pieces());
        let (nothing, all) = (Bitfield::empty(pieces), Bitfield::full(pieces));
        self.note_checking(metainfo, nothing, files, all);
        true
    }

    /// Sets the pieces of the last checkpoint that a check had not hashed yet.
    pub(crate) fn set_unchecked(&mut self, unchecked: Option<Bitfield>) {
        if unchecked.is_some() || self.rare.unchecked.is_some() {
            self.rare.change(|rare| rare.unchecked = unchecked);
        }
        self.was_whole = false;
    }

    /// Returns the last checkpoint, with these totals.
    pub(crate) fn checkpoint(
        &self,
        metainfo: &Metainfo,
        moved: TransferTotals,
    ) -> Option<Checkpoint> {
        let kept = self.kept.as_ref()?;
        let pieces = metainfo.info().geometry().pieces();
        Some(Checkpoint {
            have: kept.have.as_deref().cloned().unwrap_or_else(|| Bitfield::full(pieces)),
            files: kept.files().to_vec(),
            writing: self.writing,
            unchecked: self.rare.unchecked.clone(),
            taken_at_ns: kept.taken_at_ns,
            downloaded: moved.downloaded,
            uploaded: moved.uploaded,
        })
    }

    /// Returns the last checkpoint if it says that files are being written to.
    pub(crate) fn kept_writing(&self) -> Option<&KeptCheckpoint> {
        self.kept.as_ref().filter(|_| self.writing)
    }

    /// Returns the last checkpoint if it says that nothing is being written.
    pub(crate) fn kept_unwritten(&self) -> Option<&KeptCheckpoint> {
        self.kept.as_ref().filter(|_| !self.writing)
    }

    /// Returns the totals of earlier swarms.
    pub(crate) fn earlier(&self) -> TransferTotals {
        let (downloaded, uploaded) = (self.downloaded, self.uploaded);
        TransferTotals { downloaded, uploaded, corrupt: self.rare.corrupt }
    }

    pub(crate) fn set_earlier(&mut self, moved: TransferTotals) {
        (self.downloaded, self.uploaded) = (moved.downloaded, moved.uploaded);
        if self.rare.corrupt != moved.corrupt {
            self.rare.change(|rare| rare.corrupt = moved.corrupt);
        }
    }

    pub(crate) fn set_survey(&mut self, survey: Option<Box<Survey>>) {
        if survey.is_some() || self.rare.survey.is_some() {
            self.rare.change(|rare| rare.survey = survey);
        }
    }

    pub(crate) fn take_survey(&mut self) -> Option<Box<Survey>> {
        self.rare.survey.as_ref()?;
        self.rare.change(|rare| rare.survey.take())
    }

    /// Returns held pieces that may be wrong since an unclean end.
    pub(crate) fn unproven(&self) -> Option<&Bitfield> {
        self.rare.unproven.as_ref()
    }

    pub(crate) fn set_unproven(&mut self, unproven: Option<Bitfield>) {
        if unproven.is_some() || self.rare.unproven.is_some() {
            self.rare.change(|rare| rare.unproven = unproven);
        }
    }

    pub(crate) fn set_trouble(&mut self, trouble: Option<String>) {
        if trouble.is_some() || self.rare.trouble.is_some() {
            self.rare.change(|rare| rare.trouble = trouble.map(Into::into));
        }
    }

    /// Returns whether everything was there when that was last known, or before a check began.
    pub(crate) fn was_whole(&self) -> bool {
        self.was_whole || self.kept.as_ref().is_some_and(|kept| kept.have.is_none())
    }

    /// Sets the pieces held; `None` means all.
    pub(crate) fn set_have(&mut self, have: Option<Bitfield>) {
        self.have = have.filter(|have| !have.is_full()).map(Box::new);
    }

    /// Sets or clears the fault that it has stopped on.
    pub(crate) fn set_fault(&mut self, fault: Option<TorrentError>) {
        if fault.is_some() || self.rare.fault.is_some() {
            self.rare.change(|rare| rare.fault = fault.map(Box::new));
        }
    }

    /// Returns the fault that it has stopped on.
    pub(crate) fn fault(&self) -> Option<&TorrentError> {
        self.rare.fault.as_deref()
    }

    /// Returns whether it may exchange pieces: it is neither paused nor has a fault.
    pub(crate) fn is_open(&self) -> bool {
        !self.life.is_paused() && self.life.fault().is_none()
    }

    /// Returns what it has to do of its own accord once it is known what it holds. `files` are the
    /// priorities of its files.
    pub(crate) fn workload(&self, metainfo: &Metainfo, files: &[Priority]) -> Workload {
        if !self.upload_only && !self.is_finished(metainfo, files) {
            return Workload::Download;
        }
        let knows_peers = !self.rare.user.is_empty() || !self.rare.lost.is_empty();
        match knows_peers || self.rare.unproven.is_some() {
            true => Workload::Prompt,
            false => Workload::None,
        }
    }

    /// Returns whether it has something to do of its own accord.
    pub(crate) fn is_active(&self, metainfo: &Metainfo, files: &[Priority]) -> bool {
        self.is_open()
            && self.life.content() == ContentState::Ready
            && self.workload(metainfo, files) != Workload::None
    }

    /// Returns whether everything wanted is held.
    pub(crate) fn is_finished(&self, metainfo: &Metainfo, files: &[Priority]) -> bool {
        let Some(have) = &self.have else { return true };
        let pieces = wants::of_pieces(metainfo, files);
        let wants = |piece: PieceIndex| pieces.get(piece.0 as usize).is_none_or(|p| p.is_wanted());
        !have.missing().any(wants)
    }

    pub(crate) fn bitfield(&self, metainfo: &Metainfo) -> Bitfield {
        let pieces = metainfo.info().geometry().pieces();
        self.have.as_deref().cloned().unwrap_or_else(|| Bitfield::full(pieces))
    }

    /// Returns how a piece stands while nothing is under way.
    pub(crate) fn stage(&self, metainfo: &Metainfo, piece: PieceIndex) -> PieceStage {
        let pieces = metainfo.info().geometry().pieces();
        let is_held = self.have.as_deref().is_none_or(|have| have.contains(piece));
        match piece.0 < pieces && is_held {
            true => PieceStage::Held,
            false => PieceStage::Missing,
        }
    }

    /// Remembers addresses of one source.
    pub(crate) fn note_peers(&mut self, source: PeerSource, addrs: &[SocketAddr]) {
        addrs.iter().for_each(|addr| self.note_peer(HeardAddress { addr: *addr, source }));
    }

    /// Remembers an address, for all later swarms if a user has named it, or else for the next one.
    pub(crate) fn note_peer(&mut self, heard: HeardAddress) {
        let is_named = heard.source.is_named();
        let known = if is_named { &self.rare.user } else { &self.rare.lost };
        if known.len() < MOST_PEERS && !known.iter().any(|other| other.addr == heard.addr) {
            match is_named {
                true => self.rare.user.push(heard),
                false => self.rare.lost.push(heard),
            }
        }
    }

    /// Returns its status while it has no swarm.
    pub(crate) fn shown(&self, metainfo: &Metainfo, files: &[Priority]) -> StatusView {
        let geometry = metainfo.info().geometry();
        let have = self.have.as_deref();
        let bytes_have = match have {
            None => geometry.total_len(),
            Some(have) => have.iter().map(|piece| u64::from(geometry.piece_size(piece))).sum(),
        };
        let pieces = wants::of_pieces(metainfo, files);
        let (bytes_wanted, bytes_wanted_have) = wants::bytes(metainfo, &pieces, have);
        let left = |have: &Bitfield| {
            have.missing()
                .any(|p| pieces.get(p.0 as usize).is_none_or(|p: &Priority| p.is_wanted()))
        };
        let fault = self.rare.fault.clone();
        let state = match self.life.status() {
            LifecycleStatus::Waiting | LifecycleStatus::FetchingMetadata => TorrentState::Waiting,
            LifecycleStatus::Checking => {
                let survey = self.rare.survey.as_deref();
                let done = survey.map_or(0, Survey::looked);
                TorrentState::Checking { done, total: to_check(&geometry, survey) }
            }
            LifecycleStatus::Moving => TorrentState::Moving { done: 0, total: 0 },
            LifecycleStatus::Paused | LifecycleStatus::Failed | LifecycleStatus::Gone => {
                TorrentState::Paused { reason: fault.as_ref().map(ToString::to_string) }
            }
            LifecycleStatus::Ready if have.is_some_and(left) => TorrentState::Downloading,
            LifecycleStatus::Ready => TorrentState::Seeding,
        };
        StatusView {
            fault,
            pieces_have: have.map_or(geometry.pieces(), Bitfield::count),
            bytes_have,
            bytes_wanted,
            bytes_wanted_have,
            corrupt: self.rare.corrupt,
            downloaded: self.downloaded,
            uploaded: self.uploaded,
            trouble: self.rare.trouble.clone(),
            waiting: self.rare.waited.clone(),
            ..StatusView::new(state)
        }
    }
}

impl KeptCheckpoint {
    /// Returns a checkpoint of now. `None` means all pieces.
    fn new(have: Option<Bitfield>, files: &[Option<Fingerprint>]) -> Self {
        Self { have: have.map(Box::new), files: Fingerprints::new(files), taken_at_ns: now_ns() }
    }

    /// Returns what an earlier run has kept.
    fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            have: (!checkpoint.have.is_full()).then(|| Box::new(checkpoint.have.clone())),
            files: Fingerprints::new(&checkpoint.files),
            taken_at_ns: checkpoint.taken_at_ns,
        }
    }

    /// Returns the files' fingerprints, in the torrent's order.
    pub(crate) fn files(&self) -> &[Option<Fingerprint>] {
        match &self.files {
            Fingerprints::One(file) => std::slice::from_ref(file),
            Fingerprints::Many(files) => files,
        }
    }

    /// Returns whether both say the same, whenever they were taken.
    fn is_same(&self, other: &Self) -> bool {
        self.have == other.have && self.files == other.files
    }
}

impl Fingerprints {
    fn new(files: &[Option<Fingerprint>]) -> Self {
        match files {
            [file] => Self::One(*file),
            files => Self::Many(files.into()),
        }
    }
}

shared_default!(RecordRare);

/// Returns the time of day in nanoseconds since 1970, until the year 2262.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns how many pieces a check hashes, including those that the same check hashed before.
/// Without `survey` these are all.
pub(super) fn to_check(geometry: &Geometry, survey: Option<&Survey>) -> u32 {
    survey.map_or(geometry.pieces(), |survey| survey.earlier + survey.check.count())
}

/// Addresses remembered for one torrent: as many as a swarm looks at.
const MOST_PEERS: usize = 1_000;
