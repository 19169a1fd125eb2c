//! The task that watches all torrents: it collects changes, gives turns, and ends seeding.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::engine_settings;
use super::entry::{Entry, Phase, unix_now};
use super::givers::JournalQueries;
use super::hooks::{Hook, Hooks};
use super::queue_settings;
use super::settings_store::SettingsStore;
use super::table::{ReviewScope, TorrentTable};
use super::torrents::Torrents;
use super::view::is_complete;
use crate::queue::{Bounds, WeekMinute, decide};
use crate::state::Update;
use piecework_core::InfoHash;
use piecework_engine::{Changes, Session, TorrentError, TorrentHandle, TorrentStatus};

/// What follows from changes, to be done without the lock.
#[derive(Default)]
struct Consequences {
    changed: Vec<InfoHash>,
    done: Vec<InfoHash>,
    /// Torrents whose records changed here.
    keep: Vec<InfoHash>,
    hooks: Vec<(Hook, InfoHash)>,
}

/// A command for the engine.
struct RunCommand {
    handle: TorrentHandle,
    run: bool,
}

/// Decides which torrents run, and has the engine do it.
pub(super) struct QueueDriver {
    torrents: Arc<Torrents>,
    session: Session,
    store: Arc<SettingsStore>,
    hooks: Arc<Hooks>,
    journal: Arc<JournalQueries>,
    /// Only one caller at a time decides.
    reviewing: Mutex<()>,
}

impl QueueDriver {
    pub(crate) fn new(
        torrents: Arc<Torrents>,
        session: Session,
        store: Arc<SettingsStore>,
        hooks: Arc<Hooks>,
        journal: Arc<JournalQueries>,
    ) -> Self {
        Self { torrents, session, store, hooks, journal, reviewing: Mutex::new(()) }
    }

    /// Runs until the daemon shuts down.
    pub(crate) async fn watch(self: Arc<Self>, mut changes: Changes) {
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
                () = self.torrents.lifetime.shutdown_begun() => return,
                hashes = changes.next(), if pause_until.is_none() => {
                    heard = true;
                    self.note(&hashes);
                    // Changes gather meanwhile, so that thousands of torrents cost ten reviews a
                    // second.
                    pause_until = Some(Instant::now() + GATHER);
                }
                () = self.torrents.wake.notified() => woken = true,
                () = tokio::time::sleep_until(next.unwrap_or_else(far)), if next.is_some() => {}
            }
            if woken {
                // Thousands that are added one after the other cost ten reviews a second, too.
                tokio::time::sleep_until(reviewed + GATHER).await;
            }
            let now = Instant::now();
            if heard || woken {
                tidy_at = Some(now + QUIET);
            } else if tidy_at.is_some_and(|at| at <= now) {
                tidy_at = None;
                // Returns the memory that thousands of torrents took while they were added or
                // listed.
                let _ = tokio::task::spawn_blocking(crate::heap::give_back).await;
            }
            pause_until = pause_until.filter(|until| *until > now);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.torrents.table().review = true;
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
                // Seconds of activity have to be written at some time.
                deadline = Some(deadline.map_or(persist_at, |at| at.min(persist_at)));
            }
        }
    }

    /// Records the status of these torrents.
    fn note(&self, hashes: &[InfoHash]) {
        let mut follows = Consequences::default();
        {
            let now = (Instant::now(), unix_now());
            let mut table = self.torrents.table();
            for info_hash in hashes {
                note_one(&mut table, *info_hash, now, &mut follows);
            }
        }
        self.follow(follows);
    }

    /// Records the status of all torrents.
    pub(crate) fn note_all(&self) {
        let hashes: Vec<InfoHash> = self.torrents.table().order.iter().collect();
        self.note(&hashes);
    }

    /// Decides which torrents run, and tells the engine. Returns whether any is active. Sets
    /// `deadline` to when this is due again even if nothing changes.
    pub(crate) async fn review(&self, deadline: &mut Option<Instant>) -> bool {
        let _one_at_a_time = self.reviewing.lock().await;
        let review = self.torrents.table().take_review();
        match review {
            ReviewScope::Nothing => return deadline.is_some(),
            ReviewScope::Some(fresh) => {
                return self.give_turns_to(fresh).await || deadline.is_some();
            }
            ReviewScope::All => {}
        }
        let limits_changed = self.tell_the_time(deadline);
        if limits_changed {
            let settings = self.torrents.table().settings.clone();
            engine_settings::apply(&self.session, &settings);
            self.torrents.events.settings();
        }
        let mut follows = Consequences::default();
        let (commands, active) = {
            let now = (Instant::now(), unix_now());
            let mut table = self.torrents.table();
            let due = check_limits(&mut table, now, &mut follows);
            let due = due.map(|seconds| now.0 + Duration::from_secs(seconds.clamp(1, LOOK_AGAIN)));
            *deadline = [*deadline, due].into_iter().flatten().min();
            let turns = all_turns(&table);
            let commands = give_turns(&mut table, turns, now, &mut follows);
            // The limits were checked above, so they need no further review.
            table.review = false;
            (commands, table.entries.values().any(|entry| entry.run))
        };
        self.follow(follows);
        carry_out(commands).await;
        active
    }

    /// Decides whether these torrents run, whatever the others do, and tells the engine. Returns
    /// whether any of them runs.
    async fn give_turns_to(&self, fresh: Vec<InfoHash>) -> bool {
        let mut follows = Consequences::default();
        let (commands, active) = {
            let now = (Instant::now(), unix_now());
            let mut table = self.torrents.table();
            let turns =
                fresh.iter().filter_map(|info_hash| free_turn(&table, *info_hash)).collect();
            let commands = give_turns(&mut table, turns, now, &mut follows);
            let runs = |info_hash| table.entries.get(info_hash).is_some_and(|entry| entry.run);
            (commands, fresh.iter().any(runs))
        };
        self.follow(follows);
        carry_out(commands).await;
        active
    }

    /// Turns the second pair of limits on or off by the clock. Returns whether that changed them.
    fn tell_the_time(&self, deadline: &mut Option<Instant>) -> bool {
        *deadline = None;
        let mut table = self.torrents.table();
        let Some(schedule) = queue_settings::schedule(&table.settings.alt) else {
            table.scheduled = None;
            return false;
        };
        let (minute, second) = local_minute();
        let holds = schedule.holds(minute);
        *deadline = schedule.next_change(minute).map(|minutes| {
            let seconds = u64::from(minutes) * 60 - u64::from(second.min(59));
            // Clocks are set and daylight saving time begins, so this is wrong for an hour at most.
            Instant::now() + Duration::from_secs(seconds.clamp(1, 3600))
        });
        if table.scheduled == Some(holds) {
            return false;
        }
        table.scheduled = Some(holds);
        std::mem::replace(&mut table.settings.alt.on, holds) != holds
    }

    /// Decides now whether a torrent runs, so that the caller sees the result.
    pub(crate) async fn turn_now(&self, info_hash: InfoHash) {
        self.torrents.touch(info_hash, true);
        let mut unused = None;
        self.review(&mut unused).await;
        // The task has to learn when the torrent is due next.
        self.torrents.table().fresh.push(info_hash);
        self.torrents.wake.notify_one();
    }

    fn follow(&self, follows: Consequences) {
        for info_hash in &follows.keep {
            let text =
                self.torrents.with(*info_hash, |entry| (entry.record.to_text(), entry.done_at));
            if let Ok((text, done_at)) = text {
                let update =
                    Update { settings: Some(text), done_at: Some(done_at), ..Update::default() };
                // Nobody waits for this. The state reports a disk that cannot be written.
                drop(self.torrents.state.update(*info_hash, update));
            }
        }
        for info_hash in follows.changed {
            self.torrents.events.changed(info_hash);
        }
        for info_hash in follows.done {
            self.torrents.events.done(info_hash);
        }
        for (hook, info_hash) in follows.hooks {
            self.hooks.run(hook, info_hash);
        }
    }

    /// Writes the counters of torrents that were active, or of all that run if `all`.
    pub(crate) fn persist(&self, all: bool) {
        self.journal.owners.tidy();
        let now = Instant::now();
        let mut table = self.torrents.table();
        for (info_hash, entry) in table.entries.iter_mut() {
            let moved = std::mem::take(&mut entry.seen.moved);
            if moved || (all && entry.run) {
                entry.count(now);
                self.torrents.state.count(*info_hash, entry.counters);
            }
        }
        let text = self.store.text(&table);
        // Settings were written when they changed, so only sums are new here.
        drop(self.torrents.state.set_settings(text));
    }
}

/// Records the status of one torrent.
fn note_one(
    table: &mut TorrentTable,
    info_hash: InfoHash,
    (now, unix): (Instant, i64),
    follows: &mut Consequences,
) {
    let Some(mut entry) = table.entries.get_mut(&info_hash) else { return };
    let entry = &mut *entry;
    let Some(handle) = entry.handle() else { return };
    let status = handle.status();
    table.missing.note(info_hash, status.bytes_wanted.saturating_sub(status.bytes_wanted_have));
    table.recent.note(info_hash, &mut entry.changed_at, unix);
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
        table.totals.downloaded += down;
        table.totals.uploaded += up;
        table.totals.run.0 += down;
        table.totals.run.1 += up;
        if std::mem::take(&mut entry.seen.stalled) {
            table.review = true;
        }
        let limits = entry.limits(&table.settings);
        let seeded = entry.seeded(status.bytes_have, now);
        table.review |= entry.run && entry.seen.complete && limits.reached(&seeded);
    }

    let phase = Phase::of(&status.state);
    if note_hindered(entry, phase, down) {
        follows.keep.push(info_hash);
    }
    if phase != entry.seen.phase {
        entry.count(now);
        // The engine continues by itself when a fault has passed. The queue may decide otherwise.
        entry.seen.unsure |= entry.seen.phase == Phase::Failed;
        // It does not if it was paused just before. Then it tries again when it has its turn.
        entry.seen.forgiven |= phase == Phase::Failed && !entry.run && may_pass(entry);
        entry.seen.phase = phase;
        entry.seen.counted = now;
        entry.seen.moved_at = now;
        table.fresh.push(info_hash);
    }
    if matches!(phase, Phase::Waiting | Phase::Checking | Phase::Moving | Phase::Failed) {
        return;
    }
    if note_complete(entry, info_hash, (now, unix), &status, follows) {
        table.fresh.push(info_hash);
    }
}

/// Records whether other files are in the way. Returns whether that has changed.
fn note_hindered(entry: &mut Entry, phase: Phase, down: u64) -> bool {
    let is_strange = |entry: &Entry| {
        matches!(entry.handle().and_then(TorrentHandle::fault), Some(TorrentError::Strange(_)))
    };
    let was_hindered = entry.record.common.hindered;
    let is_hindered = match phase {
        Phase::Failed if !was_hindered || down > 0 => is_strange(entry),
        _ => was_hindered && down == 0,
    };
    if is_hindered != was_hindered {
        entry.record.common.change(|common| common.hindered = is_hindered);
    }
    is_hindered != was_hindered
}

/// Records whether everything wanted is there. Returns whether the queue has to decide again.
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
    if complete && entry.record.common.overwrite {
        // A file that replaces one of these later is not overwritten without asking.
        entry.record.common.change(|common| common.overwrite = false);
        follows.keep.push(info_hash);
    }
    if complete && entry.done_at.is_none() {
        entry.done_at = Some(unix);
        follows.keep.push(info_hash);
        // Not if everything was there when it was added.
        if entry.seen.missing || status.downloaded > 0 {
            follows.done.push(info_hash);
            follows.hooks.push((Hook::Done, info_hash));
        }
    } else if !complete && entry.done_at.take().is_some() {
        follows.keep.push(info_hash);
    }
    if std::mem::take(&mut entry.record.rebuilt) {
        entry.record.settings.paused = !complete;
        follows.keep.push(info_hash);
        is_fresh = true;
    }
    is_fresh
}

/// Returns whether the torrent's fault may pass by itself.
fn may_pass(entry: &Entry) -> bool {
    let fault = entry.handle().and_then(TorrentHandle::fault);
    matches!(fault, Some(TorrentError::Full(_) | TorrentError::Again(_)))
}

/// Ends seeding that has reached a limit, and detects stalled torrents. Returns the seconds until this may
/// change although nothing is transferred.
fn check_limits(
    table: &mut TorrentTable,
    (now, unix): (Instant, i64),
    follows: &mut Consequences,
) -> Option<u64> {
    let bounded = table.bounds() != Bounds::default();
    let mut due: Option<u64> = None;
    let mut sooner = |seconds: u64| due = Some(due.map_or(seconds, |due| due.min(seconds)));
    let mut ended = Vec::new();
    for (info_hash, entry) in table.entries.iter_mut() {
        if !entry.run {
            entry.seen.stalled = false;
            continue;
        }
        if let Some(limit) = table.settings.stalled_after.filter(|_| bounded) {
            let idle = entry.idle(now);
            entry.seen.stalled = idle >= limit;
            if idle < limit {
                sooner(limit - idle);
            }
        }
        let limits = entry.limits(&table.settings);
        if !limits.any() || entry.seen.phase != Phase::Seeding {
            continue;
        }
        let bytes_have = entry.handle().map_or(0, |handle| handle.status().bytes_have);
        let seeded = entry.seeded(bytes_have, now);
        if limits.reached(&seeded) {
            entry.record.limit_reached = true;
            ended.push(*info_hash);
            table.recent.note(*info_hash, &mut entry.changed_at, unix);
            follows.changed.push(*info_hash);
            follows.keep.push(*info_hash);
            follows.hooks.push((Hook::Seeded, *info_hash));
        } else if let Some(seconds) = limits.due_in(&seeded) {
            sooner(seconds);
        }
    }
    table.entries.recount(&ended);
    due
}

/// Returns whether a torrent is to run if any number may be active; `None` if it already does what it should.
fn free_turn(table: &TorrentTable, info_hash: InfoHash) -> Option<(InfoHash, bool)> {
    let entry = table.entries.get(&info_hash)?;
    let run = entry.candidate().runs_unbounded();
    (run != entry.run || entry.seen.unsure).then_some((info_hash, run))
}

/// Returns which torrents are to run, in the order of the queue. Those that already do what they should may
/// be left out.
fn all_turns(table: &TorrentTable) -> Vec<(InfoHash, bool)> {
    let bounds = table.bounds();
    if bounds == Bounds::default() {
        return table.order.iter().filter_map(|info_hash| free_turn(table, info_hash)).collect();
    }
    let known = |info_hash| Some((info_hash, table.entries.get(&info_hash)?.candidate()));
    let (order, candidates): (Vec<_>, Vec<_>) = table.order.iter().filter_map(known).unzip();
    order.into_iter().zip(decide(&candidates, bounds)).collect()
}

/// Records which torrents run, and returns the commands for the engine.
fn give_turns(
    table: &mut TorrentTable,
    turns: Vec<(InfoHash, bool)>,
    (now, unix): (Instant, i64),
    follows: &mut Consequences,
) -> Vec<RunCommand> {
    let mut commands = Vec::new();
    for (info_hash, run) in turns {
        let Some(mut entry) = table.entries.get_mut(&info_hash) else { continue };
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
        table.recent.note(info_hash, &mut entry.changed_at, unix);
        if run && !same {
            entry.record.started_at = Some(unix);
        }
        follows.changed.push(info_hash);
        // A torrent that failed has stopped by itself.
        if let Some(handle) = entry.handle().filter(|_| run || entry.seen.phase != Phase::Failed) {
            commands.push(RunCommand { handle: handle.clone(), run });
            entry.seen.forgiven &= !run;
        }
    }
    commands
}

async fn carry_out(commands: Vec<RunCommand>) {
    for command in commands {
        match command.run {
            true => command.handle.resume().await,
            false => command.handle.pause().await,
        }
    }
}

/// Returns the minute of the week by the local clock, and the second.
fn local_minute() -> (WeekMinute, u8) {
    let now = jiff::Zoned::now();
    let day = now.weekday().to_sunday_zero_offset();
    // All values are small and not negative.
    let small = |n: i8| u8::try_from(n).unwrap_or(0);
    (WeekMinute::new(small(day), small(now.hour()), small(now.minute())), small(now.second()))
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

/// Seconds after which the seeding limits are checked again at the latest. A limit may be farther away than a
/// clock can represent.
const LOOK_AGAIN: u64 = 24 * 3600;

/// Time without changes after which unused memory is returned to the system.
const QUIET: Duration = Duration::from_secs(2);

/// How long changes gather after the first one.
const GATHER: Duration = Duration::from_millis(100);

/// Time between two writes of counters.
const PERSIST: Duration = Duration::from_secs(5 * 60);

/// Every so many writes include torrents that run but transfer nothing: once an hour.
const PERSISTS_A_FULL_ONE: u32 = 12;
