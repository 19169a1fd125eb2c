//! Saves the engine's checkpoints in the state.

use crate::state::State;
use piecework_core::{Checkpoint, InfoHash};
use piecework_engine::Keeper;

/// Saves checkpoints in a [`State`], which writes them in batches.
pub(super) struct StateKeeper {
    state: State,
}

impl StateKeeper {
    pub(crate) fn new(state: State) -> Self {
        Self { state }
    }
}

impl Keeper for StateKeeper {
    fn keep(&self, info_hash: InfoHash, checkpoint: Checkpoint) {
        self.state.checkpoint(info_hash, checkpoint);
    }
}
