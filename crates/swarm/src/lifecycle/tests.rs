use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use proptest::prelude::*;

use super::LifecycleEvent as E;
use super::model::{Comparison, configs};
use super::*;

/// A torrent whose effects are taken after each event. Its time can be moved forward.
struct Torrent {
    life: Lifecycle,
    now: Moment,
}

impl Torrent {
    fn new(config: LifecycleConfig) -> (Self, Vec<Effect>) {
        let mut torrent = Self { life: Lifecycle::new(config), now: Moment::START };
        let effects = torrent.effects();
        (torrent, effects)
    }

    /// A torrent that holds everything it wants, and whose checkpoints are kept.
    fn ready(paused: bool) -> Self {
        let config = LifecycleConfig {
            content: ContentState::Surveying,
            has_checkpoint: true,
            keeps_checkpoints: true,
            paused,
        };
        let (mut torrent, _) = Self::new(config);
        torrent.pass(E::Surveyed(SurveyEnd::Known));
        torrent
    }

    /// A torrent whose swarm runs.
    fn running() -> Self {
        let mut torrent = Self::ready(false);
        assert!(torrent.pass(E::Contacted).contains(&Effect::StartSwarm));
        torrent.pass(E::SwarmStarted);
        torrent
    }

    fn pass(&mut self, event: E) -> Vec<Effect> {
        self.life.handle(self.now, event);
        self.effects()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.life.poll()).collect()
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }
}

#[test]
fn a_torrent_at_rest_is_small() {
    // There may be tens of thousands.
    assert!(size_of::<Lifecycle>() <= 48, "{}", size_of::<Lifecycle>());
}

#[test]
fn a_new_torrent_is_checked_when_it_has_a_slot_and_then_announced() {
    let (mut torrent, effects) = Torrent::new(LifecycleConfig::default());
    assert_eq!(effects, [Effect::AskCheckSlot, Effect::Show]);
    let effects = torrent.pass(E::CheckSlot);
    assert_eq!(effects, [Effect::Wake, Effect::StartCheck, Effect::Show]);
    assert_eq!(torrent.life.status(), LifecycleStatus::Checking);
    let effects = torrent.pass(E::Checked(CheckEnd::Known));
    let end = [Effect::ReturnCheckSlot, Effect::Show, Effect::StartAnnouncing, Effect::Sleep];
    assert_eq!(effects, end);
}

#[test]
fn a_torrent_with_a_checkpoint_is_surveyed_without_a_task_and_hashes_what_is_left() {
    let config = LifecycleConfig {
        content: ContentState::Surveying,
        has_checkpoint: true,
        ..LifecycleConfig::default()
    };
    let (mut torrent, effects) = Torrent::new(config);
    assert_eq!(effects, [Effect::Survey, Effect::Show]);
    let effects = torrent.pass(E::Surveyed(SurveyEnd::Incomplete));
    assert_eq!(effects, [Effect::AskCheckSlot]);
    assert_eq!(torrent.life.content(), ContentState::Unverified(CheckScope::Part));
}

#[test]
fn a_paused_torrent_is_surveyed_and_hashed_but_neither_runs_nor_announces() {
    let config = LifecycleConfig { paused: true, ..LifecycleConfig::default() };
    let (mut torrent, _) = Torrent::new(config);
    torrent.pass(E::Workload(Workload::Prompt));
    assert!(torrent.pass(E::CheckSlot).contains(&Effect::StartCheck));
    let effects = torrent.pass(E::Checked(CheckEnd::Known));
    assert_eq!(effects, [Effect::ReturnCheckSlot, Effect::Show, Effect::Sleep]);
    let effects = torrent.pass(E::Resume);
    assert_eq!(effects, [Effect::Wake, Effect::StartSwarm, Effect::Show, Effect::StartAnnouncing]);
}

#[test]
fn a_download_waits_for_a_start_slot_unless_a_peer_is_there() {
    let mut torrent = Torrent::ready(true);
    torrent.pass(E::Workload(Workload::Download));
    let effects = torrent.pass(E::Resume);
    assert_eq!(effects, [Effect::AskStartSlot, Effect::Show, Effect::StartAnnouncing]);
    assert_eq!(torrent.pass(E::Contacted), [Effect::Wake, Effect::StartSwarm]);
    // Its slot comes nevertheless, and goes to the next torrent once the swarm has started.
    assert_eq!(torrent.pass(E::StartSlot), []);
    assert_eq!(torrent.pass(E::SwarmStarted), [Effect::ReturnStartSlot]);
    // A download whose swarm found nothing to do waits for a peer.
    assert_eq!(torrent.pass(E::SwarmEnded(SwarmEnd::Idle)), [Effect::Sleep]);
    assert_eq!(torrent.pass(E::Workload(Workload::Download)), []);
    assert_eq!(torrent.pass(E::Workload(Workload::Prompt)), [Effect::Wake, Effect::StartSwarm]);
}

#[test]
fn a_pause_that_is_taken_back_before_it_was_polled_leaves_no_trace() {
    let mut torrent = Torrent::running();
    torrent.wait(3_600);
    torrent.life.handle(torrent.now, E::Pause);
    assert_eq!(torrent.pass(E::Resume), []);
}

#[test]
fn a_torrent_that_is_resumed_while_its_swarm_ends_waits_for_that() {
    let mut torrent = Torrent::running();
    let effects = torrent.pass(E::Pause);
    assert_eq!(effects, [Effect::StopAnnouncing, Effect::StopSwarm, Effect::Show]);
    torrent.pass(E::Workload(Workload::Prompt));
    assert_eq!(torrent.pass(E::Resume), [Effect::Show, Effect::StartAnnouncing]);
    assert_eq!(torrent.pass(E::SwarmEnded(SwarmEnd::Stopped)), [Effect::StartSwarm]);
}

#[test]
fn content_that_was_known_long_ago_is_surveyed_before_a_torrent_continues() {
    let mut torrent = Torrent::ready(false);
    torrent.pass(E::Pause);
    torrent.wait(4);
    assert!(!torrent.pass(E::Resume).contains(&Effect::Survey));
    torrent.pass(E::Pause);
    torrent.wait(1);
    let effects = torrent.pass(E::Resume);
    assert_eq!(effects, [Effect::Forget, Effect::Survey, Effect::Show]);
    // A torrent that was added paused and never ran is believed for longer.
    let mut torrent = Torrent::ready(true);
    torrent.wait(299);
    assert!(!torrent.pass(E::Resume).contains(&Effect::Survey));
}

#[test]
fn without_a_checkpoint_what_could_not_be_read_is_hashed_anew() {
    let (mut torrent, _) = Torrent::new(LifecycleConfig::default());
    torrent.pass(E::CheckSlot);
    let effects = torrent.pass(E::Checked(CheckEnd::Failed(FaultKind::Passing)));
    let end = [Effect::ReportFault, Effect::ReturnCheckSlot, Effect::Show, Effect::Sleep];
    // Nobody keeps checkpoints, so nothing is tried again either.
    assert_eq!(effects, end);
    assert_eq!(torrent.life.status(), LifecycleStatus::Failed);
    let effects = torrent.pass(E::Resume);
    assert_eq!(effects, [Effect::Forget, Effect::AskCheckSlot, Effect::Show]);
}

#[test]
fn a_full_disk_is_tried_again_until_there_is_room_but_not_against_a_user() {
    let mut torrent = Torrent::running();
    let effects = torrent.pass(E::SwarmEnded(SwarmEnd::Refused(FaultKind::Passing)));
    let retry = Effect::ScheduleRetry { after: Duration::from_secs(30) };
    let end = [Effect::ReportFault, Effect::StopAnnouncing, retry, Effect::Show, Effect::Sleep];
    assert_eq!(effects, end);
    assert_eq!(torrent.pass(E::RetryDue { room: false }), [retry]);
    assert!(torrent.pass(E::RetryDue { room: true }).contains(&Effect::Survey));
    torrent.pass(E::Surveyed(SurveyEnd::Failed(FaultKind::Passing)));
    torrent.pass(E::Pause);
    assert_eq!(torrent.pass(E::RetryDue { room: true }), []);
    assert!(torrent.pass(E::Resume).contains(&Effect::Survey));
}

#[test]
fn a_survey_that_fails_is_repeated_once_if_somebody_resumed_meanwhile() {
    let mut torrent = Torrent::ready(false);
    torrent.pass(E::Failed(FaultKind::Lasting));
    assert!(torrent.pass(E::Resume).contains(&Effect::Survey));
    torrent.pass(E::Resume);
    let failed = E::Surveyed(SurveyEnd::Failed(FaultKind::Lasting));
    assert!(torrent.pass(failed).contains(&Effect::Survey));
    assert!(torrent.pass(failed).contains(&Effect::ReportFault));
}

#[test]
fn an_answer_to_a_survey_from_before_a_move_is_not_believed() {
    let mut torrent = Torrent::ready(false);
    torrent.wait(10);
    torrent.pass(E::Pause);
    assert!(torrent.pass(E::Resume).contains(&Effect::Survey));
    let effects = torrent.pass(E::Work(WorkKind::Move));
    assert_eq!(effects, [Effect::Wake, Effect::StartWork(WorkKind::Move), Effect::Show]);
    assert_eq!(torrent.pass(E::WorkDone { done: true }), [Effect::Show, Effect::Sleep]);
    // The files were not where this survey looked.
    let failed = E::Surveyed(SurveyEnd::Failed(FaultKind::Lasting));
    assert_eq!(torrent.pass(failed), [Effect::Survey]);
}

#[test]
fn a_recheck_waits_for_what_is_under_way_and_resumes_the_torrent() {
    let mut torrent = Torrent::running();
    assert_eq!(torrent.pass(E::Recheck), [Effect::StopSwarm]);
    // The fault of a swarm that ends anyway stops nothing.
    let effects = torrent.pass(E::SwarmEnded(SwarmEnd::Failed(FaultKind::Lasting)));
    let begin = [Effect::Forget, Effect::KeepRecheck, Effect::AskCheckSlot];
    assert_eq!(effects, [&begin[..], &[Effect::Show, Effect::Sleep]].concat());
    let mut torrent = Torrent::ready(true);
    let effects = torrent.pass(E::Recheck);
    assert_eq!(effects, [&begin[..], &[Effect::Show]].concat());
    assert!(!torrent.life.is_paused());
}

#[test]
fn a_recheck_during_a_check_of_some_pieces_begins_one_of_all() {
    let mut torrent = Torrent::running();
    torrent.pass(E::SwarmEnded(SwarmEnd::Doubted));
    assert!(torrent.pass(E::CheckSlot).contains(&Effect::StartCheck));
    assert_eq!(torrent.pass(E::Recheck), [Effect::StopCheck]);
    let effects = torrent.pass(E::Checked(CheckEnd::Stopped));
    assert_eq!(effects, [Effect::Forget, Effect::KeepRecheck, Effect::StartCheck, Effect::Show]);
    // A check of everything continues.
    assert_eq!(torrent.pass(E::Recheck), []);
}

#[test]
fn work_on_files_interrupts_a_check_and_gives_others_its_slot() {
    let (mut torrent, _) = Torrent::new(LifecycleConfig::default());
    torrent.pass(E::CheckSlot);
    assert_eq!(torrent.pass(E::Work(WorkKind::Move)), [Effect::StopCheck]);
    let effects = torrent.pass(E::Checked(CheckEnd::Stopped));
    let work = Effect::StartWork(WorkKind::Move);
    assert_eq!(effects, [Effect::ReturnCheckSlot, work, Effect::Show]);
    let effects = torrent.pass(E::WorkDone { done: true });
    assert_eq!(effects, [Effect::AskCheckSlot, Effect::Show, Effect::Sleep]);
}

#[test]
fn a_torrent_whose_files_are_elsewhere_is_hashed_and_one_without_files_stays_paused() {
    let mut torrent = Torrent::running();
    torrent.pass(E::Work(WorkKind::Find));
    torrent.pass(E::SwarmEnded(SwarmEnd::Stopped));
    assert!(torrent.pass(E::WorkDone { done: true }).contains(&Effect::AskCheckSlot));
    let mut torrent = Torrent::running();
    torrent.pass(E::Work(WorkKind::Remove));
    let effects = torrent.pass(E::SwarmEnded(SwarmEnd::Stopped));
    let work = Effect::StartWork(WorkKind::Remove);
    assert_eq!(effects, [work, Effect::StopAnnouncing, Effect::Show]);
    let effects = torrent.pass(E::WorkDone { done: true });
    assert_eq!(effects, [Effect::Forget, Effect::Show, Effect::Sleep]);
    assert_eq!(torrent.life.status(), LifecycleStatus::Paused);
}

#[test]
fn files_that_may_be_replaced_have_a_check_begin_anew() {
    let (mut torrent, _) = Torrent::new(LifecycleConfig::default());
    assert_eq!(torrent.pass(E::Overwrite), []);
    torrent.pass(E::CheckSlot);
    assert_eq!(torrent.pass(E::Overwrite), [Effect::StopCheck]);
    assert_eq!(torrent.pass(E::Checked(CheckEnd::Stopped)), [Effect::StartCheck]);
}

#[test]
fn metadata_is_fetched_while_the_torrent_is_announced_and_its_content_is_checked_then() {
    let config = LifecycleConfig {
        content: ContentState::FetchingMetadata,
        keeps_checkpoints: true,
        ..LifecycleConfig::default()
    };
    let (mut torrent, effects) = Torrent::new(config);
    let fetch = [Effect::Wake, Effect::FetchMetadata, Effect::Show, Effect::StartAnnouncing];
    assert_eq!(effects, fetch);
    let effects = torrent.pass(E::Pause);
    let pause = [Effect::StopAnnouncing, Effect::StopFetching, Effect::Show, Effect::Sleep];
    assert_eq!(effects, pause);
    assert_eq!(torrent.pass(E::Resume), fetch);
    let effects = torrent.pass(E::Metadata(Ok(())));
    assert_eq!(effects, [Effect::Forget, Effect::AskCheckSlot, Effect::Show, Effect::Sleep]);
}

#[test]
fn a_torrent_that_is_closed_ends_everything_before_it_leaves_and_hears_nothing_then() {
    let mut torrent = Torrent::running();
    assert_eq!(torrent.pass(E::Close), [Effect::StopSwarm]);
    assert_eq!(torrent.pass(E::Resume), []);
    assert_eq!(torrent.pass(E::SwarmEnded(SwarmEnd::Stopped)), [Effect::Leave]);
    assert_eq!(torrent.pass(E::Close), []);
    assert_eq!(torrent.pass(E::Left), [Effect::End]);
    assert_eq!(torrent.pass(E::Resume), []);
    // A slot that was asked for goes on to the next torrent.
    let (mut torrent, _) = Torrent::new(LifecycleConfig::default());
    torrent.pass(E::Close);
    assert_eq!(torrent.pass(E::Left), [Effect::End]);
    assert_eq!(torrent.pass(E::CheckSlot), [Effect::ReturnCheckSlot]);
}

/// Visits all states that any sequence of these events leads to, whatever its length. Returns how many
/// there are.
fn explore(
    configs: impl Iterator<Item = LifecycleConfig>,
    is_considered: impl Fn(&E) -> bool,
) -> usize {
    let mut known: HashSet<Comparison, FixedState> = HashSet::default();
    let mut open: VecDeque<Comparison> = VecDeque::new();
    for config in configs {
        let torrent = Comparison::new(config);
        if known.insert(torrent.clone()) {
            open.push_back(torrent);
        }
    }
    // Time decides nothing but freshness.
    let (early, late) = (Moment::START, Moment::from_secs(3_600));
    while let Some(torrent) = open.pop_front() {
        for event in torrent.possible().iter().filter(|event| is_considered(event)) {
            for now in [early, late] {
                let is_timed = matches!(event, E::Resume | E::RetryDue { .. });
                if now == late && !is_timed {
                    continue;
                }
                let mut next = torrent.clone();
                next.pass(now, *event);
                if !known.contains(&next) {
                    open.push_back(next.clone());
                    known.insert(next);
                }
            }
        }
        torrent.recover(late);
    }
    known.len()
}

#[test]
fn from_every_state_of_its_content_a_torrent_can_come_to_run() {
    let states = explore(configs(), |event| match event {
        E::Overwrite | E::Checkpointed | E::Workload(Workload::Download) => false,
        E::Work(kind) => *kind == WorkKind::Remove,
        _ => true,
    });
    assert!(states > 10_000, "{states}");
}

#[test]
fn from_every_state_of_its_files_and_its_start_a_torrent_can_come_to_run() {
    let kept = configs().filter(|config| config.keeps_checkpoints && config.paused);
    let states = explore(kept.skip(1).take(1), |event| {
        !matches!(event, E::Failed(_) | E::Checkpointed | E::Recheck | E::Work(WorkKind::Remove))
    });
    assert!(states > 10_000, "{states}");
}

/// All 340,000 states, in half a minute.
#[test]
#[ignore = "takes half a minute; .ci/run runs it"]
fn from_every_state_a_torrent_can_come_to_run() {
    assert!(explore(configs(), |_| true) > 100_000);
}

proptest! {
    #[test]
    fn every_sequence_of_events_keeps_to_the_model(
        config in (0..20_usize).prop_map(|at| configs().nth(at).unwrap()),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..600_u64), 1..200),
    ) {
        let (mut torrent, mut now) = (Comparison::new(config), Moment::START);
        for (choice, seconds) in steps {
            let events = torrent.possible();
            // Torrents are closed rarely, or nothing else would be seen.
            let event = *choice.get(&events);
            let is_rare = event == E::Close && seconds % 16 != 0;
            if !is_rare {
                now = now + Duration::from_secs(if seconds < 500 { 0 } else { seconds - 499 });
                torrent.pass(now, event);
                torrent.clone().recover(now);
            }
        }
    }
}
