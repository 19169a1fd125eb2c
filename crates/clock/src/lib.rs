//! The clock of a driver: the system's, or one that is moved by hand.
//!
//! State machines get the time as an argument. A driver takes it from a [`Clock`], so that a test can run the driver
//! without waiting.
//!
//! ```
//! use std::time::Duration;
//! use piecework_clock::Clock;
//!
//! let clock = Clock::manual();
//! let before = clock.now();
//! clock.advance(Duration::from_secs(60));
//! assert_eq!(clock.now().since(before), Duration::from_secs(60));
//! ```

mod clock;
mod wall_clock;

pub use clock::Clock;
