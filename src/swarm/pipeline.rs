//! What one peer owes us, and how much it should owe.
//!
//! The window is twice the rate times the time a request takes to come back, so that the peer
//! always has the next request at hand. It starts small and grows by one a block, which doubles it
//! every round trip, until the rate no longer follows.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::{BLOCK_LEN, Moment, PieceIndex};

#[derive(Debug)]
pub(super) struct Pipeline {
    owed: VecDeque<Owed>,
    /// Blocks asked for once and given up; they may still come.
    lapsed: VecDeque<Owed>,
    window: usize,
    ceiling: usize,
    start: Option<SlowStart>,
    /// Bytes a second.
    rate: u64,
    min_rtt: Option<Duration>,
    measured_since: Moment,
    measured_bytes: u64,
    /// When it last gave a block, or began to owe one.
    progress_at: Moment,
    snubbed: bool,
    /// Nothing is asked for before.
    hold_until: Option<Moment>,
    rejects: u32,
}

/// What keeps a peer's blocks from coming faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing yet: each round of the slow start was faster than the one before.
    Growing,
    /// The window: it is as large as it may be, and its blocks are all here before the peer could
    /// have heard that it may send more.
    Bound,
    /// The peer, or its line.
    Given,
}

/// A request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) piece: PieceIndex,
    pub(super) index: u32,
    pub(super) asked_at: Moment,
}

#[derive(Debug, Clone, Copy)]
struct SlowStart {
    /// Blocks until this round is over.
    left: usize,
    since: Moment,
    bytes: u64,
    best: u64,
    /// Rounds that were not faster.
    strikes: u32,
}

impl Pipeline {
    pub(super) fn new(now: Moment, ceiling: usize) -> Self {
        let mut pipeline = Self {
            owed: VecDeque::new(),
            lapsed: VecDeque::new(),
            window: FIRST_WINDOW,
            ceiling: ceiling.max(1),
            start: None,
            rate: 0,
            min_rtt: None,
            measured_since: now,
            measured_bytes: 0,
            progress_at: now,
            snubbed: false,
            hold_until: None,
            rejects: 0,
        };
        pipeline.start_slowly(now);
        pipeline
    }

    /// The peer takes at most this many requests at a time.
    pub(super) fn set_ceiling(&mut self, ceiling: usize) {
        self.ceiling = ceiling.max(1);
        self.window = self.window.min(self.ceiling);
    }

    /// A block is asked for.
    pub(super) fn push(&mut self, now: Moment, piece: PieceIndex, index: u32) {
        if self.owed.is_empty() {
            self.progress_at = now;
            self.measured_since = now;
            self.measured_bytes = 0;
            if let Some(start) = &mut self.start {
                start.left = self.window;
                start.since = now;
                start.bytes = 0;
            }
        }
        self.owed.push_back(Owed { piece, index, asked_at: now });
    }

    /// Takes a request off the list, if it is on it.
    pub(super) fn take(&mut self, piece: PieceIndex, index: u32) -> Option<Owed> {
        let at = self.owed.iter().position(|o| o.index == index && o.piece == piece)?;
        self.owed.remove(at)
    }

    /// Like [`Pipeline::take`], but the block may still come and is then no fault.
    pub(super) fn lapse(&mut self, piece: PieceIndex, index: u32) -> bool {
        let taken = self.take(piece, index);
        if let Some(owed) = taken {
            self.remember(owed);
        }
        taken.is_some()
    }

    /// Gives up one request after the other, the newest first.
    pub(super) fn lapse_last(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_back()?;
        self.remember(owed);
        Some(owed)
    }

    /// Gives up all requests for one piece.
    pub(super) fn lapse_piece(&mut self, piece: PieceIndex) {
        while let Some(at) = self.owed.iter().position(|owed| owed.piece == piece) {
            if let Some(owed) = self.owed.remove(at) {
                self.remember(owed);
            }
        }
    }

    /// Gives up all requests for pieces of which `is_unwanted` says so, and names them.
    pub(super) fn lapse_where(&mut self, is_unwanted: impl Fn(PieceIndex) -> bool) -> Vec<Owed> {
        let unwanted = |owed: &&Owed| is_unwanted(owed.piece);
        let lapsed: Vec<Owed> = self.owed.iter().filter(unwanted).copied().collect();
        if !lapsed.is_empty() {
            self.owed.retain(|owed| !is_unwanted(owed.piece));
            lapsed.iter().for_each(|owed| self.remember(*owed));
        }
        lapsed
    }

    /// The request for a block, if it was given up; it is forgotten then.
    pub(super) fn take_lapsed(&mut self, piece: PieceIndex, index: u32) -> Option<Owed> {
        let at = self.lapsed.iter().position(|o| o.index == index && o.piece == piece)?;
        self.lapsed.remove(at)
    }

    /// A block that was asked for at `asked_at` (`None` if that is not known any more) came.
    pub(super) fn received(&mut self, now: Moment, asked_at: Option<Moment>, bytes: u32) {
        if self.snubbed {
            self.snubbed = false;
            self.start_slowly(now);
        }
        self.rejects = 0;
        self.hold_until = None;
        self.progress_at = now;
        if let Some(asked_at) = asked_at {
            let rtt = now.since(asked_at);
            self.min_rtt = Some(self.min_rtt.map_or(rtt, |least| least.min(rtt)));
        }
        self.measured_bytes += u64::from(bytes);
        self.measure(now);
        match self.start {
            Some(start) => self.grow(now, start, bytes),
            None => self.window = self.wanted_window().clamp(self.floor(), self.ceiling),
        }
    }

    /// It has owed us for too long. What it owes must have been given up.
    pub(super) fn snub(&mut self, now: Moment) {
        self.snubbed = true;
        self.progress_at = now;
        self.window = 1;
        self.start = None;
        self.rate = 0;
    }

    /// It is to be taken as having given something `later` than it did, though not after `latest`.
    pub(super) fn excuse(&mut self, later: Duration, latest: Moment) {
        self.progress_at = self.progress_at.max(latest.min(self.progress_at + later));
    }

    /// It refused a request although it serves us: it gets a pause, longer each time, so that
    /// requests and refusals do not chase each other.
    pub(super) fn refused(&mut self, now: Moment) -> Moment {
        let pause = FIRST_REJECT_PAUSE * (1 << self.rejects.min(MAX_REJECT_DOUBLINGS));
        self.rejects = self.rejects.saturating_add(1);
        let until = now + pause;
        self.hold_until = Some(until);
        until
    }

    /// How many blocks to ask for now: none until a quarter of the window is free, so that
    /// requests go out in runs.
    pub(super) fn room(&self, now: Moment) -> usize {
        if self.owed.len() * 4 > self.window * 3 || self.is_held(now) {
            return 0;
        }
        self.window.saturating_sub(self.owed.len())
    }

    /// Whether it has not answered everything it was asked, given up or not.
    pub(super) fn has_unanswered(&self) -> bool {
        !self.owed.is_empty() || !self.lapsed.is_empty()
    }

    /// Requests it has not answered.
    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Owed> {
        self.owed.iter()
    }

    pub(super) fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Whether it gets a pause for having refused.
    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.hold_until.is_some_and(|until| now < until)
    }

    /// What its blocks wait for, and how many bytes a second they are, as far as that is known.
    pub(super) fn pace(&self) -> (Pace, u64) {
        if let Some(start) = self.start {
            let grows = start.best > 0 && start.strikes == 0;
            return (if grows { Pace::Growing } else { Pace::Given }, start.best);
        }
        // A request that waits at the peer behind others takes longer than the quickest did: then
        // more of them would only wait longer. If all are answered as quickly, rate × round trip is
        // the whole window.
        let quickest = self.min_rtt.unwrap_or_default().as_nanos();
        let under_way = u128::from(self.rate) * quickest / 1_000_000_000;
        let window = self.window as u128 * u128::from(BLOCK_LEN);
        let bound = self.window == self.ceiling && under_way * 4 >= window * 3;
        (if bound { Pace::Bound } else { Pace::Given }, self.rate)
    }

    /// When something must be done about it if nothing comes.
    pub(super) fn deadline(&self, request_timeout: Duration) -> Option<Moment> {
        let snub = (!self.owed.is_empty()).then(|| self.progress_at + request_timeout);
        [snub, self.hold_until].into_iter().flatten().min()
    }

    /// Whether it has owed us for too long.
    pub(super) fn is_overdue(&self, now: Moment, request_timeout: Duration) -> bool {
        !self.owed.is_empty() && self.progress_at + request_timeout <= now
    }

    /// Ends a pause that is over. Says whether there was one.
    pub(super) fn end_hold(&mut self, now: Moment) -> bool {
        let is_over = self.hold_until.is_some_and(|until| until <= now);
        if is_over {
            self.hold_until = None;
        }
        is_over
    }

    fn remember(&mut self, owed: Owed) {
        if self.lapsed.len() == MAX_LAPSED {
            self.lapsed.pop_front();
        }
        self.lapsed.push_back(owed);
    }

    fn start_slowly(&mut self, now: Moment) {
        self.window = FIRST_WINDOW.min(self.ceiling);
        let left = self.window;
        self.start = Some(SlowStart { left, since: now, bytes: 0, best: 0, strikes: 0 });
    }

    fn grow(&mut self, now: Moment, mut start: SlowStart, bytes: u32) {
        start.bytes += u64::from(bytes);
        start.left = start.left.saturating_sub(1);
        // Never more than the peer gives in a second, as far as that is known.
        let second = (start.best / u64::from(BLOCK_LEN)) as usize;
        let limit = if start.best == 0 { self.ceiling } else { second.max(2 * FIRST_WINDOW) };
        self.window = (self.window + 1).min(limit).min(self.ceiling);
        if start.left > 0 {
            self.start = Some(start);
            return;
        }
        let rate = per_second(start.bytes, now.since(start.since));
        if rate / 11 < start.best / 10 {
            start.strikes += 1;
        }
        start.best = start.best.max(rate);
        if start.strikes == MAX_STRIKES {
            self.start = None;
            self.rate = self.rate.max(rate);
            return;
        }
        self.start = Some(SlowStart { left: self.window, since: now, bytes: 0, ..start });
    }

    fn measure(&mut self, now: Moment) {
        let elapsed = now.since(self.measured_since);
        if elapsed < MEASURE_FOR.max(self.min_rtt.unwrap_or_default()) {
            return;
        }
        let sample = per_second(self.measured_bytes, elapsed);
        self.rate = if sample > self.rate { sample } else { (self.rate / 4) * 3 + sample / 4 };
        self.measured_since = now;
        self.measured_bytes = 0;
    }

    fn wanted_window(&self) -> usize {
        let round = self.min_rtt.unwrap_or_default() + SERVICE_TIME;
        let bytes = u128::from(self.rate) * round.as_nanos() * 2 / 1_000_000_000;
        usize::try_from(bytes / u128::from(BLOCK_LEN)).unwrap_or(usize::MAX)
    }

    fn floor(&self) -> usize {
        FIRST_WINDOW.min(self.ceiling)
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// Blocks asked for first, and at least.
const FIRST_WINDOW: usize = 4;

/// What a peer may take to read a block and send it; long enough for a disk to seek a few times,
/// and for runs of requests that are worth reading in one go.
const SERVICE_TIME: Duration = Duration::from_millis(100);

/// The rate is measured over at least this long.
const MEASURE_FOR: Duration = Duration::from_millis(50);

/// Rounds that are not a tenth faster than the best one before end the slow start.
const MAX_STRIKES: u32 = 2;

/// Given-up requests remembered: twice the largest window in use.
const MAX_LAPSED: usize = 1024;

const FIRST_REJECT_PAUSE: Duration = Duration::from_millis(250);
/// 250 ms × 2^6 = 16 s.
const MAX_REJECT_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::START + Duration::from_micros(micros)
    }

    /// Runs a peer that answers after `rtt` µs and sends a block every `gap` µs, for `blocks`.
    fn run(ceiling: usize, rtt: u64, gap: u64, blocks: u32) -> (Pipeline, u64) {
        let mut pipeline = Pipeline::new(at(0), ceiling);
        let (mut now, mut next, mut line_free) = (0, 0, 0);
        let mut arrivals = VecDeque::new();
        for _ in 0..blocks {
            for _ in 0..pipeline.room(at(now)) {
                pipeline.push(at(now), PieceIndex(0), next);
                line_free = (now + rtt).max(line_free + gap);
                arrivals.push_back((line_free, next));
                next += 1;
            }
            let (arrives, index) = arrivals.pop_front().unwrap();
            now = arrives;
            let owed = pipeline.take(PieceIndex(0), index).unwrap();
            pipeline.received(at(now), Some(owed.asked_at), BLOCK_LEN);
        }
        (pipeline, now)
    }

    #[test]
    fn window_reaches_hundreds_of_blocks_within_milliseconds_on_loopback() {
        // 16 KiB every 16 µs is 1 GB/s.
        let (pipeline, now) = run(500, 100, 16, 600);
        assert!(pipeline.window() >= 400, "{}", pipeline.window());
        assert!(now < 15_000, "{now} µs");
        let (pipeline, _) = run(500, 100, 16, 20_000);
        assert_eq!(pipeline.window(), 500);
    }

    #[test]
    fn window_stays_small_on_a_slow_line() {
        // 160 KB/s, 50 ms away: 10 blocks a second.
        let (pipeline, _) = run(500, 50_000, 100_000, 300);
        assert!(pipeline.window() <= 16, "{}", pipeline.window());
    }

    #[test]
    fn window_fills_a_long_fat_line() {
        // 100 MB/s, 200 ms away: 6,100 blocks a second, 1,220 of them under way.
        let (pipeline, _) = run(4_000, 200_000, 164, 60_000);
        assert!(pipeline.window() >= 1_300, "{}", pipeline.window());
    }

    #[test]
    fn pace_tells_a_slow_peer_from_a_window_that_is_too_small() {
        // As above, but the peer takes 250 requests at a time: a fifth of what the line holds.
        assert_eq!(run(250, 200_000, 164, 20_000).0.pace().0, Pace::Bound);
        assert_eq!(run(4_000, 200_000, 164, 60_000).0.pace().0, Pace::Given);
        assert_eq!(run(500, 50_000, 100_000, 300).0.pace().0, Pace::Given);
        // 1 GB/s next door fills the largest window, and it is the peer that gives no more.
        let (pipeline, _) = run(500, 100, 16, 20_000);
        assert_eq!((pipeline.window(), pipeline.pace().0), (500, Pace::Given));
        assert_eq!(run(500, 100_000, 16, 30).0.pace().0, Pace::Growing);
        assert_eq!(Pipeline::new(at(0), 100).pace(), (Pace::Given, 0));
    }

    #[test]
    fn requests_go_out_in_runs() {
        let mut pipeline = Pipeline::new(at(0), 100);
        pipeline.window = 100;
        assert_eq!(pipeline.room(at(0)), 100);
        (0..76).for_each(|index| pipeline.push(at(0), PieceIndex(0), index));
        assert_eq!(pipeline.room(at(0)), 0);
        assert!(pipeline.take(PieceIndex(0), 0).is_some());
        assert_eq!(pipeline.room(at(0)), 25);
    }

    #[test]
    fn silence_snubs_and_a_block_forgives() {
        let timeout = Duration::from_secs(20);
        let mut pipeline = Pipeline::new(at(0), 100);
        assert_eq!(pipeline.deadline(timeout), None);
        pipeline.push(at(5), PieceIndex(3), 1);
        assert_eq!(pipeline.deadline(timeout), Some(at(5) + timeout));
        assert!(pipeline.is_overdue(at(5) + timeout, timeout));
        assert_eq!(pipeline.lapse_last().map(|owed| owed.index), Some(1));
        pipeline.snub(at(5) + timeout);
        assert_eq!((pipeline.is_snubbed(), pipeline.window()), (true, 1));
        assert!(pipeline.take_lapsed(PieceIndex(3), 1).is_some());
        assert!(pipeline.take_lapsed(PieceIndex(3), 1).is_none());
        pipeline.received(at(9) + timeout, None, BLOCK_LEN);
        assert!(!pipeline.is_snubbed() && pipeline.window() >= FIRST_WINDOW);
    }

    #[test]
    fn refusals_are_answered_with_longer_and_longer_pauses() {
        let mut pipeline = Pipeline::new(at(0), 100);
        let first = pipeline.refused(at(0));
        assert_eq!(pipeline.room(at(0)), 0);
        assert!(!pipeline.end_hold(at(1)) && pipeline.end_hold(first));
        assert!(pipeline.room(first) > 0);
        assert!(pipeline.refused(first).since(first) > first.since(at(0)));
    }
}
