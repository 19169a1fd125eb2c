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

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod clock;
mod wall_clock;

pub use clock::Clock;
