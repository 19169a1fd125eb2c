//! A bounded, non-recursive bencode scanner that keeps raw spans, and serde on top of it.
//!
//! Untrusted bytes go through [`scan()`] first. It enforces the grammar of BEP 3 (one spelling for
//! every value, no bytes after it) at a cost that [`Limits`] bound. It returns a table of tokens
//! that locates the bytes of any value, from which an info-hash is computed. Only then is a serde
//! type decoded: serde_bencode by itself recurses as deep as the input says and ignores bytes after
//! the value.

mod error;
mod scan;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::BencodeError;
pub use scan::{Kind, Limits, Node, Oddities, Scan, Tolerance, scan, scan_prefix, scan_tolerant};

/// Decodes `bytes` as a value of type `T`. The bytes are scanned first.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, BencodeError> {
    decode_node(scan(bytes, limits)?.root())
}

/// Decodes a scanned node as a value of type `T`.
pub fn decode_node<T: DeserializeOwned>(node: Node<'_, '_>) -> Result<T, BencodeError> {
    serde_bencode::from_bytes(node.raw())
        .map_err(|fault| BencodeError::Decode { offset: node.span().start, fault })
}

/// Encodes `value` in canonical form: with sorted keys, and nothing that [`scan()`] would refuse.
///
/// Types that bencode does not have (floats, integers above 2^63 - 1) are an error, and so is
/// nesting or size beyond [`Limits::default`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BencodeError> {
    let bytes = serde_bencode::to_bytes(value).map_err(|fault| BencodeError::Encode { fault })?;
    // serde_bencode writes a u64 above i64::MAX, which other programs do not accept as an integer.
    let limits = Limits { bytes: usize::MAX, ..Limits::default() };
    let canonical = scan(&bytes, &limits)?.is_canonical();
    if canonical { Ok(bytes) } else { Err(BencodeError::NotCanonical) }
}

#[cfg(test)]
mod tests;
