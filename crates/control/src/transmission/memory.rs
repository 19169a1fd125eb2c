//! What Transmission keeps and the daemon does not: a limit's figure while it is switched off, a
//! file's priority while it is not wanted, groups. Held as long as the daemon runs.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;

use piecework_core::{InfoHash, Priority};

/// What is remembered between requests.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Figures of the daemon's own limits that are switched off.
    pub(super) session: Figures,
    /// What is remembered of each torrent.
    pub(super) torrents: BTreeMap<InfoHash, TorrentMemory>,
    /// Groups of torrents by name.
    pub(super) groups: BTreeMap<String, Group>,
}

/// What is remembered of a torrent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TorrentMemory {
    /// Figures of limits that are switched off.
    pub(super) figures: Figures,
    /// Priorities of files that are not wanted.
    pub(super) priorities: BTreeMap<u32, Priority>,
}

/// Figures by the key they are set with.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<&'static str, f64>);

/// A group's limits. They have no effect yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Bytes a second taken at most, if `down_limited`.
    pub(super) down: u64,
    pub(super) down_limited: bool,
    /// Bytes a second sent at most, if `up_limited`.
    pub(super) up: u64,
    pub(super) up_limited: bool,
    /// The daemon's limits hold for it too.
    pub(super) session_limits: bool,
}

impl Figures {
    /// The figure kept under `key`, or else `default`.
    pub(super) fn get(&self, key: &str, default: f64) -> f64 {
        self.0.get(key).copied().unwrap_or(default)
    }

    /// The same of a figure that is whole.
    pub(super) fn whole(&self, key: &str, default: u64) -> u64 {
        // Only what was whole below 2⁵³ is kept under such keys.
        u64::saturating_from(self.get(key, default as f64))
    }

    pub(super) fn keep(&mut self, key: &'static str, figure: f64) {
        self.0.insert(key, figure);
    }
}

impl Default for Group {
    fn default() -> Self {
        Self { down: 0, down_limited: false, up: 0, up_limited: false, session_limits: true }
    }
}
