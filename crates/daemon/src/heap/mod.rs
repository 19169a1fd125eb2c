//! What the C library's allocator keeps, for programs that run for months.
//!
//! It keeps what was freed, in an arena for each thread that ever asked: an answer about ten
//! thousand torrents is 20 MiB for a moment, and would stay 20 MiB. Both calls are no more than
//! advice, and nothing where the library is another one.
//!
//! Its two `unsafe` calls hand the library numbers, no memory of ours.

/// Has one arena serve all, whatever the number of threads. To be called before there are any others:
/// arenas that exist stay.
pub fn keep_together() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes a parameter's number and a value, and touches nothing of ours; the
    // library takes its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives back to the system what is free, also in the middle of the heap. Takes some milliseconds
/// for a heap of 100 MiB, in which other threads' allocations wait.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` releases pages that hold no allocation; the library takes its own
    // locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What threads free and take all the time they keep for themselves; what is left is too little to
/// wait for, and each further arena keeps some MiB: a fifth of a daemon with 3,000 torrents.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 1;

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_stays_as_it_is() {
        super::keep_together();
        let kept: Vec<Vec<u8>> = (0..1_000).map(|n| vec![n as u8; 4_096]).collect();
        drop((0..1_000).map(|n| vec![n as u8; 4_096]).collect::<Vec<_>>());
        super::give_back();
        assert!(kept.iter().enumerate().all(|(n, v)| v.iter().all(|byte| *byte == n as u8)));
    }
}
