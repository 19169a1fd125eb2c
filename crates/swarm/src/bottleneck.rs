//! Why a download is not faster: what it waits for at each moment, and how long it has waited in total.
//!
//! [`Swarm::bottleneck`] returns the current [`Cause`]: the first of these that applies, in this order.
//!
//! 1. [`Cause::Disk`]: receiving has stopped because too many blocks wait to be written; or all data is
//!    here and the files are getting their final names.
//! 2. [`Cause::Hash`], or [`Cause::Disk`] if the hash service mostly writes at the moment: all that is
//!    missing is being verified; or memory is full, partly of pieces that are being verified, and most
//!    peers that serve us have room for more requests.
//! 3. [`Cause::RateLimit`]: bytes of a peer are held back by our own download limit.
//! 4. [`Cause::NoPeers`]: no peer is connected.
//! 5. [`Cause::NothingOffered`]: no peer holds a piece that we miss and want.
//! 6. [`Cause::Choked`]: some peers hold such pieces, but all of them choke us, reject our requests, or are
//!    snubbed (they took requests and sent nothing for them). If all of them are snubbed, it is
//!    [`Cause::PeerUpload`].
//! 7. [`Cause::NothingOffered`] again: some peers serve us, but nothing they hold is left to request, so
//!    none of them owes us a block.
//! 8. Peers that are not snubbed owe us blocks. It is [`Cause::Moving`] if received data waits for us to
//!    process it. Otherwise it depends on the peers that give most of the bytes: [`Cause::Moving`] if their
//!    windows still grow and each round is faster than the one before; [`Cause::RequestWindow`] if they
//!    have as many requests from us as they (or we) allow, and all of those are answered before the first
//!    answer reaches us; else [`Cause::PeerUpload`]: they have enough to send, and they or their line send
//!    no faster.
//!
//! Nothing is counted while the torrent is paused, seeds, or is finished.
//!
//! [`WaitTimes`] adds up the time. Its driver looks a few times a second. What it saw counts until the next
//! look.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use super::Swarm;
use super::pipeline::Pace;
use piecework_core::Moment;
use piecework_core::figures::count;
use piecework_proto::encryption::EncryptionPolicy;

/// What a download waits for. The module's documentation defines each cause exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// No peer is connected.
    NoPeers,
    /// All peers that have something for us choke us.
    Choked,
    /// No peer has anything left that we want.
    NothingOffered,
    /// The allowed number of requests is too small for the speed and delay of the line.
    RequestWindow,
    /// Peers send no faster.
    PeerUpload,
    /// Our own download limit.
    RateLimit,
    /// Pieces wait to be hashed.
    Hash,
    /// Pieces or blocks wait to be written.
    Disk,
    /// Nothing that is known. Data is moving.
    Moving,
}

/// The part of the state that only the driver of a swarm sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DriverState {
    /// Received data is left unread because of a download limit.
    pub limited: bool,
    /// Receiving has stopped until waiting blocks are on the disk.
    pub behind: bool,
    /// The hash service mostly writes at the moment.
    pub writing: bool,
    /// All wanted data is there, and the files are getting their final names.
    pub naming: bool,
    /// There is received data that was not processed yet.
    pub busy: bool,
}

/// What a download waits for now, and the numbers that show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bottleneck {
    /// What the download waits for.
    pub cause: Cause,
    /// The number of connected peers.
    pub peers: u32,
    /// How many of these hold pieces that we miss and want.
    pub offering: u32,
    /// How many of these serve us and are not silent.
    pub serving: u32,
    /// How many of these unchoked us, took requests, and have sent nothing for too long.
    pub silent: u32,
    /// Blocks owed to us by the serving peers, or by the silent ones if there are no others.
    pub owed: u32,
    /// The number of pieces that are missing and wanted.
    pub missing: u32,
    /// The number of pieces that are being verified and written.
    pub verifying: u32,
    /// Addresses that accept connections and close them at our handshake, with every kind of handshake that
    /// is tried.
    pub hung_up: u32,
}

/// How long a download has waited for each cause: in total, and in the last minute.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitTimes {
    totals: [Duration; Cause::ALL.len()],
    /// Microseconds in each recent slice of time. The newest slice is at `newest % SLICES`.
    slices: [[u32; Cause::ALL.len()]; SLICES],
    newest: u64,
    bottleneck: Option<Bottleneck>,
    /// Time is counted up to this moment.
    since: Moment,
}

impl Cause {
    /// All causes, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::NoPeers,
        Self::Choked,
        Self::NothingOffered,
        Self::RequestWindow,
        Self::PeerUpload,
        Self::RateLimit,
        Self::Hash,
        Self::Disk,
        Self::Moving,
    ];

    /// Returns its name in APIs, such as `no_peers`.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoPeers => "no_peers",
            Self::Choked => "choked",
            Self::NothingOffered => "nothing_offered",
            Self::RequestWindow => "request_window",
            Self::PeerUpload => "peer_upload",
            Self::RateLimit => "rate_limit",
            Self::Hash => "hash",
            Self::Disk => "disk",
            Self::Moving => "moving",
        }
    }
}

impl Bottleneck {
    /// Returns what a download waits for that lacks `missing` pieces and has no peers, while `hung_up`
    /// addresses close connections at our handshake.
    pub fn alone(missing: u32, hung_up: u32) -> Self {
        Self {
            cause: Cause::NoPeers,
            peers: 0,
            offering: 0,
            serving: 0,
            silent: 0,
            owed: 0,
            missing,
            verifying: 0,
            hung_up,
        }
    }
}

/// Returns a sentence about `peers` that close connections at our handshake, or `None` if there are none.
/// `policy` decides which handshakes were tried.
pub fn hang_ups(peers: u32, policy: EncryptionPolicy) -> Option<String> {
    let (accept, close, they) = match peers {
        0 => return None,
        1 => ("1 peer accepts".to_owned(), "closes", "it"),
        _ => (format!("{} peers accept", count(peers.into())), "close", "they"),
    };
    let s = if peers == 1 { "s" } else { "" };
    let (handshake, because) = match policy {
        EncryptionPolicy::Plain => (
            "handshake",
            format!(
                ": {they} probably demand{s} encryption, which `encryption = \"plain\"` rules out"
            ),
        ),
        EncryptionPolicy::Allow | EncryptionPolicy::Prefer => {
            ("handshake, plain and encrypted", String::new())
        }
        EncryptionPolicy::Require => (
            "encrypted handshake",
            format!(
                ": {they} probably take{s} only plain ones, which `encryption = \"require\"` rules out"
            ),
        ),
    };
    Some(format!("{accept} a connection and {close} it at our {handshake}{because}"))
}

impl WaitTimes {
    /// Creates the record of a download, continuing from `totals` of [`WaitTimes::totals`].
    pub fn new(now: Moment, totals: [Duration; Cause::ALL.len()]) -> Self {
        Self {
            totals,
            slices: [[0; Cause::ALL.len()]; SLICES],
            newest: slice_of(now),
            bottleneck: None,
            since: now,
        }
    }

    /// Counts the time until `now` for the previous bottleneck. From now on it is `bottleneck`, or `None`
    /// if the download waits for nothing.
    pub fn note(&mut self, now: Moment, bottleneck: Option<Bottleneck>) {
        let now = now.max(self.since);
        let then = std::mem::replace(&mut self.since, now);
        if let Some(Bottleneck { cause, .. }) = std::mem::replace(&mut self.bottleneck, bottleneck)
        {
            self.totals[cause as usize] += now.since(then);
            self.charge(then, now, cause);
        }
        self.turn_to(slice_of(now));
    }

    /// Returns the current bottleneck.
    pub fn bottleneck(&self) -> Option<&Bottleneck> {
        self.bottleneck.as_ref()
    }

    /// Returns the moment up to which time is counted: that of the last [`WaitTimes::note`].
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Returns the time spent on each cause up to [`WaitTimes::since`], in the order of [`Cause::ALL`].
    pub fn totals(&self) -> [Duration; Cause::ALL.len()] {
        self.totals
    }

    /// Returns how much of the last minute was counted.
    pub fn counted(&self) -> Duration {
        Duration::from_micros(self.slices.iter().flatten().map(|micros| u64::from(*micros)).sum())
    }

    /// Returns the share of each cause, 0 to 1, in the time counted within the last minute. All are 0 if
    /// nothing was counted.
    pub fn recent(&self) -> [f64; Cause::ALL.len()] {
        let of = |cause: usize| self.slices.iter().map(|slice| u64::from(slice[cause])).sum();
        let micros: [u64; Cause::ALL.len()] = std::array::from_fn(of);
        let all = micros.iter().sum::<u64>().max(1);
        micros.map(|micros| micros as f64 / all as f64)
    }

    /// Adds the time from `then` to `now` to the slices that are not over.
    fn charge(&mut self, then: Moment, now: Moment, cause: Cause) {
        let last = slice_of(now);
        let mut from = then.max(Moment::from_start(SLICE * u32::saturating_from(first_of(last))));
        loop {
            let slice = slice_of(from);
            self.turn_to(slice);
            let end = Moment::from_start(SLICE * (u32::saturating_from(slice) + 1)).min(now);
            let micros = end.since(from).as_micros();
            // A slice is 5,000,000 µs.
            self.slices[usize::saturating_from(slice % SLICES as u64)][cause as usize] +=
                u32::saturating_from(micros);
            if slice >= last {
                return;
            }
            from = end;
        }
    }

    /// Empties the slices after the newest up to `slice`, which becomes the newest.
    fn turn_to(&mut self, slice: u64) {
        for gone in (self.newest + 1).max(first_of(slice))..=slice {
            self.slices[usize::saturating_from(gone % SLICES as u64)] = [0; Cause::ALL.len()];
        }
        self.newest = self.newest.max(slice);
    }
}

impl Swarm {
    /// Returns what the download waits for, as far as the swarm and its driver know. Returns `None` if it
    /// is not a download or does not run. Looks at every peer.
    pub fn bottleneck(&self, driver: DriverState) -> Option<Bottleneck> {
        let finished = self.is_finished();
        if self.paused || self.config.upload_only || (finished && !driver.naming) {
            return None;
        }
        let mut bottleneck = Bottleneck {
            cause: Cause::Disk,
            peers: u32::saturating_from(self.peers.len()),
            offering: 0,
            serving: 0,
            silent: 0,
            owed: 0,
            missing: self.wants.pieces_left,
            verifying: self.picker.verifying(),
            hung_up: self.candidates.hung_up(),
        };
        let supply = self.survey(&mut bottleneck);
        bottleneck.cause = self.cause(&bottleneck, &supply, driver, finished);
        Some(bottleneck)
    }

    /// Counts the peers that have something for us, and what they could give.
    fn survey(&self, bottleneck: &mut Bottleneck) -> Supply {
        let mut supply = Supply::default();
        let mut unsent = 0;
        for peer in self.peers.values().filter(|peer| peer.interests_us) {
            bottleneck.offering += 1;
            let pipeline = &peer.pipeline;
            // The allowed-fast pieces of a choking peer count only while it is asked for some.
            let refuses = pipeline.owed() == 0 && (peer.chokes_us || pipeline.is_held(self.now));
            if !peer.serves_us() || refuses {
                continue;
            }
            if pipeline.is_snubbed() {
                bottleneck.silent += 1;
                unsent += u32::saturating_from(pipeline.owed());
                continue;
            }
            bottleneck.serving += 1;
            bottleneck.owed += u32::saturating_from(pipeline.owed());
            supply.starved += u32::from(pipeline.room(self.now) > 0);
            let (pace, rate) = pipeline.pace();
            *match pace {
                Pace::Growing => &mut supply.growing,
                Pace::Window => &mut supply.bound,
                Pace::Peer => &mut supply.given,
            } += rate;
        }
        if bottleneck.serving == 0 && bottleneck.silent == bottleneck.offering {
            bottleneck.owed = unsent;
        }
        supply
    }

    fn cause(
        &self,
        bottleneck: &Bottleneck,
        supply: &Supply,
        driver: DriverState,
        finished: bool,
    ) -> Cause {
        let Bottleneck { peers, offering, serving, silent, owed, missing, verifying, .. } =
            *bottleneck;
        let Supply { starved, growing, bound, given } = *supply;
        let hungry = starved > 0 && 2 * starved >= serving;
        let verifies =
            verifying > 0 && (verifying >= missing || hungry && self.picker.is_memory_full());
        if finished || driver.behind || verifies && driver.writing {
            Cause::Disk
        } else if verifies {
            Cause::Hash
        } else if driver.limited {
            Cause::RateLimit
        } else if peers == 0 {
            Cause::NoPeers
        } else if offering == 0 {
            Cause::NothingOffered
        } else if serving == 0 && silent == offering {
            Cause::PeerUpload
        } else if serving == 0 {
            Cause::Choked
        } else if owed == 0 {
            Cause::NothingOffered
        } else if driver.busy || growing > bound.max(given) {
            Cause::Moving
        } else if bound > given {
            Cause::RequestWindow
        } else {
            Cause::PeerUpload
        }
    }
}

/// What the peers that serve us could give.
#[derive(Default)]
struct Supply {
    /// Peers that have room for more requests.
    starved: u32,
    /// Bytes a second of peers whose window grows, of those limited by their window, and of all others.
    growing: u64,
    bound: u64,
    given: u64,
}

fn slice_of(moment: Moment) -> u64 {
    u64::saturating_from(moment.since_start().as_nanos() / SLICE.as_nanos())
}

/// Returns the oldest slice that counts when `slice` is the newest.
fn first_of(slice: u64) -> u64 {
    (slice + 1).saturating_sub(SLICES as u64)
}

/// Twelve slices of five seconds are a minute.
const SLICES: usize = 12;
const SLICE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn waits(cause: Cause) -> Option<Bottleneck> {
        Some(Bottleneck { cause, ..Bottleneck::alone(1, 0) })
    }

    fn waiting() -> WaitTimes {
        WaitTimes::new(at(0), [Duration::ZERO; Cause::ALL.len()])
    }

    #[test]
    fn names_stand_at_the_place_of_their_number() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
    }

    #[test]
    fn time_is_counted_for_what_held_until_the_next_look() {
        let mut waiting = waiting();
        waiting.note(at(1_000), waits(Cause::NoPeers));
        waiting.note(at(4_000), waits(Cause::Choked));
        waiting.note(at(5_000), None);
        waiting.note(at(9_000), None);
        let seconds = waiting.totals().map(|total| total.as_secs());
        assert_eq!(seconds, [3, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(waiting.recent()[..2], [0.75, 0.25]);
        assert_eq!(waiting.counted(), Duration::from_secs(4));
        assert_eq!(waiting.bottleneck(), None);
    }

    #[test]
    fn of_the_last_minute_no_more_than_that_is_told() {
        let mut waiting = waiting();
        waiting.note(at(0), waits(Cause::Hash));
        waiting.note(at(100_000), waits(Cause::Moving));
        assert_eq!(waiting.recent()[Cause::Hash as usize], 1.0);
        // The slice from 100 s is the newest. Of the slice from 45 s nothing is left.
        waiting.note(at(130_000), waits(Cause::Moving));
        let shares = waiting.recent();
        assert!(shares[Cause::Hash as usize] > 0.4 && shares[Cause::Moving as usize] > 0.5);
        waiting.note(at(165_000), waits(Cause::Moving));
        assert_eq!(waiting.recent()[Cause::Moving as usize], 1.0);
        waiting.note(at(165_000), None);
        waiting.note(at(500_000), None);
        assert_eq!(waiting.recent(), [0.0; 9]);
        assert_eq!(waiting.totals()[Cause::Hash as usize], Duration::from_secs(100));
    }

    #[test]
    fn shares_add_up_to_one_whatever_the_steps() {
        let mut waiting = waiting();
        for step in 0..5_000_u64 {
            waiting.note(at(step * 37), waits(Cause::ALL[(step * step % 9) as usize]));
            let all: f64 = waiting.recent().iter().sum();
            assert!(step == 0 || (all - 1.0).abs() < 1e-9, "{all}");
        }
        let sum: Duration = waiting.totals().iter().sum();
        assert_eq!(sum, Duration::from_millis(4_999 * 37));
    }

    #[test]
    fn a_clock_that_stands_still_or_a_late_word_does_no_harm() {
        let mut waiting = waiting();
        waiting.note(at(10_000), waits(Cause::Disk));
        waiting.note(at(9_000), waits(Cause::Disk));
        waiting.note(at(10_000), waits(Cause::Disk));
        assert_eq!(waiting.totals(), [Duration::ZERO; 9]);
    }
}
