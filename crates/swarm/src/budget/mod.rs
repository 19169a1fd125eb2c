//! How much of one memory each of many downloads may have for pieces that have begun to
//! come.
//!
//! There are two figures for each download. Its *share* says how much it may have asked for: no
//! more than that is begun. What it has *reserved* is memory in fact: reserved when the first block
//! of a piece comes, given back when the piece is on the disk. All shares together, and all that is
//! reserved, never exceed the whole.
//!
//! Only downloads that can ask somebody have a share, and it follows what they get:
//!
//! 1. An eighth is for downloads that have got nothing for [`LIVELY`], among them new ones, in equal
//!    allotments. Whoever only says that he will give something opens up no more than that.
//! 2. From the rest each lively download gets what fills its lines: rate × round trip × 2.
//! 3. Then each gets what it has earned: twice what came within a second, and a little to grow with.
//! 4. What is left goes to lively ones in equal allotments. One that is alone has everything.
//!
//! Wherever there is not enough for all, small wants are met before great ones, so that nobody who
//! gets something is left with less than an equal allotment of the whole unless he wants less.
//!
//! A piece for which there is no memory need not wait: its blocks go to the disk one by one. So
//! nobody starves, however many there are. Downloads that hold more than their share for a second
//! while others are refused are named by [`Budget::take_debtors`], and are to do the same with
//! pieces that have come in allotment.

use std::time::Duration;

use slab::Slab;

use piecework_core::Moment;

#[cfg(test)]
mod tests;

/// Divides blocks among downloads.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    members: Slab<Member>,
    /// Reserved, and on the way to the disk.
    used: u64,
    /// When shares were computed last.
    divided: Option<Moment>,
    /// They are to be computed as soon as that may be.
    stale: bool,
    /// Somebody was refused since debtors were named last.
    refused: bool,
    /// Before this they are not named again.
    next_debtors: Moment,
    /// Those that lacked memory and may have more since a division.
    risen: Vec<MemberId>,
    // Kept for its memory only.
    allotments: Vec<Allotment>,
}

/// A download that takes allotment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(usize);

/// What a download says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberReport {
    /// Blocks that have come since it spoke last.
    pub came: u64,
    /// Blocks that fill its lines: rate × round trip × 2 of all peers.
    pub in_flight: u64,
    /// There is something to ask for, and the share is used up.
    pub is_short: bool,
}

#[derive(Debug)]
struct Member {
    share: u64,
    /// What it was told last of its share, and whether that was too little.
    told: u64,
    is_short: bool,
    used: u64,
    /// When a block came last.
    lively_at: Option<Moment>,
    in_flight: u64,
    /// Blocks that have come since `window`, and in the second before that.
    came: u64,
    came_before: u64,
    window: Moment,
    /// Since when it holds more than its share.
    over_since: Option<Moment>,
}

/// What one of several gets.
#[derive(Debug)]
struct Allotment {
    id: usize,
    gets: u64,
    /// What fills its lines, and what it has earned.
    in_flight: u64,
    earned: u64,
}

impl Budget {
    /// A budget of `total` blocks.
    pub fn new(total: u64) -> Self {
        Self {
            total,
            members: Slab::new(),
            used: 0,
            divided: None,
            stale: false,
            refused: false,
            next_debtors: Moment::START,
            risen: Vec::new(),
            allotments: Vec::new(),
        }
    }

    /// A download that can ask somebody takes allotment from now on.
    pub fn join(&mut self, now: Moment) -> MemberId {
        let id = self.members.insert(Member {
            share: 0,
            told: 0,
            is_short: false,
            used: 0,
            lively_at: None,
            in_flight: 0,
            came: 0,
            came_before: 0,
            window: now,
            over_since: None,
        });
        self.stale = true;
        self.divide_if_due(now);
        MemberId(id)
    }

    /// It does not any more, and gives back all it has.
    pub fn leave(&mut self, now: Moment, id: MemberId) {
        if let Some(member) = self.members.try_remove(id.0) {
            self.used -= member.used;
            self.stale = true;
            self.divide_if_due(now);
        }
    }

    /// Takes note of how a download does. Returns its share in blocks. If [`Budget::is_stale`] then,
    /// it should speak again soon.
    pub fn tell(&mut self, now: Moment, id: MemberId, report: MemberReport) -> u64 {
        let Some(member) = self.members.get_mut(id.0) else { return 0 };
        (member.in_flight, member.is_short) = (report.in_flight, report.is_short);
        if report.came > 0 {
            self.stale |= !member.is_lively(now);
            member.turn(now);
            member.came += report.came;
            member.lively_at = Some(now);
        }
        self.divide_if_due(now);
        let member = &mut self.members[id.0];
        member.told = member.share;
        member.share
    }

    /// Whether shares are to be computed anew as soon as somebody speaks again.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Names downloads that lacked memory when they spoke last and have a larger share by now: they
    /// should speak again.
    pub fn take_risen(&mut self) -> Vec<MemberId> {
        let mut risen = std::mem::take(&mut self.risen);
        let has_risen = |id: &MemberId| {
            self.members
                .get(id.0)
                .is_some_and(|member| member.is_short && member.share > member.told)
        };
        risen.retain(has_risen);
        risen
    }

    /// Reserves memory for a piece of `blocks` whose first block has come. Returns whether there is
    /// some for it; if not, its blocks are to go to the disk as they come.
    pub fn reserve(&mut self, id: MemberId, blocks: u64) -> bool {
        let Some(member) = self.members.get_mut(id.0) else { return false };
        let (own, all) = (member.used + blocks, self.used + blocks);
        // Shares are of no account as long as there is enough for everybody.
        let is_due = member.used == 0 || own <= member.share;
        let fits = all <= self.total && (is_due || all <= self.total - self.total / SPARE_PART);
        if fits {
            member.used = own;
            self.used = all;
        } else {
            self.refused |= is_due;
        }
        fits
    }

    /// Counts blocks on their way to the disk: they are in memory already. Returns whether
    /// everything fits.
    pub fn hold(&mut self, id: MemberId, blocks: u64) -> bool {
        if let Some(member) = self.members.get_mut(id.0) {
            member.used += blocks;
            self.used += blocks;
        }
        self.used <= self.total
    }

    /// Gives back what was reserved or held. Returns whether everything fits.
    pub fn release(&mut self, id: MemberId, blocks: u64) -> bool {
        if let Some(member) = self.members.get_mut(id.0) {
            let blocks = blocks.min(member.used);
            member.used -= blocks;
            self.used -= blocks;
        }
        self.used <= self.total
    }

    /// Blocks in memory, over all.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Blocks a download has in memory.
    pub fn used_by(&self, id: MemberId) -> u64 {
        self.members.get(id.0).map_or(0, |member| member.used)
    }

    /// Blocks a download may have asked for, as it was computed last.
    pub fn share(&self, id: MemberId) -> u64 {
        self.members.get(id.0).map_or(0, |member| member.share)
    }

    /// Downloads there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Names downloads that have held more than their share for a second, if somebody was refused
    /// memory since this was asked last. Each is named ten times a second at most.
    pub fn take_debtors(&mut self, now: Moment) -> Vec<MemberId> {
        if !self.refused || now < self.next_debtors {
            return Vec::new();
        }
        self.divide_if_due(now);
        self.refused = false;
        self.next_debtors = now + PAUSE;
        let is_debtor = |member: &Member| {
            member.used > member.share
                && member.over_since.is_some_and(|since| now.since(since) >= GRACE)
        };
        let debtors = self.members.iter().filter(|(_, member)| is_debtor(member));
        debtors.map(|(id, _)| MemberId(id)).collect()
    }

    /// Computes shares anew, not more often than pays.
    fn divide_if_due(&mut self, now: Moment) {
        let pause = match self.stale {
            true if self.members.len() <= FEW => Duration::ZERO,
            true => SHORT_PAUSE,
            false => PAUSE,
        };
        if self.divided.is_some_and(|divided| now < divided + pause) {
            return;
        }
        self.divided = Some(now);
        self.stale = false;
        self.divide(now);
    }

    fn divide(&mut self, now: Moment) {
        let start = self.total / START_PART;
        let mut allotments = std::mem::take(&mut self.allotments);
        allotments.clear();
        for (id, member) in &mut self.members {
            if member.is_lively(now) {
                member.turn(now);
                let earned = member.came.max(member.came_before) * 2 + start;
                allotments.push(Allotment { id, gets: 0, in_flight: member.in_flight, earned });
            }
        }
        let silent = (self.members.len() - allotments.len()) as u64;
        let trial = if silent > 0 { self.total / TRIAL_PART } else { 0 };
        let left = distribute(&mut allotments, self.total - trial, |allotment| {
            allotment.in_flight.min(allotment.earned)
        });
        let left = distribute(&mut allotments, left, |allotment| allotment.earned);
        distribute(&mut allotments, left, |_| u64::MAX);
        let each = trial.checked_div(silent).unwrap_or(0);
        for (_, member) in &mut self.members {
            member.share = each;
        }
        for allotment in &allotments {
            self.members[allotment.id].share = allotment.gets;
        }
        for (_, member) in &mut self.members {
            let over = member.used > member.share;
            member.over_since = over.then(|| member.over_since.unwrap_or(now));
        }
        self.risen.clear();
        let has_risen = |member: &Member| member.is_short && member.share > member.told + start;
        let risen = self.members.iter().filter(|(_, member)| has_risen(member));
        self.risen.extend(risen.map(|(id, _)| MemberId(id)));
        self.allotments = allotments;
    }
}

impl Member {
    fn is_lively(&self, now: Moment) -> bool {
        self.lively_at.is_some_and(|at| now.since(at) < LIVELY)
    }

    /// Begins another second if one is over.
    fn turn(&mut self, now: Moment) {
        let passed = now.since(self.window);
        if passed >= SECOND {
            self.came_before = if passed < SECOND * 2 { self.came } else { 0 };
            (self.came, self.window) = (0, now);
        }
    }
}

/// Adds up to `left` blocks to the allotments, until each has what it `wants`; all equally, but none more
/// than that. Returns what is left.
fn distribute(
    allotments: &mut [Allotment],
    mut left: u64,
    wants: impl Fn(&Allotment) -> u64,
) -> u64 {
    let lacks = |allotment: &Allotment| wants(allotment).saturating_sub(allotment.gets);
    allotments.sort_unstable_by_key(lacks);
    let count = allotments.len();
    for (at, allotment) in allotments.iter_mut().enumerate() {
        let equal = left / (count - at) as u64;
        let more = lacks(allotment).min(equal);
        allotment.gets += more;
        left -= more;
    }
    left
}

/// Of the whole, what allotment is for downloads that get nothing.
const TRIAL_PART: u64 = 8;

/// Of the whole, what allotment each lively download may grow by: 1 MiB of 64.
const START_PART: u64 = 64;

/// Of the whole, what allotment is given to nobody who has his share.
const SPARE_PART: u64 = 8;

/// For how long a download that gets nothing counts as one that gets something.
const LIVELY: Duration = Duration::from_secs(2);

/// For how long a download may hold more than its share while others are refused. Pieces that are
/// coming are whole by then, mostly.
const GRACE: Duration = Duration::from_secs(1);

const SECOND: Duration = Duration::from_secs(1);

/// Between two divisions: a division costs all downloads that take allotment.
const PAUSE: Duration = Duration::from_millis(100);

/// The same if one has joined or left, or gets something again.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// A division of as few as this costs no more than what leads to it.
const FEW: usize = 16;
