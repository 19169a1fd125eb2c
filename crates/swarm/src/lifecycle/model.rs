//! A model of a torrent and of its driver, for tests and for `fuzz/`.
//!
//! The model goes from event to event and does not look for the least that is to be done. It checks that each
//! effect is due when it comes, and that nothing is missing when no more effects come.

use piecework_core::Moment;

use super::{
    CheckEnd, CheckScope, ContentState, Effect, FRESH, FRESH_SINCE_ADDED, FaultKind, Lifecycle,
    LifecycleConfig, LifecycleEvent, LifecycleStatus, Occupation, SurveyEnd, SwarmEnd, WorkKind,
    Workload,
};

/// A torrent beside its model. Each event goes to both, and each effect is compared.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Comparison {
    life: Lifecycle,
    model: Model,
}

impl Comparison {
    /// Starts both with the same configuration.
    pub fn new(config: LifecycleConfig) -> Self {
        let mut comparison = Self { life: Lifecycle::new(config), model: Model::new(config) };
        comparison.settle();
        comparison
    }

    /// Returns the events that a driver may pass now.
    pub fn possible(&self) -> Vec<LifecycleEvent> {
        self.model.possible()
    }

    /// Passes an event that is possible.
    ///
    /// # Panics
    /// If an effect comes that is not due, or twice, or does not come although it is due.
    pub fn pass(&mut self, now: Moment, event: LifecycleEvent) {
        self.model.event(now, event);
        self.life.handle(now, event);
        self.settle();
    }

    /// Passes an answer to something that was not asked for.
    ///
    /// # Panics
    /// If the answer has an effect.
    pub fn pass_stray(&mut self, now: Moment, answer: LifecycleEvent) {
        let before = self.life;
        self.life.handle(now, answer);
        assert_eq!(self.life, before, "{answer:?} was not asked for");
        assert_eq!(self.life.poll(), None, "{answer:?} was not asked for: {before:?}");
    }

    /// Takes all effects.
    fn settle(&mut self) {
        let mut taken = Vec::new();
        while let Some(effect) = self.life.poll() {
            assert!(!taken.contains(&effect), "{effect:?} twice in {taken:?}");
            self.model.effect(effect);
            taken.push(effect);
        }
        self.model.settled(&self.life);
    }

    /// Goes on with disks and peers that work, until the torrent runs, or has ended if it was closed.
    ///
    /// # Panics
    /// If it comes to neither.
    pub fn recover(mut self, now: Moment) {
        let before = self.life;
        match self.model.recovers() {
            true => {
                assert!(self.model.timer, "a passing fault is not retried: {before:?}");
                self.pass(now, LifecycleEvent::RetryDue { room: true });
            }
            false => self.pass(now, LifecycleEvent::Resume),
        }
        self.answer(now);
        if self.model.closed {
            assert!(self.model.ended, "{before:?} does not end");
            return;
        }
        if self.life.is_paused() {
            // Files that were about to be deleted were, and that pauses.
            self.pass(now, LifecycleEvent::Resume);
            self.answer(now);
        }
        assert_eq!(self.life.status(), LifecycleStatus::Ready, "{before:?}");
        assert!(self.model.announced, "{before:?}");
        self.pass(now, LifecycleEvent::Contacted);
        self.answer(now);
        assert!(self.model.is_running(), "{before:?} does not run");
    }

    fn answer(&mut self, now: Moment) {
        for _ in 0..MAX_ANSWERS {
            let Some(event) = self.model.healthy() else { return };
            self.pass(now, event);
        }
        panic!("{:?} never rests", self.life);
    }
}

/// Returns every way in which a torrent can begin.
pub fn configs() -> impl Iterator<Item = LifecycleConfig> {
    let contents = [
        (ContentState::FetchingMetadata, false),
        (ContentState::Surveying, true),
        (ContentState::Surveying, false),
        (ContentState::Unverified(CheckScope::All), false),
        (ContentState::Ready, false),
    ];
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    contents.into_iter().flat_map(move |(content, has_checkpoint)| {
        flags.map(|(keeps_checkpoints, paused)| LifecycleConfig {
            content,
            has_checkpoint,
            keeps_checkpoints,
            paused,
        })
    })
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Model {
    keeps: bool,
    content: ContentState,
    paused: bool,
    fault: Option<FaultKind>,
    checkpoint: bool,
    known: Moment,
    never_resumed: bool,
    recheck: bool,
    replace: bool,
    work_wanted: Option<WorkKind>,
    closed: bool,

    // What the driver was told to do.
    /// Whether the answer counts.
    survey: Option<bool>,
    again: bool,
    check_slot: Slot,
    start_slot: Slot,
    /// Whether it was told to stop.
    check: Option<bool>,
    /// Whether its files are prepared, and whether it was told to stop.
    swarm: Option<(bool, bool)>,
    work: Option<(WorkKind, bool)>,
    fetching: bool,
    leaving: bool,
    left: bool,
    ended: bool,
    announced: bool,
    awake: bool,
    timer: bool,

    // What is due since the last event.
    report: bool,
    forget: bool,
    keep: bool,
    keep_recheck: bool,
    /// What is known of the content has changed, and was not shown since.
    outdated: bool,
    retry: bool,
    /// A peer waits to serve or to be served.
    contacted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Slot {
    None,
    Asked,
    Held,
}

impl Model {
    fn new(config: LifecycleConfig) -> Self {
        Self {
            keeps: config.keeps_checkpoints,
            content: config.content,
            paused: config.paused,
            fault: None,
            checkpoint: config.has_checkpoint,
            known: Moment::START,
            never_resumed: config.paused,
            recheck: false,
            replace: false,
            work_wanted: None,
            closed: false,
            survey: None,
            again: false,
            check_slot: Slot::None,
            start_slot: Slot::None,
            check: None,
            swarm: None,
            work: None,
            fetching: false,
            leaving: false,
            left: false,
            ended: false,
            announced: false,
            awake: false,
            timer: false,
            report: false,
            forget: false,
            keep: false,
            keep_recheck: false,
            outdated: true,
            retry: false,
            contacted: false,
        }
    }

    /// Returns every event that a driver may pass now.
    fn possible(&self) -> Vec<LifecycleEvent> {
        use LifecycleEvent as E;
        let faults = [FaultKind::Passing, FaultKind::Lasting];
        let mut all = Vec::with_capacity(32);
        all.extend([E::Pause, E::Resume, E::Recheck, E::Overwrite, E::Close]);
        all.extend([WorkKind::Move, WorkKind::Find, WorkKind::Remove].map(E::Work));
        all.extend([Workload::None, Workload::Download, Workload::Prompt].map(E::Workload));
        all.extend([E::Contacted, E::Failed(FaultKind::Lasting)]);
        if self.survey.is_some() {
            all.extend([SurveyEnd::Known, SurveyEnd::Incomplete].map(E::Surveyed));
            all.extend(faults.map(|fault| E::Surveyed(SurveyEnd::Failed(fault))));
        }
        if self.check_slot == Slot::Asked {
            all.push(E::CheckSlot);
        }
        if self.start_slot == Slot::Asked {
            all.push(E::StartSlot);
        }
        if self.check.is_some() {
            all.extend([CheckEnd::Stopped, CheckEnd::Known, CheckEnd::Incomplete].map(E::Checked));
            all.push(E::Checked(CheckEnd::Damaged(FaultKind::Lasting)));
            all.extend(faults.map(|fault| E::Checked(CheckEnd::Failed(fault))));
        }
        if let Some((started, _)) = self.swarm {
            if !started {
                all.push(E::SwarmStarted);
            }
            let ends = [SwarmEnd::Stopped, SwarmEnd::Idle, SwarmEnd::Changed, SwarmEnd::Doubted];
            all.extend(ends.map(E::SwarmEnded));
            all.extend(faults.map(|fault| E::SwarmEnded(SwarmEnd::Refused(fault))));
            all.extend(faults.map(|fault| E::SwarmEnded(SwarmEnd::Failed(fault))));
            all.push(E::SwarmEnded(SwarmEnd::DoubtedAndFailed(FaultKind::Lasting)));
            all.push(E::Checkpointed);
        }
        if self.work.is_some() {
            all.extend([true, false].map(|done| E::WorkDone { done }));
        }
        if self.fetching {
            all.extend([E::Metadata(Ok(())), E::Metadata(Err(FaultKind::Lasting))]);
        }
        if self.leaving {
            all.push(E::Left);
        }
        if self.timer {
            all.extend([true, false].map(|room| E::RetryDue { room }));
        }
        all
    }

    /// Returns the next answer of a driver whose disks and peers work. `None` if nothing is left to answer.
    fn healthy(&self) -> Option<LifecycleEvent> {
        use LifecycleEvent as E;
        if self.survey.is_some() {
            return Some(E::Surveyed(SurveyEnd::Known));
        }
        if self.check_slot == Slot::Asked {
            return Some(E::CheckSlot);
        }
        if self.start_slot == Slot::Asked {
            return Some(E::StartSlot);
        }
        if let Some(stopped) = self.check {
            let end = if stopped { CheckEnd::Stopped } else { CheckEnd::Known };
            return Some(E::Checked(end));
        }
        match self.swarm {
            Some((_, true)) => return Some(E::SwarmEnded(SwarmEnd::Stopped)),
            Some((false, false)) => return Some(E::SwarmStarted),
            _ => {}
        }
        if self.work.is_some() {
            return Some(E::WorkDone { done: true });
        }
        if self.fetching {
            return Some(E::Metadata(Ok(())));
        }
        self.leaving.then_some(E::Left)
    }

    /// Returns whether the torrent will be retried after its fault without a user.
    fn recovers(&self) -> bool {
        !self.closed && self.keeps && self.fault == Some(FaultKind::Passing) && !self.paused
    }

    fn is_running(&self) -> bool {
        self.swarm == Some((true, false))
    }

    fn fail(&mut self, fault: FaultKind) {
        (self.fault, self.report) = (Some(fault), true);
        self.retry |= fault == FaultKind::Passing && self.keeps;
    }

    fn look_again(&mut self) {
        self.content = match self.checkpoint {
            true => ContentState::Surveying,
            false => ContentState::Unverified(CheckScope::All),
        };
        self.forget = true;
    }

    fn know(&mut self, now: Moment) {
        (self.content, self.known) = (ContentState::Ready, now);
        self.checkpoint |= self.keeps;
        self.keep = self.keeps;
        self.outdated = true;
    }

    fn resume(&mut self, now: Moment) {
        if !self.paused && self.fault.is_none() {
            self.again = self.survey == Some(true);
            return;
        }
        let fault = self.fault.take();
        let limit = if self.never_resumed { FRESH_SINCE_ADDED } else { FRESH };
        let is_old = fault.is_some() || now.since(self.known) >= limit;
        (self.paused, self.never_resumed) = (false, false);
        let was_stopped = self.swarm.is_none_or(|(_, stopped)| stopped);
        match self.content {
            ContentState::Ready if self.checkpoint && is_old && was_stopped => self.look_again(),
            ContentState::Unavailable => self.look_again(),
            _ => {}
        }
    }

    fn event(&mut self, now: Moment, event: LifecycleEvent) {
        use LifecycleEvent as E;
        self.contacted = false;
        match event {
            E::Surveyed(end) => self.surveyed(now, end),
            E::CheckSlot => self.check_slot = Slot::Held,
            E::StartSlot => self.start_slot = Slot::Held,
            E::Checked(end) => self.checked(now, end),
            E::SwarmStarted => self.swarm = self.swarm.map(|(_, stopped)| (true, stopped)),
            E::SwarmEnded(end) => self.swarm_ended(end),
            E::WorkDone { done } => self.work_done(done),
            E::Metadata(result) => {
                self.fetching = false;
                match result {
                    Ok(()) => self.look_again(),
                    Err(fault) => self.fail(fault),
                }
            }
            E::Left => (self.leaving, self.left) = (false, true),
            // Nobody listens any more.
            E::RetryDue { .. } if self.closed => self.timer = false,
            _ if self.closed => {}
            E::RetryDue { room } => self.retry_due(now, room),
            _ => self.request(now, event),
        }
        if self.recheck && !self.is_busy() && !self.closed {
            self.begin_recheck();
        }
    }

    /// An event that answers nothing.
    fn request(&mut self, now: Moment, event: LifecycleEvent) {
        use LifecycleEvent as E;
        match event {
            E::Pause => self.paused = true,
            E::Resume => self.resume(now),
            E::Recheck => {
                (self.paused, self.never_resumed, self.fault) = (false, false, None);
                let all = self.content == ContentState::Unverified(CheckScope::All);
                self.recheck = self.content != ContentState::FetchingMetadata
                    && !(all && self.check.is_some());
            }
            E::Overwrite => self.replace = self.check.is_some(),
            E::Workload(_) => {}
            E::Contacted => self.contacted = true,
            E::Checkpointed => {
                if self.keeps {
                    (self.checkpoint, self.known) = (true, now);
                }
            }
            E::Work(kind) => self.work_wanted = self.work_wanted.max(Some(kind)),
            E::Failed(fault) => self.fail(fault),
            E::Close => {
                (self.closed, self.work_wanted, self.again) = (true, None, false);
                self.survey = self.survey.map(|_| false);
            }
            _ => unreachable!("{event:?} is an answer"),
        }
    }

    fn surveyed(&mut self, now: Moment, end: SurveyEnd) {
        let (counts, again) = (self.survey.take(), std::mem::take(&mut self.again));
        match end {
            _ if counts != Some(true) => {}
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
        (self.check, self.replace) = (None, false);
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
        self.swarm = None;
        match end {
            SwarmEnd::Stopped | SwarmEnd::Idle => {}
            SwarmEnd::Changed => self.look_again(),
            SwarmEnd::Doubted => self.content = ContentState::Unverified(CheckScope::Part),
            SwarmEnd::Refused(fault) => self.fail(fault),
            SwarmEnd::Failed(fault) => {
                self.content = ContentState::Unavailable;
                self.fail(fault);
            }
            SwarmEnd::DoubtedAndFailed(fault) => {
                (self.content, self.checkpoint) = (ContentState::Unavailable, false);
                self.fail(fault);
            }
        }
    }

    fn work_done(&mut self, done: bool) {
        let (kind, _) = self.work.take().expect("there is work");
        self.forget |= kind == WorkKind::Remove;
        let has_files = self.content != ContentState::FetchingMetadata;
        if kind == WorkKind::Find && done && has_files {
            self.checkpoint = false;
            self.look_again();
        }
    }

    fn retry_due(&mut self, now: Moment, room: bool) {
        self.timer = false;
        if self.fault == Some(FaultKind::Passing) && !self.paused {
            match room {
                true => self.resume(now),
                false => self.retry = true,
            }
        }
    }

    fn begin_recheck(&mut self) {
        (self.recheck, self.again) = (false, false);
        (self.fault, self.report) = (None, false);
        self.content = ContentState::Unverified(CheckScope::All);
        self.survey = self.survey.map(|_| false);
        self.forget = true;
        // A checkpoint from before the check is of no use.
        self.keep &= !(self.checkpoint && self.keeps);
        self.keep_recheck = self.checkpoint && self.keeps;
    }

    fn is_busy(&self) -> bool {
        self.check.is_some() || self.swarm.is_some() || self.work.is_some()
    }

    fn is_halted(&self) -> bool {
        self.paused || self.fault.is_some()
    }

    /// Returns whether nothing keeps the torrent from what it would do by itself.
    fn is_free(&self) -> bool {
        !self.closed && !self.recheck && self.work_wanted.is_none() && self.work.is_none()
    }

    fn may_run(&self) -> bool {
        self.is_free() && !self.is_halted() && self.content == ContentState::Ready
    }

    fn may_check(&self) -> bool {
        let unverified = matches!(self.content, ContentState::Unverified(_));
        self.is_free() && self.fault.is_none() && unverified && !self.replace
    }

    fn wants_check_slot(&self) -> bool {
        let unverified = matches!(self.content, ContentState::Unverified(_));
        let works = self.work_wanted.is_some() || self.work.is_some();
        !self.closed && self.fault.is_none() && unverified && !works
    }

    /// Checks that `effect` is due, and carries it out.
    fn effect(&mut self, effect: Effect) {
        let due = |is_due: bool| assert!(is_due, "{effect:?} of {self:?}");
        assert!(!self.ended || matches!(effect, Effect::ReturnCheckSlot | Effect::ReturnStartSlot));
        match effect {
            Effect::ReportFault => due(self.report),
            Effect::Forget => due(self.forget),
            Effect::KeepCheckpoint => due(self.keep && self.keeps),
            Effect::KeepRecheck => due(self.keep_recheck && self.check.is_none()),
            Effect::StopAnnouncing => due(self.announced && self.is_halted()),
            Effect::StopSwarm => {
                due(self.swarm.is_some_and(|(_, stopped)| !stopped) && !self.may_run());
            }
            Effect::StopCheck => due(self.check == Some(false) && !self.may_check()),
            Effect::StopFetching => due(self.fetching && (self.is_halted() || self.closed)),
            Effect::CancelWork => due(self.work.is_some_and(|(_, told)| !told) && self.closed),
            Effect::ReturnCheckSlot => {
                due(self.check_slot == Slot::Held && self.check.is_none());
                due(!self.wants_check_slot());
            }
            Effect::ReturnStartSlot => {
                due(self.start_slot == Slot::Held);
                due(self.swarm.is_none_or(|(started, stopped)| started && !stopped));
            }
            Effect::Wake => due(!self.awake),
            Effect::FetchMetadata => {
                due(self.awake && !self.fetching && !self.is_halted() && !self.closed);
                due(self.content == ContentState::FetchingMetadata);
            }
            Effect::Survey => {
                due(self.survey.is_none() && !self.is_busy() && self.is_free());
                due(self.fault.is_none() && self.content == ContentState::Surveying);
            }
            Effect::AskCheckSlot => due(self.check_slot == Slot::None && self.wants_check_slot()),
            Effect::AskStartSlot => {
                due(self.start_slot == Slot::None && self.may_run() && self.swarm.is_none());
            }
            Effect::StartWork(kind) => {
                due(self.awake && !self.is_busy() && !self.closed);
                due(self.work_wanted == Some(kind));
            }
            Effect::StartCheck => {
                due(self.awake && !self.is_busy() && self.may_check());
                due(self.check_slot == Slot::Held);
            }
            Effect::StartSwarm => due(self.awake && !self.is_busy() && self.may_run()),
            Effect::Leave => due(self.closed && !self.is_busy() && !self.leaving && !self.left),
            Effect::StartAnnouncing => {
                due(!self.announced && !self.is_halted() && !self.closed);
                // An announce says how much is missing, as it is shown.
                due(!self.outdated);
            }
            Effect::ScheduleRetry { .. } => due(self.retry && !self.timer && !self.closed),
            Effect::Show => {}
            Effect::Sleep => due(self.awake && !self.is_busy() && !self.fetching && !self.closed),
            Effect::End => due(self.left && !self.ended),
        }
        self.carry_out(effect);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ReportFault => self.report = false,
            Effect::Forget => (self.forget, self.outdated) = (false, true),
            Effect::KeepCheckpoint => self.keep = false,
            Effect::KeepRecheck => self.keep_recheck = false,
            Effect::StopAnnouncing => self.announced = false,
            Effect::StopSwarm => self.swarm = self.swarm.map(|(started, _)| (started, true)),
            Effect::StopCheck => self.check = Some(true),
            Effect::StopFetching => self.fetching = false,
            Effect::CancelWork => self.work = self.work.map(|(kind, _)| (kind, true)),
            Effect::ReturnCheckSlot => self.check_slot = Slot::None,
            Effect::ReturnStartSlot => self.start_slot = Slot::None,
            Effect::Wake => self.awake = true,
            Effect::FetchMetadata => self.fetching = true,
            Effect::Survey => self.survey = Some(true),
            Effect::AskCheckSlot => self.check_slot = Slot::Asked,
            Effect::AskStartSlot => self.start_slot = Slot::Asked,
            Effect::StartWork(kind) => {
                (self.work, self.work_wanted) = (Some((kind, false)), None);
                self.survey = self.survey.map(|_| false);
                self.again = false;
                if kind == WorkKind::Remove {
                    (self.paused, self.never_resumed) = (true, false);
                    if self.content != ContentState::FetchingMetadata {
                        (self.content, self.checkpoint) = (ContentState::Unavailable, false);
                    }
                }
            }
            Effect::StartCheck => self.check = Some(false),
            Effect::StartSwarm => self.swarm = Some((false, false)),
            Effect::Leave => (self.leaving, self.announced) = (true, false),
            Effect::StartAnnouncing => self.announced = true,
            Effect::ScheduleRetry { .. } => (self.timer, self.retry) = (true, false),
            Effect::Show => self.outdated = false,
            Effect::Sleep => self.awake = false,
            Effect::End => (self.ended, self.awake) = (true, false),
        }
    }

    /// Checks that no effect is missing when no more come, and that both have the same state.
    fn settled(&mut self, life: &Lifecycle) {
        assert_eq!(life.content(), self.content, "{self:?}");
        assert_eq!((life.is_paused(), life.fault()), (self.paused, self.fault), "{self:?}");
        let holds = |holds: bool, what: &str| assert!(holds, "{what}: {self:?}");
        holds(!self.report && !self.forget && !self.keep && !self.keep_recheck, "told");
        holds(!self.outdated, "what is known is shown");
        holds(!self.retry || self.timer || self.closed, "a fault that may pass is tried again");
        self.retry = false;
        let holds = |holds: bool, what: &str| assert!(holds, "{what}: {self:?}");
        let stopping = match life.occupation() {
            Some(Occupation::Swarm) => self.swarm.map(|(_, stopped)| stopped),
            Some(Occupation::Check) => self.check,
            Some(Occupation::Work(kind)) => self.work.filter(|it| it.0 == kind).map(|it| it.1),
            None => (!self.is_busy()).then_some(false),
        };
        assert_eq!(stopping, Some(life.is_stopping()), "{self:?}");
        assert_eq!(life.has_start_slot(), self.start_slot == Slot::Held);
        let swarm_runs = self.swarm.is_some_and(|(_, stopped)| !stopped);
        holds(!swarm_runs || self.may_run(), "a swarm runs only if it may");
        holds(self.check != Some(false) || self.may_check(), "a check, too");
        holds(!self.announced || !self.is_halted(), "who is halted is not announced");
        holds(self.announced || !self.may_run(), "who may run is announced");
        let rests = !self.is_busy();
        let surveys = self.is_free() && self.fault.is_none() && rests;
        let surveys = surveys && self.content == ContentState::Surveying;
        holds(self.survey.is_some() || !surveys, "a survey that is needed goes on");
        holds(self.check_slot != Slot::None || !self.wants_check_slot(), "a slot is asked for");
        let checks = self.check_slot == Slot::Held && self.may_check();
        holds(!checks || !rests, "who has a slot uses it");
        let is_kept = self.wants_check_slot() || self.check.is_some();
        holds(self.check_slot != Slot::Held || is_kept, "or gives it back");
        let starts = self.swarm.is_some_and(|(started, stopped)| !started || stopped);
        holds(self.start_slot != Slot::Held || starts, "a start slot is held only to start");
        let serves = self.contacted && self.may_run() && rests;
        holds(!serves, "who is contacted wakes");
        let works = self.work_wanted.is_some() && rests && !self.closed;
        holds(!works, "work begins when nothing is in the way");
        let leaves = self.closed && rests;
        holds(!leaves || self.leaving || self.ended, "who is closed leaves");
        let needed = !rests || self.fetching;
        holds(self.awake == needed || self.closed, "a task is there if it is needed");
    }
}

/// More answers than any state needs.
const MAX_ANSWERS: usize = 20;
