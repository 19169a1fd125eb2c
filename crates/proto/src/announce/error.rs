//! What can be wrong with an announce or its answer in HTTP form.

use piecework_core::bencode::BencodeError;
use piecework_core::printable_bytes;

/// The query or answer is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// A query longer than any announce is.
    #[error("a query of `{len}` bytes is more than the `{limit}` taken here")]
    QueryTooLong {
        /// The answer's length so far, in bytes.
        len: usize,
        /// The longest answer taken, in bytes.
        limit: usize,
    },
    /// A key that must be there is not.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key that may be there once is there twice.
    #[error("`{key}` is there twice")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// A key that says who announces what is there twice, with different values.
    #[error("`{key}` is there twice, with different values")]
    Conflict {
        /// The key.
        key: &'static str,
    },
    /// A value that is not what its key asks for.
    #[error("`{key}` is `{value}`, not {wanted}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, shortened and safe to show.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// More info-hashes than one scrape may name.
    #[error("more than `{limit}` info-hashes in one scrape")]
    TooManyHashes {
        /// Info-hashes taken.
        limit: usize,
    },
    /// The answer is not bencode, or too much of it.
    #[error("the tracker's answer is not one: {0}")]
    NotBencode(#[from] BencodeError),
    /// The answer lacks what makes it one.
    #[error("the tracker's answer is not one: {fault}")]
    BadReply {
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl AnnounceError {
    /// The `value` found at `key` is not `wanted`.
    pub(super) fn bad_value(key: &'static str, value: &[u8], wanted: &'static str) -> Self {
        let shown = &value[..value.len().min(MAX_SHOWN)];
        Self::BadValue { key, value: printable_bytes(shown), wanted }
    }
}

/// Bytes of a stranger's value that an error repeats: enough to recognise it, even a twenty-byte
/// hash in percent-encoded form.
const MAX_SHOWN: usize = 64;
