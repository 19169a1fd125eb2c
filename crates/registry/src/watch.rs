//! The changes of a torrent, recorded only while somebody watches it. The cost depends on what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::availability::differences;
use super::holdings::Holdings;
use piecework_core::{Moment, PieceIndex};

/// Why a peer is no longer on the list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DepartureCause {
    /// The peer announced `stopped`.
    Stopped,
    /// The peer no longer announced.
    Expired,
    /// The peer had accepted a connection of the observer, and then refused.
    Unreachable,
    /// The entry is the second address of a peer that is on the list.
    Joined,
}

/// A peer that is no longer on the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Departure {
    /// The peer's number.
    pub id: u64,
    /// The peer's address.
    pub addr: SocketAddr,
    /// Why the peer is gone.
    pub why: DepartureCause,
}

/// The changes of one torrent since they were last taken.
pub(super) struct SwarmWatch {
    pub gone: Vec<Departure>,
    pub rows: BTreeSet<SocketAddr>,
    pub grown: BTreeMap<SocketAddr, Vec<PieceIndex>>,
    /// There were too many changes to record.
    pub all: bool,
    /// The number of entries in the collections above.
    kept: usize,
    /// When pulses were last reported.
    pub pulse_at: Moment,
    /// The peers that made progress then.
    pub moving: BTreeSet<u64>,
}

impl DepartureCause {
    /// Returns the word that stands for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::Joined => "joined",
        }
    }
}

impl SwarmWatch {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            gone: Vec::new(),
            rows: BTreeSet::new(),
            grown: BTreeMap::new(),
            all: false,
            kept: 0,
            pulse_at: now,
            moving: BTreeSet::new(),
        }
    }

    /// Records that a peer is new or that its row has changed.
    pub(super) fn row(&mut self, addr: SocketAddr) {
        if self.rows.insert(addr) {
            self.count(1);
        }
    }

    /// Records that a peer got a piece.
    pub(super) fn piece(&mut self, addr: SocketAddr, piece: PieceIndex) {
        if !self.all && !self.rows.contains(&addr) {
            self.grown.entry(addr).or_default().push(piece);
            self.count(1);
        }
    }

    /// Records that a peer's holdings were replaced.
    pub(super) fn replaced(&mut self, addr: SocketAddr, old: &Holdings, new: &Holdings) {
        let Holdings::Pieces(old) = old else { return self.row(addr) };
        if self.all || self.rows.contains(&addr) {
            return;
        }
        let mut more = Vec::new();
        match new {
            Holdings::Pieces(new) => {
                for (piece, is_new) in differences(old, new) {
                    if !is_new {
                        return self.row(addr);
                    }
                    more.push(piece);
                }
            }
            Holdings::Everything => more.extend(old.missing()),
            Holdings::Unknown => return self.row(addr),
        }
        // A row says "all" in one word, which is shorter than a list of pieces.
        if *new == Holdings::Everything && more.len() > WORTH_A_ROW {
            return self.row(addr);
        }
        self.count(more.len());
        if !self.all && !more.is_empty() {
            self.grown.entry(addr).or_default().append(&mut more);
        }
    }

    /// Records that a peer left.
    pub(super) fn gone(&mut self, gone: Departure) {
        self.rows.remove(&gone.addr);
        self.grown.remove(&gone.addr);
        self.gone.push(gone);
        self.count(1);
    }

    /// Forgets what is recorded for a peer at `from`, which is no longer its first address. The caller records
    /// its new row.
    pub(super) fn moved(&mut self, from: SocketAddr) {
        self.rows.remove(&from);
        self.grown.remove(&from);
    }

    /// Forgets all recorded changes.
    pub(super) fn reset(&mut self) {
        self.gone.clear();
        self.rows.clear();
        self.grown.clear();
        (self.all, self.kept) = (false, 0);
    }

    fn count(&mut self, more: usize) {
        self.kept += more;
        if self.kept > MAX_KEPT {
            self.reset();
            self.all = true;
        }
        if self.all {
            self.gone.clear();
            self.rows.clear();
            self.grown.clear();
        }
    }
}

/// The maximum number of entries recorded between two looks, a fraction of a second apart. Beyond it the whole
/// swarm is cheaper to send.
const MAX_KEPT: usize = 65_536;

/// The maximum number of pieces that are listed one by one when a peer becomes complete.
const WORTH_A_ROW: usize = 1_000;
