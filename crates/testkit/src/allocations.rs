//! An allocator that counts. A test program installs it with `#[global_allocator]`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

/// The system's allocator, with counters for the whole process.
pub struct CountingAllocator;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The counters are those of the whole process, so tests that measure must run one at a time.
pub static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Returns how many bytes are allocated now.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Returns the peak of allocated bytes since [`begin_peak`].
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Starts to measure a peak. Returns how many bytes are allocated now.
pub fn begin_peak() -> usize {
    let live = live();
    PEAK.store(live, Ordering::Relaxed);
    live
}

/// Returns the number of allocations so far.
pub fn calls() -> usize {
    CALLS.load(Ordering::Relaxed)
}

/// Returns the bytes of all allocations so far.
pub fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; only numbers are kept beside it.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        // Both exist for a moment.
        grown(new);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(ptr, layout, new) };
        LIVE.fetch_sub(if moved.is_null() { new } else { layout.size() }, Ordering::Relaxed);
        moved
    }
}
