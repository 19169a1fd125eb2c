//! Sequences of events over a torrent's life, compared with the model that its tests use.

use piecework_core::SaturatingFrom;
use std::mem::discriminant;
use std::time::Duration;

use piecework_core::Moment;
use piecework_swarm::lifecycle::model::{Comparison, configs};
use piecework_swarm::lifecycle::{CheckEnd, FaultKind, LifecycleEvent as E, SurveyEnd, SwarmEnd};

use crate::input::Input;

/// Checks after each event that every effect came once and when it was due, and that a torrent whose disks
/// and peers work comes to run.
pub(crate) fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let configs: Vec<_> = configs().collect();
    let config = configs[input.below(u32::saturating_from(configs.len())) as usize];
    let (mut torrent, mut now) = (Comparison::new(config), Moment::START);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            return;
        }
        let choice = input.byte();
        match choice {
            // More than the time for which content is known to be as it was.
            CHOICE_WAIT.. => now = now + Duration::from_secs(1 << input.below(10)),
            CHOICE_STRAY.. => pass_stray(&mut torrent, now, usize::from(choice - CHOICE_STRAY)),
            _ => {
                let possible = torrent.possible();
                let event = possible[usize::from(choice) % possible.len()];
                // Nothing but answers counts after a close, so most torrents stay open.
                if event != E::Close || input.flag() {
                    torrent.pass(now, event);
                }
            }
        }
        torrent.clone().recover(now);
    }
}

/// Passes the answer at place `at` if it was not asked for.
fn pass_stray(torrent: &mut Comparison, now: Moment, at: usize) {
    let answer = STRAY[at % STRAY.len()];
    let possible = torrent.possible();
    if !possible.iter().any(|event| discriminant(event) == discriminant(&answer)) {
        torrent.pass_stray(now, answer);
    }
}

/// Answers, some of each kind.
const STRAY: [E; 16] = [
    E::Surveyed(SurveyEnd::Known),
    E::Surveyed(SurveyEnd::Failed(FaultKind::Passing)),
    E::CheckSlot,
    E::Checked(CheckEnd::Stopped),
    E::Checked(CheckEnd::Known),
    E::Checked(CheckEnd::Failed(FaultKind::Passing)),
    E::StartSlot,
    E::SwarmStarted,
    E::SwarmEnded(SwarmEnd::Idle),
    E::SwarmEnded(SwarmEnd::DoubtedAndFailed(FaultKind::Lasting)),
    E::WorkDone { done: true },
    E::WorkDone { done: false },
    E::Metadata(Ok(())),
    E::Metadata(Err(FaultKind::Passing)),
    E::Left,
    E::RetryDue { room: true },
];

/// Choices from here on pass an answer that was not asked for, those below an event that is possible.
const CHOICE_STRAY: u8 = 216;

/// Choices from here on let time pass.
const CHOICE_WAIT: u8 = 248;

const MAX_STEPS: usize = 1_000;
