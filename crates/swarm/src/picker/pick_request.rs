//! Pick requests: peers that could be asked for blocks, and what is known about them.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use super::pick_cache::PickCache;
use crate::PeerKey;
use piecework_core::{Bitfield, Moment};

/// A peer that could be asked for blocks.
#[derive(Debug)]
pub(crate) struct PickRequest<'a> {
    pub(crate) key: PeerKey,
    pub(crate) holds: &'a Bitfield,
    pub(crate) cache: &'a mut PickCache,
    /// It owes us hardly any blocks.
    pub(crate) idle: bool,
    pub(crate) trust: Trust,
    pub(crate) pace: DeliveryEstimate,
}

/// What a peer's past says about its requests. Peers are asked in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// It gives blocks.
    Proven,
    /// It gives blocks, and owes others that are late.
    Late,
    /// It has not been asked for anything yet.
    Untested,
    /// It has been asked, and has not given anything yet.
    Unproven,
    /// It has let us wait too long.
    Snubbed,
}

/// When blocks of a peer are expected.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeliveryEstimate {
    /// The time until a block arrives that is requested now.
    pub(crate) first: Duration,
    /// The time between two blocks.
    pub(crate) each: Duration,
}

impl PickRequest<'_> {
    pub(crate) fn is_snubbed(&self) -> bool {
        self.trust == Trust::Snubbed
    }

    /// Returns whether it may be asked for blocks that others are late with. It may not if it is late
    /// itself.
    pub(crate) fn takes_late_blocks(&self) -> bool {
        !matches!(self.trust, Trust::Late | Trust::Snubbed)
    }

    /// Returns whether it may take any copy of a block, up to the last. An untested peer may, once, to find
    /// out how good it is.
    pub(super) fn takes_last_copy(&self) -> bool {
        matches!(self.trust, Trust::Proven | Trust::Untested)
    }

    /// Returns until when a block is worth waiting for that is requested now, behind `ahead` others.
    pub(super) fn due(&self, now: Moment, ahead: usize) -> Moment {
        now + GRACE + (self.pace.first + self.pace.each * u32::saturating_from(ahead)) * 2
    }
}

/// How much longer than the peer's rate suggests every block may take. It is also the time for a peer whose
/// rate is unknown. A line around the earth takes this long.
const GRACE: Duration = Duration::from_millis(250);
