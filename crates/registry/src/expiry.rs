//! Removal of peers that no longer announce, a bounded number with each call. The time is
//! [`RegistryConfig::expire_after`](super::RegistryConfig::expire_after). Answers leave such peers out before that.

use piecework_core::Moment;
use piecework_core::SaturatingFrom;

use super::peers::tick_of;
use super::registry::{ExpiryCursor, Registry};
use super::select::PeerPosition;
use super::watch::DepartureCause;

/// The result of one call of [`Registry::expire`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExpiryReport {
    /// The number of peers and empty slots examined.
    pub looked: usize,
    /// The number of peers removed.
    pub peers: usize,
    /// Whether the last peer of the registry was reached, so that the next call starts over.
    pub round_done: bool,
}

impl Registry {
    /// Examines up to `budget` peers and removes those that have not announced for too long.
    pub fn expire(&mut self, now: Moment, budget: usize) -> ExpiryReport {
        let alive_since = self.alive_since(tick_of(now));
        let mut done = ExpiryReport::default();
        // An empty torrent counts too, or a million of them would make one long call.
        while done.looked < budget {
            let slot = self.cursor.torrent;
            if slot >= self.torrents.capacity() {
                self.cursor = ExpiryCursor::default();
                done.round_done = true;
                break;
            }
            done.looked += 1;
            let Some(torrent) = self.torrents.get_mut(slot) else {
                self.cursor = ExpiryCursor { torrent: slot + 1, left: None };
                continue;
            };
            let (v4, v6) = self.cursor.left.unwrap_or_else(|| (torrent.v4.len(), torrent.v6.len()));
            // Other peers may have left since the last call.
            let (v4, v6) = (v4.min(torrent.v4.len()), v6.min(torrent.v6.len()));
            let gone = if v4 > 0 {
                self.cursor.left = Some((v4 - 1, v6));
                let at = v4 - 1;
                (torrent.v4.get(at).seen < alive_since)
                    .then_some(PeerPosition::V4(u32::saturating_from(at)))
            } else if v6 > 0 {
                self.cursor.left = Some((0, v6 - 1));
                let at = v6 - 1;
                (torrent.v6.get(at).seen < alive_since)
                    .then_some(PeerPosition::V6(u32::saturating_from(at)))
            } else {
                self.cursor = ExpiryCursor { torrent: slot + 1, left: None };
                continue;
            };
            if let Some(place) = gone {
                self.remove(slot, place, DepartureCause::Expired);
                // Done here and not later in the walk, because the budget may be used up now.
                self.drop_if_idle(slot);
                self.expired += 1;
                done.peers += 1;
            }
        }
        done
    }
}
