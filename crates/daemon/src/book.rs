//! What the daemon knows of its torrents: one book behind one lock.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::files;
use super::kept::{Kept, KeptInterner};
use super::making::Making;
use super::recent::Recent;
use super::room::Lacking;
use super::tally::Torrents;
use crate::queue::{Bounds, Candidate, Order, SeedLimits, Seeded};
use crate::state::{Counters, Saved};
use piecework_api::{Settings, State, Torrent};
use piecework_core::metainfo::Metainfo;
use piecework_core::{BoxedDefault, Checkpoint, InfoHash, shared_default};
use piecework_engine::{PathTaken, TorrentHandle, TorrentState};

/// All torrents, their order, and what holds for all.
pub(super) struct Book {
    pub torrents: Torrents,
    pub order: Order,
    /// What holds.
    pub settings: Settings,
    /// What was changed while a daemon ran, by its keys: it goes above the configuration.
    pub changed: serde_json::Map<String, serde_json::Value>,
    /// The last that went, oldest first.
    pub removed: VecDeque<Removed>,
    pub totals: Totals,
    pub notices: Vec<String>,
    pub recent: Recent,
    /// Something changed for which the queue looks at all torrents.
    pub review: bool,
    /// Torrents that changed so that the queue looks at them, at others only if they compete for
    /// places.
    pub fresh: Vec<InfoHash>,
    /// Bytes that unfinished torrents lack.
    pub lacking: Lacking,
    /// What the clock last said of the second pair of limits, if it has a say.
    pub scheduled: Option<bool>,
    /// Torrents of which the files are to be hashed first.
    pub making: usize,
    /// Those that are about to be among them.
    pub making_soon: usize,
    /// Provisional info-hashes of those that were hashed last, and what they became.
    made: VecDeque<(InfoHash, InfoHash)>,
    kept_in_common: KeptInterner,
    next_id: u64,
}

/// The torrents of which it is to be decided whether they run.
pub(super) enum Review {
    Nothing,
    /// These: the others are not concerned.
    Some(Vec<InfoHash>),
    All,
}

/// A torrent that is gone.
pub(super) struct Removed {
    pub info_hash: InfoHash,
    /// `None` if it was a provisional info-hash: the torrent itself is there.
    pub id: Option<u64>,
    /// When, seconds since 1970.
    pub at: i64,
}

/// Sums over all runs of the daemon, kept with its settings.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub downloaded: u64,
    pub uploaded: u64,
    pub seconds: u64,
    pub starts: u64,
    pub added: u64,
    /// In this run.
    #[serde(skip)]
    pub run: (u64, u64),
}

/// One torrent. There may be tens of thousands: no task, timer or channel belongs to it here.
pub(super) struct Entry {
    pub id: u64,
    pub added_at: i64,
    pub done_at: Option<i64>,
    pub changed_at: i64,
    pub kept: Kept,
    pub body: Body,
    /// The queue lets it run.
    pub run: bool,
    /// What it is counted to do.
    pub counted: Option<State>,
    pub seen: Seen,
    pub counters: Counters,
    /// Its data is being moved.
    pub moving: Option<Box<Moving>>,
    pub odd: BoxedDefault<Odd>,
}

/// What few torrents have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Odd {
    /// Name of its `.torrent` in the torrents folder, if it is not the one it gets first.
    file: Option<Box<str>>,
    /// What went wrong and does not stop it.
    pub trouble: Option<Box<str>>,
}

/// Data on its way.
pub(super) struct Moving {
    /// Who moves it.
    pub task: AbortHandle,
    /// The folder it lies in until that is over. The engine is ahead of the book for a moment, and
    /// nobody is to see the new folder before the move has ended here as well.
    pub from: PathBuf,
}

/// The torrent in the engine, if it is there.
pub(super) enum Body {
    Live(TorrentHandle),
    // A third variant would cost each torrent eight bytes.
    Absent(Box<Absent>),
}

/// A torrent that is not in the engine.
pub(super) enum Absent {
    /// Its `.torrent` is gone or no longer one, or the engine does not take it.
    Broken(Broken),
    /// Its files are to be hashed first; its info-hash is provisional.
    Making(Making),
}

/// A [`Body`], looked at.
pub(super) enum BodyView<'a> {
    Live(&'a TorrentHandle),
    Broken(&'a Broken),
    Making(&'a Making),
}

impl Body {
    pub fn broken(broken: Broken) -> Self {
        Self::Absent(Box::new(Absent::Broken(broken)))
    }

    pub fn making(making: Making) -> Self {
        Self::Absent(Box::new(Absent::Making(making)))
    }

    pub fn view(&self) -> BodyView<'_> {
        match self {
            Self::Live(handle) => BodyView::Live(handle),
            Self::Absent(absent) => match &**absent {
                Absent::Broken(broken) => BodyView::Broken(broken),
                Absent::Making(making) => BodyView::Making(making),
            },
        }
    }

    pub fn making_mut(&mut self) -> Option<&mut Making> {
        match self {
            Self::Live(_) => None,
            Self::Absent(absent) => match &mut **absent {
                Absent::Broken(_) => None,
                Absent::Making(making) => Some(making),
            },
        }
    }
}

pub(super) struct Broken {
    /// What it was called, as far as known.
    pub name: String,
    pub error: String,
    /// The folder it lies in.
    pub root: PathBuf,
    pub metainfo: Option<Arc<Metainfo>>,
    /// What was known of it, for when it is mended.
    pub checkpoint: Option<Checkpoint>,
    /// Another torrent has one of its paths.
    pub taken: Option<Box<PathTaken>>,
}

/// What was last seen of a torrent, as far as it decides something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub phase: Phase,
    /// Everything wanted is there.
    pub complete: bool,
    /// Something wanted was missing in this run.
    pub missing: bool,
    /// When it was last looked at, it had moved nothing for long.
    pub stalled: bool,
    /// The engine may do otherwise than `run` says: it is told anew.
    pub unsure: bool,
    /// Somebody had it start since it failed, and the engine has not been told yet.
    pub forgiven: bool,
    /// Payload moved since counters were last kept.
    pub moved: bool,
    pub downloaded: u64,
    pub uploaded: u64,
    /// Bytes of `counters.corrupt_bytes` that are of earlier runs.
    pub corrupt_before: u64,
    /// Up to when the seconds of the present phase are counted.
    pub counted: Instant,
    /// When payload last moved, or it last began to run.
    pub moved_at: Instant,
}

/// What the engine does with a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting,
    Checking,
    Downloading,
    Seeding,
    Moving,
    Paused,
    Failed,
}

impl Book {
    pub fn new(settings: Settings) -> Self {
        Self {
            torrents: Torrents::default(),
            order: Order::default(),
            settings,
            changed: serde_json::Map::new(),
            removed: VecDeque::new(),
            totals: Totals::default(),
            notices: Vec::new(),
            recent: Recent::default(),
            review: true,
            fresh: Vec::new(),
            lacking: Lacking::default(),
            scheduled: None,
            making: 0,
            making_soon: 0,
            made: VecDeque::new(),
            kept_in_common: KeptInterner::default(),
            next_id: 1,
        }
    }

    /// A number no torrent of this run has had.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Puts a torrent in. Its place in the queue is taken before.
    pub fn enter(&mut self, info_hash: InfoHash, mut entry: Box<Entry>) {
        self.recent.note(info_hash, &mut entry.changed_at, unix_now());
        self.kept_in_common.share(&mut entry.kept);
        self.making += usize::from(entry.is_making());
        self.torrents.insert(info_hash, entry);
    }

    /// Takes a torrent out and remembers that it went.
    pub fn take(&mut self, info_hash: InfoHash, now: i64) -> Option<Box<Entry>> {
        let entry = self.torrents.get(&info_hash)?;
        let (rank, id) = (entry.kept.rank, entry.id);
        self.order.remove(rank);
        self.take_out(info_hash, Some(id), now)
    }

    /// Puts a torrent in the place that it had under a provisional info-hash.
    pub fn settle(&mut self, provisional: InfoHash, info_hash: InfoHash, mut entry: Box<Entry>) {
        if let Some(before) = self.take_out(provisional, None, unix_now()) {
            entry.kept.rank = before.kept.rank;
            self.order.replace(before.kept.rank, info_hash);
        }
        self.lead(provisional, info_hash);
        self.enter(info_hash, entry);
    }

    /// Has a provisional info-hash lead to the torrent that was found under it.
    pub fn lead(&mut self, provisional: InfoHash, info_hash: InfoHash) {
        self.made.retain(|(before, _)| *before != provisional);
        if self.made.len() >= REMOVED {
            self.made.pop_front();
        }
        self.made.push_back((provisional, info_hash));
    }

    /// What the torrent with this info-hash, which may be provisional, is listed under.
    pub fn listed_as(&self, info_hash: InfoHash) -> InfoHash {
        if self.torrents.contains_key(&info_hash) {
            return info_hash;
        }
        let mut made = self.made.iter().rev();
        made.find(|(before, _)| *before == info_hash).map_or(info_hash, |(_, now)| *now)
    }

    fn take_out(&mut self, info_hash: InfoHash, id: Option<u64>, now: i64) -> Option<Box<Entry>> {
        let entry = self.torrents.remove(&info_hash)?;
        self.making -= usize::from(entry.is_making());
        self.recent.remove(info_hash, entry.changed_at);
        if self.removed.len() >= REMOVED {
            self.removed.pop_front();
        }
        self.removed.push_back(Removed { info_hash, id, at: now });
        self.lacking.note(info_hash, 0);
        // Others may get its place.
        self.review |= self.bounds() != Bounds::default();
        Some(entry)
    }

    /// Returns what is kept of a torrent as text, and has it share memory with what is kept of others.
    pub fn kept_text(&mut self, info_hash: InfoHash) -> Option<String> {
        let mut entry = self.torrents.get_mut(&info_hash)?;
        self.kept_in_common.share(&mut entry.kept);
        Some(entry.kept.to_text())
    }

    /// How many torrents may be active.
    pub fn bounds(&self) -> Bounds {
        Bounds { downloads: self.settings.active_downloads, seeds: self.settings.active_seeds }
    }

    /// Takes what the queue is to look at.
    pub fn take_review(&mut self) -> Review {
        let fresh = std::mem::take(&mut self.fresh);
        let is_limited = |info_hash: &InfoHash| {
            let entry = self.torrents.get(info_hash);
            entry.is_some_and(|entry| entry.limits(&self.settings).any())
        };
        // When one with a limit is due is known of all of them together.
        let all =
            !fresh.is_empty() && self.bounds() != Bounds::default() || fresh.iter().any(is_limited);
        match std::mem::take(&mut self.review) || all {
            true => Review::All,
            false if fresh.is_empty() => Review::Nothing,
            false => Review::Some(fresh),
        }
    }

    /// The torrent as it is shown.
    pub fn show(&self, info_hash: InfoHash) -> Option<Torrent> {
        let entry = self.torrents.get(&info_hash)?;
        let position = self.order.position(entry.kept.rank).unwrap_or(usize::MAX);
        Some(entry.show(info_hash, position, &self.settings))
    }

    /// All, in the order of the queue.
    pub fn show_all(&self) -> Vec<Torrent> {
        let shown =
            |(position, hash)| Some(self.torrents.get(&hash)?.show(hash, position, &self.settings));
        self.order.iter().enumerate().filter_map(shown).collect()
    }

    /// Adds what people should know, once.
    pub fn notice(&mut self, notice: String) {
        // What is tried again every few seconds fails in the same way each time.
        if self.notices.contains(&notice) {
            return;
        }
        tracing::warn!("{notice}");
        if self.notices.len() < NOTICES {
            self.notices.push(notice);
        }
    }

    /// Takes back a notice that does not hold any more.
    pub fn withdraw(&mut self, notice: &str) {
        self.notices.retain(|told| told != notice);
    }
}

impl Entry {
    /// A torrent as it was kept. `kept` is read from `saved.settings`.
    pub fn new(id: u64, saved: &Saved, kept: Kept, body: Body, now: Instant) -> Self {
        let (downloaded, uploaded) =
            saved.checkpoint.as_ref().map_or((0, 0), |point| (point.downloaded, point.uploaded));
        let usual = match body.view() {
            BodyView::Live(handle) => {
                saved.file == files::first_name(handle.metainfo().info().name())
            }
            BodyView::Broken(_) | BodyView::Making(_) => false,
        };
        let file = (!usual).then(|| saved.file.as_str().into());
        Self {
            id,
            added_at: saved.added_at,
            done_at: saved.done_at,
            changed_at: unix_now(),
            kept,
            body,
            run: false,
            counted: None,
            seen: Seen {
                phase: Phase::Waiting,
                complete: saved.done_at.is_some(),
                missing: false,
                stalled: false,
                unsure: false,
                forgiven: false,
                moved: false,
                downloaded,
                uploaded,
                corrupt_before: saved.counters.corrupt_bytes,
                counted: now,
                moved_at: now,
            },
            counters: saved.counters,
            moving: None,
            odd: Odd { file, trouble: None }.into(),
        }
    }

    pub fn handle(&self) -> Option<&TorrentHandle> {
        match self.body.view() {
            BodyView::Live(handle) => Some(handle),
            BodyView::Broken(_) | BodyView::Making(_) => None,
        }
    }

    /// Whether its files are to be hashed first.
    pub fn is_making(&self) -> bool {
        matches!(self.body.view(), BodyView::Making(_))
    }

    /// Name of its `.torrent` in the torrents folder.
    pub fn file(&self) -> Cow<'_, str> {
        match (&self.odd.file, self.metainfo()) {
            (Some(file), _) => Cow::from(&**file),
            (None, Some(metainfo)) => files::first_name(metainfo.info().name()).into(),
            // It has always been noted of those that are broken without a word.
            (None, None) => Cow::default(),
        }
    }

    /// The folder its name lies in.
    pub fn root(&self) -> PathBuf {
        match (&self.moving, self.body.view()) {
            (Some(moving), _) => moving.from.clone(),
            (None, BodyView::Live(handle)) => handle.root(),
            (None, BodyView::Broken(broken)) => broken.root.clone(),
            (None, BodyView::Making(making)) => making.root.clone(),
        }
    }

    pub fn metainfo(&self) -> Option<&Arc<Metainfo>> {
        match self.body.view() {
            BodyView::Live(handle) => Some(handle.metainfo()),
            BodyView::Broken(broken) => broken.metainfo.as_ref(),
            BodyView::Making(_) => None,
        }
    }

    pub fn name(&self) -> &str {
        match (&self.kept.settings.name, self.body.view()) {
            (Some(name), _) => name,
            (None, BodyView::Live(handle)) => handle.metainfo().info().name(),
            (None, BodyView::Broken(broken)) => &broken.name,
            (None, BodyView::Making(making)) => &making.name,
        }
    }

    /// Lets it have a turn although it has failed.
    pub fn forgive(&mut self) {
        // That it has failed may only be taken in after this, or a second time.
        self.seen.forgiven = true;
        if self.seen.phase == Phase::Failed {
            self.seen.phase = Phase::Paused;
            self.run = false;
        }
    }

    /// What the queue sees of it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            paused: self.kept.settings.paused || self.kept.limit_reached,
            failed: self.handle().is_none()
                || self.seen.phase == Phase::Failed && !self.seen.forgiven,
            forced: self.kept.settings.forced,
            complete: self.seen.complete,
            stalled: self.seen.stalled && self.run,
            checking: matches!(self.seen.phase, Phase::Waiting | Phase::Checking),
        }
    }

    /// Counts the seconds of the phase up to `now`.
    pub fn count(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.seen.counted).as_secs();
        match self.seen.phase {
            Phase::Downloading if self.run => self.counters.seconds_downloading += seconds,
            Phase::Seeding if self.run => self.counters.seconds_seeding += seconds,
            _ => {
                self.seen.counted = now;
                return;
            }
        }
        // What is left of a second counts later.
        self.seen.counted += Duration::from_secs(seconds);
    }

    /// How much it has seeded by `now`.
    pub fn seeded(&self, bytes_have: u64, now: Instant) -> Seeded {
        let seeding = self.seen.phase == Phase::Seeding && self.run;
        let more = if seeding { since(self.seen.counted, now) } else { 0 };
        Seeded {
            uploaded: self.seen.uploaded,
            downloaded: self.seen.downloaded,
            bytes_have,
            seconds: self.counters.seconds_seeding + more,
            idle: if seeding { since(self.seen.moved_at, now) } else { 0 },
        }
    }

    /// The seeding limits that hold for it.
    pub fn limits(&self, session: &Settings) -> SeedLimits {
        if self.kept.limits_waived {
            return SeedLimits::default();
        }
        SeedLimits::of(&self.kept.settings, session)
    }

    /// Seconds without payload that should have moved; 0 if it does not run.
    pub fn idle(&self, now: Instant) -> u64 {
        let runs = self.run && matches!(self.seen.phase, Phase::Downloading | Phase::Seeding);
        if runs { since(self.seen.moved_at, now) } else { 0 }
    }

    /// What is kept of it.
    pub fn saved(&self, info_hash: InfoHash) -> Saved {
        Saved {
            info_hash,
            file: self.file().into_owned(),
            root: self.root(),
            added_at: self.added_at,
            done_at: self.done_at,
            settings: self.kept.to_text(),
            checkpoint: None,
            counters: self.counters,
        }
    }
}

shared_default!(Odd);

impl Phase {
    pub fn of(state: &TorrentState) -> Self {
        match state {
            TorrentState::Waiting => Self::Waiting,
            TorrentState::Checking { .. } => Self::Checking,
            TorrentState::Downloading => Self::Downloading,
            TorrentState::Seeding => Self::Seeding,
            TorrentState::Moving { .. } => Self::Moving,
            TorrentState::Paused { reason: None } => Self::Paused,
            TorrentState::Paused { reason: Some(_) } => Self::Failed,
        }
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub(super) fn since(then: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

/// Torrents that went and are remembered for those who ask what changed.
const REMOVED: usize = 10_000;

/// Sentences kept for people.
const NOTICES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_takes_little_memory() {
        // There may be tens of thousands.
        assert!(size_of::<Entry>() <= 248, "{}", size_of::<Entry>());
    }
}
