//! What the announce scheduler keeps of each torrent.

use piecework_core::SaturatingFrom;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use tokio::sync::oneshot;

use super::super::entry::Entry;
use piecework_core::{InfoHash, Moment};
use piecework_proto::announce::TrackerUrl;
use piecework_swarm::announcer::{Announcer, Layouts, RestingAnnouncer};

/// Whether a torrent has no peer, connected or being dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Alone {
    /// It has one.
    No,
    /// It has none, and lacks something.
    Downloading,
    /// It has none, and something to give.
    Seeding,
}

/// The torrents that have trackers. Their info-hashes are not stored a second time.
#[derive(Default)]
pub(super) struct Announcings {
    all: HashTable<Box<Announcing>>,
    hasher: FixedState,
}

/// A torrent that has trackers. There may be tens of thousands.
pub(super) struct Announcing {
    pub entry: Arc<Entry>,
    form: Form,
    /// When it has something to announce; [`NEVER`] if it has not.
    due: Moment,
    /// Whether the torrent is announced. Nothing is before it can exchange pieces.
    pub active: bool,
    /// Whether it has no peers, so that trackers are asked again as soon as they allow.
    pub alone: Alone,
}

enum Form {
    /// No announce is under way.
    Resting(RestingAnnouncer),
    Busy(Box<Busy>),
}

/// A torrent with announces under way, or one that is being changed.
pub(super) struct Busy {
    pub announcer: Announcer,
    /// Announces under way, with a way to hurry them.
    pub running: Vec<(TrackerUrl, oneshot::Sender<()>)>,
    /// Set once the torrent leaves for good; answered when all trackers have been told.
    pub leaving: Option<Vec<oneshot::Sender<()>>>,
}

impl Announcings {
    pub(super) fn get(&self, info_hash: InfoHash) -> Option<&Announcing> {
        let found = self.all.find(self.hasher.hash_one(info_hash), |it| it.is(info_hash));
        found.map(|announcing| &**announcing)
    }

    pub(super) fn get_mut(&mut self, info_hash: InfoHash) -> Option<&mut Announcing> {
        let hash = self.hasher.hash_one(info_hash);
        self.all.find_mut(hash, |it| it.is(info_hash)).map(|announcing| &mut **announcing)
    }

    /// Inserts a torrent, in place of one with the same info-hash.
    pub(super) fn insert(&mut self, announcing: Box<Announcing>) {
        let (info_hash, hasher) = (announcing.entry.info_hash(), &self.hasher);
        let hash = hasher.hash_one(info_hash);
        let place =
            self.all.entry(hash, |it| it.is(info_hash), |it| hasher.hash_one(it.entry.info_hash()));
        match place {
            TableEntry::Occupied(mut place) => *place.get_mut() = announcing,
            TableEntry::Vacant(place) => {
                place.insert(announcing);
            }
        }
    }

    pub(super) fn remove(&mut self, info_hash: InfoHash) -> Option<Box<Announcing>> {
        let hash = self.hasher.hash_one(info_hash);
        let found = self.all.find_entry(hash, |it| it.is(info_hash));
        found.ok().map(|place| place.remove().0)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Announcing> {
        self.all.iter().map(|announcing| &**announcing)
    }

    /// Removes all torrents.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Box<Announcing>> + use<> {
        std::mem::take(&mut self.all).into_iter()
    }
}

impl Announcing {
    pub(super) fn new(entry: Arc<Entry>, announcer: Announcer, layouts: &mut Layouts) -> Self {
        let busy = Busy { announcer, running: Vec::new(), leaving: None };
        let mut new = Self {
            entry,
            form: Form::Busy(Box::new(busy)),
            due: NEVER,
            active: false,
            // Until it is known to have somebody.
            alone: Alone::Seeding,
        };
        new.rest(layouts);
        new
    }

    fn is(&self, info_hash: InfoHash) -> bool {
        self.entry.info_hash() == info_hash
    }

    /// Packs the torrent into little memory if nothing is under way.
    pub(super) fn rest(&mut self, layouts: &mut Layouts) {
        if let Form::Busy(busy) = &self.form
            && busy.running.is_empty()
            && busy.leaving.is_none()
            && let Some(resting) = busy.announcer.rest(layouts)
        {
            self.form = Form::Resting(resting);
        }
    }

    /// Unpacks the torrent, so that it can be changed.
    pub(super) fn busy(&mut self) -> &mut Busy {
        if let Form::Resting(resting) = &self.form {
            let announcer = resting.wake();
            let busy = Busy { announcer, running: Vec::new(), leaving: None };
            self.form = Form::Busy(Box::new(busy));
        }
        match &mut self.form {
            Form::Busy(busy) => busy,
            Form::Resting(_) => unreachable!("it was woken"),
        }
    }

    /// Calls `look` with its announcer.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Announcer) -> T) -> T {
        match &self.form {
            Form::Resting(resting) => look(&resting.wake()),
            Form::Busy(busy) => look(&busy.announcer),
        }
    }

    pub(super) fn into_parts(self) -> (Arc<Entry>, Announcer) {
        match self.form {
            Form::Resting(resting) => (self.entry, resting.wake()),
            Form::Busy(busy) => (self.entry, busy.announcer),
        }
    }

    pub(super) fn due(&self) -> Option<Moment> {
        (self.due != NEVER).then_some(self.due)
    }

    pub(super) fn set_due(&mut self, due: Option<Moment>) {
        self.due = due.unwrap_or(NEVER);
    }

    /// Returns whether a tracker's answer is awaited.
    pub(super) fn is_asking(&self) -> bool {
        matches!(&self.form, Form::Busy(busy) if busy.announcer.is_asking())
    }

    /// Returns whether it leaves for good.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(&self.form, Form::Busy(busy) if busy.leaving.is_some())
    }

    /// Returns whether it leaves for good and all trackers have been told.
    pub(super) fn has_left(&self) -> bool {
        let has_left = |busy: &Busy| busy.leaving.is_some() && busy.announcer.is_stopped();
        matches!(&self.form, Form::Busy(busy) if has_left(busy))
    }

    /// Returns whether only goodbyes remain: it was stopped, or never started.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_leaving() || self.look(Announcer::is_stopping)
    }

    /// Asks trackers as soon as they allow, if nobody is connected. A seed is one of `torrents`,
    /// and all of these together ask [`SEED_ASKS`] times a second at most.
    pub(super) fn ask_again(&mut self, now: Moment, torrents: usize) {
        match self.alone {
            Alone::No => {}
            Alone::Downloading => self.busy().announcer.announce_early(now),
            Alone::Seeding => {
                let pause = Duration::from_secs(1) * u32::saturating_from(torrents) / SEED_ASKS;
                self.busy().announcer.announce_early_after(now, pause);
            }
        }
    }

    /// Leaves for good: trackers are told, and then `told` fires.
    pub(super) fn go(&mut self, told: oneshot::Sender<()>) {
        self.active = false;
        let busy = self.busy();
        busy.announcer.stop();
        busy.hurry(|_, _| true);
        busy.leaving.get_or_insert_default().push(told);
    }
}

impl Busy {
    /// Makes announces under way to the trackers that `which` selects end soon.
    pub(super) fn hurry(&mut self, which: impl Fn(&Announcer, &TrackerUrl) -> bool) {
        for (tracker, end) in std::mem::take(&mut self.running) {
            if which(&self.announcer, &tracker) {
                // It may just be over.
                let _ = end.send(());
            } else {
                self.running.push((tracker, end));
            }
        }
    }
}

/// In five hundred years.
const NEVER: Moment = Moment::from_secs(u64::MAX);

/// Announces a second of all seeds together that nobody is connected to, beside the regular ones. A
/// single one asks whenever its tracker allows; one of ten thousand asks after eight minutes, if
/// its interval is longer than that.
const SEED_ASKS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_that_waits_for_its_next_announce_is_small() {
        // With six bytes more, the allocator takes sixteen.
        assert!(size_of::<Announcing>() <= 88, "{}", size_of::<Announcing>());
    }
}
