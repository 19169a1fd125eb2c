//! Telling those who listen what changed.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::inner::Inner;
use piecework_api::Event;
use piecework_core::InfoHash;
use piecework_journal::Owners;

type Hashes = HashSet<InfoHash, FixedState>;

/// Hears what changes, a few times a second at most for each torrent.
pub struct Listener {
    inner: Arc<Inner>,
    ear: Arc<Ear>,
    /// What is to be told before anything else is looked at.
    batch: VecDeque<InfoHash>,
    /// `batch` is what there was when listening began.
    first: bool,
    /// When the next batch may be taken.
    next_batch: Instant,
    ended: bool,
    /// The one torrent whose pieces are told too.
    only: Option<InfoHash>,
    /// What is known of it; `None` until that was looked up, or if no journal is kept.
    owners: Option<Owners>,
    /// There may be new pieces of it.
    look: bool,
    /// What people were told last, and when to look whether that has changed.
    told: Vec<String>,
    tell_at: Instant,
}

/// All who listen.
#[derive(Default)]
pub(super) struct Ears {
    ears: Mutex<Vec<Weak<Ear>>>,
}

/// What one listener has not heard yet: each torrent once, however often it changed.
#[derive(Default)]
struct Ear {
    pending: Mutex<Pending>,
    more: Notify,
}

#[derive(Default)]
struct Pending {
    changed: Hashes,
    removed: Hashes,
    done: Hashes,
    settings: bool,
    bye: bool,
}

impl Listener {
    pub(super) fn new(inner: Arc<Inner>, only: Option<InfoHash>) -> Self {
        let ear = Arc::new(Ear::default());
        inner.ears.ears.lock().push(Arc::downgrade(&ear));
        // After the ear is there, so that nothing falls between.
        let batch = inner.book.lock().order.iter().collect();
        if inner.has_ended() {
            ear.pending.lock().bye = true;
        }
        Self {
            owners: None,
            look: only.is_some(),
            only,
            inner,
            ear,
            batch,
            first: true,
            next_batch: Instant::now(),
            ended: false,
            told: Vec::new(),
            tell_at: Instant::now(),
        }
    }

    /// The next thing; `None` once the daemon has ended. Who is slow hears less, never something
    /// stale last.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if self.ended {
                return None;
            }
            if self.look
                && self.batch.is_empty()
                && let Some(event) = self.new_pieces().await
            {
                return Some(event);
            }
            if let Some(event) = self.next_now() {
                return Some(event);
            }
            let changes_wait = !self.ear.pending.lock().changed.is_empty();
            tokio::select! {
                // A call that came before is remembered.
                () = self.ear.more.notified() => {}
                () = tokio::time::sleep_until(self.next_batch), if changes_wait => {}
                () = tokio::time::sleep_until(self.tell_at) => {}
            }
        }
    }

    fn next_now(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.urgent().or_else(|| self.new_notices()) {
                return Some(event);
            }
            while let Some(info_hash) = self.batch.pop_front() {
                if let Some(torrent) = self.inner.book.lock().show(info_hash) {
                    return Some(Event::Torrent(Box::new(torrent)));
                }
            }
            if self.first {
                self.first = false;
                return Some(Event::Ready);
            }
            let now = Instant::now();
            let mut pending = self.ear.pending.lock();
            if pending.changed.is_empty() || now < self.next_batch {
                return None;
            }
            self.batch = pending.changed.drain().collect();
            self.look |= self.only.is_some_and(|only| self.batch.contains(&only));
            self.next_batch = now + PACE;
        }
    }

    /// What is new of the one torrent's pieces. What there was at the beginning is not new, but it
    /// is read before that beginning is told. Cancel-safe: what is not told is looked up again.
    async fn new_pieces(&mut self) -> Option<Event> {
        let only = self.only;
        // It may have been added since.
        let known = || only.and_then(|info_hash| self.inner.no_owners(info_hash));
        let owners = self.owners.clone().or_else(known);
        let (Some(only), Some(owners)) = (only, owners) else {
            self.look = false;
            return None;
        };
        let found = self.inner.new_pieces(only, owners).await;
        self.look = false;
        match found {
            Ok((new, owners)) => {
                self.owners = Some(owners);
                let is_news =
                    !new.pieces.is_empty() || !new.bad.is_empty() || !new.givers.is_empty();
                (is_news && !self.first).then(|| Event::Pieces(Box::new(new)))
            }
            Err(error) => {
                tracing::debug!(%error, "new pieces are not told");
                None
            }
        }
    }

    /// What people should know, if that is not what was told last.
    fn new_notices(&mut self) -> Option<Event> {
        let now = Instant::now();
        if self.first || self.ended || now < self.tell_at {
            return None;
        }
        self.tell_at = now + NOTICES_EVERY;
        let notices = self.inner.notices();
        (notices != self.told).then(|| {
            self.told.clone_from(&notices);
            Event::Notices(notices)
        })
    }

    /// What does not wait for its turn once what there was has been told.
    fn urgent(&mut self) -> Option<Event> {
        let mut pending = self.ear.pending.lock();
        if pending.bye {
            self.ended = true;
            return Some(Event::Bye);
        }
        if self.first {
            return None;
        }
        if let Some(info_hash) = pop(&mut pending.removed) {
            return Some(Event::Removed(info_hash));
        }
        if let Some(info_hash) = pop(&mut pending.done) {
            return Some(Event::Done(info_hash));
        }
        if std::mem::take(&mut pending.settings) {
            drop(pending);
            let settings = self.inner.book.lock().settings.clone();
            return Some(Event::Settings(Box::new(settings)));
        }
        None
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("waiting", &self.batch.len()).finish_non_exhaustive()
    }
}

impl Ears {
    /// A torrent is there or has changed.
    pub fn changed(&self, info_hash: InfoHash) {
        self.tell(|pending| {
            pending.changed.insert(info_hash);
        });
    }

    /// A torrent is gone.
    pub fn removed(&self, info_hash: InfoHash) {
        self.tell(|pending| {
            pending.changed.remove(&info_hash);
            pending.done.remove(&info_hash);
            if pending.removed.len() < REMOVED {
                pending.removed.insert(info_hash);
            } else {
                // It has not listened for very long: it must begin anew to know what there is.
                pending.bye = true;
            }
        });
    }

    /// A download has everything that is wanted.
    pub fn done(&self, info_hash: InfoHash) {
        self.tell(|pending| {
            pending.done.insert(info_hash);
        });
    }

    /// The settings have changed.
    pub fn settings(&self) {
        self.tell(|pending| pending.settings = true);
    }

    /// The daemon ends.
    pub fn bye(&self) {
        self.tell(|pending| pending.bye = true);
    }

    fn tell(&self, what: impl Fn(&mut Pending)) {
        self.ears.lock().retain(|ear| {
            let Some(ear) = ear.upgrade() else { return false };
            what(&mut ear.pending.lock());
            ear.more.notify_one();
            true
        });
    }
}

fn pop(hashes: &mut Hashes) -> Option<InfoHash> {
    let one = hashes.iter().next().copied()?;
    hashes.remove(&one);
    Some(one)
}

/// Time between two looks at what people should know: they are few, and seldom change.
const NOTICES_EVERY: Duration = Duration::from_secs(3);

/// Time between two looks at what changed: four a second.
const PACE: Duration = Duration::from_millis(250);

/// Removals that a listener may have unheard: ten times as many torrents as a large daemon has.
const REMOVED: usize = 100_000;
