//! The loop of a torrent at work, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use crate::net::Input;
use piecework_core::Moment;
use piecework_swarm::lifecycle::{LifecycleEvent, SwarmEnd};
use piecework_swarm::{Direction, Event, HeardAddress, WaitTimes};

use super::super::TorrentError;
use super::super::announce_scheduler::Alone;
use super::super::start_slots;
use super::peers::LONELY;
use super::publish;
use super::{Reason, Run};

impl Run<'_> {
    /// Pumps until there is nothing to do, or it has to stop. Returns how it ended, and the fault
    /// if there was one.
    pub(crate) async fn pump_until_end(mut self) -> (SwarmEnd, Option<TorrentError>) {
        let means = Arc::clone(&self.torrent.means);
        self.act();
        self.begin_proofs();
        self.publish(true);
        self.ask_for_peers();
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let reason = loop {
            if let Some(reason) = self.reason.take() {
                break reason;
            }
            if self.torrent.is_stopping() {
                break Reason::Stopped;
            }
            let wake = self.wake_at();
            if self.may_sleep(wake) {
                break Reason::Idle;
            }
            if let Some(wake) = wake {
                timer.as_mut().reset(means.clock.instant(wake));
            }
            if !self.torrent.record().life.is_exchanging() {
                // Its files are made, and others may begin.
                self.torrent.pass(LifecycleEvent::SwarmStarted);
            }
            tokio::select! {
                call = self.torrent.calls.recv() => {
                    if let Some(call) = call {
                        self.hear(call);
                    }
                }
                Some(step) = self.steps.recv() => self.step(step),
                Some(input) = self.inputs.recv(), if !self.assembly.is_behind() => {
                    self.input(input);
                    self.drain_inputs();
                }
                Some(dialed) = self.dialed.recv() => self.dialed(dialed),
                () = self.assembly.nudged() => {
                    self.memory.speak_at = Some(means.now());
                    self.assembly.give_back(&self.torrent.means.hashing);
                }
                Some(proof) = self.proofs.results.recv() => self.proof(proof),
                flushed = self.flushing.done(), if self.flushing.is_working() => {
                    if let Err(error) = self.flushed(flushed) {
                        self.fail(error);
                    }
                }
                () = &mut timer, if wake.is_some() => {
                    if self.swarm.deadline().is_some_and(|deadline| deadline <= means.now()) {
                        self.tell(Event::Timeout);
                    }
                    self.changed = true;
                }
            }
            self.act();
            self.begin_proofs();
            self.flush_if_due();
            self.tell_sent(false);
            self.look();
            self.publish(false);
            self.ask_for_peers();
        };
        self.end(reason).await
    }

    /// Disconnects all peers, and waits for the jobs that the hash service still has: what is
    /// written later would be missed by the next check, or by the last flush.
    async fn end(mut self, reason: Reason) -> (SwarmEnd, Option<TorrentError>) {
        let now = self.torrent.means.now();
        let is_idle = matches!(reason, Reason::Idle);
        let alone = (is_idle && self.is_leeching()).then(|| {
            let missing = self.swarm.progress().pieces_wanted_left;
            self.waits.alone(now, missing, self.swarm.hung_up())
        });
        self.ending = true;
        let dialled = self.swarm.peers().filter(|peer| peer.direction == Direction::Outgoing);
        let heard = dialled.map(|peer| HeardAddress { addr: peer.who.addr, source: peer.source });
        let lost = heard.filter(|heard| !heard.source.is_named()).collect();
        self.tell(Event::Pause);
        self.act();
        self.see(self.torrent.means.now());
        while self.assembly.is_working() {
            let Some(step) = self.steps.recv().await else { break };
            self.step(step);
            self.act();
        }
        // What was sent and not taken in yet.
        while let Ok(input) = self.inputs.try_recv() {
            if let Input::Uploaded { peer, pieces, .. } = input {
                self.sent(peer, &pieces);
            }
        }
        self.tell_sent(true);
        let start = self.torrent.start_slot.clone();
        let flushed = start_slots::begin(start, self.last_flush()).await;
        let fault = match reason {
            Reason::Fault(error) => Some(error),
            Reason::Idle | Reason::Stopped | Reason::Doubt => flushed.err(),
        };
        self.count();
        let has_stayed = is_idle && fault.is_none();
        self.note_end(lost, alone, has_stayed);
        let end = self.conclude(is_idle, fault.as_ref());
        (end, fault)
    }

    /// Notes in the record what is known at the end. `lost` are peers that it had dialled, `alone`
    /// is what it goes on waiting for.
    fn note_end(&mut self, lost: Vec<HeardAddress>, alone: Option<Arc<WaitTimes>>, is_idle: bool) {
        let moved = self.moved();
        let waited = self.waits.seen();
        let blame = self.swarm.take_blame().filter(|_| is_idle);
        let have = self.swarm.have().clone();
        let unproven = self.proofs.unproven().cloned();
        let complaints = std::mem::take(&mut self.complaints);
        let record = self.torrent.record_mut();
        record.rare.change(|rare| {
            rare.lost = lost;
            rare.waited = alone.or(waited);
            rare.blame = blame;
            rare.complaints = Some(complaints).filter(|complaints| !complaints.is_empty());
        });
        record.set_earlier(moved);
        record.set_have(Some(have));
        record.set_unproven(unproven);
    }

    /// Returns how it ended, and notes what is in doubt.
    fn conclude(&mut self, is_idle: bool, fault: Option<&TorrentError>) -> SwarmEnd {
        let doubt = self.doubt.take();
        let metainfo = Arc::clone(&self.torrent.entry.metainfo);
        let record = self.torrent.record_mut();
        match (fault.map(TorrentError::kind), doubt) {
            // All of it is checked in any case.
            (Some(kind), _) if self.unsure => SwarmEnd::Failed(kind),
            (Some(kind), Some(_)) => {
                record.kept = None;
                SwarmEnd::DoubtedAndFailed(kind)
            }
            (Some(kind), None) => SwarmEnd::Refused(kind),
            (None, Some(doubt)) => {
                record.doubt(&metainfo, doubt);
                SwarmEnd::Doubted
            }
            (None, None) if is_idle => SwarmEnd::Idle,
            (None, None) => SwarmEnd::Stopped,
        }
    }

    /// Takes in what else has come: one turn for many batches.
    fn drain_inputs(&mut self) {
        for _ in 0..INPUTS_A_TURN {
            match self.inputs.try_recv() {
                Ok(input) => self.input(input),
                Err(_) => break,
            }
        }
    }

    /// Returns whether it may fall asleep, if the next thing to be done of its own accord is due at
    /// `wake`.
    fn may_sleep(&self, wake: Option<Moment>) -> bool {
        if !self.is_idle() {
            return false;
        }
        let Some(wake) = wake else { return !self.leeching || self.may_forget() };
        // Addresses that have failed several times are not waited for. The tracker names them again
        // if they are still on its list when it is next asked, which is as soon as it allows.
        let is_far = |due: Moment| due > self.torrent.means.now() + SOON;
        self.leeching
            && self.told_alone == Some(Alone::Downloading)
            && is_far(wake)
            && self.swarm.deadline() == Some(wake)
            && self.may_forget()
            && !self.swarm.has_named_peers()
            && self.torrent.scheduler.has_trackers(self.torrent.entry.info_hash())
    }

    /// Returns whether the swarm of a download without peers may end.
    fn may_forget(&self) -> bool {
        self.forgets_at().is_none_or(|at| at <= self.torrent.means.now())
    }

    /// Returns when the swarm of a download without peers may end, if not at once. Parts of pieces
    /// wait some time for a peer that brings the rest. A peer that comes and goes must not cause
    /// files to be prepared each time.
    fn forgets_at(&self) -> Option<Moment> {
        let since = self.alone_since?;
        match self.swarm.is_at_rest() {
            true => self.had_peers.then(|| since + LINGER),
            false => Some(since + KEEP_PARTS),
        }
    }

    /// Returns whether nothing will happen before a timer is due, unless somebody calls.
    fn is_idle(&self) -> bool {
        self.links.is_empty()
            && self.dialing == 0
            && self.torrent.calls.is_empty()
            && !self.assembly.is_working()
            && !self.flushing.is_working()
            && !self.proofs.is_working()
    }

    fn wake_at(&self) -> Option<Moment> {
        let show = self.changed.then(|| self.published + publish::EVERY);
        let lonely = match self.alone_since {
            Some(_) => self.forgets_at().filter(|_| !self.may_forget()),
            None => Some(self.asked_for_peers + LONELY),
        };
        let lonely = lonely.filter(|_| self.leeching);
        let flush = self.flushing.due();
        let tally = self.tally.due();
        let look = self.waits.due();
        let speak = self.memory.speak_at;
        let due = [self.swarm.deadline(), show, lonely, flush, tally, look, speak];
        due.into_iter().flatten().min()
    }
}

const INPUTS_A_TURN: usize = 16;
/// Time that a download stays awake after its last peer has left.
const LINGER: Duration = Duration::from_secs(30);
/// Time that a download without peers keeps parts of pieces in memory.
const KEEP_PARTS: Duration = Duration::from_secs(600);
/// A download without peers sleeps if an address that failed may be dialled again only after this
/// time, which is after the third failure.
const SOON: Duration = Duration::from_secs(25);
