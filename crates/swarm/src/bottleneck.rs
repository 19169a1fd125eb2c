//! Why a download is not faster: what it waits for at each moment, and for how long in all.
//!
//! [`Swarm::bottleneck`] says what holds now, one [`Cause`] at a time: the first of these that is
//! true, in this order.
//!
//! 1. [`Cause::Disk`]: so many blocks wait to be written that receiving has stopped; or everything
//!    is here and its files are getting their names.
//! 2. [`Cause::Hash`], or [`Cause::Disk`] if what the hash service does is mostly writing: all that
//!    is missing is being verified; or memory is full, pieces being verified are among what fills
//!    it, and most peers that serve us could be asked for more.
//! 3. [`Cause::RateLimit`]: bytes of a peer are held back by a download limit of our own.
//! 4. [`Cause::NoPeers`]: nobody is connected.
//! 5. [`Cause::NothingOffered`]: no peer holds a piece that we miss and want.
//! 6. [`Cause::Choked`]: some do, and all of those choke us, or refuse what they are asked for, or
//!    are snubbed: they took requests and have sent nothing for them. If all are snubbed, it is
//!    [`Cause::PeerUpload`].
//! 7. [`Cause::NothingOffered`] again: some serve us, but nothing that they hold is left to be
//!    asked for, so none of them owes us a block.
//! 8. Blocks are owed by peers that are not snubbed. [`Cause::Moving`], if what has arrived waits for
//!    us to take it in. Else what is true of the peers that give most of the bytes:
//!    [`Cause::Moving`], if their windows still grow and each round is faster than the one before;
//!    [`Cause::RequestWindow`], if we ask them for as much at a time as they (or we) allow, and that
//!    is all used up before the first answer is here; else [`Cause::PeerUpload`]: they have enough to
//!    send and send as fast as they will, or as their line lets them.
//!
//! Nothing counts while the torrent is paused, seeds, or is finished.
//!
//! [`WaitTimes`] adds the time up. Its driver looks a few times a second, whatever goes on; what was
//! seen is taken to hold until the next look.

use std::time::Duration;

use super::Swarm;
use super::pipeline::Pace;
use piecework_core::Moment;
use piecework_core::figures::count;
use piecework_proto::encryption::EncryptionPolicy;

/// What a download waits for; the module's documentation says what each means exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// Nobody is connected.
    NoPeers,
    /// All peers that have something for us choke us.
    Choked,
    /// No peer has, or has left, anything that we want.
    NothingOffered,
    /// Too few requests may be under way for so fast or so long a line.
    RequestWindow,
    /// Peers send as fast as they will.
    PeerUpload,
    /// A download limit of our own.
    RateLimit,
    /// Pieces wait to be hashed.
    Hash,
    /// Pieces or blocks wait to be written.
    Disk,
    /// Nothing that is known: data moves.
    Moving,
}

/// What of it only the driver of a swarm sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DriverState {
    /// What a peer sent lies unread for a download limit's sake.
    pub limited: bool,
    /// Nothing is received until blocks that wait are on the disk.
    pub behind: bool,
    /// What the hash service does at the moment is mostly writing.
    pub writing: bool,
    /// Everything wanted is there, and files are getting their names.
    pub naming: bool,
    /// More has been received than was taken in yet.
    pub busy: bool,
}

/// What a download waits for now, and the figures that say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bottleneck {
    /// What for.
    pub cause: Cause,
    /// Connected peers.
    pub peers: u32,
    /// Those of them that hold pieces that we miss and want.
    pub offering: u32,
    /// Those of these that serve us, and are not among the silent.
    pub serving: u32,
    /// Those of these that unchoked us, took requests, and have sent nothing for too long.
    pub silent: u32,
    /// Blocks that those that serve us owe us; if there are only silent ones, those.
    pub owed: u32,
    /// Pieces that are missing and wanted.
    pub missing: u32,
    /// Pieces that are being verified and written.
    pub verifying: u32,
    /// Addresses whose peer takes connections and closes them at our handshake, of each kind that is
    /// tried.
    pub hung_up: u32,
}

/// For how long a download has waited for what: in all, and in the last minute.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitTimes {
    totals: [Duration; Cause::ALL.len()],
    /// Microseconds in each of the last slices of time; the newest is at `newest % SLICES`.
    slices: [[u32; Cause::ALL.len()]; SLICES],
    newest: u64,
    bottleneck: Option<Bottleneck>,
    /// Up to when the time is counted.
    since: Moment,
}

impl Cause {
    /// All of them.
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

    /// Its name in APIs, such as `no_peers`.
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
    /// What a download that lacks `missing` pieces waits for while it has no peers, and `hung_up` close
    /// connections at our handshake.
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

/// Returns what is told of `peers` that close connections at our handshake, if there are any, while
/// `policy` says which handshakes they were tried with.
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
    /// A download that goes on from `totals`, as [`WaitTimes::totals`] gave them.
    pub fn new(now: Moment, totals: [Duration; Cause::ALL.len()]) -> Self {
        Self {
            totals,
            slices: [[0; Cause::ALL.len()]; SLICES],
            newest: slice_of(now),
            bottleneck: None,
            since: now,
        }
    }

    /// What was noted last has held until `now`; from now on it is `bottleneck`, `None` if nothing
    /// is waited for.
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

    /// What was noted last, if it was anything.
    pub fn bottleneck(&self) -> Option<&Bottleneck> {
        self.bottleneck.as_ref()
    }

    /// Up to when the time is counted: when it was last noted.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The time spent on each cause up to [`WaitTimes::since`], in the order of [`Cause::ALL`].
    pub fn totals(&self) -> [Duration; Cause::ALL.len()] {
        self.totals
    }

    /// How much of the last minute was counted.
    pub fn counted(&self) -> Duration {
        Duration::from_micros(self.slices.iter().flatten().map(|micros| u64::from(*micros)).sum())
    }

    /// The share of each cause, 0 to 1, in the time that was counted within the last minute; all 0
    /// if none was.
    pub fn recent(&self) -> [f64; Cause::ALL.len()] {
        let of = |cause: usize| self.slices.iter().map(|slice| u64::from(slice[cause])).sum();
        let micros: [u64; Cause::ALL.len()] = std::array::from_fn(of);
        let all = micros.iter().sum::<u64>().max(1);
        micros.map(|micros| micros as f64 / all as f64)
    }

    /// Counts the time from `then` to `now` in the slices that are not over.
    fn charge(&mut self, then: Moment, now: Moment, cause: Cause) {
        let last = slice_of(now);
        let mut from = then.max(Moment::from_start(SLICE * first_of(last) as u32));
        loop {
            let slice = slice_of(from);
            self.turn_to(slice);
            let end = Moment::from_start(SLICE * (slice as u32 + 1)).min(now);
            let micros = end.since(from).as_micros();
            // A slice is 5,000,000 µs.
            self.slices[(slice % SLICES as u64) as usize][cause as usize] += micros as u32;
            if slice >= last {
                return;
            }
            from = end;
        }
    }

    /// Empties the slices from the newest up to `slice`, which becomes it.
    fn turn_to(&mut self, slice: u64) {
        for gone in (self.newest + 1).max(first_of(slice))..=slice {
            self.slices[(gone % SLICES as u64) as usize] = [0; Cause::ALL.len()];
        }
        self.newest = self.newest.max(slice);
    }
}

impl Swarm {
    /// What the download waits for, as far as the swarm and its driver know; `None` if it is none,
    /// or does not run. Looks at every peer.
    pub fn bottleneck(&self, driver: DriverState) -> Option<Bottleneck> {
        let finished = self.is_finished();
        if self.paused || self.config.upload_only || (finished && !driver.naming) {
            return None;
        }
        let mut bottleneck = Bottleneck {
            cause: Cause::Disk,
            peers: self.peers.len() as u32,
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
            // What a peer allows while it chokes us counts only as long as it is asked for some.
            let refuses = pipeline.owed() == 0 && (peer.chokes_us || pipeline.is_held(self.now));
            if !peer.serves_us() || refuses {
                continue;
            }
            if pipeline.is_snubbed() {
                bottleneck.silent += 1;
                unsent += pipeline.owed() as u32;
                continue;
            }
            bottleneck.serving += 1;
            bottleneck.owed += pipeline.owed() as u32;
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
    /// Bytes a second of those whose window grows, is used up, and all others.
    growing: u64,
    bound: u64,
    given: u64,
}

fn slice_of(moment: Moment) -> u64 {
    (moment.since_start().as_nanos() / SLICE.as_nanos()) as u64
}

/// The oldest slice that counts when `slice` is the newest.
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
        // The slice from 100 s on is the newest, of the one from 45 s on nothing is left.
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
