//! What one peer owes us, how much it should owe, and which requests are late.
//!
//! The window is twice the rate times the round-trip time of a request, so that the peer always has the
//! next request at hand. It starts small and grows by one per block, which doubles it every round trip,
//! until the rate no longer follows.
//!
//! # Which requests are late
//!
//! A peer answers its requests in order, so the clock of a request runs only while it is at the *front*:
//! the oldest request that is not late. The clock starts when the request before it is answered, and only
//! the block itself stops it. So a peer that answers slowly but in order is not late, while one that skips
//! requests or answers none is. The front request is late after four times the longest time that the peer
//! has recently taken for a block, but not before [`LEAST_TIMEOUT`], and after
//! [`SwarmConfig::request_timeout`](super::SwarmConfig) in any case.
//!
//! - If other blocks arrived in the meantime, only that request is late.
//! - A request is also late when that much time has passed since a block that was requested later first
//!   overtook it.
//! - Otherwise all requests are late, and the peer is *snubbed*: it may owe one block, and that counts as
//!   late from the beginning. A block from it ends that.
//!
//! Late requests stay with the peer. They are given up after twice
//! [`SwarmConfig::request_timeout`](super::SwarmConfig).
//!
//! A peer that rejects [`MANY_REJECTS`] requests in a row is snubbed as well.
//!
//! The short time-out counts only time in which any peer sends blocks ([`Clock::flow`]), or in which others
//! wait for something to do. If our own line or disk stops everything, no peer is to blame.
//!
//! The time during which a peer owes blocks adds up over chokes and cancels until a block arrives, so that
//! a peer which takes its unchoke back every second becomes late as well.

use piecework_core::SaturatingFrom;
use std::collections::VecDeque;
use std::time::Duration;

use super::picker::{DeliveryEstimate, Trust};
use piecework_core::{BLOCK_LEN, Moment, PieceIndex};

#[derive(Debug)]
pub(super) struct Pipeline {
    owed: VecDeque<PendingRequest>,
    /// How many of those are late.
    late: usize,
    /// Requests that were given up. Their blocks may still arrive.
    lapsed: VecDeque<PendingRequest>,
    window: usize,
    ceiling: usize,
    start: Option<SlowStart>,
    /// Bytes a second.
    rate: u64,
    min_rtt: Option<Duration>,
    measured_since: Moment,
    measured_bytes: u64,
    /// When the clock of the front request started.
    front_since: Clock,
    /// How long it owed blocks and gave none before it owed the front request.
    owed_before: (Duration, Duration),
    /// When it last gave a block.
    block_at: Option<Moment>,
    /// The longest time it took for a block. Decays over time.
    gap: Duration,
    was_asked: bool,
    snubbed: bool,
    /// When to check whether a request is late.
    check_at: Option<Moment>,
    /// Nothing is requested before this.
    hold_until: Option<Moment>,
    /// Rejects since the last block. All that arrive within one pause count as one.
    rejects: u32,
    /// When the first of them arrived.
    refuses_since: Option<Moment>,
}

/// The time, and the time during which blocks arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) now: Moment,
    /// How long blocks have been arriving, from any peer.
    pub(super) flow: Duration,
}

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The time for a block, however slow the peer is.
    pub(super) timeout: Duration,
    /// The part of that time for which we are responsible.
    pub(super) extra: Duration,
    /// The short time-out counts all time, because others wait for something to do or for a connection.
    pub(super) hurry: bool,
}

/// Which of a peer's requests are late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// No more than before.
    Nothing,
    /// This request: later ones were answered.
    Request(PendingRequest),
    /// This late request must be given up: later ones were answered long ago.
    Lost(PendingRequest),
    /// All requests: the peer gives nothing.
    Peer,
    /// All requests, as before.
    Still,
    /// All requests, for so long that they must be given up.
    Long,
}

/// A requested block that arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) owed: PendingRequest,
    /// The peer was snubbed until now, so that its other requests are in time again.
    pub(super) was_snubbed: bool,
}

/// What keeps a peer's blocks from coming faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing yet: each round of the slow start was faster than the one before.
    Growing,
    /// The window: it has its maximum size, and its blocks are all here before the peer could have learned
    /// that it may send more.
    Window,
    /// The peer, or its line.
    Peer,
}

/// A request that was not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PendingRequest {
    pub(super) piece: PieceIndex,
    pub(super) index: u32,
    pub(super) asked_at: Moment,
    pub(super) is_late: bool,
    /// When a block that was requested later first arrived.
    overtaken: Option<Clock>,
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
            late: 0,
            lapsed: VecDeque::new(),
            window: FIRST_WINDOW,
            ceiling: ceiling.max(1),
            start: None,
            rate: 0,
            min_rtt: None,
            measured_since: now,
            measured_bytes: 0,
            front_since: Clock { now, flow: Duration::ZERO },
            owed_before: (Duration::ZERO, Duration::ZERO),
            block_at: None,
            gap: Duration::ZERO,
            was_asked: false,
            snubbed: false,
            check_at: None,
            hold_until: None,
            rejects: 0,
            refuses_since: None,
        };
        pipeline.start_slowly(now, FIRST_WINDOW);
        pipeline
    }

    /// Sets how many requests the peer takes at a time.
    pub(super) fn set_ceiling(&mut self, ceiling: usize) {
        self.ceiling = ceiling.max(1);
        self.window = self.window.min(self.ceiling);
    }

    /// Adds a request.
    pub(super) fn push(&mut self, clock: Clock, piece: PieceIndex, index: u32, timeout: Duration) {
        let Clock { now, flow } = clock;
        if self.owed.is_empty() {
            let (before, flow_before) = self.owed_before;
            self.front_since = Clock { now: now - before, flow: flow.saturating_sub(flow_before) };
            self.measured_since = now;
            self.measured_bytes = 0;
            if let Some(start) = &mut self.start {
                start.left = self.window;
                start.since = now;
                start.bytes = 0;
            }
        } else if !self.snubbed && self.late == self.owed.len() {
            self.front_since = clock;
        }
        if self.check_at.is_none() {
            self.check_at = Some(now + LEAST_TIMEOUT.min(timeout));
        }
        self.was_asked = true;
        self.late += usize::from(self.snubbed);
        self.owed.push_back(PendingRequest {
            piece,
            index,
            asked_at: now,
            is_late: self.snubbed,
            overtaken: None,
        });
    }

    /// Handles a block of `bytes`. Returns `None` if it was not requested, or not recently.
    pub(super) fn deliver(
        &mut self,
        clock: Clock,
        piece: PieceIndex,
        index: u32,
        bytes: u32,
    ) -> Option<Delivery> {
        let was_snubbed = self.snubbed;
        let at = self.owed.iter().position(|o| o.index == index && o.piece == piece);
        let owed = if let Some(at) = at {
            let is_front = at <= self.front();
            let owed = self.owed.remove(at)?;
            self.late -= usize::from(owed.is_late);
            // A run of late requests is at the front.
            for earlier in self.owed.range_mut(..at).rev().take_while(|o| !o.is_late) {
                earlier.overtaken.get_or_insert(clock);
            }
            self.received(clock, Some(owed.asked_at), is_front, bytes);
            owed
        } else {
            let late = self.lapsed.iter().position(|o| o.index == index && o.piece == piece)?;
            let owed = self.lapsed.remove(late)?;
            self.received(clock, None, true, bytes);
            owed
        };
        Some(Delivery { owed, was_snubbed })
    }

    /// Removes a request and returns it, if there is one for this block.
    pub(super) fn take(
        &mut self,
        clock: Clock,
        piece: PieceIndex,
        index: u32,
    ) -> Option<PendingRequest> {
        let at = self.owed.iter().position(|o| o.index == index && o.piece == piece)?;
        let owed = self.owed.remove(at)?;
        self.gone(clock, owed);
        Some(owed)
    }

    /// Gives up a request like [`Pipeline::take`], but remembers it: the block may still arrive and is then
    /// no fault.
    pub(super) fn lapse(&mut self, clock: Clock, piece: PieceIndex, index: u32) -> bool {
        let taken = self.take(clock, piece, index);
        if let Some(owed) = taken {
            self.remember(owed);
        }
        taken.is_some()
    }

    /// Gives up the newest request. Returns it.
    pub(super) fn lapse_last(&mut self, clock: Clock) -> Option<PendingRequest> {
        let owed = self.owed.pop_back()?;
        self.gone(clock, owed);
        self.remember(owed);
        Some(owed)
    }

    /// Gives up all requests for pieces for which `is_unwanted` returns true. Returns them.
    pub(super) fn lapse_where(
        &mut self,
        clock: Clock,
        is_unwanted: impl Fn(PieceIndex) -> bool,
    ) -> Vec<PendingRequest> {
        let unwanted = |owed: &&PendingRequest| is_unwanted(owed.piece);
        let lapsed: Vec<PendingRequest> = self.owed.iter().filter(unwanted).copied().collect();
        if !lapsed.is_empty() {
            self.owed.retain(|owed| !is_unwanted(owed.piece));
            for owed in &lapsed {
                self.gone(clock, *owed);
                self.remember(*owed);
            }
        }
        lapsed
    }

    /// Forgets a request that was given up. Returns whether it was remembered.
    pub(super) fn forget_lapsed(&mut self, piece: PieceIndex, index: u32) -> bool {
        let at = self.lapsed.iter().position(|o| o.index == index && o.piece == piece);
        at.and_then(|at| self.lapsed.remove(at)).is_some()
    }

    /// Returns which requests have become late.
    pub(super) fn check(&mut self, clock: Clock, limits: Limits) -> Lateness {
        let Limits { timeout, extra, hurry } = limits;
        let now = clock.now;
        let silent = now.since(self.front_since.now);
        if self.owed.is_empty() {
            self.check_at = None;
            return Lateness::Nothing;
        }
        // There may be more than one that is late, so check again soon.
        self.check_at = Some(now + RECHECK);
        if self.snubbed {
            if silent >= timeout * 2 {
                return Lateness::Long;
            }
            self.check_at = Some(now + (timeout * 2 - silent).min(LEAST_TIMEOUT).max(RECHECK));
            return Lateness::Still;
        }
        let is_lost = |owed: &&PendingRequest| owed.is_late && owed.asked_at + timeout * 2 <= now;
        if let Some(owed) = self.owed.iter().find(is_lost) {
            return Lateness::Lost(*owed);
        }
        let short = ((self.gap * 4).max(LEAST_TIMEOUT) + extra).min(timeout);
        let is_skipped = |owed: &&PendingRequest| {
            let passed = |since: Clock| match hurry {
                true => now.since(since.now),
                false => clock.flow.saturating_sub(since.flow),
            };
            !owed.is_late && owed.overtaken.is_some_and(|since| passed(since) >= short)
        };
        if let Some(owed) = self.owed.iter().find(is_skipped) {
            return Lateness::Request(*owed);
        }
        let Some(front) = self.owed.get(self.front()).copied() else {
            self.check_at = Some(now + LEAST_TIMEOUT);
            return Lateness::Nothing;
        };
        let flowing = if hurry { silent } else { clock.flow.saturating_sub(self.front_since.flow) };
        if silent >= timeout || flowing >= short {
            let gives = self.block_at.is_some_and(|at| at > self.front_since.now);
            return if gives { Lateness::Request(front) } else { Lateness::Peer };
        }
        self.check_at = Some(now + (timeout - silent).min(short - flowing).max(RECHECK));
        Lateness::Nothing
    }

    /// Marks a request as late.
    pub(super) fn set_late(&mut self, clock: Clock, piece: PieceIndex, index: u32) {
        let mut owed = self.owed.iter_mut();
        if let Some(owed) = owed.find(|o| o.index == index && o.piece == piece && !o.is_late) {
            owed.is_late = true;
            self.late += 1;
            self.front_since = clock;
        }
    }

    /// Marks all requests as late.
    pub(super) fn snub(&mut self) {
        self.snubbed = true;
        self.window = 1;
        self.start = None;
        self.rate = 0;
        self.owed.iter_mut().for_each(|owed| owed.is_late = true);
        self.late = self.owed.len();
    }

    /// Allows the peer to be asked again. Its requests were given up because it may have lost them.
    pub(super) fn start_over(&mut self) {
        self.owed_before = (Duration::ZERO, Duration::ZERO);
    }

    /// Treats the peer as if it had given a block `later` than it did, but not after `latest`.
    pub(super) fn excuse(&mut self, later: Duration, latest: Clock) {
        let Clock { now, flow } = self.front_since;
        self.front_since = Clock {
            now: now.max(latest.now.min(now + later)),
            flow: flow.max(latest.flow.min(flow + later)),
        };
        // The time it gets now may be less than what it had.
        self.check_at = self.check_at.map(|at| at.min(latest.now));
    }

    /// Handles a reject of a peer that serves us. The peer gets a pause, longer each time, so that requests
    /// and rejects do not chase each other. A reject within a pause answers a request from before the
    /// pause, and changes nothing.
    ///
    /// `is_only` means that no other peer can be asked. Then the pauses are short: one more request costs
    /// 34 bytes, while a pause costs the download time. When all pauses doubled up to 16 s, twenty rejects
    /// of the only seed cost 67 s.
    pub(super) fn refused(&mut self, now: Moment, is_only: bool) {
        if self.is_held(now) {
            return;
        }
        let doublings = match is_only {
            true => (self.rejects / PAUSES_ALIKE).min(MAX_ONLY_DOUBLINGS),
            false => self.rejects.min(MAX_REJECT_DOUBLINGS),
        };
        let pause = FIRST_REJECT_PAUSE * (1 << doublings);
        self.rejects = self.rejects.saturating_add(1);
        self.refuses_since.get_or_insert(now);
        self.hold_until = Some(now + pause);
    }

    /// Returns since when it has rejected everything it was asked for. `None` if it has not, or not often
    /// enough to be sure.
    pub(super) fn refuses_since(&self) -> Option<Moment> {
        self.refuses_since.filter(|_| self.rejects >= MANY_REJECTS)
    }

    /// Returns how many blocks to request now: none until a quarter of the window is free, so that requests
    /// are sent in runs.
    pub(super) fn room(&self, now: Moment) -> usize {
        if self.owed.len() * 4 > self.window * 3 || self.is_held(now) {
            return 0;
        }
        self.window.saturating_sub(self.owed.len())
    }

    /// Returns whether a request is unanswered, including those that were given up.
    pub(super) fn has_unanswered(&self) -> bool {
        !self.owed.is_empty() || !self.lapsed.is_empty()
    }

    /// Returns what the peer's past says about its requests.
    pub(super) fn trust(&self) -> Trust {
        match (self.snubbed, self.block_at, self.was_asked) {
            (true, _, _) => Trust::Snubbed,
            (false, Some(_), _) if self.late > 0 => Trust::Late,
            (false, Some(_), _) => Trust::Proven,
            (false, None, false) => Trust::Untested,
            (false, None, true) => Trust::Unproven,
        }
    }

    /// Returns when blocks that are requested now are expected, as far as that is known.
    pub(super) fn delivery_estimate(&self) -> DeliveryEstimate {
        let rate = self.start.map_or(self.rate, |start| start.best);
        if rate == 0 {
            return DeliveryEstimate::default();
        }
        let each = Duration::from_nanos(u64::from(BLOCK_LEN) * 1_000_000_000 / rate);
        let first =
            self.min_rtt.unwrap_or_default() + each * (u32::saturating_from(self.owed.len()) + 1);
        DeliveryEstimate { first, each }
    }

    /// Returns when it last gave a block.
    pub(super) fn block_at(&self) -> Option<Moment> {
        self.block_at
    }

    /// Returns since when it owes blocks and has given none.
    pub(super) fn silent_since(&self) -> Moment {
        self.front_since.now
    }

    /// Returns whether it took requests and has given nothing since.
    pub(super) fn is_balking(&self) -> bool {
        let first = self.owed.front().map(|owed| owed.asked_at);
        first.is_some_and(|first| self.block_at.is_none_or(|at| at < first))
    }

    /// Returns how many requests are not answered.
    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PendingRequest> {
        self.owed.iter()
    }

    pub(super) fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Returns whether it is in a pause after a reject.
    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.hold_until.is_some_and(|until| now < until)
    }

    /// Returns what its blocks wait for, and its rate in bytes a second, as far as they are known.
    pub(super) fn pace(&self) -> (Pace, u64) {
        if let Some(start) = self.start {
            let grows = start.best > 0 && start.strikes == 0;
            return (if grows { Pace::Growing } else { Pace::Peer }, start.best);
        }
        // A request that waits at the peer behind others takes longer than the quickest one did; more
        // requests would only wait longer. If all are answered as quickly, rate × round trip is the whole
        // window.
        let quickest = self.min_rtt.unwrap_or_default().as_nanos();
        let under_way = u128::from(self.rate) * quickest / 1_000_000_000;
        let window = self.window as u128 * u128::from(BLOCK_LEN);
        let bound = self.window == self.ceiling && under_way * 4 >= window * 3;
        (if bound { Pace::Window } else { Pace::Peer }, self.rate)
    }

    /// Returns when something must be done if no block arrives.
    pub(super) fn deadline(&self) -> Option<Moment> {
        [self.check_at, self.hold_until].into_iter().flatten().min()
    }

    /// Ends a pause that is over. Returns whether there was one.
    pub(super) fn end_hold(&mut self, now: Moment) -> bool {
        let is_over = self.hold_until.is_some_and(|until| until <= now);
        if is_over {
            self.hold_until = None;
        }
        is_over
    }

    fn remember(&mut self, owed: PendingRequest) {
        if self.lapsed.len() == MAX_LAPSED {
            self.lapsed.pop_front();
        }
        self.lapsed.push_back(owed);
    }

    /// Returns the index of the front request. It is after the last one if all are late.
    fn front(&self) -> usize {
        if self.late == 0 {
            return 0;
        }
        self.owed.iter().position(|owed| !owed.is_late).unwrap_or(self.owed.len())
    }

    /// Updates the measurements for a block that was requested at `asked_at`, or `None` if that is not
    /// known any more.
    fn received(&mut self, clock: Clock, asked_at: Option<Moment>, is_front: bool, bytes: u32) {
        let now = clock.now;
        if self.snubbed {
            self.snubbed = false;
            self.owed.iter_mut().for_each(|owed| owed.is_late = false);
            self.late = 0;
            self.start_slowly(now, WINDOW_AFTER_SNUB);
        }
        if is_front {
            let since = asked_at.map_or(now, |asked_at| asked_at.max(self.front_since.now));
            let took = now.since(since);
            self.gap = took.max(self.gap - self.gap.saturating_sub(took) / 8);
            self.front_since = clock;
        }
        self.block_at = Some(now);
        self.owed_before = (Duration::ZERO, Duration::ZERO);
        self.rejects = 0;
        self.refuses_since = None;
        self.hold_until = None;
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

    /// Handles that a request was removed without its block having arrived.
    fn gone(&mut self, clock: Clock, owed: PendingRequest) {
        self.late -= usize::from(owed.is_late);
        if self.owed.is_empty() {
            let Clock { now, flow } = self.front_since;
            self.owed_before = (clock.now.since(now), clock.flow.saturating_sub(flow));
        }
    }

    fn start_slowly(&mut self, now: Moment, window: usize) {
        self.window = window.min(self.ceiling);
        let left = self.window;
        self.start = Some(SlowStart { left, since: now, bytes: 0, best: 0, strikes: 0 });
    }

    fn grow(&mut self, now: Moment, mut start: SlowStart, bytes: u32) {
        start.bytes += u64::from(bytes);
        start.left = start.left.saturating_sub(1);
        // Never more than the peer gives in a second, as far as its rate is known.
        let elapsed = now.since(start.since);
        let known = match start.best {
            0 if elapsed >= SLOW_ROUND => per_second(start.bytes, elapsed).max(1),
            best => best,
        };
        let second = usize::saturating_from(known / u64::from(BLOCK_LEN));
        let least = if is_slow(known) { SLOW_WINDOW } else { 2 * FIRST_WINDOW };
        let limit = if known == 0 { self.ceiling } else { second.max(least) };
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
        let least = if is_slow(self.rate) { SLOW_WINDOW } else { FIRST_WINDOW };
        least.min(self.ceiling)
    }
}

/// Returns whether a peer of that rate takes more than two seconds for a block.
fn is_slow(rate: u64) -> bool {
    rate < u64::from(BLOCK_LEN) / 2
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// The first window, and the smallest one.
const FIRST_WINDOW: usize = 4;

/// The same for a peer that takes seconds for a block: one block under way and the next one, so that others
/// are not kept waiting for many minutes.
const SLOW_WINDOW: usize = 2;

/// The window of a snubbed peer that gives a block after all.
const WINDOW_AFTER_SNUB: usize = 2;

/// A first round that takes longer gives a rate before it is over.
const SLOW_ROUND: Duration = Duration::from_secs(2);

/// No request is late before this: the time for two TCP retransmissions and a disk that spins up.
const LEAST_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two checks for late requests.
const RECHECK: Duration = Duration::from_millis(250);

/// How long a peer may take to read a block and send it. Long enough for a few disk seeks, and for runs of
/// requests that are worth reading in one go.
const SERVICE_TIME: Duration = Duration::from_millis(100);

/// The rate is measured over at least this long.
const MEASURE_FOR: Duration = Duration::from_millis(50);

/// The slow start ends after this many rounds that are not a tenth faster than the best one before.
const MAX_STRIKES: u32 = 2;

/// How many given-up requests are remembered: twice the largest window in use.
const MAX_LAPSED: usize = 1024;

const FIRST_REJECT_PAUSE: Duration = Duration::from_millis(250);
/// 250 ms × 2^6 = 16 s.
const MAX_REJECT_DOUBLINGS: u32 = 6;

/// How many pauses of one length there are for a peer that is the only one.
const PAUSES_ALIKE: u32 = 32;

/// 250 ms × 2^4 = 4 s, after 128 rejects, which takes two minutes.
const MAX_ONLY_DOUBLINGS: u32 = 4;

/// After this many rejects in a row, a peer is as good as silent. They take at least 750 ms in total. A
/// peer that is about to choke us, or that has lost a piece, rejects once or twice.
const MANY_REJECTS: u32 = 3;

#[cfg(test)]
mod tests;
