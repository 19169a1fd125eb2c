//! Who asks the daemon for something.

use serde::{Deserialize, Serialize};

use super::DaemonError;
use piecework_proto::announce::Provenance;

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caller {
    /// The owner at the daemon's machine, proven by the token that only the daemon's user can read
    /// there. May name any folder that this user can write to.
    Local,
    /// The owner, proven by other means; also the program itself. Reaches the folders that the
    /// configuration allows.
    Owner,
    /// Anybody else who reaches the daemon, such as other users of its machine. A guest may have
    /// torrents added, started, stopped and removed, but reaches no file outside the downloads
    /// folder, and no setting that names a file, a program or an address.
    Guest,
}

impl Caller {
    /// Returns the provenance of an address that this caller names.
    pub fn provenance(self) -> Provenance {
        match self {
            Self::Local | Self::Owner => Provenance::Named,
            Self::Guest => Provenance::Foreign,
        }
    }

    /// Returns whether this is the owner, at this machine or another.
    pub fn is_owner(self) -> bool {
        self != Self::Guest
    }

    /// Returns an error that begins with `what` unless this is the owner.
    ///
    /// # Errors
    /// [`DaemonError::OwnerOnly`] with `what`, the beginning of a sentence.
    pub fn must_own(self, what: impl Into<String>) -> Result<(), DaemonError> {
        match self {
            Self::Local | Self::Owner => Ok(()),
            Self::Guest => Err(DaemonError::OwnerOnly(what.into())),
        }
    }
}
