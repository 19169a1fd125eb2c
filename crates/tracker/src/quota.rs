//! What each network may have of the catalogue, and which torrents make way when there is no room.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::catalogue::Entry;

/// The room of a catalogue. Times are seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Torrents, and bytes of their `.torrent` files, at most.
    pub torrents: usize,
    pub bytes: u64,
    /// The same of those that one network registered; loopback is not counted.
    pub torrents_per_network: usize,
    pub bytes_per_network: u64,
    /// A torrent that nobody announced for so long makes way when there is no room.
    pub idle_after: i64,
    /// A torrent that nobody announced for so long has no peers now.
    pub gone_after: i64,
    /// Seconds since 1970.
    pub now: i64,
}

/// What the networks have registered.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<IpAddr, Share>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Share {
    torrents: usize,
    bytes: u64,
}

/// Why there is no room for a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The whole catalogue is full.
    InAll,
    /// For the network that registers it.
    ForNetwork,
}

impl Shares {
    /// An entry is in the catalogue.
    pub(super) fn add(&mut self, entry: &Entry) {
        if let Some(network) = entry.registrar {
            let share = self.0.entry(network).or_default();
            *share = Share { torrents: share.torrents + 1, bytes: share.bytes + entry.len };
        }
    }

    /// An entry is no longer in the catalogue.
    pub(super) fn take(&mut self, entry: &Entry) {
        let Some(network) = entry.registrar else { return };
        if let Some(share) = self.0.get_mut(&network) {
            share.torrents -= 1;
            share.bytes = share.bytes.saturating_sub(entry.len);
            if share.torrents == 0 {
                self.0.remove(&network);
            }
        }
    }

    /// Whether there is no room for another torrent of `len` bytes that `network` registers, while
    /// there are `torrents` of `bytes` in all.
    pub(super) fn obstacle(
        &self,
        bounds: &Bounds,
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

    /// The torrent that makes way for another one of `network`, if one does: the one that was not
    /// announced for the longest, if that is long, or it was never announced. If there is no such
    /// one and no room in all, one that has no peers now, of the network that has the most.
    pub(super) fn who_makes_way<'a>(
        &self,
        bounds: &Bounds,
        no_room: NoRoom,
        network: Option<IpAddr>,
        entries: impl Iterator<Item = &'a Arc<Entry>> + Clone,
    ) -> Option<Arc<Entry>> {
        // What people put into the folder themselves stays.
        let entries = entries.filter(|entry| entry.registrar.is_some());
        let longest = |entries: &mut dyn Iterator<Item = &'a Arc<Entry>>| {
            entries.max_by_key(|entry| entry.silence(bounds.now)).cloned()
        };
        let is_idle = |entry: &&Arc<Entry>| {
            let most = if entry.was_announced() { bounds.idle_after } else { NEVER_ANNOUNCED };
            entry.silence(bounds.now) >= most
        };
        let is_own = |entry: &&Arc<Entry>| entry.registrar == network;
        if no_room == NoRoom::ForNetwork {
            return longest(&mut entries.filter(is_own).filter(is_idle));
        }
        if let Some(idle) = longest(&mut entries.clone().filter(is_idle)) {
            return Some(idle);
        }
        let (most, share) = self.0.iter().max_by_key(|(_, share)| (share.torrents, share.bytes))?;
        let has_more = Some(*most) == network || share.torrents > self.of(network).torrents + 1;
        let is_alone = |entry: &&Arc<Entry>| {
            let silence = entry.silence(bounds.now);
            silence > if entry.was_announced() { bounds.gone_after } else { TIME_TO_ANNOUNCE }
        };
        let mut theirs = entries.filter(|entry| entry.registrar == Some(*most)).filter(is_alone);
        longest(&mut theirs).filter(|_| has_more)
    }

    fn of(&self, network: Option<IpAddr>) -> Share {
        network.and_then(|network| self.0.get(&network).copied()).unwrap_or_default()
    }
}

/// A torrent that nobody ever announced makes way after this time. Who registers one announces it
/// within seconds.
const NEVER_ANNOUNCED: i64 = 600;

/// The same while the catalogue is full, of the network that has the most torrents in it.
const TIME_TO_ANNOUNCE: i64 = 10;
