//! What is known of a torrent while it does nothing, and what outlives each of its swarms.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::warn;

use piecework_core::metainfo::Metainfo;
use piecework_core::{
    Bitfield, Checkpoint, Fingerprint, Geometry, PieceIndex, Priority, Rare, shared_default,
};
use piecework_swarm::{Blame, Waiting};

use super::complaints::Complaints;
use super::crew::{Look, Seen, Turn};
use super::doubt::{self, Doubt};
use super::entry::Entry;
use super::files;
use super::shared::Shared;
use super::starts::Start;
use super::status::Shown;
use super::wants;
use super::{TorrentError, TorrentEvent, TorrentState};

/// Everything of a torrent that outlives its swarms.
pub(super) struct Record {
    pub phase: Phase,
    /// Pieces held; `None` is all of them. Empty while that is not known.
    pub have: Option<Box<Bitfield>>,
    /// [`PAUSED`], [`HELD`], [`LOOK_TWICE`], [`WAS_WHOLE`], [`STARTS`] and [`NEW`]: a byte more would
    /// be eight.
    flags: u8,
    pub upload_only: bool,
    /// Whose the files are that have the names of the torrent's.
    pub files: Ownership,
    pub rare: Rare<RecordRare>,
    /// What moved in earlier swarms.
    pub earlier: Moved,
    /// What was kept last.
    pub kept: Option<Kept>,
    pub turn: Option<Turn>,
    /// A turn will come.
    pub asked: bool,
    pub next_peer: u32,
}

/// Nothing moves.
const PAUSED: u8 = 1;
/// Should the look that goes on fail, look once more.
const LOOK_TWICE: u8 = 2;
/// All of it was there before the check began that goes on.
const WAS_WHOLE: u8 = 4;
/// It has a place among the downloads that begin ([`super::starts`]).
const STARTS: u8 = 8;
/// It was added paused and has never gone on.
const NEW: u8 = 16;
/// Somebody has paused it, whatever else it has stopped on: a fault that passes does not end that.
const HELD: u8 = 32;

/// Whose files are that have the names of a torrent's, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// They may be somebody's who does not know of the torrent.
    Unknown,
    /// Unfinished ones are the torrent's. Those of final names may be somebody's.
    Unfinished,
    /// The torrent's: it has written to them.
    Ours,
    /// Whatever stands in the torrent's way is replaced, for somebody said so.
    Replaced,
}

/// How far it is known what is on the disk.
pub(super) enum Phase {
    /// The crew is to look. Its answer bears this number; answers to earlier looks are ignored.
    Looking(u32),
    /// To be hashed: all of it, or what a look has left.
    Doubtful(Option<Box<Seen>>),
    /// It is known.
    Ready,
    /// It could not be looked at.
    Unknown,
}

/// Payload bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub downloaded: u64,
    pub uploaded: u64,
    pub corrupt: u64,
}

/// What few torrents have.
#[derive(Default, PartialEq)]
pub(super) struct RecordRare {
    /// Addresses of peers that people and links named.
    pub user: Vec<SocketAddr>,
    /// To begin with when a swarm begins anew: whom we had dialled, and what trackers said.
    pub lost: Vec<SocketAddr>,
    /// What its swarms waited for. A download that sleeps goes on waiting for peers.
    pub waited: Option<Arc<Waiting>>,
    /// What its swarms know against peers.
    pub blame: Option<Box<Blame>>,
    /// Why it is paused, if not because somebody asked.
    fault: Option<TorrentError>,
    /// Of `have`, pieces in files that were written to between the last checkpoint and an unclean
    /// end: nobody has hashed them since.
    unproven: Option<Bitfield>,
    /// Of what was kept last, pieces that a check had not looked at.
    unchecked: Option<Bitfield>,
    /// Peers that may have found a piece of ours wrong.
    pub complaints: Option<Box<Complaints>>,
    /// What has happened to it that does not stop it: a sentence.
    pub trouble: Option<Box<str>>,
}

/// A checkpoint without its totals. Every torrent has one as long as it is there.
pub(super) struct Kept {
    /// `None` is everything.
    have: Option<Box<Bitfield>>,
    files: Prints,
    pub writing: bool,
    taken_at_ns: i64,
}

/// What the files of a torrent were like. Most torrents are one file.
#[derive(PartialEq, Eq)]
enum Prints {
    One(Option<Fingerprint>),
    Many(Box<[Option<Fingerprint>]>),
}

impl Record {
    /// Of a torrent that is to be looked at.
    pub fn new(pieces: u32, upload_only: bool) -> Self {
        Self {
            phase: Phase::Looking(0),
            have: Some(Box::new(Bitfield::empty(pieces))),
            flags: 0,
            upload_only,
            files: Ownership::Unknown,
            rare: Rare::default(),
            earlier: Moved::default(),
            kept: None,
            turn: None,
            asked: false,
            next_peer: 0,
        }
    }

    /// Takes note of what the crew saw, while the torrent sleeps. Says whether it is to wake.
    pub fn seen(
        &mut self,
        shared: &Arc<Shared>,
        entry: &Arc<Entry>,
        (number, seen): (u32, Result<Box<Seen>, TorrentError>),
    ) -> bool {
        // The files may have been moved or hashed since an earlier look.
        if !matches!(self.phase, Phase::Looking(current) if current == number) {
            return false;
        }
        match seen {
            // Somebody had it go on meanwhile, who may have mended what this look met.
            Err(_) if self.take_flag(LOOK_TWICE) => self.look_again(shared, entry),
            Err(error) => {
                self.phase = Phase::Unknown;
                self.fail(shared, entry, error);
                false
            }
            Ok(seen) if seen.check.count() > 0 => {
                self.phase = Phase::Doubtful(Some(seen));
                self.ask_turn(shared, entry)
            }
            Ok(seen) => {
                let Seen { trusted, files, unproven, .. } = *seen;
                self.set_unproven(unproven);
                self.know(shared, entry, trusted, files);
                self.wakes(shared, entry)
            }
        }
    }

    /// What is on the disk is known now. `files` are as they were before they were looked at.
    pub fn know(
        &mut self,
        shared: &Arc<Shared>,
        entry: &Arc<Entry>,
        have: Option<Bitfield>,
        files: Option<Vec<Option<Fingerprint>>>,
    ) {
        self.set_have(have);
        self.phase = Phase::Ready;
        self.take_flag(LOOK_TWICE);
        self.turn = None;
        if let Some(files) = files.filter(|_| shared.config.keeper.is_some()) {
            let was_checking = self.rare.unchecked.is_some();
            let old = self.kept.take().filter(|_| !was_checking);
            self.note_kept(&entry.metainfo, self.have.as_deref().cloned(), files, false);
            let same = old.zip(self.kept.as_ref()).is_some_and(|(old, new)| old.is_same(new));
            if !same {
                self.keep(shared, entry, self.earlier);
            }
        }
        self.settle(shared, entry);
    }

    /// Shows how it stands, and announces it if it is at work.
    pub fn settle(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>) {
        entry.show(self.shown(entry));
        if !self.is_paused() && matches!(self.phase, Phase::Ready) {
            shared.hub.start(entry.info_hash());
        }
    }

    /// Whether it is to be hashed at once; if not, its turn comes.
    pub fn ask_turn(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>) -> bool {
        // One with a fault asks when somebody has it go on.
        if self.fault().is_none() && self.turn.is_none() && !self.asked {
            self.turn = shared.turns.ask(shared, entry);
            self.asked = self.turn.is_none();
        }
        entry.show(self.shown(entry));
        self.turn.is_some()
    }

    /// Has the disk looked at before it goes on: against what was kept, if anything was.
    pub fn look_again(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>) -> bool {
        self.stop_waiting(shared);
        self.set_have(Some(Bitfield::empty(entry.metainfo.info().geometry().pieces())));
        // Who is added as complete keeps nothing until the first look has ended.
        let is_new_seed = self.upload_only && matches!(self.phase, Phase::Looking(_));
        let look = match self.checkpoint(entry, self.earlier) {
            Some(since) => Some(Look::Since(Box::new(since))),
            None => is_new_seed.then_some(Look::Complete),
        };
        match look {
            Some(look) => {
                let number = shared.crew.number();
                self.phase = Phase::Looking(number);
                entry.show(self.shown(entry));
                shared.crew.look(shared, Arc::clone(entry), number, look);
                false
            }
            None => {
                self.phase = Phase::Doubtful(None);
                self.ask_turn(shared, entry)
            }
        }
    }

    /// Stops because somebody wants it.
    pub fn pause(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>) {
        // Also of one that has stopped on a fault.
        self.flags |= HELD;
        if !self.is_paused() {
            self.hold();
            self.stop_waiting(shared);
            shared.hub.stop(entry.info_hash());
            entry.show(self.shown(entry));
        }
    }

    /// A download that slept waits for peers no more.
    fn stop_waiting(&mut self, shared: &Shared) {
        let waits = |waiting: &Arc<Waiting>| waiting.standing().is_some();
        if self.rare.waited.as_ref().is_none_or(|waiting| !waits(waiting)) {
            return;
        }
        self.rare.change(|rare| {
            if let Some(waiting) = &mut rare.waited {
                shared.sums.add_wait(Arc::make_mut(waiting), shared.now());
            }
        });
    }

    /// Goes on after a pause. Says whether it is to wake.
    pub fn resume(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>) -> bool {
        if !self.is_paused() {
            if matches!(self.phase, Phase::Looking(_)) {
                self.flags |= LOOK_TWICE;
            }
            return false;
        }
        let fresh_for = if self.flags & NEW == 0 { FRESH } else { NEW_FRESH };
        let fault = self.unpause();
        // After a fault nothing is fresh.
        let fresh = |kept: &Kept| {
            let age = now_ns().saturating_sub(kept.taken_at_ns);
            fault.is_none() && age < fresh_for.as_nanos() as i64
        };
        match &self.kept {
            // Who kept something looks whether it still holds.
            Some(kept) if matches!(self.phase, Phase::Ready) && !fresh(kept) => {
                self.look_again(shared, entry)
            }
            // Its turn was given up with the fault.
            _ if matches!(self.phase, Phase::Doubtful(_)) => self.ask_turn(shared, entry),
            // Nothing is known of what is on disk: to go on would be to get all of it anew.
            _ if matches!(self.phase, Phase::Unknown) => self.look_again(shared, entry),
            _ => {
                self.settle(shared, entry);
                self.wakes(shared, entry)
            }
        }
    }

    /// Goes on after a fault that may have passed, unless somebody has paused it since. Says whether it
    /// is to wake.
    pub fn retry(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>) -> bool {
        let passes = matches!(self.fault(), Some(TorrentError::Full(_) | TorrentError::Again(_)));
        passes && self.flags & HELD == 0 && self.resume(shared, entry)
    }

    /// Whether it is to wake at once for what there is to do for it of its own accord. A download may
    /// have to wait in the line of those that begin.
    fn wakes(&mut self, shared: &Shared, entry: &Arc<Entry>) -> bool {
        if !self.is_active(entry) {
            return false;
        }
        if self.upload_only || self.is_finished(entry) {
            return true;
        }
        let begins = shared.starts.ask(entry);
        if begins {
            self.flags |= STARTS;
        }
        begins
    }

    /// It is its turn to begin. Says whether it takes the place that was kept for it, and wakes.
    pub fn begins(&mut self, entry: &Entry) -> bool {
        let begins = self.is_active(entry);
        if begins {
            self.flags |= STARTS;
        }
        begins
    }

    /// Takes its place among those that begin, if it has one.
    pub fn take_start(&mut self, shared: &Arc<Shared>) -> Option<Start> {
        self.take_flag(STARTS).then(|| Start::taken(shared))
    }

    /// Files may not hold any more what they held: they are hashed before it goes on.
    pub fn doubt(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>, doubt: Doubt) {
        let have = self.bitfield(&entry.metainfo);
        let check = doubt::common(&have, &doubt.pieces(&entry.metainfo));
        let trusted = doubt::minus(&have, &check);
        let unproven = self.unproven().map(|unproven| doubt::minus(unproven, &check));
        let mut seen = Seen::new(Some(trusted.clone()), check, None);
        seen.unproven = unproven.filter(|unproven| unproven.count() > 0);
        seen.doubt = Some(doubt);
        self.set_have(Some(trusted));
        self.phase = Phase::Doubtful(Some(Box::new(seen)));
        self.ask_turn(shared, entry);
    }

    /// Notes what is kept of it: `files` are as they were when the pieces of `have` were known;
    /// `None` is all.
    pub fn note_kept(
        &mut self,
        metainfo: &Metainfo,
        have: Option<Bitfield>,
        mut files: Vec<Option<Fingerprint>>,
        writing: bool,
    ) {
        let unproven = self.unproven();
        if let Some(unproven) = unproven {
            // So that the next start does not believe them either.
            doubt::mark_unsure(metainfo, &mut files, unproven);
        }
        let writing = writing || unproven.is_some();
        self.kept = Some(Kept::new(have, files, writing));
        self.set_unchecked(None);
    }

    /// Notes how far a check is: `have` is right, `unchecked` is still to be looked at, and `files`
    /// are as they were before.
    pub fn note_checking(
        &mut self,
        metainfo: &Metainfo,
        have: Bitfield,
        files: Vec<Option<Fingerprint>>,
        unchecked: Bitfield,
    ) {
        let was_whole = self.was_whole();
        // Files that are ours stay so when the check goes on in a later process.
        self.note_kept(metainfo, Some(have), files, self.files == Ownership::Ours);
        self.set_unchecked(Some(unchecked));
        if was_whole {
            self.flags |= WAS_WHOLE;
        }
    }

    /// Has a check that begins be gone on with by a later process. Without effect if nothing is kept
    /// of the torrent: it is checked then in any case.
    pub fn keep_recheck(&mut self, shared: &Shared, entry: &Entry) {
        let Some(kept) = self.kept.as_ref().filter(|_| shared.config.keeper.is_some()) else {
            return;
        };
        let (files, pieces) = (kept.files().to_vec(), entry.metainfo.info().geometry().pieces());
        let (nothing, all) = (Bitfield::empty(pieces), Bitfield::full(pieces));
        self.note_checking(&entry.metainfo, nothing, files, all);
        self.keep(shared, entry, self.earlier);
    }

    /// Pieces that a check had not looked at when it was kept last.
    pub fn set_unchecked(&mut self, unchecked: Option<Bitfield>) {
        if unchecked.is_some() || self.rare.unchecked.is_some() {
            self.rare.change(|rare| rare.unchecked = unchecked);
        }
        self.take_flag(WAS_WHOLE);
    }

    /// What is kept of it, with these totals.
    fn checkpoint(&self, entry: &Entry, moved: Moved) -> Option<Checkpoint> {
        let kept = self.kept.as_ref()?.checkpoint(entry, moved);
        Some(Checkpoint { unchecked: self.rare.unchecked.clone(), ..kept })
    }

    /// Pieces held of which nobody knows whether they are right since an unclean end.
    pub fn unproven(&self) -> Option<&Bitfield> {
        self.rare.unproven.as_ref()
    }

    pub fn set_unproven(&mut self, unproven: Option<Bitfield>) {
        if unproven.is_some() || self.rare.unproven.is_some() {
            self.rare.change(|rare| rare.unproven = unproven);
        }
    }

    pub fn set_trouble(&mut self, trouble: Option<String>) {
        if trouble.is_some() || self.rare.trouble.is_some() {
            self.rare.change(|rare| rare.trouble = trouble.map(Into::into));
        }
    }

    /// Pauses on a fault. If the disk was full, it goes on by itself when there is room.
    pub fn fail(&mut self, shared: &Arc<Shared>, entry: &Arc<Entry>, error: TorrentError) {
        warn!(torrent = %entry.info_hash(), %error, "paused");
        if let Some(observer) = shared.observer() {
            observer.event(&entry.metainfo, &TorrentEvent::Paused { error: error.clone() });
        }
        let passes = matches!(error, TorrentError::Full(_) | TorrentError::Again(_));
        self.set_paused(Some(error));
        self.stop_waiting(shared);
        self.turn = None;
        shared.hub.stop(entry.info_hash());
        entry.show(self.shown(entry));
        if passes && shared.config.keeper.is_some() {
            files::retry_when_free(shared, entry);
        }
    }

    /// Takes a flag away, and says whether it was there.
    fn take_flag(&mut self, flag: u8) -> bool {
        let was = self.flags & flag != 0;
        self.flags &= !flag;
        was
    }

    /// Whether all of it was there when it was last looked at, or before a check began.
    pub fn was_whole(&self) -> bool {
        let was_whole = self.flags & WAS_WHOLE != 0;
        was_whole || self.kept.as_ref().is_some_and(|kept| kept.have.is_none())
    }

    /// Notes what is held; `None` is all.
    pub fn set_have(&mut self, have: Option<Bitfield>) {
        self.have = have.filter(|have| !have.is_full()).map(Box::new);
    }

    /// Notes that nothing moves, and why, if not because somebody asked.
    pub fn set_paused(&mut self, fault: Option<TorrentError>) {
        self.flags |= PAUSED;
        self.rare.change(|rare| rare.fault = fault);
    }

    /// Notes that somebody has paused it.
    pub fn hold(&mut self) {
        self.flags |= HELD;
        self.set_paused(None);
    }

    /// Notes that it is added paused.
    pub fn begin_paused(&mut self) {
        self.flags |= PAUSED | HELD | NEW;
    }

    /// Notes that it goes on; gives the fault it had stopped on.
    pub fn unpause(&mut self) -> Option<TorrentError> {
        self.flags &= !(PAUSED | HELD | NEW);
        self.rare.change(|rare| rare.fault.take())
    }

    pub fn is_paused(&self) -> bool {
        self.flags & PAUSED != 0
    }

    /// Why it is paused, if not because somebody asked.
    pub fn fault(&self) -> Option<&TorrentError> {
        self.rare.fault.as_ref()
    }

    /// Whether it knows of somebody to dial.
    pub fn has_candidates(&self) -> bool {
        !self.rare.user.is_empty() || !self.rare.lost.is_empty()
    }

    /// Whether there is something to do for it of its own accord.
    pub fn is_active(&self, entry: &Entry) -> bool {
        if self.is_paused() || !matches!(self.phase, Phase::Ready) {
            return false;
        }
        self.has_candidates()
            || self.rare.unproven.is_some()
            || (!self.upload_only && !self.is_finished(entry))
    }

    /// Whether all that is wanted is held.
    pub fn is_finished(&self, entry: &Entry) -> bool {
        let Some(have) = &self.have else { return true };
        let pieces = wants::of_pieces(&entry.metainfo, &entry.options.lock().files);
        let wants = |piece: PieceIndex| pieces.get(piece.0 as usize).is_none_or(|p| p.is_wanted());
        !have.missing().any(wants)
    }

    pub fn bitfield(&self, metainfo: &Metainfo) -> Bitfield {
        let pieces = metainfo.info().geometry().pieces();
        self.have.as_deref().cloned().unwrap_or_else(|| Bitfield::full(pieces))
    }

    /// Hands what was kept last to the keeper, with these totals.
    pub fn keep(&self, shared: &Shared, entry: &Entry, moved: Moved) {
        if let Some(keeper) = &shared.config.keeper
            && let Some(checkpoint) = self.checkpoint(entry, moved)
        {
            keeper.keep(entry.info_hash(), checkpoint);
        }
    }

    /// Remembers addresses over swarms.
    pub fn note_user_peers(&mut self, addrs: &[SocketAddr]) {
        for addr in addrs {
            if self.rare.user.len() < USER_PEERS && !self.rare.user.contains(addr) {
                self.rare.user.push(*addr);
            }
        }
    }

    pub fn note_found(&mut self, addrs: Vec<SocketAddr>) {
        if !addrs.is_empty() {
            self.rare.lost.extend(addrs);
            self.rare.lost.truncate(USER_PEERS);
        }
    }

    /// How it stands while it has no swarm.
    pub fn shown(&self, entry: &Entry) -> Shown {
        let metainfo = &entry.metainfo;
        let geometry = metainfo.info().geometry();
        let have = self.have.as_deref();
        let bytes_have = match have {
            None => geometry.total_len(),
            Some(have) => have.iter().map(|piece| u64::from(geometry.piece_size(piece))).sum(),
        };
        let pieces = wants::of_pieces(metainfo, &entry.options.lock().files);
        let (bytes_wanted, bytes_wanted_have) = wants::bytes(metainfo, &pieces, have);
        let left = |have: &Bitfield| {
            have.missing()
                .any(|p| pieces.get(p.0 as usize).is_none_or(|p: &Priority| p.is_wanted()))
        };
        let fault = self.fault().cloned().map(Box::new);
        let state = match &self.phase {
            Phase::Looking(_) => TorrentState::Waiting,
            // It is hashed when somebody has it go on.
            Phase::Doubtful(_) if fault.is_some() => {
                TorrentState::Paused { reason: fault.as_ref().map(ToString::to_string) }
            }
            Phase::Doubtful(seen) => match self.turn {
                Some(_) => {
                    let done = seen.as_ref().map_or(0, |seen| seen.looked());
                    TorrentState::Checking { done, total: to_check(&geometry, seen) }
                }
                None => TorrentState::Waiting,
            },
            Phase::Ready | Phase::Unknown if self.is_paused() => {
                TorrentState::Paused { reason: fault.as_ref().map(ToString::to_string) }
            }
            Phase::Ready | Phase::Unknown if have.is_some_and(left) => TorrentState::Downloading,
            Phase::Ready | Phase::Unknown => TorrentState::Seeding,
        };
        Shown {
            fault,
            pieces_have: have.map_or(geometry.pieces(), Bitfield::count),
            bytes_have,
            bytes_wanted,
            bytes_wanted_have,
            corrupt: self.earlier.corrupt,
            downloaded: self.earlier.downloaded,
            uploaded: self.earlier.uploaded,
            trouble: self.rare.trouble.clone(),
            waiting: self.rare.waited.clone(),
            ..Shown::new(state)
        }
    }
}

impl Kept {
    /// As it is now. `have` is `None` for everything.
    pub fn new(have: Option<Bitfield>, files: Vec<Option<Fingerprint>>, writing: bool) -> Self {
        let have = have.map(Box::new);
        Self { have, files: Prints::new(&files), writing, taken_at_ns: now_ns() }
    }

    /// What an earlier run knew.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            have: (!checkpoint.have.is_full()).then(|| Box::new(checkpoint.have.clone())),
            files: Prints::new(&checkpoint.files),
            writing: checkpoint.writing,
            taken_at_ns: checkpoint.taken_at_ns,
        }
    }

    /// What the files were like, in the torrent's order.
    pub fn files(&self) -> &[Option<Fingerprint>] {
        match &self.files {
            Prints::One(file) => std::slice::from_ref(file),
            Prints::Many(files) => files,
        }
    }

    pub fn checkpoint(&self, entry: &Entry, moved: Moved) -> Checkpoint {
        let pieces = entry.metainfo.info().geometry().pieces();
        Checkpoint {
            have: self.have.as_deref().cloned().unwrap_or_else(|| Bitfield::full(pieces)),
            files: self.files().to_vec(),
            writing: self.writing,
            unchecked: None,
            taken_at_ns: self.taken_at_ns,
            downloaded: moved.downloaded,
            uploaded: moved.uploaded,
        }
    }

    /// Whether they say the same, whenever they were taken.
    fn is_same(&self, other: &Self) -> bool {
        self.have == other.have && self.files == other.files && self.writing == other.writing
    }
}

impl Prints {
    fn new(files: &[Option<Fingerprint>]) -> Self {
        match files {
            [file] => Self::One(*file),
            files => Self::Many(files.into()),
        }
    }
}

shared_default!(RecordRare);

/// The clock, nanoseconds since 1970; the last one it can tell is in 2262.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Pieces to be hashed, with those that were hashed by the same check before.
pub(super) fn to_check(geometry: &Geometry, seen: &Option<Box<Seen>>) -> u32 {
    seen.as_ref().map_or(geometry.pieces(), |seen| seen.earlier + seen.check.count())
}

/// Addresses remembered for one torrent: as many as a swarm looks at.
const USER_PEERS: usize = 1_000;

/// What was looked at so lately is not looked at again: a torrent that is added and then started.
const FRESH: Duration = Duration::from_secs(5);

/// The same of torrents that have not gone on since they were added: a daemon that starts looks at tens
/// of thousands before it has the first of them go on.
const NEW_FRESH: Duration = Duration::from_secs(5 * 60);
