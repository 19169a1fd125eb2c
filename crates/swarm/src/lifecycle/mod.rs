//! The life of one torrent, from the first look at its files to its end. No I/O.
//!
//! A [`Lifecycle`] decides when a torrent's files are surveyed and hashed, when its swarm runs, when it is
//! announced, and when it needs a task. A driver passes in what happened with [`Lifecycle::handle`] and
//! then carries out what [`Lifecycle::poll`] returns until that is `None`. Bitfields, fingerprints and
//! error texts stay with the driver. The lifecycle has only what decisions depend on.
//!
//! Three parts of the state are independent of each other:
//!
//! | part | values |
//! |---|---|
//! | what is known of the content | [`ContentState`] |
//! | whether a user has paused the torrent | [`Lifecycle::is_paused`] |
//! | what it stopped on | [`Lifecycle::fault`] |
//!
//! Content is surveyed and hashed even while a torrent is paused, but not while it has a fault.
//!
//! ```text
//!  FetchingMetadata ──▶ Unverified ──check──▶ Ready ◀──survey── Surveying
//!                         ▲  ▲ ▲                │ │                ▲ │ │
//!                         │  │ └─ doubt, recheck┘ └──── changed ───┘ │ │
//!                         │  └───────────── pieces to hash ──────────┘ │
//!                         └─────── resume ── Unavailable ◀── fault ────┘
//! ```
//!
//! Decisions depend only on the state: `poll` compares what should be under way with what is, and returns
//! the difference. So the order of events does not matter, an order that is taken back before it was polled
//! leaves no trace, and no effect is returned twice.
//!
//! Four kinds of work exclude each other: a survey of the content, a check of the content, the swarm, and
//! work on the files. New work waits until the current work has ended. Each kind of work ends exactly once.

mod effects;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod model;

#[cfg(test)]
mod tests;

use std::time::Duration;

use piecework_core::Moment;

pub use effects::Effect;
pub use events::{CheckEnd, FaultKind, LifecycleEvent, SurveyEnd, SwarmEnd, WorkKind, Workload};

/// The state of one torrent.
///
/// ```
/// use piecework_core::Moment;
/// use piecework_swarm::lifecycle::{
///     CheckEnd, ContentState, Effect, Lifecycle, LifecycleConfig, LifecycleEvent, Workload,
/// };
///
/// let mut torrent = Lifecycle::new(LifecycleConfig::default());
/// assert_eq!(torrent.poll(), Some(Effect::AskCheckSlot));
/// assert_eq!(torrent.poll(), Some(Effect::Show));
/// assert_eq!(torrent.poll(), None);
///
/// torrent.handle(Moment::START, LifecycleEvent::CheckSlot);
/// assert_eq!(torrent.poll(), Some(Effect::Wake));
/// assert_eq!(torrent.poll(), Some(Effect::StartCheck));
/// assert_eq!(torrent.poll(), Some(Effect::Show));
///
/// torrent.handle(Moment::START, LifecycleEvent::Workload(Workload::Prompt));
/// torrent.handle(Moment::START, LifecycleEvent::Checked(CheckEnd::Known));
/// assert_eq!(torrent.content(), ContentState::Ready);
/// assert_eq!(torrent.poll(), Some(Effect::ReturnCheckSlot));
/// assert_eq!(torrent.poll(), Some(Effect::StartSwarm));
/// assert_eq!(torrent.poll(), Some(Effect::Show));
/// assert_eq!(torrent.poll(), Some(Effect::StartAnnouncing));
/// assert_eq!(torrent.poll(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lifecycle {
    /// When the content was last known.
    known_at: Moment,
    content: ContentState,
    fault: Option<FaultKind>,
    paused: bool,
    /// It was added paused and has not been resumed since.
    never_resumed: bool,
    /// There is a checkpoint against which its files can be surveyed.
    has_checkpoint: bool,
    /// Checkpoints of it are kept, and passing faults are retried.
    keeps_checkpoints: bool,
    /// Everything must be hashed as soon as the current work has ended.
    recheck: bool,
    /// A survey that fails is repeated once, because the torrent was resumed while it ran.
    survey_again: bool,
    /// The running check must start again, because files may be replaced now.
    restart_check: bool,
    workload: Workload,
    urgency: Urgency,
    closing: Closing,
    work_wanted: Option<WorkKind>,

    // What the driver was asked for.
    survey: SurveyState,
    check: RunState,
    swarm: RunState,
    work: Option<WorkKind>,
    work_cancelled: bool,
    fetching: bool,
    check_slot: SlotState,
    start_slot: SlotState,
    retry: RetryTimer,
    announced: bool,
    awake: bool,

    // What the driver was not told yet.
    forgets: bool,
    keeps: Option<PendingRecord>,
    reports_fault: bool,
    shown: LifecycleStatus,
    is_outdated: bool,
}

/// The initial state of a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LifecycleConfig {
    /// What is known of its content.
    pub content: ContentState,
    /// There is a checkpoint of an earlier session.
    pub has_checkpoint: bool,
    /// Checkpoints of it are kept. Then passing faults are retried, too: without a keeper, a program ends
    /// on a fault.
    pub keeps_checkpoints: bool,
    /// It is added paused.
    pub paused: bool,
}

/// What is known of the content on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ContentState {
    /// Only the info-hash is known.
    FetchingMetadata,
    /// The files are being compared with the last checkpoint.
    Surveying,
    /// Pieces must be hashed.
    Unverified(CheckScope),
    /// It is known which pieces are held.
    Ready,
    /// The files could not be read, or are gone.
    Unavailable,
}

/// How much of the content must be hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckScope {
    /// All of it.
    All,
    /// Some pieces: those that a survey could not confirm, or that are in doubt.
    Part,
}

/// What a torrent is doing, for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LifecycleStatus {
    /// It asks peers for its metadata.
    FetchingMetadata,
    /// It waits for a survey or a check slot.
    Waiting,
    /// Its content is being hashed.
    Checking,
    /// Its files are being moved, renamed or deleted.
    Moving,
    /// It takes part in its swarm, or could.
    Ready,
    /// A user has paused it.
    Paused,
    /// It has stopped on a fault.
    Failed,
    /// It has ended.
    Gone,
}

/// What a torrent's task is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Occupation {
    /// [`Effect::StartSwarm`] was returned, and the swarm has not ended.
    Swarm,
    /// [`Effect::StartCheck`] was returned, and the check has not ended.
    Check,
    /// [`Effect::StartWork`] was returned, and the work has not ended.
    Work(WorkKind),
}

/// Whether the swarm must be started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Urgency {
    /// Nothing to do.
    None,
    /// When a start slot is free.
    InTurn,
    /// Now.
    AtOnce,
}

/// The state of an activity that can be told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum RunState {
    Stopped,
    /// Its files are being prepared. Only for a swarm.
    Starting,
    Running,
    Stopping,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum SurveyState {
    None,
    Running,
    /// Its answer will be ignored.
    Obsolete,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum SlotState {
    None,
    Asked,
    Held,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum RetryTimer {
    None,
    Wanted,
    Scheduled,
}

/// How far the end of a torrent has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Closing {
    No,
    /// The current work is ending.
    Requested,
    /// Trackers are being told, and data is being flushed.
    Leaving,
    /// Everything is done except [`Effect::End`].
    Left,
    Gone,
}

/// What the driver must keep.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum PendingRecord {
    Checkpoint,
    Recheck,
}

impl Lifecycle {
    /// Returns the state of a torrent that has just been added.
    pub fn new(config: LifecycleConfig) -> Self {
        let LifecycleConfig { content, has_checkpoint, keeps_checkpoints, paused } = config;
        Self {
            known_at: Moment::START,
            content,
            fault: None,
            paused,
            never_resumed: paused,
            has_checkpoint,
            keeps_checkpoints,
            recheck: false,
            survey_again: false,
            restart_check: false,
            workload: Workload::None,
            urgency: Urgency::None,
            closing: Closing::No,
            work_wanted: None,
            survey: SurveyState::None,
            check: RunState::Stopped,
            swarm: RunState::Stopped,
            work: None,
            work_cancelled: false,
            fetching: false,
            check_slot: SlotState::None,
            start_slot: SlotState::None,
            retry: RetryTimer::None,
            announced: false,
            awake: false,
            forgets: false,
            keeps: None,
            reports_fault: false,
            shown: LifecycleStatus::Waiting,
            is_outdated: true,
        }
    }

    /// Returns what is known of the content.
    pub fn content(&self) -> ContentState {
        self.content
    }

    /// Returns whether a user has paused it.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Returns the fault that it has stopped on.
    pub fn fault(&self) -> Option<FaultKind> {
        self.fault
    }

    /// Returns what its task is doing. A task that was woken for something else looks here for what to do.
    pub fn occupation(&self) -> Option<Occupation> {
        match self.work {
            Some(kind) => Some(Occupation::Work(kind)),
            None if self.check != RunState::Stopped => Some(Occupation::Check),
            None if self.swarm != RunState::Stopped => Some(Occupation::Swarm),
            None => None,
        }
    }

    /// Returns whether its current work was told to stop.
    pub fn is_stopping(&self) -> bool {
        let told = [self.check, self.swarm].contains(&RunState::Stopping);
        told || self.work_cancelled
    }

    /// Returns whether its swarm has started and not ended.
    pub fn is_exchanging(&self) -> bool {
        matches!(self.swarm, RunState::Running | RunState::Stopping)
    }

    /// Returns whether the answer of a survey is awaited. The answer of an obsolete survey is ignored.
    pub fn awaits_survey(&self) -> bool {
        self.survey == SurveyState::Running
    }

    /// Returns whether it has a check slot.
    pub fn has_check_slot(&self) -> bool {
        self.check_slot == SlotState::Held
    }

    /// Returns whether it has a start slot, which the driver may give to others early if its disk hangs.
    pub fn has_start_slot(&self) -> bool {
        self.start_slot == SlotState::Held
    }

    /// Returns what it is doing.
    pub fn status(&self) -> LifecycleStatus {
        match self.content {
            _ if self.closing == Closing::Gone => LifecycleStatus::Gone,
            _ if self.work.is_some() => LifecycleStatus::Moving,
            _ if self.fault.is_some() => LifecycleStatus::Failed,
            ContentState::Surveying => LifecycleStatus::Waiting,
            ContentState::Unverified(_) if self.check == RunState::Stopped => {
                LifecycleStatus::Waiting
            }
            ContentState::Unverified(_) => LifecycleStatus::Checking,
            _ if self.paused => LifecycleStatus::Paused,
            ContentState::FetchingMetadata => LifecycleStatus::FetchingMetadata,
            ContentState::Unavailable => LifecycleStatus::Waiting,
            ContentState::Ready => LifecycleStatus::Ready,
        }
    }

    /// Handles an event. Call [`Lifecycle::poll`] afterwards until it returns `None`.
    ///
    /// An answer to something that was not asked for has no effect. Once the torrent is closed, only
    /// answers have effects.
    pub fn handle(&mut self, now: Moment, event: LifecycleEvent) {
        use LifecycleEvent as E;
        match event {
            E::Surveyed(end) => self.surveyed(now, end),
            E::CheckSlot => take_slot(&mut self.check_slot),
            E::Checked(end) => self.checked(now, end),
            E::StartSlot => take_slot(&mut self.start_slot),
            E::SwarmStarted if self.swarm == RunState::Starting => {
                self.swarm = RunState::Running;
            }
            E::SwarmStarted => {}
            E::SwarmEnded(end) => self.swarm_ended(end),
            E::WorkDone { done } => self.work_done(done),
            E::Metadata(result) => self.metadata(result),
            E::Left if self.closing == Closing::Leaving => self.closing = Closing::Left,
            E::Left => {}
            _ if self.closing != Closing::No => {}
            E::Pause => self.paused = true,
            E::Resume => self.resume(now),
            E::RetryDue { room } => self.retry_due(now, room),
            E::Recheck => self.request_recheck(),
            E::Overwrite => self.restart_check = self.check != RunState::Stopped,
            E::Workload(workload) => self.set_workload(workload),
            E::Contacted if self.swarm != RunState::Running => self.urgency = Urgency::AtOnce,
            E::Contacted => {}
            E::Checkpointed if self.keeps_checkpoints => {
                self.has_checkpoint = true;
                self.known_at = now;
            }
            E::Checkpointed => {}
            E::Work(kind) => self.work_wanted = self.work_wanted.max(Some(kind)),
            E::Failed(fault) => self.fail(fault),
            E::Close => {
                self.closing = Closing::Requested;
                self.work_wanted = None;
                self.abandon_survey();
            }
        }
        self.apply_recheck();
    }

    /// Continues after a pause or a fault.
    fn resume(&mut self, now: Moment) {
        if !self.paused && self.fault.is_none() {
            // What this survey finds may have been repaired while it ran.
            self.survey_again = self.survey == SurveyState::Running;
            return;
        }
        if self.fault.is_none() && self.is_running() {
            // It was not told to stop yet.
            self.paused = false;
            return;
        }
        let fresh_for = if self.never_resumed { FRESH_SINCE_ADDED } else { FRESH };
        let is_fresh = self.fault.is_none() && now.since(self.known_at) < fresh_for;
        (self.paused, self.never_resumed, self.fault) = (false, false, None);
        match self.content {
            ContentState::Ready if self.has_checkpoint && !is_fresh => self.look_again(),
            ContentState::Ready => self.urgency = self.urgency.max(self.workload.urgency()),
            // Nothing is known of what is on the disk. Without a look, all of it would be downloaded again.
            ContentState::Unavailable => self.look_again(),
            ContentState::FetchingMetadata
            | ContentState::Surveying
            | ContentState::Unverified(_) => {}
        }
    }

    /// Tries again after a fault that may have passed. A torrent that a user has paused meanwhile stays as
    /// it is.
    fn retry_due(&mut self, now: Moment, room: bool) {
        if self.retry != RetryTimer::Scheduled {
            return;
        }
        self.retry = RetryTimer::None;
        if self.fault != Some(FaultKind::Passing) || self.paused {
            return;
        }
        match room {
            true => self.resume(now),
            false => self.retry = RetryTimer::Wanted,
        }
    }

    fn fail(&mut self, fault: FaultKind) {
        self.fault = Some(fault);
        (self.reports_fault, self.is_outdated) = (true, true);
        if fault == FaultKind::Passing && self.keeps_checkpoints && self.retry == RetryTimer::None {
            self.retry = RetryTimer::Wanted;
        }
    }

    /// Examines the content again because it is not as expected: it is surveyed, or hashed if there is no
    /// checkpoint.
    fn look_again(&mut self) {
        self.content = match self.has_checkpoint {
            true => ContentState::Surveying,
            false => ContentState::Unverified(CheckScope::All),
        };
        self.forgets = true;
    }

    fn know(&mut self, now: Moment) {
        (self.content, self.known_at) = (ContentState::Ready, now);
        self.is_outdated = true;
        self.urgency = self.urgency.max(self.workload.urgency());
        if self.keeps_checkpoints {
            self.has_checkpoint = true;
            self.keeps = Some(PendingRecord::Checkpoint);
        }
    }

    fn surveyed(&mut self, now: Moment, end: SurveyEnd) {
        let is_awaited = self.survey == SurveyState::Running;
        let again = std::mem::take(&mut self.survey_again);
        self.survey = SurveyState::None;
        if !is_awaited {
            return;
        }
        match end {
            SurveyEnd::Known => self.know(now),
            SurveyEnd::Incomplete => self.content = ContentState::Unverified(CheckScope::Part),
            SurveyEnd::Failed(_) if again => self.look_again(),
            SurveyEnd::Failed(fault) => {
                self.content = ContentState::Unavailable;
                self.fail(fault);
            }
        }
    }

    fn checked(&mut self, now: Moment, end: CheckEnd) {
        if self.check == RunState::Stopped {
            return;
        }
        self.check = RunState::Stopped;
        self.restart_check = false;
        match end {
            CheckEnd::Stopped => {}
            CheckEnd::Known => self.know(now),
            CheckEnd::Incomplete => self.content = ContentState::Unverified(CheckScope::Part),
            CheckEnd::Damaged(fault) => {
                self.know(now);
                self.fail(fault);
            }
            CheckEnd::Failed(fault) => {
                self.content = ContentState::Unavailable;
                self.fail(fault);
            }
        }
    }

    fn swarm_ended(&mut self, end: SwarmEnd) {
        if self.swarm == RunState::Stopped {
            return;
        }
        self.swarm = RunState::Stopped;
        match end {
            SwarmEnd::Idle => {}
            SwarmEnd::Stopped => self.urgency = self.urgency.max(self.workload.urgency()),
            SwarmEnd::Changed => self.look_again(),
            SwarmEnd::Doubted => self.content = ContentState::Unverified(CheckScope::Part),
            SwarmEnd::Refused(fault) => self.fail(fault),
            SwarmEnd::Failed(fault) => {
                self.content = ContentState::Unavailable;
                self.fail(fault);
            }
            SwarmEnd::DoubtedAndFailed(fault) => {
                (self.content, self.has_checkpoint) = (ContentState::Unavailable, false);
                self.fail(fault);
            }
        }
    }

    fn work_done(&mut self, done: bool) {
        self.work_cancelled = false;
        let Some(kind) = self.work.take() else { return };
        // Even if only some files could be deleted.
        self.forgets |= kind == WorkKind::Remove;
        if kind == WorkKind::Find && done && self.content != ContentState::FetchingMetadata {
            self.has_checkpoint = false;
            self.look_again();
        }
        if self.content == ContentState::Ready {
            self.urgency = self.urgency.max(self.workload.urgency());
        }
    }

    fn metadata(&mut self, result: Result<(), FaultKind>) {
        if !std::mem::take(&mut self.fetching) {
            return;
        }
        match result {
            Ok(()) => self.look_again(),
            Err(fault) => self.fail(fault),
        }
    }

    /// Hashes everything again. Then the torrent continues.
    fn request_recheck(&mut self) {
        (self.paused, self.never_resumed, self.fault) = (false, false, None);
        let is_checking = self.check != RunState::Stopped
            && self.content == ContentState::Unverified(CheckScope::All);
        // A check of everything continues.
        self.recheck = !is_checking && self.content != ContentState::FetchingMetadata;
    }

    fn apply_recheck(&mut self) {
        if !self.recheck || self.is_busy() || self.closing != Closing::No {
            return;
        }
        self.recheck = false;
        // A fault that stopped it while it ended will show again if it lasts.
        (self.fault, self.reports_fault) = (None, false);
        self.content = ContentState::Unverified(CheckScope::All);
        self.abandon_survey();
        self.forgets = true;
        if self.has_checkpoint && self.keeps_checkpoints {
            self.keeps = Some(PendingRecord::Recheck);
        }
    }

    fn abandon_survey(&mut self) {
        if self.survey == SurveyState::Running {
            self.survey = SurveyState::Obsolete;
        }
        self.survey_again = false;
    }

    fn set_workload(&mut self, workload: Workload) {
        if workload > self.workload && self.swarm != RunState::Running {
            self.urgency = self.urgency.max(workload.urgency());
        } else if workload == Workload::None && self.urgency == Urgency::InTurn {
            self.urgency = Urgency::None;
        }
        self.workload = workload;
    }

    /// Returns whether the swarm was started and not told to stop.
    fn is_running(&self) -> bool {
        matches!(self.swarm, RunState::Starting | RunState::Running)
    }

    /// Returns whether files are being read or written, except by a survey.
    fn is_busy(&self) -> bool {
        self.occupation().is_some()
    }
}

impl Default for LifecycleConfig {
    /// A torrent about which nothing is known, and that keeps nothing.
    fn default() -> Self {
        Self {
            content: ContentState::Unverified(CheckScope::All),
            has_checkpoint: false,
            keeps_checkpoints: false,
            paused: false,
        }
    }
}

impl Workload {
    fn urgency(self) -> Urgency {
        match self {
            Self::None => Urgency::None,
            Self::Download => Urgency::InTurn,
            Self::Prompt => Urgency::AtOnce,
        }
    }
}

fn take_slot(slot: &mut SlotState) {
    if *slot == SlotState::Asked {
        *slot = SlotState::Held;
    }
}

/// Content that was known this recently is not surveyed again: a torrent that is added and then resumed.
const FRESH: Duration = Duration::from_secs(5);

/// The same for torrents that have not been resumed since they were added: a daemon that starts surveys
/// tens of thousands of torrents before it resumes the first.
const FRESH_SINCE_ADDED: Duration = Duration::from_secs(5 * 60);
