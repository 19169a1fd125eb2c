//! What changes in a torrent while somebody looks: kept only then, and costs what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::availability::differences;
use super::held::Held;
use piecework_core::{Moment, PieceIndex};

/// Why a peer is no longer on the list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GoneWhy {
    /// It said so.
    Stopped,
    /// It fell silent.
    Expired,
    /// It was observed, and then refused connections.
    Unreachable,
    /// It turned out to be the second address of a peer that is on the list.
    Joined,
}

/// A peer that is no longer on the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// Its number.
    pub id: u64,
    /// Its address.
    pub addr: SocketAddr,
    /// Why.
    pub why: GoneWhy,
}

/// What is kept between two looks at a torrent.
pub(super) struct Watch {
    pub gone: Vec<Gone>,
    pub rows: BTreeSet<SocketAddr>,
    pub grown: BTreeMap<SocketAddr, Vec<PieceIndex>>,
    /// Too much was to be kept.
    pub all: bool,
    /// Entries in the above.
    kept: usize,
    /// When pulses were told last.
    pub pulse_at: Moment,
    /// Those that were moving then.
    pub moving: BTreeSet<u64>,
}

impl GoneWhy {
    /// One word, as the JSON has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::Joined => "joined",
        }
    }
}

impl Watch {
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

    /// A peer is new, or no longer what it was.
    pub(super) fn row(&mut self, addr: SocketAddr) {
        if self.rows.insert(addr) {
            self.count(1);
        }
    }

    /// A peer got a piece.
    pub(super) fn piece(&mut self, addr: SocketAddr, piece: PieceIndex) {
        if !self.all && !self.rows.contains(&addr) {
            self.grown.entry(addr).or_default().push(piece);
            self.count(1);
        }
    }

    /// A peer holds something else.
    pub(super) fn replaced(&mut self, addr: SocketAddr, old: &Held, new: &Held) {
        let Held::Pieces(old) = old else { return self.row(addr) };
        if self.all || self.rows.contains(&addr) {
            return;
        }
        let mut more = Vec::new();
        match new {
            Held::Pieces(new) => {
                for (piece, is_new) in differences(old, new) {
                    if !is_new {
                        return self.row(addr);
                    }
                    more.push(piece);
                }
            }
            Held::Everything => more.extend(old.missing()),
            Held::Unknown => return self.row(addr),
        }
        // A row says "all" in one word.
        if *new == Held::Everything && more.len() > WORTH_A_ROW {
            return self.row(addr);
        }
        self.count(more.len());
        if !self.all && !more.is_empty() {
            self.grown.entry(addr).or_default().append(&mut more);
        }
    }

    /// A peer left.
    pub(super) fn gone(&mut self, gone: Gone) {
        self.rows.remove(&gone.addr);
        self.grown.remove(&gone.addr);
        self.gone.push(gone);
        self.count(1);
    }

    /// A peer has another first address than this one now; its row is told anew.
    pub(super) fn moved(&mut self, from: SocketAddr) {
        self.rows.remove(&from);
        self.grown.remove(&from);
    }

    /// Begins anew.
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

/// Entries kept between two looks, a fraction of a second: beyond it the whole is cheaper to tell.
const MAX_KEPT: usize = 65_536;

/// Pieces that are told one by one of a peer that has become complete.
const WORTH_A_ROW: usize = 1_000;
