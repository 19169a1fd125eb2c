//! Effects: the difference between what should be under way and what is.

use std::time::Duration;

use super::{
    Closing, ContentState, Lifecycle, LifecycleStatus, PendingRecord, RetryTimer, RunState,
    SlotState, SurveyState, Urgency, WorkKind,
};

/// An effect for the driver to carry out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Log the fault that the torrent stopped on, and tell observers.
    ReportFault,
    /// Nothing is known to be held any more. A check that was cut short starts again.
    Forget,
    /// Keep a checkpoint of what is known, unless the same one is kept already.
    KeepCheckpoint,
    /// Keep a record that everything must be hashed, so that a later session continues with it.
    KeepRecheck,
    /// Tell trackers that the torrent stops.
    StopAnnouncing,
    /// Stop the swarm. [`LifecycleEvent::SwarmEnded`](super::LifecycleEvent::SwarmEnded) follows.
    StopSwarm,
    /// Stop the check. [`LifecycleEvent::Checked`](super::LifecycleEvent::Checked) follows.
    StopCheck,
    /// Stop asking for metadata. Late answers are dropped.
    StopFetching,
    /// Stop work on files. [`LifecycleEvent::WorkDone`](super::LifecycleEvent::WorkDone) follows.
    CancelWork,
    /// Give the check slot to the next torrent.
    ReturnCheckSlot,
    /// Give the start slot to the next torrent.
    ReturnStartSlot,
    /// Start a task for the torrent, unless it has one.
    Wake,
    /// Ask peers for the metadata. Answered by
    /// [`LifecycleEvent::Metadata`](super::LifecycleEvent::Metadata).
    FetchMetadata,
    /// Compare the files with the last checkpoint. Without one, look at what is there. Answered by
    /// [`LifecycleEvent::Surveyed`](super::LifecycleEvent::Surveyed).
    Survey,
    /// Ask for a slot to hash with. [`LifecycleEvent::CheckSlot`](super::LifecycleEvent::CheckSlot)
    /// follows, and then [`Effect::ReturnCheckSlot`].
    AskCheckSlot,
    /// Ask for a slot to begin a download with.
    /// [`LifecycleEvent::StartSlot`](super::LifecycleEvent::StartSlot) follows, and then
    /// [`Effect::ReturnStartSlot`].
    AskStartSlot,
    /// Move, rename or delete files. Answered by
    /// [`LifecycleEvent::WorkDone`](super::LifecycleEvent::WorkDone).
    StartWork(WorkKind),
    /// Hash what must be hashed. Answered by [`LifecycleEvent::Checked`](super::LifecycleEvent::Checked).
    StartCheck,
    /// Prepare files to be written, then exchange pieces. Answered by
    /// [`LifecycleEvent::SwarmEnded`](super::LifecycleEvent::SwarmEnded), and before that by
    /// [`LifecycleEvent::SwarmStarted`](super::LifecycleEvent::SwarmStarted) if it gets that far.
    StartSwarm,
    /// Tell trackers that the torrent is gone, and flush its data. Answered by
    /// [`LifecycleEvent::Left`](super::LifecycleEvent::Left).
    Leave,
    /// Announce to trackers. What is known of the content was shown before.
    StartAnnouncing,
    /// Pass [`LifecycleEvent::RetryDue`](super::LifecycleEvent::RetryDue) when this time is over.
    ScheduleRetry {
        /// The time from now.
        after: Duration,
    },
    /// Show [`Lifecycle::status`](super::Lifecycle::status) to observers.
    Show,
    /// The task is not needed. Keep only a record of the torrent.
    Sleep,
    /// Release its paths, and drop it.
    End,
}

impl Lifecycle {
    /// Returns the next effect, and assumes that it is carried out. Returns `None` until the next event.
    #[must_use = "an effect is returned only once"]
    pub fn poll(&mut self) -> Option<Effect> {
        self.next_note()
            .or_else(|| self.next_stop())
            .or_else(|| self.next_returned_slot())
            .or_else(|| self.next_start())
            .or_else(|| self.next_conclusion())
    }

    /// Returns what must be recorded before anything else begins.
    fn next_note(&mut self) -> Option<Effect> {
        if std::mem::take(&mut self.reports_fault) {
            return Some(Effect::ReportFault);
        }
        if std::mem::take(&mut self.forgets) {
            self.is_outdated = true;
            return Some(Effect::Forget);
        }
        self.keeps.take().map(|record| match record {
            PendingRecord::Checkpoint => Effect::KeepCheckpoint,
            PendingRecord::Recheck => Effect::KeepRecheck,
        })
    }

    fn next_stop(&mut self) -> Option<Effect> {
        // A torrent that leaves tells trackers later.
        if self.announced && self.is_open() && self.is_halted() {
            self.announced = false;
            return Some(Effect::StopAnnouncing);
        }
        if self.is_running() && !self.may_run() {
            self.swarm = RunState::Stopping;
            return Some(Effect::StopSwarm);
        }
        if self.check == RunState::Running && !self.may_check() {
            self.check = RunState::Stopping;
            return Some(Effect::StopCheck);
        }
        if self.fetching && !self.may_fetch() {
            self.fetching = false;
            return Some(Effect::StopFetching);
        }
        if self.work.is_some() && !self.is_open() && !self.work_cancelled {
            self.work_cancelled = true;
            return Some(Effect::CancelWork);
        }
        None
    }

    fn next_returned_slot(&mut self) -> Option<Effect> {
        if self.check_slot == SlotState::Held
            && self.check == RunState::Stopped
            && !self.wants_check_slot()
        {
            self.check_slot = SlotState::None;
            return Some(Effect::ReturnCheckSlot);
        }
        let is_used = matches!(self.swarm, RunState::Starting | RunState::Stopping);
        if self.start_slot == SlotState::Held && !is_used && !self.wants_start_slot() {
            self.start_slot = SlotState::None;
            return Some(Effect::ReturnStartSlot);
        }
        None
    }

    fn next_start(&mut self) -> Option<Effect> {
        if self.wants_check_slot() && self.check_slot == SlotState::None {
            self.check_slot = SlotState::Asked;
            return Some(Effect::AskCheckSlot);
        }
        if self.wants_start_slot() && self.start_slot == SlotState::None {
            self.start_slot = SlotState::Asked;
            return Some(Effect::AskStartSlot);
        }
        if self.may_fetch() && !self.fetching {
            return self.awake_for(Effect::FetchMetadata, |it| it.fetching = true);
        }
        if self.is_busy() {
            return None;
        }
        if self.closing == Closing::Requested {
            (self.closing, self.announced) = (Closing::Leaving, false);
            return Some(Effect::Leave);
        }
        if let Some(kind) = self.work_wanted.filter(|_| self.is_open()) {
            return self.awake_for(Effect::StartWork(kind), |it| it.begin_work(kind));
        }
        if self.may_survey() && self.survey == SurveyState::None {
            self.survey = SurveyState::Running;
            return Some(Effect::Survey);
        }
        if self.may_check() && self.check_slot == SlotState::Held {
            return self.awake_for(Effect::StartCheck, |it| it.check = RunState::Running);
        }
        let has_turn = match self.urgency {
            Urgency::None => false,
            Urgency::InTurn => self.start_slot == SlotState::Held,
            Urgency::AtOnce => true,
        };
        if self.may_run() && has_turn {
            return self.awake_for(Effect::StartSwarm, |it| {
                (it.swarm, it.urgency) = (RunState::Starting, Urgency::None);
            });
        }
        None
    }

    /// Returns what follows once nothing else must begin.
    fn next_conclusion(&mut self) -> Option<Effect> {
        if self.retry == RetryTimer::Wanted {
            self.retry = if self.is_open() { RetryTimer::Scheduled } else { RetryTimer::None };
            if self.is_open() {
                return Some(Effect::ScheduleRetry { after: RETRY });
            }
        }
        // Before announces: these say how much is missing, as it is shown. A seed that is announced before it
        // is shown as one would be taken for a peer without data.
        let status = self.status();
        if self.shown != status || self.is_outdated {
            (self.shown, self.is_outdated) = (status, false);
            return Some(Effect::Show);
        }
        let can_be_found = match self.content {
            ContentState::FetchingMetadata => true,
            ContentState::Ready => !self.recheck,
            _ => false,
        };
        if !self.announced && can_be_found && self.is_open() && !self.is_halted() {
            self.announced = true;
            return Some(Effect::StartAnnouncing);
        }
        if self.closing == Closing::Left {
            (self.closing, self.awake) = (Closing::Gone, false);
            self.shown = LifecycleStatus::Gone;
            return Some(Effect::End);
        }
        if self.awake && self.is_open() && !self.is_busy() && !self.fetching {
            self.awake = false;
            return Some(Effect::Sleep);
        }
        None
    }

    /// Returns `effect` and records it with `begin`, once there is a task for it.
    fn awake_for(&mut self, effect: Effect, begin: impl FnOnce(&mut Self)) -> Option<Effect> {
        if !std::mem::replace(&mut self.awake, true) {
            return Some(Effect::Wake);
        }
        begin(self);
        Some(effect)
    }

    fn begin_work(&mut self, kind: WorkKind) {
        (self.work, self.work_wanted) = (Some(kind), None);
        // Files are not where the survey looks for them.
        self.abandon_survey();
        if kind == WorkKind::Remove {
            (self.paused, self.never_resumed) = (true, false);
            if self.content != ContentState::FetchingMetadata {
                (self.content, self.has_checkpoint) = (ContentState::Unavailable, false);
            }
        }
    }

    /// Returns whether it was not closed.
    fn is_open(&self) -> bool {
        self.closing == Closing::No
    }

    /// Returns whether nothing must be exchanged with peers.
    fn is_halted(&self) -> bool {
        self.paused || self.fault.is_some()
    }

    /// Returns whether nothing comes before what a torrent does by itself.
    fn is_free(&self) -> bool {
        self.is_open() && !self.recheck && self.work_wanted.is_none() && self.work.is_none()
    }

    fn may_fetch(&self) -> bool {
        self.is_open() && !self.is_halted() && self.content == ContentState::FetchingMetadata
    }

    fn may_survey(&self) -> bool {
        self.is_free() && self.fault.is_none() && self.content == ContentState::Surveying
    }

    fn may_check(&self) -> bool {
        self.is_free()
            && self.fault.is_none()
            && !self.restart_check
            && matches!(self.content, ContentState::Unverified(_))
    }

    fn may_run(&self) -> bool {
        self.is_free() && !self.is_halted() && self.content == ContentState::Ready
    }

    /// Returns whether it wants a check slot. Work on files may take hours, so it gives the slot to others.
    /// A check that starts again keeps it.
    fn wants_check_slot(&self) -> bool {
        self.is_open()
            && self.fault.is_none()
            && self.work_wanted.is_none()
            && self.work.is_none()
            && matches!(self.content, ContentState::Unverified(_))
    }

    fn wants_start_slot(&self) -> bool {
        self.may_run() && self.swarm == RunState::Stopped && self.urgency == Urgency::InTurn
    }
}

/// The pause before a passing fault is retried. A full disk rarely has room within seconds.
const RETRY: Duration = Duration::from_secs(30);
