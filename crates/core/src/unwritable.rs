//! Why a disk does not accept writes at the moment.

use std::fmt;
use std::io::{Error, ErrorKind};

/// Why nothing can be written to a disk although the data is fine. It may work later without any
/// change to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritable {
    /// The disk or a quota is full.
    Full,
    /// The file system is read-only, for instance because the system found an error on it
    /// (`EROFS`).
    ReadOnly,
}

impl Unwritable {
    /// Returns what `error` says about the disk; `None` if it is about something else.
    pub fn of(error: &Error) -> Option<Self> {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(Self::Full),
            ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ => None,
        }
    }
}

/// Writes the end of a sentence.
impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no room left on its disk",
            Self::ReadOnly => "its disk is read-only",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_sorted() {
        let of = |errno| Unwritable::of(&Error::from_raw_os_error(errno));
        // ENOSPC, EDQUOT, EROFS; EACCES and EIO.
        assert_eq!([28, 122].map(of), [Some(Unwritable::Full); 2]);
        assert_eq!(of(30), Some(Unwritable::ReadOnly));
        assert_eq!([13, 5].map(of), [None; 2]);
    }
}
