//! How much something is wanted.

use serde::{Deserialize, Serialize};

/// How much a file or piece of a torrent is wanted, in rising order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Not at all: it is never asked for, but what is there of it is served.
    Skip,
    /// After everything else.
    Low,
    /// As torrents come.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

impl Priority {
    /// Whether it is to be had at all.
    pub fn is_wanted(self) -> bool {
        self != Self::Skip
    }
}
