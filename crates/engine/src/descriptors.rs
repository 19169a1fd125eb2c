//! File descriptors: how many a process may have, and what they are spent on.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files and connections this process may have open to the most that the
/// system allows it, and returns that number. For programs to call before they start a session with
/// many connections.
///
/// # Errors
/// If the system refuses.
pub fn raise_file_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(most)
}

/// Returns how many files of content are held open if the configuration does not say. A torrent of
/// thousands of small files is read and written all over: each file that is not open costs several
/// calls.
pub(super) fn usual_open_files() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current;
    let quarter =
        descriptors.map_or(usize::MAX, |most| usize::try_from(most / 4).unwrap_or(usize::MAX));
    quarter.clamp(1, MOST_OPEN_FILES)
}

/// Returns how many connections there are descriptors for, beside `open_files` files, connections
/// that are not made yet, each way, and what else a program has open. A stranger's connections must
/// not keep files from being opened.
pub(super) fn affordable_connections(open_files: usize, half_open: usize) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    let others = open_files.saturating_add(half_open.saturating_mul(2)).saturating_add(OTHER_FILES);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    descriptors.saturating_sub(others).max(descriptors / 4)
}

/// Trackers, databases, the daemon's own clients.
const OTHER_FILES: usize = 256;

/// More cost the kernel memory, and each the search for the one that was not used for longest.
const MOST_OPEN_FILES: usize = 2_048;
