//! Schedules all announces of a session and carries them out, in one task.

mod announcing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info};

use crate::tracker_client::{TrackerClient, TrackerError};
use piecework_core::{InfoHash, Moment};
use piecework_proto::announce::{Announce, AnnounceEvent, AnnounceReply, TrackerUrl, TrackerUrls};
use piecework_swarm::PeerSource;
use piecework_swarm::announcer::{
    AnnounceFailure, AnnounceOutcome, AnnounceTask, AnnounceTurn, Announcer, Host, HostState,
    Hosts, Layouts, MissedGoodbyes, TrackerStatus,
};

use super::TorrentState;
use super::entry::{Call, Entry};
use super::means::Means;
use super::own_address::OwnAddresses;
use announcing::{Announcing, Announcings};

pub(super) use announcing::Alone;

/// The announcers of all torrents that have trackers.
pub(super) struct AnnounceScheduler {
    means: Arc<Means>,
    pub trackers: TrackerClient,
    schedule: Mutex<Schedule>,
    /// Wakes the task: something may be due earlier than before.
    sooner: Notify,
}

struct Schedule {
    torrents: Announcings,
    /// When each torrent has something to announce.
    due: BTreeSet<(Moment, InfoHash)>,
    /// Limits how many torrents announce to a tracker at a time.
    hosts: Hosts,
    urls: TrackerUrls,
    layouts: Layouts,
    /// The session is ending: no torrent starts to announce any more.
    ending: bool,
}

/// What [`AnnounceScheduler::part`] makes of the torrents when a session ends.
#[derive(Default)]
pub(super) struct Parting {
    /// Torrents whose trackers can be told now.
    pub parted: Vec<(Arc<Entry>, Announcer)>,
    /// One for each torrent that waits for an answer. Fires when it has told its trackers.
    pub staying: Vec<oneshot::Receiver<()>>,
}

/// An announce under way.
#[derive(Clone)]
struct AnnounceTarget {
    info_hash: InfoHash,
    tracker: TrackerUrl,
    host: Host,
}

/// An announce that is over.
struct FinishedAnnounce {
    place: AnnounceTarget,
    /// What was announced; `None` if that is not known.
    event: Option<AnnounceEvent>,
    outcome: Option<Result<AnnounceReply, TrackerError>>,
}

impl AnnounceScheduler {
    pub(crate) fn new(means: Arc<Means>, trackers: TrackerClient) -> Self {
        let hosts = Hosts::new(AT_ONCE, means.rng());
        let (torrents, due) = (Announcings::default(), BTreeSet::new());
        let (urls, layouts) = (TrackerUrls::default(), Layouts::default());
        let schedule = Schedule { torrents, due, hosts, urls, layouts, ending: false };
        Self { means, trackers, schedule: Mutex::new(schedule), sooner: Notify::new() }
    }

    /// Returns an announcer to these trackers.
    pub(crate) fn announcer(&self, tiers: Vec<Vec<TrackerUrl>>) -> Announcer {
        Announcer::new(tiers, self.means.config.tier_policy, self.means.rng())
    }

    /// Adds a torrent, which announces once it is started.
    pub(crate) fn add(&self, entry: &Arc<Entry>, mut announcer: Announcer) {
        if announcer.is_empty() {
            return;
        }
        let mut state = self.schedule.lock();
        announcer.share_urls(&mut state.urls);
        let announcing = Announcing::new(Arc::clone(entry), announcer, &mut state.layouts);
        state.torrents.insert(Box::new(announcing));
    }

    /// Gives a torrent other trackers.
    pub(crate) fn set_tiers(&self, entry: &Arc<Entry>, tiers: Vec<Vec<TrackerUrl>>) {
        let info_hash = entry.info_hash();
        let known = self.schedule.lock().torrents.get(info_hash).is_some();
        if !known {
            self.add(entry, self.announcer(tiers));
            let shown = entry.shown().state;
            if matches!(shown, TorrentState::Downloading | TorrentState::Seeding) {
                self.start(info_hash);
            }
            return;
        }
        self.change(info_hash, |announcing| {
            let busy = announcing.busy();
            busy.announcer.set_tiers(tiers);
            busy.hurry(|announcer, tracker| {
                !announcer.statuses().iter().any(|status| status.url == *tracker)
            });
        });
    }

    /// Starts to announce a torrent.
    pub(crate) fn start(&self, info_hash: InfoHash) {
        if self.is_ending() {
            return;
        }
        self.change(info_hash, |announcing| {
            if !announcing.active && !announcing.is_leaving() {
                announcing.active = true;
                announcing.busy().announcer.restart();
            }
        });
    }

    /// Stops announcing a torrent for some time. Trackers that know it are told.
    pub(crate) fn stop(&self, info_hash: InfoHash) {
        self.change(info_hash, |announcing| {
            if std::mem::replace(&mut announcing.active, false) {
                let busy = announcing.busy();
                busy.announcer.stop();
                busy.hurry(|_, _| true);
            }
        });
    }

    /// Announces that the last piece has come.
    pub(crate) fn complete(&self, info_hash: InfoHash) {
        self.change(info_hash, |announcing| announcing.busy().announcer.complete());
    }

    /// Asks the trackers for more peers as soon as they allow.
    pub(crate) fn more_peers(&self, now: Moment, info_hash: InfoHash) {
        self.change(info_hash, |announcing| announcing.busy().announcer.announce_early(now));
    }

    /// Notes whether a torrent has peers. As long as it has none, trackers are asked as often as
    /// they allow, also while the torrent sleeps.
    pub(crate) fn set_alone(&self, now: Moment, info_hash: InfoHash, alone: Alone) {
        let torrents = self.schedule.lock().torrents.len();
        self.change(info_hash, |announcing| {
            announcing.alone = alone;
            announcing.ask_again(now, torrents);
        });
    }

    /// Asks again after an answer without a useful peer.
    fn found_nobody(&self, now: Moment, entry: &Arc<Entry>) {
        let torrents = self.schedule.lock().torrents.len();
        self.change(entry.info_hash(), |announcing| {
            if announcing.active && Arc::ptr_eq(&announcing.entry, entry) {
                announcing.ask_again(now, torrents);
            }
        });
    }

    /// Returns whether the torrent has trackers.
    pub(crate) fn has_trackers(&self, info_hash: InfoHash) -> bool {
        let state = self.schedule.lock();
        state
            .torrents
            .get(info_hash)
            .is_some_and(|known| known.look(|announcer| !announcer.is_empty()))
    }

    /// Tells every tracker as soon as its least interval allows, because our address has changed.
    fn announce_all_early(&self, now: Moment) {
        let active: Vec<InfoHash> = {
            let state = self.schedule.lock();
            let active = state.torrents.iter().filter(|announcing| announcing.active);
            active.map(|announcing| announcing.entry.info_hash()).collect()
        };
        active.into_iter().for_each(|info_hash| self.more_peers(now, info_hash));
    }

    /// Announces because a user asked for it.
    pub(crate) fn reannounce(&self, now: Moment, info_hash: InfoHash) {
        self.change(info_hash, |announcing| announcing.busy().announcer.reannounce(now));
    }

    /// Returns whether a tracker at `host` and `port` has taken the torrent's `started`.
    pub(crate) fn is_known_to(&self, info_hash: InfoHash, host: &str, port: u16) -> bool {
        let state = self.schedule.lock();
        let known = state.torrents.get(info_hash);
        known.is_some_and(|known| known.look(|announcer| announcer.is_known_to(at(host, port))))
    }

    /// Takes in that the tracker at `host` and `port` does not know the torrent or us.
    pub(crate) fn was_forgotten(&self, info_hash: InfoHash, host: &str, port: u16) {
        self.change(info_hash, |announcing| {
            announcing.busy().announcer.was_forgotten(at(host, port))
        });
    }

    /// Begins the end of the session: no torrent is announced anew, and
    /// [`AnnounceScheduler::leave`] tells nobody.
    pub(crate) fn begin_end(&self) {
        self.schedule.lock().ending = true;
    }

    fn is_ending(&self) -> bool {
        self.schedule.lock().ending
    }

    /// Gives away all torrents whose trackers can be told now that we leave. A torrent that waits
    /// for a tracker's answer stays here until the answer has come, and tells its trackers then.
    pub(crate) fn part(&self) -> Parting {
        let mut state = self.schedule.lock();
        state.ending = true;
        state.due.clear();
        let mut parting = Parting::default();
        for mut announcing in state.torrents.take() {
            let info_hash = announcing.entry.info_hash();
            if !announcing.is_leaving() && !announcing.is_asking() {
                parting.parted.push(announcing.into_parts());
                continue;
            }
            let (told, gone) = oneshot::channel();
            announcing.set_due(None);
            announcing.go(told);
            parting.staying.push(gone);
            state.torrents.insert(announcing);
            state.schedule(info_hash);
        }
        drop(state);
        self.sooner.notify_one();
        parting
    }

    /// Adds to `untold` the torrents here whose trackers have not been told that we leave.
    pub(crate) fn note_untold(&self, untold: &mut MissedGoodbyes) {
        let state = self.schedule.lock();
        for announcing in state.torrents.iter() {
            announcing.look(|announcer| {
                let mut owed = announcer.owed_goodbyes().peekable();
                if owed.peek().is_some() {
                    untold.add(owed.map(TrackerUrl::place));
                }
            });
        }
    }

    /// Removes a torrent. Returns when the trackers have been told or have had their time.
    pub(crate) async fn leave(&self, entry: &Arc<Entry>) {
        if self.is_ending() {
            return;
        }
        let info_hash = entry.info_hash();
        let (told, gone) = oneshot::channel();
        self.change(info_hash, |announcing| {
            // The same torrent may have been added again by now.
            if Arc::ptr_eq(&announcing.entry, entry) {
                announcing.go(told);
            }
        });
        // The sender is dropped at once if the torrent has no trackers.
        let _ = tokio::time::timeout(LAST_ANSWER + FAREWELL, gone).await;
        let mut state = self.schedule.lock();
        if state.torrents.get(info_hash).is_some_and(|new| Arc::ptr_eq(&new.entry, entry)) {
            state.forget(info_hash);
        }
    }

    /// Returns the status of a torrent's trackers, with their tiers.
    pub(crate) fn trackers(&self, info_hash: InfoHash) -> Vec<(usize, TrackerStatus)> {
        let state = self.schedule.lock();
        let known = state.torrents.get(info_hash);
        let statuses = known.map(|announcing| announcing.look(Announcer::statuses_by_tier));
        let mut all = statuses.unwrap_or_default();
        for (_, status) in &mut all {
            // A tracker that is down is asked once for all of its torrents.
            let retry_at = state.hosts.retry_at(&status.url);
            status.next_announce = status.next_announce.map(|next| match retry_at {
                Some(retry_at) => next.min(retry_at),
                None => next,
            });
        }
        all
    }

    /// Announces until the session ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut under_way = JoinSet::new();
        let mut places: HashMap<Id, AnnounceTarget> = HashMap::new();
        let mut own = OwnAddresses::default();
        own.update();
        let mut look = tokio::time::interval(LOOK_AT_ADDRESSES);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let sooner = self.sooner.notified();
            let DueAnnounces { announces, passed_over, next } =
                self.schedule.lock().begin(self.means.now());
            passed_over.iter().for_each(|entry| entry.touch());
            for (entry, place, wish, hurry) in announces {
                entry.touch();
                let task = Arc::clone(&self).announce(entry, place.clone(), wish, hurry);
                places.insert(under_way.spawn(task).id(), place);
            }
            let deadline = next.map(|moment| self.means.clock.instant(moment));
            tokio::select! {
                () = sooner => {}
                Some(done) = under_way.join_next_with_id() => {
                    let id = done.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
                    let place = places.remove(&id);
                    let done = match (done, place) {
                        (Ok((_, done)), _) => Some(done),
                        // A task that panicked has no result.
                        (Err(_), place) => {
                            place.map(|place| FinishedAnnounce { place, event: None, outcome: None })
                        }
                    };
                    if let Some(done) = done {
                        self.settle(done);
                    }
                }
                () = sleep_until(deadline) => {}
                _ = look.tick() => {
                    if own.update() {
                        info!("the address of this host has changed; announcing to all trackers");
                        self.announce_all_early(self.means.now());
                    }
                }
            }
        }
    }

    /// Makes one announce. If it is told to hurry, it gives the tracker [`LAST_ANSWER`] more: the
    /// tracker may know us already, and only its answer says that it must hear that we leave.
    async fn announce(
        self: Arc<Self>,
        entry: Arc<Entry>,
        place: AnnounceTarget,
        wish: AnnounceTask,
        hurry: oneshot::Receiver<()>,
    ) -> FinishedAnnounce {
        let request = request(&entry, &wish);
        // The answer may take long, and must not keep a torrent alive that was removed.
        let torrent = Arc::downgrade(&entry);
        drop(entry);
        let scheduler = Arc::downgrade(&self);
        let later = move |reply| {
            if let (Some(scheduler), Some(entry)) = (scheduler.upgrade(), torrent.upgrade()) {
                scheduler.found_later(&entry, reply);
            }
        };
        let outcome = {
            let announce = self.trackers.announce_and_tell(&wish.tracker, &request, later);
            tokio::pin!(announce);
            if wish.event == AnnounceEvent::Stopped {
                tokio::time::timeout(FAREWELL, announce).await.ok()
            } else {
                tokio::select! {
                    outcome = &mut announce => Some(outcome),
                    Ok(()) = hurry => tokio::time::timeout(LAST_ANSWER, announce).await.ok(),
                }
            }
        };
        FinishedAnnounce { place, event: Some(wish.event), outcome }
    }

    fn change(&self, info_hash: InfoHash, change: impl FnOnce(&mut Announcing)) {
        let mut state = self.schedule.lock();
        if let Some(announcing) = state.torrents.get_mut(info_hash) {
            change(announcing);
            state.schedule(info_hash);
            drop(state);
            self.sooner.notify_one();
        }
    }

    fn settle(&self, done: FinishedAnnounce) {
        let now = self.means.now();
        let (place, event, ended) = (done.place.clone(), done.event, AnnounceResult::of(done));
        let AnnounceTarget { info_hash, tracker, host } = place;
        match &ended.answer {
            Ok(reply) => {
                debug!(%tracker, peers = reply.peers.len(), "announced");
                self.means.counters.announced.add(1);
            }
            Err(failure) => {
                let reason = &failure.reason;
                info!(%tracker, reason, "the tracker did not answer the announce");
                self.means.counters.unanswered.add(1);
            }
        }
        let mut state = self.schedule.lock();
        let Schedule { torrents, hosts, .. } = &mut *state;
        let Some(announcing) = torrents.get_mut(info_hash) else {
            return hosts.done(now, &host, info_hash, ended.at_host(0));
        };
        let busy = announcing.busy();
        busy.running.retain(|(running, _)| *running != tracker);
        let announcer = &mut busy.announcer;
        let failures = match &ended.answer {
            Ok(reply) => {
                announcer.on_reply(now, &tracker, reply);
                0
            }
            Err(failure) => announcer.on_failure(now, &tracker, failure.clone()),
        };
        hosts.done(now, &host, info_hash, ended.at_host(failures));
        let reply = ended.answer.ok();
        let is_known = reply.is_some() && event != Some(AnnounceEvent::Stopped);
        let found = reply.filter(|reply| announcing.active && !reply.peers.is_empty());
        let entry = Arc::clone(&announcing.entry);
        state.schedule(info_hash);
        drop(state);
        entry.touch();
        if is_known {
            entry.announced(&tracker, event == Some(AnnounceEvent::Started));
        }
        if !found.is_some_and(|reply| hand_over(&entry, reply)) {
            self.found_nobody(now, &entry);
        }
    }

    /// Takes in an answer that came over the other family of addresses, after the announce had
    /// ended.
    fn found_later(&self, entry: &Arc<Entry>, reply: AnnounceReply) {
        let is_active = {
            let state = self.schedule.lock();
            let known = state.torrents.get(entry.info_hash());
            known.is_some_and(|known| known.active && Arc::ptr_eq(&known.entry, entry))
        };
        if is_active && !reply.peers.is_empty() {
            hand_over(entry, reply);
        }
    }
}

/// Gives a torrent the peers that a tracker named. Returns whether they are of use to it.
fn hand_over(entry: &Arc<Entry>, reply: AnnounceReply) -> bool {
    // A seed that sleeps is woken only if there is somebody to serve.
    let sleeps = entry
        .asleep(|record| !record.is_active(&entry.metainfo, &entry.options.lock().files))
        .unwrap_or(false);
    let are_of_use = !sleeps || reply.incomplete > 0;
    if are_of_use {
        // Does not wait: a torrent whose channel is full needs no more peers.
        entry.try_post(Call::Found(PeerSource::Tracker, reply.peers));
    }
    are_of_use
}

/// Returns a test for trackers at this host and port, over any protocol.
fn at(host: &str, port: u16) -> impl Fn(&TrackerUrl) -> bool + '_ {
    move |url| url.port() == port && url.host() == host
}

/// What is due at one look at the announcers.
#[derive(Default)]
struct DueAnnounces {
    announces: Vec<(Arc<Entry>, AnnounceTarget, AnnounceTask, oneshot::Receiver<()>)>,
    /// Torrents whose tracker is down.
    passed_over: Vec<Arc<Entry>>,
    /// When to look again.
    next: Option<Moment>,
}

/// The result of an announce.
struct AnnounceResult {
    answer: Result<AnnounceReply, AnnounceFailure>,
    /// Whether the tracker answered at all; `None` if that is not known.
    was_answered: Option<bool>,
}

impl AnnounceResult {
    fn of(done: FinishedAnnounce) -> Self {
        let (reason, refused, retry, was_answered) = match done.outcome {
            Some(Ok(reply)) => return Self { answer: Ok(reply), was_answered: Some(true) },
            Some(Err(error)) => {
                (error.to_string(), error.is_refusal(), error.retry(), error.was_answered())
            }
            // A farewell had its time; other announces were cut short.
            None => {
                let is_farewell = done.event == Some(AnnounceEvent::Stopped);
                let was_answered = is_farewell.then_some(false);
                ("the announce was given up".to_owned(), false, None, was_answered)
            }
        };
        Self { answer: Err(AnnounceFailure { reason, refused, retry }), was_answered }
    }

    /// Returns what the result says about the tracker. `failures` is the number of announces of
    /// this torrent in a row that failed.
    fn at_host(&self, failures: u32) -> AnnounceOutcome {
        match (&self.answer, self.was_answered) {
            (_, Some(true)) => AnnounceOutcome::Answered,
            (Err(failure), Some(false)) => AnnounceOutcome::Silent {
                reason: failure.reason.clone(),
                again: failures > OWN_FAILURES,
            },
            _ => AnnounceOutcome::Unknown,
        }
    }
}

impl Schedule {
    /// Queues what is due, and begins what has a place.
    fn begin(&mut self, now: Moment) -> DueAnnounces {
        let mut begun = DueAnnounces::default();
        for _ in 0..STEPS {
            let Some((due, info_hash)) = self.due.first().copied().filter(|(due, _)| *due <= now)
            else {
                break;
            };
            self.due.remove(&(due, info_hash));
            self.line_up(now, info_hash, &mut begun);
        }
        for _ in 0..STEPS {
            match self.hosts.next(now) {
                Some(AnnounceTurn::Announce { host, torrent }) => {
                    self.take_turn(now, host, torrent, &mut begun);
                }
                Some(AnnounceTurn::Down { host, torrent, reason }) => {
                    if let Some(announcing) = self.torrents.get_mut(torrent) {
                        announcing.busy().announcer.was_in_vain(now, |url| host.has(url), &reason);
                        begun.passed_over.push(Arc::clone(&announcing.entry));
                        self.schedule(torrent);
                    }
                }
                None => break,
            }
        }
        let due = self.due.first().map(|(due, _)| *due);
        begun.next = due.into_iter().chain(self.hosts.deadline()).min();
        begun
    }

    /// Queues a torrent at each of its trackers that are to be asked now.
    fn line_up(&mut self, now: Moment, info_hash: InfoHash, begun: &mut DueAnnounces) {
        let Some(announcing) = self.torrents.get_mut(info_hash) else { return };
        announcing.set_due(None);
        let (hosts, mut is_down) = (&mut self.hosts, false);
        let mut line = |url: &TrackerUrl| {
            let standing = hosts.line_up(now, url, info_hash);
            is_down |= matches!(standing, HostState::Down(_));
            standing
        };
        let announcer = &mut announcing.busy().announcer;
        while announcer.line_up(now, &mut line) {}
        if is_down {
            begun.passed_over.push(Arc::clone(&announcing.entry));
        }
        self.schedule(info_hash);
        let Some(announcing) = self.torrents.get_mut(info_hash) else { return };
        if let Some(due) = announcing.due().filter(|due| *due <= now) {
            // It has nothing to announce though it is due. Look again after some time.
            self.due.remove(&(due, info_hash));
            announcing.set_due(Some(now + SPACING));
            self.due.insert((now + SPACING, info_hash));
        }
    }

    /// Begins the announce of a torrent that has got a place, if it still wants to announce.
    fn take_turn(
        &mut self,
        now: Moment,
        host: Host,
        info_hash: InfoHash,
        begun: &mut DueAnnounces,
    ) {
        let announcing = self.torrents.get_mut(info_hash);
        let wish = announcing.and_then(|announcing| {
            let busy = announcing.busy();
            let wish = busy.announcer.turn(now, |url| host.has(url))?;
            let (end, hurry) = oneshot::channel();
            busy.running.push((wish.tracker.clone(), end));
            Some((Arc::clone(&announcing.entry), wish, hurry))
        });
        match wish {
            Some((entry, wish, hurry)) => {
                let place = AnnounceTarget { info_hash, tracker: wish.tracker.clone(), host };
                begun.announces.push((entry, place, wish, hurry));
            }
            None => self.hosts.done(now, &host, info_hash, AnnounceOutcome::Unknown),
        }
        self.schedule(info_hash);
    }

    /// Schedules a torrent for its announcer's deadline, and answers those who wait until it has
    /// left.
    fn schedule(&mut self, info_hash: InfoHash) {
        let Some(announcing) = self.torrents.get_mut(info_hash) else { return };
        if let Some(due) = announcing.due() {
            announcing.set_due(None);
            self.due.remove(&(due, info_hash));
        }
        if announcing.has_left() {
            return self.forget(info_hash);
        }
        let stopping = !announcing.active && !announcing.is_stopping();
        let deadline = announcing.look(Announcer::deadline).filter(|_| !stopping);
        if let Some(due) = deadline {
            announcing.set_due(Some(due));
            self.due.insert((due, info_hash));
        }
        // A torrent that is due at once would be unpacked again at once.
        if deadline != Some(Moment::START) {
            announcing.rest(&mut self.layouts);
        }
    }

    fn forget(&mut self, info_hash: InfoHash) {
        let Some(mut announcing) = self.torrents.remove(info_hash) else { return };
        if let Some(due) = announcing.due() {
            self.due.remove(&(due, info_hash));
        }
        for told in announcing.busy().leaving.take().into_iter().flatten() {
            // The caller may be gone.
            let _ = told.send(());
        }
    }
}

/// Returns the announce that `wish` asks for, with the current totals.
pub(super) fn request(entry: &Entry, wish: &AnnounceTask) -> Announce {
    let identity = &entry.means().identity;
    let shown = entry.shown();
    let total = entry.metainfo.info().geometry().total_len();
    Announce {
        info_hash: entry.info_hash(),
        peer_id: identity.peer_id,
        port: identity.announced_port(),
        uploaded: shown.uploaded,
        downloaded: shown.downloaded,
        // All that is missing, wanted or not, as libtorrent counts: a peer that lacks something is
        // not a seed.
        left: total - shown.bytes_have,
        event: wish.event,
        num_want: (wish.event == AnnounceEvent::Stopped).then_some(0),
        key: Some(identity.announce_key(entry.info_hash())),
        ip: None,
        compact: true,
        no_peer_id: true,
        tracker_id: wish.tracker_id.clone(),
    }
}

/// Sleeps until `deadline`, or forever without one.
async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Announces at a time: each may hold a socket for 15 s, and ten thousand torrents that start
/// together must neither flood a tracker nor take the descriptors of peers.
const AT_ONCE: usize = 64;
/// Announces in a row that a tracker may leave unanswered before its silence is attributed to the
/// torrent, and says nothing about others.
const OWN_FAILURES: u32 = 2;
/// Torrents handled before others may have the lock.
const STEPS: usize = 256;
/// Time left for an announce that is under way when we are told to leave.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// Time for a tracker to take that we leave.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);
/// Time between two looks at the addresses of this host, which are two system calls each.
const LOOK_AT_ADDRESSES: Duration = Duration::from_secs(30);
/// Time before another look at a torrent that was due and had nothing to announce.
const SPACING: Duration = Duration::from_secs(1);
