//! How much a file or piece is wanted.

use serde::{Deserialize, Serialize};

/// How much a file or piece of a torrent is wanted, in rising order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// It is not requested. Parts that are on disk are served.
    Skip,
    /// After everything else.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

impl Priority {
    /// Returns whether it is to be downloaded.
    pub fn is_wanted(self) -> bool {
        self != Self::Skip
    }
}
