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
//! One SHA-1 is a chain of 80 steps a block that no processor can take side by side; several
//! messages have one chain each. [`hash_many`] hashes up to 16 of them in the lanes of one vector
//! register, [`update_many`] does so with messages that come in parts. Each message may be cut
//! into slices in any way, and each may have another length: a lane that has ended is given the
//! next message, and what is left when too few lanes are busy is hashed one by one.
//!
//! What the machine can do is found out at run time ([`Level`]). Everywhere else, and for one
//! message, it is the `sha1` crate, which uses the processor's SHA-1 instructions where there are
//! such. SHA-1 is what BEP 3 asks for; it is no defence against anyone who could choose the
//! content.
//!
//! This module holds all of the crate's `unsafe` but three calls that hand the system numbers, in
//! `heap` and `storage`: loads from and stores to references of the right size, and calls of
//! functions that need what a [`Level`] has proved. `.ci/asan` runs the tests of all three under
//! AddressSanitizer.

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

/// What is between two blocks: the five words h0 to h4 of FIPS 180-4.
type State = [u32; 5];

/// What one compression takes, 64 bytes.
type Block = [u8; 64];
