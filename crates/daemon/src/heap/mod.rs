//! Limits what the C library's allocator keeps, for programs that run for months.
//!
//! It keeps freed memory in an arena for each thread that ever allocated. An answer about ten thousand
//! torrents takes 20 MiB for a moment, and would keep 20 MiB. Both calls are only advice, and do nothing with
//! another C library.
//!
//! The two `unsafe` calls pass numbers to the library, no memory of ours.

/// Makes all threads use one arena. Call this before there are other threads: arenas that exist stay.
pub fn keep_together() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes a parameter's number and a value, and touches nothing of ours; the
    // library takes its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Returns free memory to the system, also from the middle of the heap. Takes some milliseconds for a heap of
/// 100 MiB, during which allocations of other threads wait.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` releases pages that hold no allocation; the library takes its own
    // locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Threads cache what they free and allocate all the time, so they hardly wait for each other. Each further
/// arena would keep some MiB: a fifth of the memory of a daemon with 3,000 torrents.
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
