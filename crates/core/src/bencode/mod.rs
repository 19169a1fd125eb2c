//! A bounded, non-recursive scanner for bencode that keeps raw spans; serde on top.
//!
//! Bytes from outside go through [`scan()`] first. It holds them to the grammar of BEP 3 (one
//! spelling for every value, no bytes behind it) at a cost that [`Limits`] bound, and leaves a
//! table of tokens through which any value's bytes can be found again, which is what an info-hash
//! is made of. Only then may a serde type see them: serde_bencode on its own recurses as deep as
//! the input says and does not look behind the value's end.

mod error;
mod scan;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::BencodeError;
pub use scan::{Kind, Limits, Node, Oddities, Scan, Tolerance, scan, scan_prefix, scan_tolerant};

/// The value of type `T` that `bytes` are, scanned before they are decoded.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, BencodeError> {
    decode_node(scan(bytes, limits)?.root())
}

/// The value of type `T` that an already scanned node is.
pub fn decode_node<T: DeserializeOwned>(node: Node<'_, '_>) -> Result<T, BencodeError> {
    serde_bencode::from_bytes(node.raw())
        .map_err(|fault| BencodeError::Decode { offset: node.span().start, fault })
}

/// `value` in its one canonical form: keys sorted, and nothing that [`scan()`] would not take back.
///
/// Types that bencode does not have (floats, integers above 2^63 - 1) are an error, and so is
/// nesting or size beyond [`Limits::default`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BencodeError> {
    let bytes = serde_bencode::to_bytes(value).map_err(|fault| BencodeError::Encode { fault })?;
    // serde_bencode writes a u64 above i64::MAX, which is not a bencode integer for anyone else.
    let limits = Limits { bytes: usize::MAX, ..Limits::default() };
    let canonical = scan(&bytes, &limits)?.is_canonical();
    if canonical { Ok(bytes) } else { Err(BencodeError::NotCanonical) }
}

#[cfg(test)]
mod tests;
