//! Carries out what a torrent's [`Lifecycle`](piecework_swarm::lifecycle::Lifecycle) decides, while
//! the torrent is awake and while it sleeps.
//!
//! [`LifecycleDriver::pass`] takes in an event and does at once whatever needs no task. The rest is
//! left to the torrent's [`task`](super::task), which looks at
//! [`Lifecycle::occupation`](piecework_swarm::lifecycle::Lifecycle::occupation).

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use piecework_core::{Bitfield, Fingerprint};
use piecework_storage as storage;
use piecework_swarm::lifecycle::{Effect, FaultKind, LifecycleEvent, Occupation, SurveyEnd};

use super::announce_scheduler::AnnounceScheduler;
use super::check_slots::CheckSlots;
use super::check_workers::CheckWorkers;
use super::entry::{Call, Entry};
use super::record::Record;
use super::start_slots::StartSlots;
use super::survey::{Survey, SurveyBasis, survey};
use super::{TorrentError, TorrentEvent};

/// Carries out the effects of a session's lifecycles.
pub(super) struct LifecycleDriver {
    pub scheduler: Arc<AnnounceScheduler>,
    pub check_workers: Arc<CheckWorkers>,
    pub check_slots: Arc<CheckSlots>,
    pub start_slots: Arc<StartSlots>,
}

impl LifecycleDriver {
    /// Takes in a call for a torrent that sleeps. Returns whether a task is needed now, or gives
    /// the call back if only a task can answer it.
    pub(crate) fn hear_asleep(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        call: Call,
    ) -> Result<bool, Call> {
        match call {
            Call::Pause => Ok(self.pass(entry, record, LifecycleEvent::Pause)),
            // Thousands of torrents that seed to nobody go on without a task.
            Call::Resume => Ok(self.pass(entry, record, LifecycleEvent::Resume)),
            // Not woken unless the lifecycle says so.
            Call::Retry { room } => Ok(self.pass(entry, record, LifecycleEvent::RetryDue { room })),
            Call::Surveyed(surveyed) => Ok(self.pass_survey(entry, record, surveyed)),
            Call::StartSlot(slot) => {
                let wakes = self.pass(entry, record, LifecycleEvent::StartSlot);
                // If the torrent no longer wants the slot, dropping it here frees it.
                if record.life.has_start_slot() {
                    slot.forget();
                }
                Ok(wakes)
            }
            other => Err(other),
        }
    }

    /// Takes in an event and carries out its effects. Returns whether a task is needed now.
    pub(crate) fn pass(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        event: LifecycleEvent,
    ) -> bool {
        self.pass_known(entry, record, event, true)
    }

    /// The same with an event that makes the content known. `is_new` says that a checkpoint of it
    /// would differ from the last one.
    fn pass_known(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        event: LifecycleEvent,
        is_new: bool,
    ) -> bool {
        let mut wakes = false;
        self.take_in(entry, record, event);
        while let Some(effect) = record.life.poll() {
            match effect {
                Effect::ReportFault => report_fault(entry, record),
                Effect::Forget => {
                    stop_waiting(entry, record);
                    record.forget(entry.metainfo.info().geometry().pieces());
                }
                Effect::KeepCheckpoint if is_new => entry.keep(record, record.earlier()),
                Effect::KeepCheckpoint => {}
                Effect::KeepRecheck => {
                    if entry.means().keeps_checkpoints() && record.note_recheck(&entry.metainfo) {
                        entry.keep(record, record.earlier());
                    }
                }
                Effect::StartAnnouncing => self.scheduler.start(entry.info_hash()),
                Effect::StopAnnouncing => {
                    // A swarm counts its waiting itself.
                    if record.life.occupation() != Some(Occupation::Swarm) {
                        stop_waiting(entry, record);
                    }
                    self.scheduler.stop(entry.info_hash());
                }
                Effect::Survey => self.survey(entry, record),
                Effect::AskCheckSlot => {
                    if self.check_slots.ask(Arc::clone(entry) as _) {
                        self.take_in(entry, record, LifecycleEvent::CheckSlot);
                    }
                }
                Effect::AskStartSlot => {
                    if self.start_slots.ask(entry.info_hash(), Arc::clone(entry) as _) {
                        self.take_in(entry, record, LifecycleEvent::StartSlot);
                    }
                }
                Effect::Wake => wakes = true,
                Effect::ScheduleRetry { after } => retry_later(entry, after),
                // A swarm publishes its status itself.
                Effect::Show if record.life.is_exchanging() => {}
                Effect::Show => entry.show(entry.shown_of(record)),
                // Left to the torrent's task, which sees from the state what it has to do.
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

    fn take_in(&self, entry: &Arc<Entry>, record: &mut Record, event: LifecycleEvent) {
        record.life.handle(entry.means().now(), event);
        if record.life.fault().is_none() {
            record.set_fault(None);
        }
    }

    /// Takes in an event with a fault. `error` has the details.
    pub(crate) fn pass_fault(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        error: TorrentError,
        event: impl FnOnce(FaultKind) -> LifecycleEvent,
    ) -> bool {
        let event = event(error.kind());
        record.set_fault(Some(error));
        self.pass(entry, record, event)
    }

    /// Takes in what there is to do of the torrent's own accord, which may have changed.
    pub(crate) fn pass_workload(&self, entry: &Arc<Entry>, record: &mut Record) -> bool {
        let workload = entry.workload_of(record);
        self.pass(entry, record, LifecycleEvent::Workload(workload))
    }

    /// Takes in an event that makes known what is on the disk, and the fault that comes with it.
    /// `files` are as they were before they were looked at.
    pub(crate) fn pass_content(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        have: Option<Bitfield>,
        files: Option<Vec<Option<Fingerprint>>>,
        (event, error): (LifecycleEvent, Option<TorrentError>),
    ) -> bool {
        let files = files.filter(|_| entry.means().keeps_checkpoints());
        let is_new = record.note_known(&entry.metainfo, have, files);
        let wakes = self.pass_workload(entry, record);
        if error.is_some() {
            record.set_fault(error);
        }
        self.pass_known(entry, record, event, is_new) || wakes
    }

    /// Takes in the result of a survey.
    pub(crate) fn pass_survey(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        found: Result<Box<Survey>, TorrentError>,
    ) -> bool {
        let surveyed = LifecycleEvent::Surveyed;
        if !record.life.awaits_survey() {
            // Files have been moved meanwhile, or are to be hashed: the result is outdated.
            return self.pass(entry, record, surveyed(SurveyEnd::Incomplete));
        }
        match found {
            Err(error) => {
                self.pass_fault(entry, record, error, |kind| surveyed(SurveyEnd::Failed(kind)))
            }
            Ok(found) if found.check.count() > 0 => {
                record.set_survey(Some(found));
                self.pass(entry, record, surveyed(SurveyEnd::Incomplete))
            }
            Ok(found) => {
                let Survey { trusted, files, unproven, .. } = *found;
                record.set_unproven(unproven);
                self.pass_content(entry, record, trusted, files, (surveyed(SurveyEnd::Known), None))
            }
        }
    }

    fn survey(&self, entry: &Arc<Entry>, record: &Record) {
        let since = record.checkpoint(&entry.metainfo, record.earlier());
        let basis = match since {
            Some(since) => SurveyBasis::Checkpoint(Box::new(since)),
            // A torrent without a checkpoint was added as complete.
            None => SurveyBasis::Complete,
        };
        let entry = Arc::clone(entry);
        let runtime = &Arc::clone(entry.means()).runtime;
        self.check_workers.submit(runtime, move || {
            let found = survey(&entry.means().mounts, &entry.store(), basis);
            entry.post_blocking(Call::Surveyed(found.map(Box::new)));
        });
    }
}

fn report_fault(entry: &Entry, record: &Record) {
    let Some(error) = record.fault() else { return };
    warn!(torrent = %entry.info_hash(), %error, "paused");
    if let Some(observer) = entry.means().observer() {
        let event = TorrentEvent::Paused { error: error.clone() };
        observer.event(&entry.metainfo, &event);
    }
}

/// Counts what a sleeping download has waited for.
fn stop_waiting(entry: &Entry, record: &mut Record) {
    if let Some((cause, waited)) = record.stop_waiting(entry.means().now()) {
        entry.means().counters.add_wait(cause, waited);
    }
}

/// After some time, tells the torrent whether what it stopped on may have passed.
fn retry_later(entry: &Arc<Entry>, after: Duration) {
    let weak = Arc::downgrade(entry);
    entry.means().runtime.spawn(async move {
        tokio::time::sleep(after).await;
        let Some(entry) = weak.upgrade() else { return };
        let room = has_room(&entry).await;
        entry.post(Call::Retry { room }).await;
    });
}

/// Returns whether there is room on the disk, if that was missing.
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
    // If that is not enough, it fails again and is tried again.
    free >= left.min(pieces.max(ROOM))
}

/// Less would be used up within a second.
const ROOM: u64 = 64 << 20;
