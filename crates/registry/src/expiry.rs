//! Peers that have been silent for too long are removed, some with each call.

use piecework_core::Moment;

use super::peers::tick_of;
use super::registry::{Cursor, Registry};
use super::select::Place;
use super::watch::GoneWhy;

/// What one call of [`Registry::expire`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// Peers looked at.
    pub looked: usize,
    /// Peers removed.
    pub peers: usize,
    /// Whether the last peer of the registry was reached: the next call begins anew.
    pub round_done: bool,
}

impl Registry {
    /// Looks at up to `budget` peers and removes those that have been silent for too long.
    pub fn expire(&mut self, now: Moment, budget: usize) -> Expired {
        let alive_since = self.alive_since(tick_of(now));
        let mut done = Expired::default();
        // An empty torrent costs a look too, or a million of them would be a pause.
        while done.looked < budget {
            let slot = self.cursor.torrent;
            if slot >= self.torrents.capacity() {
                self.cursor = Cursor::default();
                done.round_done = true;
                break;
            }
            done.looked += 1;
            let Some(torrent) = self.torrents.get_mut(slot) else {
                self.cursor = Cursor { torrent: slot + 1, left: None };
                continue;
            };
            let (v4, v6) = self.cursor.left.unwrap_or_else(|| (torrent.v4.len(), torrent.v6.len()));
            // Others may have gone since the last call.
            let (v4, v6) = (v4.min(torrent.v4.len()), v6.min(torrent.v6.len()));
            let gone = if v4 > 0 {
                self.cursor.left = Some((v4 - 1, v6));
                let at = v4 - 1;
                (torrent.v4.get(at).seen < alive_since).then_some(Place::V4(at as u32))
            } else if v6 > 0 {
                self.cursor.left = Some((0, v6 - 1));
                let at = v6 - 1;
                (torrent.v6.get(at).seen < alive_since).then_some(Place::V6(at as u32))
            } else {
                self.cursor = Cursor { torrent: slot + 1, left: None };
                continue;
            };
            if let Some(place) = gone {
                self.remove(slot, place, GoneWhy::Expired);
                // At once, not when the walk comes by: the budget may be used up here.
                self.drop_if_idle(slot);
                self.expired += 1;
                done.peers += 1;
            }
        }
        done
    }
}
