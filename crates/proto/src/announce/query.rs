//! Query strings with raw bytes in percent-encoded form.

use piecework_core::SaturatingFrom;
use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::AnnounceError;
use piecework_core::{AnnounceKey, InfoHash, PeerId};

/// Returns `bytes` as a query value.
pub(super) fn escape(bytes: &[u8]) -> impl Display + '_ {
    percent_encode(bytes, ESCAPED)
}

/// Returns the keys and values of `query`, still percent-encoded. Also accepts a second `?`, which some clients add
/// to an announce URL that already has a query.
pub(super) fn pairs(query: &str) -> Result<impl Iterator<Item = (&str, &str)>, AnnounceError> {
    if query.len() > MAX_QUERY_LEN {
        return Err(AnnounceError::QueryTooLong { len: query.len(), limit: MAX_QUERY_LEN });
    }
    let parts = query.split('&').flat_map(|part| match part.find("?info_hash=") {
        Some(at) => [&part[..at], &part[at + 1..]],
        None => [part, ""],
    });
    let parts = parts.filter(|part| !part.is_empty());
    Ok(parts.map(|part| part.split_once('=').unwrap_or((part, ""))))
}

/// Stores `value`. Fails if there already was one.
pub(super) fn once<T>(
    slot: &mut Option<T>,
    key: &'static str,
    value: T,
) -> Result<(), AnnounceError> {
    if slot.is_some() {
        return Err(AnnounceError::Duplicate { key });
    }
    *slot = Some(value);
    Ok(())
}

/// Stores `value`. Fails if there already was a different one.
pub(super) fn same<T: PartialEq>(
    slot: &mut Option<T>,
    key: &'static str,
    value: T,
) -> Result<(), AnnounceError> {
    if slot.as_ref().is_some_and(|known| *known != value) {
        return Err(AnnounceError::Conflict { key });
    }
    *slot = Some(value);
    Ok(())
}

/// Returns the value of a required key.
pub(super) fn required<T>(slot: Option<T>, key: &'static str) -> Result<T, AnnounceError> {
    slot.ok_or(AnnounceError::Missing { key })
}

/// Parses an info-hash: twenty bytes, or the forty hexadecimal digits that scripts send.
pub(super) fn info_hash(value: &str) -> Result<InfoHash, AnnounceError> {
    match value.parse() {
        Ok(hash) if value.len() == 40 => Ok(hash),
        _ => twenty("info_hash", value).map(InfoHash),
    }
}

/// Parses a peer id.
pub(super) fn peer_id(value: &str) -> Result<PeerId, AnnounceError> {
    twenty("peer_id", value).map(PeerId)
}

/// Parses a port; 0 for a peer that accepts no connections.
pub(super) fn port(value: &str) -> Result<u16, AnnounceError> {
    let fault = || AnnounceError::bad_value("port", value.as_bytes(), "a port from 0 to 65535");
    value.parse().map_err(|_| fault())
}

/// Parses an announce key. Its form is not standardized. Eight hexadecimal digits, which all common clients send,
/// are the number in UDP announces; thirty-two are a long key. Any other text is hashed to a number.
pub(super) fn key(value: &str) -> AnnounceKey {
    if value.len() == 32
        && let Ok(long) = u128::from_str_radix(value, 16)
        && !value.starts_with('+')
    {
        return AnnounceKey::Long(long.to_be_bytes());
    }
    let hex = (1..=8).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit());
    let folded = || {
        let mut decoded = [0; 64];
        // `%ab` and `%AB` are the same byte. A value that cannot be decoded is used as it is.
        let bytes = match unescape(value, &mut decoded) {
            Some(len) => &decoded[..len],
            None => value.as_bytes(),
        };
        // FNV-1a: equal texts give equal numbers. It need not be secure.
        let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        bytes.iter().fold(0x811c_9dc5, fold)
    };
    let short = if hex { u32::from_str_radix(value, 16).ok() } else { None };
    AnnounceKey::Short(short.unwrap_or_else(folded))
}

/// Decodes `value` into `out` and returns its length; `None` if there is no room, or a `%` without two digits. A
/// `+` is a space, as in forms: BitTorrent escapes every other `+`.
pub(super) fn unescape(value: &str, out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    let mut rest = value.as_bytes();
    while let Some((&byte, mut tail)) = rest.split_first() {
        let mut decoded = if byte == b'+' { b' ' } else { byte };
        if byte == b'%' {
            let (&[high, low], behind) = tail.split_first_chunk::<2>()?;
            decoded = hex_digit(high)? << 4 | hex_digit(low)?;
            tail = behind;
        }
        *out.get_mut(len)? = decoded;
        len += 1;
        rest = tail;
    }
    Some(len)
}

fn twenty(key: &'static str, value: &str) -> Result<[u8; 20], AnnounceError> {
    let mut out = [0; 20];
    match unescape(value, &mut out) {
        Some(20) => Ok(out),
        _ => Err(AnnounceError::bad_value(key, value.as_bytes(), "twenty bytes")),
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(u8::saturating_from)
}

/// The maximum length of a query. An announce with every byte escaped has less than 600 bytes, a scrape of
/// [`MAX_SCRAPE_HASHES`](super::http::MAX_SCRAPE_HASHES) torrents 7,100.
const MAX_QUERY_LEN: usize = 8 * 1024;

/// All but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_broken_ones_refused() {
        let mut out = [0; 4];
        assert_eq!(unescape("a%2Fb%ff", &mut out), Some(4));
        assert_eq!(&out, b"a/b\xff");
        assert_eq!(unescape("a+%2B", &mut out), Some(3));
        assert_eq!(&out[..3], b"a +");
        for bad in ["%", "%2", "%zz", "abcde", "+%+1"] {
            assert_eq!(unescape(bad, &mut out), None, "{bad}");
        }
    }

    #[test]
    fn keys_of_any_form_become_numbers() {
        assert_eq!(key("000000ff"), 255.into());
        assert_eq!(key("FF"), 255.into());
        assert_ne!(key("not hex"), key("nor this"));
        assert_eq!(key("not hex"), key("not hex"));
        assert_eq!(key("x%aB%cd"), key("x%Ab%CD"));
        assert_ne!(key(&"y".repeat(70)), key(&"y".repeat(71)));
        let long = AnnounceKey::Long([0xab; 16]);
        assert_eq!(key(&long.to_string()), long);
        assert!(!key(&"x".repeat(32)).is_long() && !key(&format!("+{}", "a".repeat(31))).is_long());
    }

    #[test]
    fn an_over_long_query_is_refused() {
        assert!(pairs(&"a".repeat(MAX_QUERY_LEN + 1)).is_err());
        assert_eq!(pairs("a=1&&b&c=").unwrap().count(), 3);
        let twice: Vec<_> = pairs("passkey=x?info_hash=y&port=1").unwrap().collect();
        assert_eq!(twice, [("passkey", "x"), ("info_hash", "y"), ("port", "1")]);
    }
}
