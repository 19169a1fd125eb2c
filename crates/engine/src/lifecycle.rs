//! Carries out what a torrent's [`Lifecycle`](piecework_swarm::lifecycle::Lifecycle) decides, while the
//! torrent is awake and while it sleeps.
//!
//! [`Record::pass`] takes in what happened and does at once whatever needs no task. What needs one is left
//! to [`super::torrent`], which looks at
//! [`Lifecycle::occupation`](piecework_swarm::lifecycle::Lifecycle::occupation).

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use piecework_core::{Bitfield, Fingerprint, Geometry};
use piecework_storage as storage;
use piecework_swarm::lifecycle::{Effect, FaultKind, LifecycleEvent, Occupation, SurveyEnd};

use super::crew::{Look, Seen};
use super::entry::{Call, Entry};
use super::record::Record;
use super::shared::Shared;
use super::{TorrentError, TorrentEvent};

/// A torrent and the session it belongs to.
#[derive(Clone, Copy)]
pub(super) struct TorrentRef<'a> {
    pub shared: &'a Arc<Shared>,
    pub entry: &'a Arc<Entry>,
}

impl TorrentRef<'_> {
    pub fn geometry(self) -> Geometry {
        self.entry.metainfo.info().geometry()
    }

    /// Whether checkpoints of the session's torrents are kept.
    pub fn keeps_checkpoints(self) -> bool {
        self.shared.config.keeper.is_some()
    }
}

impl Record {
    /// Takes in what happened, and does what follows from it. Returns whether a task is needed now.
    pub fn pass(&mut self, torrent: TorrentRef<'_>, event: LifecycleEvent) -> bool {
        self.pass_known(torrent, event, true)
    }

    /// The same with an event that makes the content known; `is_new` if a checkpoint of that would say
    /// something else than the last one.
    fn pass_known(&mut self, torrent: TorrentRef<'_>, event: LifecycleEvent, is_new: bool) -> bool {
        let TorrentRef { shared, entry } = torrent;
        let mut wakes = false;
        self.take_in(torrent, event);
        while let Some(effect) = self.life.poll() {
            match effect {
                Effect::ReportFault => self.report_fault(torrent),
                Effect::Forget => self.forget(torrent),
                Effect::KeepCheckpoint if is_new => self.keep(torrent, self.earlier()),
                Effect::KeepCheckpoint => {}
                Effect::KeepRecheck => self.keep_recheck(torrent),
                Effect::StartAnnouncing => shared.hub.start(entry.info_hash()),
                Effect::StopAnnouncing => {
                    // A swarm counts itself what it waits for.
                    if self.life.occupation() != Some(Occupation::Swarm) {
                        self.stop_waiting(shared);
                    }
                    shared.hub.stop(entry.info_hash());
                }
                Effect::Survey => self.survey(torrent),
                Effect::AskCheckSlot => {
                    if shared.turns.ask(entry) {
                        self.take_in(torrent, LifecycleEvent::CheckSlot);
                    }
                }
                Effect::AskStartSlot => {
                    if shared.starts.ask(entry) {
                        self.take_in(torrent, LifecycleEvent::StartSlot);
                    }
                }
                Effect::Wake => wakes = true,
                Effect::ScheduleRetry { after } => retry_later(torrent, after),
                // A swarm shows itself how it stands.
                Effect::Show if self.life.is_exchanging() => {}
                Effect::Show => entry.show(self.shown(entry)),
                // For its task, which sees by the state what it has to do.
                Effect::StartSwarm
                | Effect::StopSwarm
                | Effect::StartCheck
                | Effect::StopCheck
                | Effect::StartWork(_)
                | Effect::CancelWork
                | Effect::ReturnCheckSlot
                | Effect::ReturnStartSlot
                | Effect::Sleep
                | Effect::Leave
                | Effect::End => {}
                // Every torrent is added with its metadata.
                Effect::FetchMetadata | Effect::StopFetching => {}
            }
        }
        wakes
    }

    fn take_in(&mut self, torrent: TorrentRef<'_>, event: LifecycleEvent) {
        self.life.handle(torrent.shared.now(), event);
        if self.life.fault().is_none() {
            self.set_fault(None);
        }
    }

    /// Takes in an event with a fault, of which `error` says more.
    pub fn pass_fault(
        &mut self,
        torrent: TorrentRef<'_>,
        error: TorrentError,
        event: impl FnOnce(FaultKind) -> LifecycleEvent,
    ) -> bool {
        let event = event(error.kind());
        self.set_fault(Some(error));
        self.pass(torrent, event)
    }

    /// Takes in that there may be something else to do for it of its own accord.
    pub fn pass_workload(&mut self, torrent: TorrentRef<'_>) -> bool {
        let workload = self.workload(torrent.entry);
        self.pass(torrent, LifecycleEvent::Workload(workload))
    }

    /// Takes in an event by which it is known what is on the disk, and the fault that comes with it.
    /// `files` are as they were before they were looked at.
    pub fn pass_content(
        &mut self,
        torrent: TorrentRef<'_>,
        have: Option<Bitfield>,
        files: Option<Vec<Option<Fingerprint>>>,
        (event, error): (LifecycleEvent, Option<TorrentError>),
    ) -> bool {
        let is_new = self.note_known(torrent, have, files);
        let wakes = self.pass_workload(torrent);
        if error.is_some() {
            self.set_fault(error);
        }
        self.pass_known(torrent, event, is_new) || wakes
    }

    /// Takes in what a survey has found.
    pub fn pass_survey(
        &mut self,
        torrent: TorrentRef<'_>,
        seen: Result<Box<Seen>, TorrentError>,
    ) -> bool {
        let surveyed = LifecycleEvent::Surveyed;
        if !self.life.awaits_survey() {
            // Files have been moved meanwhile, or are to be hashed: it says nothing any more.
            return self.pass(torrent, surveyed(SurveyEnd::Incomplete));
        }
        match seen {
            Err(error) => self.pass_fault(torrent, error, |kind| surveyed(SurveyEnd::Failed(kind))),
            Ok(seen) if seen.check.count() > 0 => {
                self.set_seen(Some(seen));
                self.pass(torrent, surveyed(SurveyEnd::Incomplete))
            }
            Ok(seen) => {
                let Seen { trusted, files, unproven, .. } = *seen;
                self.set_unproven(unproven);
                self.pass_content(torrent, trusted, files, (surveyed(SurveyEnd::Known), None))
            }
        }
    }

    fn survey(&mut self, torrent: TorrentRef<'_>) {
        let since = self.checkpoint(&torrent.entry.metainfo, self.earlier());
        // Without a checkpoint it was added as complete.
        let look = since.map_or(Look::Complete, |since| Look::Since(Box::new(since)));
        torrent.shared.crew.look(torrent, look);
    }

    fn report_fault(&self, torrent: TorrentRef<'_>) {
        let Some(error) = self.fault() else { return };
        warn!(torrent = %torrent.entry.info_hash(), %error, "paused");
        if let Some(observer) = torrent.shared.observer() {
            let event = TorrentEvent::Paused { error: error.clone() };
            observer.event(&torrent.entry.metainfo, &event);
        }
    }
}

impl TorrentError {
    /// Whether it may pass by itself.
    pub(super) fn kind(&self) -> FaultKind {
        match self {
            Self::Full(_) | Self::Again(_) => FaultKind::Passing,
            Self::Storage(_) | Self::Strange(_) | Self::PathTaken(_) | Self::Removed => {
                FaultKind::Lasting
            }
        }
    }
}

/// Says after some time whether what the torrent stopped on may have passed.
fn retry_later(torrent: TorrentRef<'_>, after: Duration) {
    let (entry, shared) = (Arc::downgrade(torrent.entry), Arc::downgrade(torrent.shared));
    torrent.shared.runtime.spawn(async move {
        tokio::time::sleep(after).await;
        let (Some(entry), Some(shared)) = (entry.upgrade(), shared.upgrade()) else { return };
        let room = has_room(&entry).await;
        let torrent = TorrentRef { shared: &shared, entry: &entry };
        // Nobody is woken for nothing.
        let due = LifecycleEvent::RetryDue { room };
        if entry.change_asleep((), |record, ()| record.pass(torrent, due)).is_some() {
            entry.post(Call::Retry { room }).await;
        }
    });
}

/// Whether there is room on the disk again, if that was missing.
async fn has_room(entry: &Entry) -> bool {
    let shown = entry.shown();
    if !matches!(shown.fault.as_deref(), Some(TorrentError::Full(_))) {
        return true;
    }
    let root = entry.store().root();
    let free = tokio::task::spawn_blocking(move || storage::free_space(&root)).await;
    let Ok(Ok((free, _))) = free else { return false };
    let pieces = 16 * u64::from(entry.metainfo.info().geometry().piece_len());
    let left = shown.bytes_wanted.saturating_sub(shown.bytes_wanted_have);
    // It fails again, and is tried again, if that is not enough.
    free >= left.min(pieces.max(ROOM))
}

/// Less would be used up within a second.
const ROOM: u64 = 64 << 20;
