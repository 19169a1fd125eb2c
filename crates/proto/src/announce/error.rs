//! Errors in HTTP announces and answers.

use piecework_core::bencode::BencodeError;
use piecework_core::printable_bytes;

/// Why a query or answer is not valid.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The query is too long.
    #[error("a query of `{len}` bytes exceeds the limit of `{limit}`")]
    QueryTooLong {
        /// The length so far, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A required key is missing.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key is repeated.
    #[error("`{key}` is repeated")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// An identifying key is repeated with different values.
    #[error("`{key}` is repeated with different values")]
    Conflict {
        /// The key.
        key: &'static str,
    },
    /// A value is not valid for its key.
    #[error("`{key}` is `{value}`, not {wanted}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, shortened and safe to show.
        value: String,
        /// The expected form.
        wanted: &'static str,
    },
    /// A scrape has too many info-hashes.
    #[error("more than `{limit}` info-hashes in one scrape")]
    TooManyHashes {
        /// The limit.
        limit: usize,
    },
    /// The answer is not valid bencode, or too large.
    #[error("the tracker's answer is not valid: {0}")]
    NotBencode(#[from] BencodeError),
    /// The answer lacks a required part.
    #[error("the tracker's answer is not valid: {fault}")]
    BadReply {
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl AnnounceError {
    /// Returns the error for a `value` at `key` that is not `wanted`.
    pub(super) fn bad_value(key: &'static str, value: &[u8], wanted: &'static str) -> Self {
        let shown = &value[..value.len().min(MAX_SHOWN)];
        Self::BadValue { key, value: printable_bytes(shown), wanted }
    }
}

/// The maximum length of a foreign value in an error: enough to recognize even a twenty-byte hash in
/// percent-encoded form.
const MAX_SHOWN: usize = 64;
