//! The room that each network may use in the catalogue, and which torrents are removed when there is none left.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::catalogue_torrent::CatalogueTorrent;

/// The limits of a catalogue. Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatalogueBounds {
    /// The maximum number of torrents, and of bytes of their `.torrent` files.
    pub torrents: usize,
    pub bytes: u64,
    /// The same for torrents that one network registered. Loopback is exempt.
    pub torrents_per_network: usize,
    pub bytes_per_network: u64,
    /// A torrent that nobody has announced for this time may be removed to make room.
    pub idle_after: i64,
    /// A torrent that nobody has announced for this time has no peers now.
    pub gone_after: i64,
    /// Seconds since 1970.
    pub now: i64,
}

/// The torrents and bytes that each network has registered.
#[derive(Debug, Default)]
pub(super) struct NetworkShares(BTreeMap<IpAddr, NetworkShare>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct NetworkShare {
    torrents: usize,
    bytes: u64,
}

/// Why there is no room for a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The whole catalogue is full.
    InAll,
    /// The registering network has reached its limit.
    ForNetwork,
}

impl NetworkShares {
    /// Counts an entry that was added to the catalogue.
    pub(super) fn add(&mut self, entry: &CatalogueTorrent) {
        if let Some(network) = entry.registrar {
            let share = self.0.entry(network).or_default();
            *share = NetworkShare { torrents: share.torrents + 1, bytes: share.bytes + entry.len };
        }
    }

    /// Removes an entry from the counts.
    pub(super) fn take(&mut self, entry: &CatalogueTorrent) {
        let Some(network) = entry.registrar else { return };
        if let Some(share) = self.0.get_mut(&network) {
            share.torrents -= 1;
            share.bytes = share.bytes.saturating_sub(entry.len);
            if share.torrents == 0 {
                self.0.remove(&network);
            }
        }
    }

    /// Returns why `network` cannot register another torrent with a `.torrent` file of `len` bytes, if so. The
    /// catalogue now has `torrents` with `bytes` in all.
    pub(super) fn obstacle(
        &self,
        bounds: &CatalogueBounds,
        (torrents, bytes): (usize, u64),
        network: Option<IpAddr>,
        len: u64,
    ) -> Option<NoRoom> {
        let share = self.of(network);
        let counted = network.is_some_and(|network| !network.is_loopback());
        if counted
            && (share.torrents >= bounds.torrents_per_network
                || share.bytes + len > bounds.bytes_per_network)
        {
            return Some(NoRoom::ForNetwork);
        }
        (torrents >= bounds.torrents || bytes + len > bounds.bytes).then_some(NoRoom::InAll)
    }

    /// Returns the torrent to remove to make room for one of `network`, if any. This is the torrent with the
    /// longest time since its last announce, if that time is long or it was never announced. If there is none and
    /// the whole catalogue is full, it is a torrent without peers of the network with the most torrents.
    pub(super) fn who_makes_way<'a>(
        &self,
        bounds: &CatalogueBounds,
        no_room: NoRoom,
        network: Option<IpAddr>,
        entries: impl Iterator<Item = &'a Arc<CatalogueTorrent>> + Clone,
    ) -> Option<Arc<CatalogueTorrent>> {
        // Torrents that the operator put into the folder are never removed.
        let entries = entries.filter(|entry| entry.registrar.is_some());
        let longest = |entries: &mut dyn Iterator<Item = &'a Arc<CatalogueTorrent>>| {
            entries.max_by_key(|entry| entry.silence(bounds.now)).cloned()
        };
        let is_idle = |entry: &&Arc<CatalogueTorrent>| {
            let most = if entry.was_announced() { bounds.idle_after } else { NEVER_ANNOUNCED };
            entry.silence(bounds.now) >= most
        };
        let is_own = |entry: &&Arc<CatalogueTorrent>| entry.registrar == network;
        if no_room == NoRoom::ForNetwork {
            return longest(&mut entries.filter(is_own).filter(is_idle));
        }
        if let Some(idle) = longest(&mut entries.clone().filter(is_idle)) {
            return Some(idle);
        }
        let (most, share) = self.0.iter().max_by_key(|(_, share)| (share.torrents, share.bytes))?;
        let has_more = Some(*most) == network || share.torrents > self.of(network).torrents + 1;
        let is_alone = |entry: &&Arc<CatalogueTorrent>| {
            let silence = entry.silence(bounds.now);
            silence > if entry.was_announced() { bounds.gone_after } else { TIME_TO_ANNOUNCE }
        };
        let mut theirs = entries.filter(|entry| entry.registrar == Some(*most)).filter(is_alone);
        longest(&mut theirs).filter(|_| has_more)
    }

    fn of(&self, network: Option<IpAddr>) -> NetworkShare {
        network.and_then(|network| self.0.get(&network).copied()).unwrap_or_default()
    }
}

/// A torrent that was never announced may be removed after this time. Clients announce a torrent within seconds of
/// registering it.
const NEVER_ANNOUNCED: i64 = 600;

/// The same for the network with the most torrents, while the catalogue is full.
const TIME_TO_ANNOUNCE: i64 = 10;
