//! Passes checkpoints on to the state.

use crate::base::{Checkpoint, InfoHash};
use crate::session::Keeper;
use crate::state::State;

/// Keeps checkpoints in a [`State`], which writes them when it suits.
pub(super) struct StateKeeper {
    state: State,
}

impl StateKeeper {
    pub fn new(state: State) -> Self {
        Self { state }
    }
}

impl Keeper for StateKeeper {
    fn keep(&self, info_hash: InfoHash, checkpoint: Checkpoint) {
        self.state.checkpoint(info_hash, checkpoint);
    }
}
