//! The state that the observer shares with the rest of the tracker.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use piecework_core::InfoHash;
use piecework_registry::ObserverFigures;

/// Shared by the observer, the catalogue's changes and the metrics.
pub(super) struct Observation {
    /// Whether there is an observer.
    on: bool,
    /// Torrents that the observer has to leave.
    to_leave: Mutex<BTreeSet<InfoHash>>,
    /// The observer's counters.
    figures: Mutex<ObserverFigures>,
}

impl Observation {
    pub(super) fn new(on: bool) -> Self {
        Self { on, to_leave: Mutex::default(), figures: Mutex::default() }
    }

    /// Returns whether there is an observer.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Makes the observer, if there is one, leave a torrent.
    pub(super) fn leave(&self, info_hash: InfoHash) {
        if self.on {
            self.to_leave.lock().insert(info_hash);
        }
    }

    /// Returns the torrents to leave since the last call.
    pub(super) fn take_left(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut *self.to_leave.lock())
    }

    pub(super) fn figures(&self) -> ObserverFigures {
        *self.figures.lock()
    }

    pub(super) fn set_figures(&self, figures: ObserverFigures) {
        *self.figures.lock() = figures;
    }
}
