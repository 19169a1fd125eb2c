//! The changes of a watched torrent, in the form in which they are reported.

use std::collections::BTreeSet;
use std::time::Duration;

use piecework_core::{InfoHash, Moment, PieceIndex};

use super::availability::Copies;
use super::holdings::HoldingsSource;
use super::ledger::Pulse;
use super::registry::Registry;
use super::view::{PeerView, facts_view};
use super::watch::{Departure, SwarmWatch};

/// A peer holds more than before.
#[derive(Clone, PartialEq, Debug)]
pub struct PieceGain {
    /// The peer's number.
    pub id: u64,
    /// The new pieces, in order.
    pub pieces: Vec<PieceIndex>,
    /// How many pieces the peer holds now.
    pub held: u32,
    /// How the holdings are known.
    pub source: Option<HoldingsSource>,
    /// Whether the peer holds no other pieces.
    pub sure: bool,
    /// The peer's rate of progress.
    pub pulse: Pulse,
}

/// The changes of a torrent since they were last taken.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SwarmChanges {
    /// There were too many changes to record: the caller has to read the whole swarm again. The peer lists below
    /// are empty in this case.
    pub all: bool,
    /// The peers that left.
    pub gone: Vec<Departure>,
    /// The peers that are new or have changed.
    pub peers: Vec<PeerView>,
    /// The peers that hold more pieces.
    pub grown: Vec<PieceGain>,
    /// Other peers that make progress or were heard from. Reported every few seconds.
    pub pulses: Vec<Pulse>,
    /// The number of complete peers.
    pub complete: u32,
    /// The number of incomplete peers.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Distributed copies.
    pub copies: Copies,
}

impl Registry {
    /// Starts to record the changes of a catalogued torrent for [`Registry::take_swarm_changes`]. Returns whether
    /// the torrent is catalogued.
    pub fn watch(&mut self, now: Moment, info_hash: InfoHash) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        let Some(ledger) = &mut self.torrents[slot].ledger else { return false };
        ledger.watch.get_or_insert_with(|| Box::new(SwarmWatch::new(now)));
        true
    }

    /// Stops recording the changes of a torrent.
    pub fn unwatch(&mut self, info_hash: InfoHash) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.watch = None;
        }
    }

    /// Returns the changes since the last call; `None` if the torrent is not watched. Takes time in proportion to
    /// the changes, and every few seconds to the number of peers.
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
        // Each row has a whole bitfield. For many rows, reading the whole swarm again is better.
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
                changes.grown.push(PieceGain {
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

    /// Turns on or off recording which catalogued torrents' counts change.
    pub fn watch_counts(&mut self, on: bool) {
        self.changed_counts.watch(on);
    }

    /// Returns the catalogued torrents whose counts have changed since the last call.
    pub fn take_changed_counts(&mut self) -> BTreeSet<InfoHash> {
        self.changed_counts.take()
    }
}

/// The maximum bitfield bytes in the rows of one report.
const MAX_ROW_BYTES: usize = 256 << 10;

/// The time between two reports of pulses.
const PULSE_EVERY: Duration = Duration::from_secs(2);
