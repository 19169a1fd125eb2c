//! Removal of peers that no longer announce, a bounded number with each call. The time is
//! [`RegistryConfig::expire_after`](super::RegistryConfig::expire_after). Answers leave such peers out before that.

use piecework_core::Moment;
use piecework_core::SaturatingFrom;

use super::peers::{Tick, tick_of};
use super::registry::{ExpiryCursor, Registry, hash_of};
use super::select::PeerPosition;
use super::watch::DepartureCause;

/// The result of one call of [`Registry::expire`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExpiryReport {
    /// The number of peers, and of torrents without peers to examine.
    pub looked: usize,
    /// The number of peers removed.
    pub peers: usize,
    /// Whether the last peer of the registry was reached, so that the next call starts over.
    pub round_done: bool,
}

impl Registry {
    /// Examines torrents and up to `budget` peers, and removes peers that have not announced for too long. Examines
    /// the peers of a torrent only if one of them may be that old.
    pub fn expire(&mut self, now: Moment, budget: usize) -> ExpiryReport {
        let alive_since = self.alive_since(tick_of(now));
        let mut done = ExpiryReport::default();
        // Other peers may have been added or moved since the last call.
        self.cursor.oldest = None;
        // An empty torrent counts too, or a million of them would make one long call.
        while done.looked < budget {
            let slot = self.cursor.torrent;
            if slot >= self.torrents.capacity() {
                self.cursor = ExpiryCursor::default();
                done.round_done = true;
                self.shrink();
                break;
            }
            done.looked += 1;
            let Some(place) = self.next_to_expire(slot, alive_since) else {
                self.cursor = ExpiryCursor { torrent: slot + 1, ..ExpiryCursor::default() };
                continue;
            };
            let seen = self.torrents[slot].seen(place);
            if seen < alive_since {
                self.remove(slot, place, DepartureCause::Expired);
                // Done here and not later in the walk, because the budget may be used up now.
                self.drop_if_idle(slot);
                self.expired += 1;
                done.peers += 1;
            } else if let Some(oldest) = &mut self.cursor.oldest {
                *oldest = seen.min(*oldest);
            }
        }
        done
    }

    /// Gives back the room of torrents if most of it is empty.
    fn shrink(&mut self) {
        let wanted = 2 * self.torrents.len();
        if wanted >= self.torrents.capacity() / 2 {
            return;
        }
        // Only as far as the last torrents have gone, because a torrent keeps its place.
        self.torrents.shrink_to_fit();
        let (torrents, hasher) = (&self.torrents, &self.hasher);
        self.by_hash.shrink_to(wanted, |slot| hash_of(torrents[*slot as usize].info_hash, hasher));
        self.ids.shrink();
    }

    /// Returns the next peer of a torrent to examine; `None` if there is none, or none can have expired.
    fn next_to_expire(&mut self, slot: usize, alive_since: Tick) -> Option<PeerPosition> {
        let torrent = self.torrents.get_mut(slot)?;
        if self.cursor.left.is_none() {
            if torrent.oldest >= alive_since {
                return None;
            }
            self.cursor.oldest = Some(Tick(u32::MAX));
        }
        let (v4, v6) = self.cursor.left.unwrap_or_else(|| (torrent.v4.len(), torrent.v6.len()));
        // Other peers may have left since the last call.
        let (v4, v6) = (v4.min(torrent.v4.len()), v6.min(torrent.v6.len()));
        if v4 > 0 {
            self.cursor.left = Some((v4 - 1, v6));
            Some(PeerPosition::V4(u32::saturating_from(v4 - 1)))
        } else if v6 > 0 {
            self.cursor.left = Some((0, v6 - 1));
            Some(PeerPosition::V6(u32::saturating_from(v6 - 1)))
        } else {
            // Known only if the whole torrent was examined in one call.
            if let Some(oldest) = self.cursor.oldest {
                torrent.oldest = oldest;
            }
            None
        }
    }
}
