//! Peers that could be asked for something, and what is known of them.

use std::time::Duration;

use super::pick_cache::PickCache;
use crate::PeerKey;
use piecework_core::{Bitfield, Moment};

/// A peer that could be asked for something.
#[derive(Debug)]
pub(crate) struct PickRequest<'a> {
    pub(crate) key: PeerKey,
    pub(crate) holds: &'a Bitfield,
    pub(crate) cache: &'a mut PickCache,
    /// It owes us next to nothing.
    pub(crate) idle: bool,
    pub(crate) trust: Trust,
    pub(crate) pace: DeliveryEstimate,
}

/// What a peer's past says of its requests. Peers are served in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// It gives blocks.
    Proven,
    /// It gives blocks, and owes others that are late.
    Late,
    /// It has not been asked for anything yet.
    Untested,
    /// It has been, and has not given anything yet.
    Unproven,
    /// It has let us wait too long.
    Snubbed,
}

/// When a peer's blocks are to be expected.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeliveryEstimate {
    /// Time until a block comes that it is asked for now.
    pub(crate) first: Duration,
    /// Time between two blocks.
    pub(crate) each: Duration,
}

impl PickRequest<'_> {
    pub(crate) fn is_snubbed(&self) -> bool {
        self.trust == Trust::Snubbed
    }

    /// Whether it may be asked for blocks that others are late with: not if it is late itself.
    pub(crate) fn takes_late_blocks(&self) -> bool {
        !matches!(self.trust, Trust::Late | Trust::Snubbed)
    }

    /// Whether it may take any copy of a block. An untested peer may, once, so that it is found out
    /// what it is worth.
    pub(super) fn takes_last_copy(&self) -> bool {
        matches!(self.trust, Trust::Proven | Trust::Untested)
    }

    /// Until when a block is worth waiting for that it is asked for now, behind `ahead` others.
    pub(super) fn due(&self, now: Moment, ahead: usize) -> Moment {
        now + GRACE + (self.pace.first + self.pace.each * ahead as u32) * 2
    }
}

/// What every block may take longer than its peer's rate says; what a peer has to begin with of
/// which no rate is known. A line round the earth takes as long.
const GRACE: Duration = Duration::from_millis(250);
