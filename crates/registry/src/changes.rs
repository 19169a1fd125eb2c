//! What has changed in a torrent that somebody watches, as it is told.

use std::collections::BTreeSet;
use std::time::Duration;

use piecework_core::{InfoHash, Moment, PieceIndex};

use super::availability::Copies;
use super::held::HoldingsSource;
use super::ledger::Pulse;
use super::registry::Registry;
use super::view::{PeerView, facts_view};
use super::watch::{Gone, Watch};

/// A peer holds more than before.
#[derive(Clone, PartialEq, Debug)]
pub struct Grown {
    /// Its number.
    pub id: u64,
    /// The pieces that are new, in order.
    pub pieces: Vec<PieceIndex>,
    /// How many it holds now.
    pub held: u32,
    /// Where that is known from.
    pub source: Option<HoldingsSource>,
    /// Whether that is all it holds.
    pub sure: bool,
    /// How fast it gets on.
    pub pulse: Pulse,
}

/// What has changed in a torrent since it was last asked.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SwarmChanges {
    /// There was too much to keep it: look at the whole anew. Everything below is empty then.
    pub all: bool,
    /// Peers that left.
    pub gone: Vec<Gone>,
    /// Peers that are new, or not what they were.
    pub peers: Vec<PeerView>,
    /// Peers that hold more.
    pub grown: Vec<Grown>,
    /// Others that move, or were heard of; told every few seconds.
    pub pulses: Vec<Pulse>,
    /// Complete peers.
    pub complete: u32,
    /// Others.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Distributed copies.
    pub copies: Copies,
}

impl Registry {
    /// From now on the changes of a catalogued torrent are kept for [`Registry::take_swarm_changes`].
    /// Says whether it is catalogued.
    pub fn watch(&mut self, now: Moment, info_hash: InfoHash) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        let Some(ledger) = &mut self.torrents[slot].ledger else { return false };
        ledger.watch.get_or_insert_with(|| Box::new(Watch::new(now)));
        true
    }

    /// No longer.
    pub fn unwatch(&mut self, info_hash: InfoHash) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.watch = None;
        }
    }

    /// What has changed since the last call; `None` if the torrent is not watched. Takes time for
    /// what has changed, and every few seconds for each peer.
    pub fn take_swarm_changes(&mut self, now: Moment, info_hash: InfoHash) -> Option<SwarmChanges> {
        let slot = self.find(info_hash)?;
        let torrent = &mut self.torrents[slot];
        let mut watch = torrent.ledger.as_mut()?.watch.take()?;
        let torrent = &self.torrents[slot];
        let ledger = torrent.ledger.as_ref()?;
        let (complete, incomplete) = torrent.counts();
        let mut changes = SwarmChanges {
            all: watch.all,
            gone: std::mem::take(&mut watch.gone),
            complete,
            incomplete,
            downloads: torrent.downloads,
            copies: ledger.copies(),
            ..SwarmChanges::default()
        };
        // Rows bring whole bitfields: of many, the whole torrent is the better form.
        let row_bytes = watch.rows.len() * (ledger.pieces as usize).div_ceil(8);
        if row_bytes > MAX_ROW_BYTES && watch.rows.len() > 1 {
            changes = SwarmChanges { all: true, gone: Vec::new(), ..changes };
        }
        if !changes.all {
            let rows =
                watch.rows.iter().filter_map(|addr| facts_view(torrent, *addr, &self.hasher, now));
            changes.peers = rows.collect();
            let grown = watch.grown.iter_mut().filter(|(addr, _)| !watch.rows.contains(addr));
            for (addr, pieces) in grown {
                let Some(facts) = ledger.get(*addr) else { continue };
                pieces.sort_unstable();
                changes.grown.push(Grown {
                    id: facts.id,
                    pieces: std::mem::take(pieces),
                    held: facts.held.count(ledger.pieces).unwrap_or(0),
                    source: facts.source,
                    sure: facts.is_sure(),
                    pulse: facts.pulse(ledger.pieces, now),
                });
            }
        }
        if now.since(watch.pulse_at) >= PULSE_EVERY {
            let mut moving = BTreeSet::new();
            for (_, facts) in ledger.iter() {
                let pulse = facts.pulse(ledger.pieces, now);
                let moves = pulse.rate.is_some_and(|rate| rate > 0.0);
                if moves {
                    moving.insert(facts.id);
                }
                if moves || watch.moving.contains(&facts.id) || facts.heard > watch.pulse_at {
                    changes.pulses.push(pulse);
                }
            }
            changes.pulses.sort_unstable_by_key(|pulse| pulse.id);
            (watch.moving, watch.pulse_at) = (moving, now);
        }
        watch.reset();
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.watch = Some(watch);
        }
        Some(changes)
    }

    /// From now on, or no longer, it is kept which catalogued torrents' counts change.
    pub fn watch_counts(&mut self, on: bool) {
        self.touched.watch(on);
    }

    /// The catalogued torrents whose counts have changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<InfoHash> {
        self.touched.take()
    }
}

/// Bytes of bitfields in the rows that are told at a time.
const MAX_ROW_BYTES: usize = 256 << 10;

/// Time between two pulses.
const PULSE_EVERY: Duration = Duration::from_secs(2);
