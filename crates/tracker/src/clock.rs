//! The time a tracker goes by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use piecework_core::Moment;

/// Where a tracker takes its [`Moment`]s from. Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Manual(Arc<Manual>),
}

#[derive(Debug, Default)]
struct Manual {
    nanos: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// Returns a clock that follows the system's monotonic clock.
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// Stands still until [`Clock::advance`] moves it: for simulations.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    /// Moves a manual clock; does nothing to real time.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            manual.nanos.fetch_add(nanos, Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// Returns the present moment.
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System(start) => BEGIN + start.elapsed(),
            Source::Manual(manual) => {
                BEGIN + Duration::from_nanos(manual.nanos.load(Ordering::SeqCst))
            }
        }
    }

    /// Waits for `time` to pass, or for a manual clock to be moved. Of a manual clock it waits
    /// at most `time` too, so that a move that comes too early to be heard is seen.
    pub(super) async fn tick(&self, time: Duration) {
        match &self.0 {
            Source::System(_) => tokio::time::sleep(time).await,
            // Whether it was the move or the time-out is all the same to the caller.
            Source::Manual(manual) => {
                drop(tokio::time::timeout(time, manual.moved.notified()).await);
            }
        }
    }
}

/// What a clock shows when it is made, so that peers can be kept that were last seen before the
/// tracker was started.
const BEGIN: Moment = Moment::from_secs(24 * 3600);
