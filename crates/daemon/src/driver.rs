//! The one task that watches over all torrents: what changed, whose turn it is, what is enough.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::book::{Book, Entry, Phase, Review, unix_now};
use super::display::is_complete;
use super::hooks::Hook;
use super::inner::Inner;
use crate::queue::{Bounds, Schedule, WeekMinute, decide};
use crate::state::Update;
use piecework_core::InfoHash;
use piecework_engine::{Changes, TorrentError, TorrentHandle, TorrentStatus};

/// What follows from what was noted, to be done without the lock.
#[derive(Default)]
struct Consequences {
    changed: Vec<InfoHash>,
    done: Vec<InfoHash>,
    /// A rebuilt torrent that is to wait for somebody, or one whose settings changed here.
    keep: Vec<InfoHash>,
    hooks: Vec<(Hook, InfoHash)>,
}

/// An order for the engine.
struct Order {
    handle: TorrentHandle,
    run: bool,
}

impl Inner {
    /// Watches until the daemon ends.
    pub async fn watch(self: Arc<Self>, mut changes: Changes) {
        let mut stop = self.stop.subscribe();
        let mut deadline = Some(Instant::now());
        let mut pause_until: Option<Instant> = None;
        let mut persist_at = Instant::now() + PERSIST;
        let mut reviewed = Instant::now();
        let mut tidy_at: Option<Instant> = Some(Instant::now() + QUIET);
        let mut full_in = PERSISTS_A_FULL_ONE;
        loop {
            let next = [deadline, pause_until, tidy_at].into_iter().flatten().min();
            let (mut woken, mut heard) = (false, false);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                hashes = changes.next(), if pause_until.is_none() => {
                    heard = true;
                    self.note(&hashes);
                    // Changes gather meanwhile: thousands of torrents cost ten looks a second.
                    pause_until = Some(Instant::now() + GATHER);
                }
                () = self.wake.notified() => woken = true,
                () = tokio::time::sleep_until(next.unwrap_or_else(far)), if next.is_some() => {}
            }
            if woken {
                // Thousands that are added one after the other cost ten looks a second, too.
                tokio::time::sleep_until(reviewed + GATHER).await;
            }
            let now = Instant::now();
            if heard || woken {
                tidy_at = Some(now + QUIET);
            } else if tidy_at.is_some_and(|at| at <= now) {
                tidy_at = None;
                // What thousands of torrents took while they were added or listed.
                let _ = tokio::task::spawn_blocking(crate::heap::give_back).await;
            }
            pause_until = pause_until.filter(|until| *until > now);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.book.lock().review = true;
            }
            let active = self.review(&mut deadline).await;
            reviewed = Instant::now();
            if now >= persist_at {
                full_in -= 1;
                self.persist(full_in == 0);
                full_in = if full_in == 0 { PERSISTS_A_FULL_ONE } else { full_in };
                persist_at = now + PERSIST;
            }
            if active {
                // Somebody's seconds are to be kept some time.
                deadline = Some(deadline.map_or(persist_at, |at| at.min(persist_at)));
            }
        }
    }

    /// Takes in how these torrents stand.
    fn note(&self, hashes: &[InfoHash]) {
        let mut follows = Consequences::default();
        {
            let now = (Instant::now(), unix_now());
            let mut book = self.book.lock();
            for info_hash in hashes {
                note_one(&mut book, *info_hash, now, &mut follows);
            }
        }
        self.follow(follows);
    }

    /// The same for all.
    pub fn note_all(&self) {
        let hashes: Vec<InfoHash> = self.book.lock().order.iter().collect();
        self.note(&hashes);
    }

    /// Decides which torrents run, and has it done. Says whether any is active; `deadline` is when
    /// it is to be decided again though nothing changes.
    pub async fn review(&self, deadline: &mut Option<Instant>) -> bool {
        let _one_at_a_time = self.reviewing.lock().await;
        let review = self.book.lock().take_review();
        match review {
            Review::Nothing => return deadline.is_some(),
            Review::Some(fresh) => {
                return self.give_turns_to(fresh).await || deadline.is_some();
            }
            Review::All => {}
        }
        let limits_changed = self.tell_the_time(deadline);
        if limits_changed {
            let settings = self.book.lock().settings.clone();
            self.apply(&settings);
            self.ears.settings();
        }
        let mut follows = Consequences::default();
        let (orders, active) = {
            let now = (Instant::now(), unix_now());
            let mut book = self.book.lock();
            let due = check_limits(&mut book, now, &mut follows);
            let due = due.map(|seconds| now.0 + Duration::from_secs(seconds.clamp(1, LOOK_AGAIN)));
            *deadline = [*deadline, due].into_iter().flatten().min();
            let turns = all_turns(&book);
            let orders = give_turns(&mut book, turns, now, &mut follows);
            // Limits looked at before, so nothing new.
            book.review = false;
            (orders, book.torrents.values().any(|entry| entry.run))
        };
        self.follow(follows);
        carry_out(orders).await;
        active
    }

    /// Decides whether these run, whatever the others do, and has it done. Says whether any does.
    async fn give_turns_to(&self, fresh: Vec<InfoHash>) -> bool {
        let mut follows = Consequences::default();
        let (orders, active) = {
            let now = (Instant::now(), unix_now());
            let mut book = self.book.lock();
            let turns = fresh.iter().filter_map(|info_hash| free_turn(&book, *info_hash)).collect();
            let orders = give_turns(&mut book, turns, now, &mut follows);
            let runs = |info_hash| book.torrents.get(info_hash).is_some_and(|entry| entry.run);
            (orders, fresh.iter().any(runs))
        };
        self.follow(follows);
        carry_out(orders).await;
        active
    }

    /// Turns the second pair of limits on and off by the clock; says whether it did.
    fn tell_the_time(&self, deadline: &mut Option<Instant>) -> bool {
        *deadline = None;
        let mut book = self.book.lock();
        let Some(schedule) = Schedule::of(&book.settings.alt) else {
            book.scheduled = None;
            return false;
        };
        let (minute, second) = local_minute();
        let holds = schedule.holds(minute);
        *deadline = schedule.next_change(minute).map(|minutes| {
            let seconds = u64::from(minutes) * 60 - u64::from(second.min(59));
            // Clocks are set, and summer begins: an hour is the longest that may be wrong.
            Instant::now() + Duration::from_secs(seconds.clamp(1, 3600))
        });
        if book.scheduled == Some(holds) {
            return false;
        }
        book.scheduled = Some(holds);
        std::mem::replace(&mut book.settings.alt.on, holds) != holds
    }

    fn follow(&self, follows: Consequences) {
        for info_hash in &follows.keep {
            let text = self.with(*info_hash, |entry| (entry.kept.to_text(), entry.done_at));
            if let Ok((text, done_at)) = text {
                let update =
                    Update { settings: Some(text), done_at: Some(done_at), ..Update::default() };
                // Found out here, not asked for: the state tells of a disk that refuses.
                drop(self.state.update(*info_hash, update));
            }
        }
        for info_hash in follows.changed {
            self.ears.changed(info_hash);
        }
        for info_hash in follows.done {
            self.ears.done(info_hash);
        }
        for (hook, info_hash) in follows.hooks {
            self.run_hook(hook, info_hash);
        }
    }

    /// Has the sums of those that were active kept; of all that run if `all`.
    pub fn persist(&self, all: bool) {
        self.owners.tidy();
        let now = Instant::now();
        let mut book = self.book.lock();
        for (info_hash, entry) in book.torrents.iter_mut() {
            let moved = std::mem::take(&mut entry.seen.moved);
            if moved || (all && entry.run) {
                entry.count(now);
                self.state.count(*info_hash, entry.counters);
            }
        }
        let text = self.settings_text(&book);
        // What people chose is kept when they choose it; these are sums.
        drop(self.state.set_settings(text));
    }

    /// Keeps the settings and the sums; they are on the disk when this returns.
    pub async fn keep_settings(&self) -> Result<(), crate::state::StateError> {
        let text = self.settings_text(&self.book.lock());
        self.state.set_settings(text).await
    }

    /// The settings and the sums as they are kept.
    pub fn settings_text(&self, book: &Book) -> String {
        let mut totals = book.totals;
        totals.seconds += self.started.elapsed().as_secs();
        let mut known = self.session.mounts();
        if !known.is_empty() {
            let roots: BTreeSet<PathBuf> = book.torrents.values().map(|it| it.root()).collect();
            known.retain(|root, _| roots.contains(root));
        }
        let text = |path: PathBuf| path.into_os_string().into_string().ok();
        // A path that is no text is seen anew after a restart.
        let mounts = known.into_iter().filter_map(|(a, b)| Some((text(a)?, text(b)?))).collect();
        super::start::KeptSettings {
            changed: book.changed.clone(),
            totals,
            mounts,
            announce_secret: Some(self.session.announce_secret()),
        }
        .to_text()
    }

    /// Writes down on which disks the folders of torrents lie, if one has come or gone.
    pub async fn keep_mounts(&self) {
        if self.session.take_mounts_changed()
            && let Err(error) = self.keep_settings().await
        {
            tracing::warn!(%error, "after a restart it may not be seen that a disk is gone");
        }
    }
}

/// Takes in how one torrent stands.
fn note_one(
    book: &mut Book,
    info_hash: InfoHash,
    (now, unix): (Instant, i64),
    follows: &mut Consequences,
) {
    let Some(mut entry) = book.torrents.get_mut(&info_hash) else { return };
    let entry = &mut *entry;
    let Some(handle) = entry.handle() else { return };
    let status = handle.status();
    book.lacking.note(info_hash, status.bytes_wanted.saturating_sub(status.bytes_wanted_have));
    book.recent.note(info_hash, &mut entry.changed_at, unix);
    follows.changed.push(info_hash);

    let down = status.downloaded.saturating_sub(entry.seen.downloaded);
    let up = status.uploaded.saturating_sub(entry.seen.uploaded);
    entry.seen.downloaded = entry.seen.downloaded.max(status.downloaded);
    entry.seen.uploaded = entry.seen.uploaded.max(status.uploaded);
    entry.counters.corrupt_bytes = entry.seen.corrupt_before + status.corrupt;
    if down > 0 || up > 0 {
        entry.counters.last_active_at = Some(unix);
        entry.seen.moved_at = now;
        entry.seen.moved = true;
        book.totals.downloaded += down;
        book.totals.uploaded += up;
        book.totals.run.0 += down;
        book.totals.run.1 += up;
        if std::mem::take(&mut entry.seen.stalled) {
            book.review = true;
        }
        let limits = entry.limits(&book.settings);
        let seeded = entry.seeded(status.bytes_have, now);
        book.review |= entry.run && entry.seen.complete && limits.reached(&seeded);
    }

    let phase = Phase::of(&status.state);
    if note_hindered(entry, phase, down) {
        follows.keep.push(info_hash);
    }
    if phase != entry.seen.phase {
        entry.count(now);
        // One whose disk had no room goes on by itself: the queue may think otherwise.
        entry.seen.unsure |= entry.seen.phase == Phase::Failed;
        // One that was told to pause just before does not: it tries again when it has its turn.
        entry.seen.forgiven |= phase == Phase::Failed && !entry.run && may_pass(entry);
        entry.seen.phase = phase;
        entry.seen.counted = now;
        entry.seen.moved_at = now;
        book.fresh.push(info_hash);
    }
    if matches!(phase, Phase::Waiting | Phase::Checking | Phase::Moving | Phase::Failed) {
        return;
    }
    if note_complete(entry, info_hash, (now, unix), &status, follows) {
        book.fresh.push(info_hash);
    }
}

/// Notes whether files of others are in the way. Returns whether that has changed.
fn note_hindered(entry: &mut Entry, phase: Phase, down: u64) -> bool {
    let is_strange = |entry: &Entry| {
        matches!(entry.handle().and_then(TorrentHandle::fault), Some(TorrentError::Strange(_)))
    };
    let was_hindered = entry.kept.rare.hindered;
    let is_hindered = match phase {
        Phase::Failed if !was_hindered || down > 0 => is_strange(entry),
        _ => was_hindered && down == 0,
    };
    if is_hindered != was_hindered {
        entry.kept.rare.change(|rare| rare.hindered = is_hindered);
    }
    is_hindered != was_hindered
}

/// Notes whether everything that is wanted is there. Returns whether the queue may decide otherwise now.
fn note_complete(
    entry: &mut Entry,
    info_hash: InfoHash,
    (now, unix): (Instant, i64),
    status: &TorrentStatus,
    follows: &mut Consequences,
) -> bool {
    let complete = is_complete(status);
    let mut is_fresh = complete != entry.seen.complete;
    entry.seen.missing |= !complete;
    if is_fresh {
        entry.seen.complete = complete;
        entry.seen.moved_at = now;
    }
    if complete && entry.kept.rare.overwrite {
        // Whoever puts a file in place of one of these later is asked again.
        entry.kept.rare.change(|rare| rare.overwrite = false);
        follows.keep.push(info_hash);
    }
    if complete && entry.done_at.is_none() {
        entry.done_at = Some(unix);
        follows.keep.push(info_hash);
        // Not if it was there when it was added.
        if entry.seen.missing || status.downloaded > 0 {
            follows.done.push(info_hash);
            follows.hooks.push((Hook::Done, info_hash));
        }
    } else if !complete && entry.done_at.take().is_some() {
        follows.keep.push(info_hash);
    }
    if std::mem::take(&mut entry.kept.rebuilt) {
        entry.kept.settings.paused = !complete;
        follows.keep.push(info_hash);
        is_fresh = true;
    }
    is_fresh
}

/// Whether what the torrent stopped on may pass by itself.
fn may_pass(entry: &Entry) -> bool {
    let fault = entry.handle().and_then(TorrentHandle::fault);
    matches!(fault, Some(TorrentError::Full(_) | TorrentError::Again(_)))
}

/// Stops those that have seeded enough, and sees who is stalled. Gives the seconds until that may
/// be otherwise though nothing moves.
fn check_limits(
    book: &mut Book,
    (now, unix): (Instant, i64),
    follows: &mut Consequences,
) -> Option<u64> {
    let bounded = book.bounds() != Bounds::default();
    let mut due: Option<u64> = None;
    let mut sooner = |seconds: u64| due = Some(due.map_or(seconds, |due| due.min(seconds)));
    let mut ended = Vec::new();
    for (info_hash, entry) in book.torrents.iter_mut() {
        if !entry.run {
            entry.seen.stalled = false;
            continue;
        }
        if let Some(limit) = book.settings.stalled_after.filter(|_| bounded) {
            let idle = entry.idle(now);
            entry.seen.stalled = idle >= limit;
            if idle < limit {
                sooner(limit - idle);
            }
        }
        let limits = entry.limits(&book.settings);
        if !limits.any() || entry.seen.phase != Phase::Seeding {
            continue;
        }
        let bytes_have = entry.handle().map_or(0, |handle| handle.status().bytes_have);
        let seeded = entry.seeded(bytes_have, now);
        if limits.reached(&seeded) {
            entry.kept.limit_reached = true;
            ended.push(*info_hash);
            book.recent.note(*info_hash, &mut entry.changed_at, unix);
            follows.changed.push(*info_hash);
            follows.keep.push(*info_hash);
            follows.hooks.push((Hook::Seeded, *info_hash));
        } else if let Some(seconds) = limits.due_in(&seeded) {
            sooner(seconds);
        }
    }
    book.torrents.recount(&ended);
    due
}

/// Whether a torrent is to run, where any number may be active; `None` if it does as it should.
fn free_turn(book: &Book, info_hash: InfoHash) -> Option<(InfoHash, bool)> {
    let entry = book.torrents.get(&info_hash)?;
    let run = entry.candidate().runs_unbounded();
    (run != entry.run || entry.seen.unsure).then_some((info_hash, run))
}

/// Which torrents are to run, in the order of the queue. Those that do as they should may be left
/// out.
fn all_turns(book: &Book) -> Vec<(InfoHash, bool)> {
    let bounds = book.bounds();
    if bounds == Bounds::default() {
        return book.order.iter().filter_map(|info_hash| free_turn(book, info_hash)).collect();
    }
    let known = |info_hash| Some((info_hash, book.torrents.get(&info_hash)?.candidate()));
    let (order, candidates): (Vec<_>, Vec<_>) = book.order.iter().filter_map(known).unzip();
    order.into_iter().zip(decide(&candidates, bounds)).collect()
}

/// Has torrents run or not, and gives the orders that follow.
fn give_turns(
    book: &mut Book,
    turns: Vec<(InfoHash, bool)>,
    (now, unix): (Instant, i64),
    follows: &mut Consequences,
) -> Vec<Order> {
    let mut orders = Vec::new();
    for (info_hash, run) in turns {
        let Some(mut entry) = book.torrents.get_mut(&info_hash) else { continue };
        let entry = &mut *entry;
        let same = entry.run == run;
        if entry.moving.is_some() || same && !entry.seen.unsure {
            continue;
        }
        entry.seen.unsure = false;
        entry.count(now);
        entry.run = run;
        entry.seen.counted = now;
        entry.seen.moved_at = now;
        book.recent.note(info_hash, &mut entry.changed_at, unix);
        if run && !same {
            entry.kept.started_at = Some(unix);
        }
        follows.changed.push(info_hash);
        // One that failed has stopped by itself.
        if let Some(handle) = entry.handle().filter(|_| run || entry.seen.phase != Phase::Failed) {
            orders.push(Order { handle: handle.clone(), run });
            entry.seen.forgiven &= !run;
        }
    }
    orders
}

async fn carry_out(orders: Vec<Order>) {
    for order in orders {
        match order.run {
            true => order.handle.resume().await,
            false => order.handle.pause().await,
        }
    }
}

/// The minute of the week by the local clock, and the second in it.
fn local_minute() -> (WeekMinute, u8) {
    let now = jiff::Zoned::now();
    let day = now.weekday().to_sunday_zero_offset();
    // All of them are small and not negative.
    let small = |n: i8| u8::try_from(n).unwrap_or(0);
    (WeekMinute::new(small(day), small(now.hour()), small(now.minute())), small(now.second()))
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

/// Seconds after which the seeding limits are looked at again at the latest: a limit may be set so
/// far off that no clock goes there.
const LOOK_AGAIN: u64 = 24 * 3600;

/// After so long without a change, what is free is given back.
const QUIET: Duration = Duration::from_secs(2);

/// Changes gather for so long once one came.
const GATHER: Duration = Duration::from_millis(100);

/// Time between two writings of what moves.
const PERSIST: Duration = Duration::from_secs(5 * 60);

/// Every so many of them those too that run and move nothing: once an hour.
const PERSISTS_A_FULL_ONE: u32 = 12;
