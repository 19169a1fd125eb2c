//! Secret tokens: random, and compared by their digests.

use std::io;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Returns secure random bytes from the operating system.
///
/// # Errors
/// If the system has no random numbers.
pub(super) fn os_random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The SHA-256 of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenDigest(pub(super) [u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Compares in constant time.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
