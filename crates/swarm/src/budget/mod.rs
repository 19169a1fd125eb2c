//! Divides one memory budget among many downloads, for pieces that have begun to arrive.
//!
//! There are two numbers for each download. Its *share* is how much it may have requested: no more than
//! that is begun. What it has *reserved* is actual memory: reserved when the first block of a piece
//! arrives, released when the piece is on the disk. The sum of all shares, and that of all reserved memory,
//! never exceeds the total.
//!
//! Only downloads that can request something have a share, and it follows what they receive:
//!
//! 1. An eighth is for downloads that have received nothing for two seconds, including new ones, in equal
//!    parts. A peer that only promises to give something opens up no more than that.
//! 2. From the rest, each lively download gets what fills its lines: rate × round trip × 2.
//! 3. Then each gets what it has earned: twice what arrived within a second, and a little to grow with.
//! 4. What is left goes to lively downloads in equal parts. A single one has everything.
//!
//! Where there is not enough for all, small demands are met before large ones. So a download that receives
//! something never gets less than an equal part of the total, unless it wants less.
//!
//! A piece for which there is no memory need not wait: its blocks go to the disk one by one. So no download
//! starves, however many there are. Downloads that hold more than their share for a second while others are
//! refused are returned by [`Budget::take_debtors`], and must do the same with partly received pieces.

use std::time::Duration;

use slab::Slab;

use piecework_core::Moment;

#[cfg(test)]
mod tests;

/// A memory budget in blocks, divided among downloads.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    members: Slab<Member>,
    /// Blocks reserved, and on their way to the disk.
    used: u64,
    /// When shares were last computed.
    divided: Option<Moment>,
    /// Shares must be recomputed as soon as that is allowed.
    stale: bool,
    /// A download was refused since debtors were last returned.
    refused: bool,
    /// Debtors are not returned again before this.
    next_debtors: Moment,
    /// Downloads that lacked memory and may have more since the last division.
    risen: Vec<MemberId>,
    // Kept only to reuse its memory.
    allotments: Vec<Allotment>,
}

/// Identifies a download that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(usize);

/// What a download reports about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberReport {
    /// How many blocks have arrived since its last report.
    pub came: u64,
    /// How many blocks fill its lines: rate × round trip × 2 of all peers.
    pub in_flight: u64,
    /// Whether there is something to request and its share is used up.
    pub is_short: bool,
}

#[derive(Debug)]
struct Member {
    share: u64,
    /// The share that it was last told, and whether that was too little.
    told: u64,
    is_short: bool,
    used: u64,
    /// When a block last arrived.
    lively_at: Option<Moment>,
    in_flight: u64,
    /// How many blocks have arrived since `window`, and in the second before that.
    came: u64,
    came_before: u64,
    window: Moment,
    /// Since when it holds more than its share.
    over_since: Option<Moment>,
}

/// What one of several downloads gets.
#[derive(Debug)]
struct Allotment {
    id: usize,
    gets: u64,
    /// What fills its lines, and what it has earned.
    in_flight: u64,
    earned: u64,
}

impl Budget {
    /// Creates a budget of `total` blocks.
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

    /// Adds a download that can request something.
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

    /// Removes a download and releases all its memory.
    pub fn leave(&mut self, now: Moment, id: MemberId) {
        if let Some(member) = self.members.try_remove(id.0) {
            self.used -= member.used;
            self.stale = true;
            self.divide_if_due(now);
        }
    }

    /// Handles the report of a download. Returns its share in blocks. If [`Budget::is_stale`] returns true
    /// afterwards, it should report again soon.
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

    /// Returns whether shares will be recomputed with the next report.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Returns downloads that lacked memory in their last report and have a larger share by now. They
    /// should report again.
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

    /// Reserves memory for a piece of `blocks` blocks whose first block has arrived. Returns whether there
    /// was enough. If not, its blocks must go to the disk as they arrive.
    pub fn reserve(&mut self, id: MemberId, blocks: u64) -> bool {
        let Some(member) = self.members.get_mut(id.0) else { return false };
        let (own, all) = (member.used + blocks, self.used + blocks);
        // Shares do not matter as long as there is enough for all.
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

    /// Counts blocks on their way to the disk, which are in memory already. Returns whether everything
    /// fits.
    pub fn hold(&mut self, id: MemberId, blocks: u64) -> bool {
        if let Some(member) = self.members.get_mut(id.0) {
            member.used += blocks;
            self.used += blocks;
        }
        self.used <= self.total
    }

    /// Releases what was reserved or held. Returns whether everything fits.
    pub fn release(&mut self, id: MemberId, blocks: u64) -> bool {
        if let Some(member) = self.members.get_mut(id.0) {
            let blocks = blocks.min(member.used);
            member.used -= blocks;
            self.used -= blocks;
        }
        self.used <= self.total
    }

    /// Returns the number of blocks in memory.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Returns how many blocks a download has in memory.
    pub fn used_by(&self, id: MemberId) -> u64 {
        self.members.get(id.0).map_or(0, |member| member.used)
    }

    /// Returns how many blocks a download may have requested, as last computed.
    pub fn share(&self, id: MemberId) -> u64 {
        self.members.get(id.0).map_or(0, |member| member.share)
    }

    /// Returns the number of downloads.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns whether there are no downloads.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns downloads that have held more than their share for a second, if a download was refused
    /// memory since the last call. Each is returned at most ten times a second.
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

    /// Recomputes shares, but no more often than is worthwhile.
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

/// Adds up to `left` blocks to the allotments, equally, until each has what it `wants`. Returns what is
/// left.
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

/// The fraction of the total for downloads that receive nothing.
const TRIAL_PART: u64 = 8;

/// The fraction of the total by which each lively download may grow: 1 MiB of 64.
const START_PART: u64 = 64;

/// The fraction of the total that no download gets beyond its share.
const SPARE_PART: u64 = 8;

/// How long a download that receives nothing still counts as lively.
const LIVELY: Duration = Duration::from_secs(2);

/// How long a download may hold more than its share while others are refused. Most pieces that are arriving
/// are whole by then.
const GRACE: Duration = Duration::from_secs(1);

const SECOND: Duration = Duration::from_secs(1);

/// The pause between two divisions. A division visits all downloads.
const PAUSE: Duration = Duration::from_millis(100);

/// The same if a download has joined or left, or receives something again.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// A division among so few costs no more than what causes it.
const FEW: usize = 16;
