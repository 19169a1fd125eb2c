//! One entry of the torrent table: its record, its state in the engine, and what was last seen of it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::linked::LinkedTorrent;
use super::pending_work::PendingWork;
use super::queue_settings::seed_limits;
use super::reason::Reason;
use super::record::TorrentRecord;
use super::unhashed::UnhashedTorrent;
use super::{DaemonError, torrent_files};
use crate::queue::{Candidate, SeedLimits, Seeded};
use crate::state::{Counters, Saved};
use piecework_api::{Settings, State};
use piecework_core::metainfo::Metainfo;
use piecework_core::{BoxedDefault, Checkpoint, InfoHash, printable, shared_default};
use piecework_engine::{PathTaken, TorrentHandle, TorrentState};

/// One torrent. There may be tens of thousands, so an entry has no task, timer or channel of its own.
pub(super) struct Entry {
    pub id: u64,
    pub added_at: i64,
    pub done_at: Option<i64>,
    pub changed_at: i64,
    pub record: TorrentRecord,
    pub body: Body,
    /// The queue lets it run.
    pub run: bool,
    /// The state in which it is counted.
    pub counted: Option<State>,
    pub seen: LastSeen,
    pub counters: Counters,
    /// Its data is being moved.
    pub moving: Option<Box<Relocation>>,
    pub rare: BoxedDefault<RareState>,
}

/// Fields that few torrents need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RareState {
    /// Name of its `.torrent` in the torrents folder, if that is not the usual one.
    file: Option<Box<str>>,
    /// A problem that does not stop it.
    pub trouble: Option<Box<str>>,
}

/// A move of a torrent's data that is under way.
pub(super) struct Relocation {
    /// The task that moves it.
    pub task: AbortHandle,
    /// The folder that is shown until the move ends. The engine is ahead of the table for a moment,
    /// and the new folder is shown only once the move has ended here as well.
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
    /// Its `.torrent` is gone or damaged, or the engine refuses it.
    Broken(BrokenTorrent),
    /// Its files are not hashed yet. Its info-hash is provisional.
    Unhashed(UnhashedTorrent),
    /// Only its magnet link is known.
    Linked(LinkedTorrent),
}

/// A borrowed view of a [`Body`].
pub(super) enum BodyView<'a> {
    Live(&'a TorrentHandle),
    Broken(&'a BrokenTorrent),
    Unhashed(&'a UnhashedTorrent),
    Linked(&'a LinkedTorrent),
}

impl Body {
    pub(crate) fn broken(broken: BrokenTorrent) -> Self {
        Self::Absent(Box::new(Absent::Broken(broken)))
    }

    pub(crate) fn unhashed(torrent: UnhashedTorrent) -> Self {
        Self::Absent(Box::new(Absent::Unhashed(torrent)))
    }

    pub(crate) fn linked(torrent: LinkedTorrent) -> Self {
        Self::Absent(Box::new(Absent::Linked(torrent)))
    }

    pub(crate) fn view(&self) -> BodyView<'_> {
        match self {
            Self::Live(handle) => BodyView::Live(handle),
            Self::Absent(absent) => match &**absent {
                Absent::Broken(broken) => BodyView::Broken(broken),
                Absent::Unhashed(torrent) => BodyView::Unhashed(torrent),
                Absent::Linked(torrent) => BodyView::Linked(torrent),
            },
        }
    }

    pub(crate) fn unhashed_mut(&mut self) -> Option<&mut UnhashedTorrent> {
        match self {
            Self::Live(_) => None,
            Self::Absent(absent) => match &mut **absent {
                Absent::Unhashed(torrent) => Some(torrent),
                Absent::Broken(_) | Absent::Linked(_) => None,
            },
        }
    }

    pub(crate) fn linked_mut(&mut self) -> Option<&mut LinkedTorrent> {
        match self {
            Self::Live(_) => None,
            Self::Absent(absent) => match &mut **absent {
                Absent::Linked(torrent) => Some(torrent),
                Absent::Broken(_) | Absent::Unhashed(_) => None,
            },
        }
    }

    /// Returns the work of a torrent that is listed before it is one.
    pub(crate) fn pending_work(&self) -> Option<&Arc<PendingWork>> {
        match self.view() {
            BodyView::Unhashed(torrent) => Some(&torrent.work),
            BodyView::Linked(torrent) => Some(&torrent.work),
            BodyView::Live(_) | BodyView::Broken(_) => None,
        }
    }
}

pub(super) struct BrokenTorrent {
    /// Its name, as far as known.
    pub name: String,
    pub error: Reason,
    /// The folder it lies in.
    pub root: PathBuf,
    pub metainfo: Option<Arc<Metainfo>>,
    /// Its last checkpoint, for when it is repaired.
    pub checkpoint: Option<Checkpoint>,
    /// Another torrent has one of its paths.
    pub taken: Option<Box<PathTaken>>,
}

/// What was last seen of a torrent, as far as decisions depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastSeen {
    pub phase: Phase,
    /// Everything wanted is there.
    pub complete: bool,
    /// Something wanted was missing in this run.
    pub missing: bool,
    /// It had transferred nothing for a long time when it was last checked.
    pub stalled: bool,
    /// The engine may not do what `run` says, so it is told again.
    pub unsure: bool,
    /// It may have a turn although it failed: somebody started it again, or its fault may pass and
    /// its pause was a moment earlier. Cleared when the engine is told.
    pub forgiven: bool,
    /// Payload was transferred since the counters were last written.
    pub moved: bool,
    pub downloaded: u64,
    pub uploaded: u64,
    /// The part of `counters.corrupt_bytes` from earlier runs.
    pub corrupt_before: u64,
    /// Time up to which the seconds of the current phase are counted.
    pub counted: Instant,
    /// When payload was last transferred, or when it last began to run.
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

impl Entry {
    /// Returns the entry of a saved torrent. `record` was read from `saved.settings`.
    pub(crate) fn new(
        id: u64,
        saved: &Saved,
        record: TorrentRecord,
        body: Body,
        now: Instant,
    ) -> Self {
        let (downloaded, uploaded) =
            saved.checkpoint.as_ref().map_or((0, 0), |point| (point.downloaded, point.uploaded));
        let usual = match body.view() {
            BodyView::Live(handle) => {
                saved.file == torrent_files::first_name(handle.metainfo().info().name())
            }
            BodyView::Broken(_) | BodyView::Unhashed(_) | BodyView::Linked(_) => false,
        };
        let file = (!usual).then(|| saved.file.as_str().into());
        Self {
            id,
            added_at: saved.added_at,
            done_at: saved.done_at,
            changed_at: unix_now(),
            record,
            body,
            run: false,
            counted: None,
            seen: LastSeen {
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
            rare: RareState { file, trouble: None }.into(),
        }
    }

    pub(crate) fn handle(&self) -> Option<&TorrentHandle> {
        match self.body.view() {
            BodyView::Live(handle) => Some(handle),
            BodyView::Broken(_) | BodyView::Unhashed(_) | BodyView::Linked(_) => None,
        }
    }

    /// Returns whether its files are not hashed yet, or its metadata is not here yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.body.pending_work().is_some()
    }

    /// Returns the name of its `.torrent` in the torrents folder.
    pub(crate) fn file(&self) -> Cow<'_, str> {
        match (&self.rare.file, self.metainfo()) {
            (Some(file), _) => Cow::from(&**file),
            (None, Some(metainfo)) => torrent_files::first_name(metainfo.info().name()).into(),
            // Torrents without metainfo always have their file's name recorded.
            (None, None) => Cow::default(),
        }
    }

    /// Returns the folder that contains its file or folder.
    pub(crate) fn root(&self) -> PathBuf {
        match (&self.moving, self.body.view()) {
            (Some(moving), _) => moving.from.clone(),
            (None, BodyView::Live(handle)) => handle.root(),
            (None, BodyView::Broken(broken)) => broken.root.clone(),
            (None, BodyView::Unhashed(torrent)) => torrent.root.clone(),
            (None, BodyView::Linked(torrent)) => torrent.root.clone(),
        }
    }

    pub(crate) fn metainfo(&self) -> Option<&Arc<Metainfo>> {
        match self.body.view() {
            BodyView::Live(handle) => Some(handle.metainfo()),
            BodyView::Broken(broken) => broken.metainfo.as_ref(),
            BodyView::Unhashed(_) | BodyView::Linked(_) => None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match (&self.record.settings.name, self.body.view()) {
            (Some(name), _) => name,
            (None, BodyView::Live(handle)) => handle.metainfo().info().name(),
            (None, BodyView::Broken(broken)) => &broken.name,
            (None, BodyView::Unhashed(torrent)) => &torrent.name,
            (None, BodyView::Linked(torrent)) => &torrent.name,
        }
    }

    /// Allows it a turn although it has failed.
    pub(crate) fn forgive(&mut self) {
        // That it failed may be noticed only after this, or once more.
        self.seen.forgiven = true;
        if self.seen.phase == Phase::Failed {
            self.seen.phase = Phase::Paused;
            self.run = false;
        }
    }

    /// Returns what the queue needs to know of it.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            paused: self.record.settings.paused || self.record.limit_reached,
            failed: self.handle().is_none()
                || self.seen.phase == Phase::Failed && !self.seen.forgiven,
            forced: self.record.settings.forced,
            complete: self.seen.complete,
            stalled: self.seen.stalled && self.run,
            checking: matches!(self.seen.phase, Phase::Waiting | Phase::Checking),
        }
    }

    /// Counts the seconds of the current phase up to `now`.
    pub(crate) fn count(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.seen.counted).as_secs();
        match self.seen.phase {
            Phase::Downloading if self.run => self.counters.seconds_downloading += seconds,
            Phase::Seeding if self.run => self.counters.seconds_seeding += seconds,
            _ => {
                self.seen.counted = now;
                return;
            }
        }
        // The remaining fraction of a second is counted later.
        self.seen.counted += Duration::from_secs(seconds);
    }

    /// Returns how much it has seeded by `now`.
    pub(crate) fn seeded(&self, bytes_have: u64, now: Instant) -> Seeded {
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

    /// Returns the seeding limits that apply to it.
    pub(crate) fn limits(&self, session: &Settings) -> SeedLimits {
        if self.record.limits_waived {
            return SeedLimits::default();
        }
        seed_limits(&self.record.settings, session)
    }

    /// Returns the seconds for which it has run without transferring payload; 0 if it does not run.
    pub(crate) fn idle(&self, now: Instant) -> u64 {
        let runs = self.run && matches!(self.seen.phase, Phase::Downloading | Phase::Seeding);
        if runs { since(self.seen.moved_at, now) } else { 0 }
    }

    /// Returns what is saved of it.
    pub(crate) fn saved(&self, info_hash: InfoHash) -> Saved {
        Saved {
            info_hash,
            file: self.file().into_owned(),
            root: self.root(),
            added_at: self.added_at,
            done_at: self.done_at,
            settings: self.record.to_text(),
            checkpoint: None,
            counters: self.counters,
        }
    }
}

shared_default!(RareState);

impl Phase {
    pub(crate) fn of(state: &TorrentState) -> Self {
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

/// Returns the current time in seconds since 1970.
pub(super) fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub(super) fn since(then: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

/// Returns the error for a request that a torrent cannot serve while its data is moved.
pub(super) fn moving_error() -> DaemonError {
    DaemonError::conflict("its data is being moved: wait until that is over".to_owned())
}

/// Returns the error for a request that a torrent cannot serve before its files are hashed or its metadata is here.
pub(super) fn pending_error(entry: &Entry) -> DaemonError {
    let name = printable(entry.name());
    let (error, standing) = match entry.body.view() {
        BodyView::Linked(_) => (
            None,
            format!("only the magnet link of `{name}` is known: its metadata is not here yet"),
        ),
        view => {
            let error = match view {
                BodyView::Unhashed(torrent) => torrent.error.clone(),
                _ => None,
            };
            (error, format!("`{name}` is being hashed: wait until that is over, or remove it"))
        }
    };
    DaemonError::conflict(error.unwrap_or(standing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_takes_little_memory() {
        // A daemon may have tens of thousands of entries.
        assert!(size_of::<Entry>() <= 248, "{}", size_of::<Entry>());
    }
}
