//! SHA-1 of many messages at once.
//!
//! ```
//! use sha_lanes::{Level, hash_many};
//!
//! let messages: [[&[u8]; 1]; 3] = [[b"abc"], [b""], [b"any length"]];
//! let digests = hash_many(Level::best(), &messages);
//! assert_eq!(digests, hash_many(Level::scalar(), &messages));
//! assert_eq!(digests[0][..4], [0xa9, 0x99, 0x3e, 0x36]);
//! ```
//!
//! One SHA-1 is a chain of 80 dependent steps per block, which no processor can run in parallel. But
//! several messages have one chain each. [`hash_many`] hashes up to 16 of them in the lanes of one
//! vector register; [`update_many`] does the same with messages that arrive in parts. Messages may
//! be cut into slices in any way, and may have different lengths: a free lane takes the next
//! message. The rest is hashed one by one when too few lanes are busy.
//!
//! The instructions of the machine are detected at run time ([`Level`]). On other machines, and for
//! one message, the `sha1` crate is used, which uses the SHA-1 instructions of the processor if there
//! are any. BEP 3 demands SHA-1; it does not protect against anyone who can choose the content.
//!
//! This crate holds all `unsafe` of the project except three calls that pass numbers to the system,
//! in `heap` and `storage`. It consists of loads from and stores to references of the right size, and
//! of calls of functions whose requirements a [`Level`] has proved. `.ci/asan` runs the tests of all
//! three under AddressSanitizer.

#![warn(missing_docs)]

mod level;
mod schedule;
mod stream;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use level::Level;
pub use schedule::{hash_many, update_many};
pub use stream::Stream;

#[cfg(test)]
mod tests;

/// A SHA-1 digest.
pub type Digest = [u8; 20];

/// The state between two blocks: the five words h0 to h4 of FIPS 180-4.
type State = [u32; 5];

/// The input of one compression, 64 bytes.
type Block = [u8; 64];
