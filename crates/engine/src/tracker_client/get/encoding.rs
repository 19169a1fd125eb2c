//! Undoes the encoding of a body, within a bound.
//!
//! We ask for none, but some servers compress anyway, and some say that they did and have not. So
//! the bytes decide: those that are not compressed are taken as they are, and those that begin like
//! a gzip file are decoded even if no field says so. Neither torrents nor answers of trackers begin
//! that way.

use std::io::{self, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// It has an encoding that was not asked for.
    #[error("its answer is encoded as `{0}`, which was not requested")]
    Unknown(String),
    /// It is not compressed as it says.
    #[error("its answer says that it is compressed, and cannot be decoded")]
    Broken,
    /// It is too long.
    #[error("its answer is longer than the `{limit}` bytes allowed")]
    TooLarge {
        /// Bytes that are taken.
        limit: usize,
    },
}

/// Undoes `encodings`, which were applied to `body` in this order. Returns the decoded body and
/// whether it was whole: one that is cut off is decoded as far as it goes. Never holds more than
/// `limit` decoded bytes. Takes a second or so for a hundred megabytes.
pub(super) fn decoded(
    body: Vec<u8>,
    encodings: &[String],
    limit: usize,
) -> Result<(Vec<u8>, bool), EncodingError> {
    let mut encodings: Vec<&str> = encodings.iter().map(String::as_str).collect();
    encodings.retain(|encoding| !matches!(*encoding, "identity" | "none" | "chunked"));
    if encodings.is_empty() {
        encodings.push("gzip");
    }
    if encodings.len() > MAX_ENCODINGS {
        return Err(EncodingError::Unknown(encodings.join(", ").chars().take(MAX_SHOWN).collect()));
    }
    let (mut body, mut is_whole) = (body, true);
    for encoding in encodings.into_iter().rev() {
        let one = match encoding {
            "gzip" | "x-gzip" | "deflate" => decode_one(&body, limit)?,
            // Left as it is: it is of use if the encoding was not applied.
            _ if body.first() == Some(&b'd') => None,
            other => {
                return Err(EncodingError::Unknown(other.chars().take(MAX_SHOWN).collect()));
            }
        };
        let one = match one {
            None if encoding == "deflate" => inflated(&body, limit)?,
            one => one,
        };
        if let Some((bytes, all)) = one {
            (body, is_whole) = (bytes, is_whole && all);
        }
    }
    Ok((body, is_whole))
}

/// Decodes gzip and zlib by their first bytes. Returns `None` for anything else.
fn decode_one(body: &[u8], limit: usize) -> Result<Option<(Vec<u8>, bool)>, EncodingError> {
    if body.starts_with(&[0x1f, 0x8b, 8]) {
        return bounded(MultiGzDecoder::new(body), limit).map(Some);
    }
    match body {
        // RFC 1950: the method is 8, and both bytes together are a multiple of 31.
        [method, flags, ..]
            if method & 0xf == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31) =>
        {
            bounded(ZlibDecoder::new(body), limit).map(Some)
        }
        _ => Ok(None),
    }
}

/// Decodes raw deflate, as some servers send. Returns `None` if the body is not compressed.
fn inflated(body: &[u8], limit: usize) -> Result<Option<(Vec<u8>, bool)>, EncodingError> {
    match bounded(DeflateDecoder::new(body), limit) {
        Ok((bytes, true)) => Ok(Some((bytes, true))),
        Err(EncodingError::TooLarge { limit }) => Err(EncodingError::TooLarge { limit }),
        // Bencode is not compressed.
        _ if body.first() == Some(&b'd') => Ok(None),
        other => other.map(Some),
    }
}

/// Reads all there is. Returns whether it ended as it should.
fn bounded(mut from: impl Read, limit: usize) -> Result<(Vec<u8>, bool), EncodingError> {
    let mut bytes = Vec::new();
    let mut part = vec![0; 16 * 1024];
    loop {
        match from.read(&mut part) {
            Ok(0) => return Ok((bytes, true)),
            Ok(len) if len > limit - bytes.len() => return Err(EncodingError::TooLarge { limit }),
            Ok(len) => bytes.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if bytes.is_empty() => return Err(EncodingError::Broken),
            // Cut off, or followed by something else.
            Err(_) => return Ok((bytes, false)),
        }
    }
}

/// Nested encodings that are undone.
const MAX_ENCODINGS: usize = 2;

/// Characters of an encoding's name in an error.
const MAX_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker_client::packed::{deflate, gzip, zlib};

    const PLAIN: &[u8] = b"d8:intervali90e5:peers0:e";

    fn undone(body: &[u8], encodings: &str, limit: usize) -> Result<Vec<u8>, EncodingError> {
        let encodings: Vec<String> = encodings.split_whitespace().map(str::to_owned).collect();
        let (bytes, is_whole) = decoded(body.to_vec(), &encodings, limit)?;
        assert!(is_whole);
        Ok(bytes)
    }

    #[test]
    fn line_4_gzip_and_deflate_are_undone_though_nobody_asked_for_them() {
        for (body, encodings) in [
            (PLAIN.to_vec(), ""),
            (PLAIN.to_vec(), "identity"),
            (gzip(PLAIN), "gzip"),
            (gzip(PLAIN), "x-gzip"),
            (gzip(PLAIN), ""),
            (gzip(PLAIN), "deflate"),
            (zlib(PLAIN), "deflate"),
            (zlib(PLAIN), "gzip"),
            (deflate(PLAIN), "deflate"),
            (gzip(&gzip(PLAIN)), "gzip gzip"),
            (gzip(&deflate(PLAIN)), "deflate gzip"),
            ([gzip(&PLAIN[..9]), gzip(&PLAIN[9..])].concat(), "gzip"),
            // It says so, and it is not so.
            (PLAIN.to_vec(), "gzip"),
            (PLAIN.to_vec(), "deflate"),
            (PLAIN.to_vec(), "br"),
        ] {
            assert_eq!(undone(&body, encodings, 100).as_deref(), Ok(PLAIN), "{encodings}");
        }
    }

    #[test]
    fn what_is_cut_off_is_decoded_as_far_as_it_goes() {
        let body = gzip(PLAIN);
        let (bytes, is_whole) = decoded(body[..body.len() - 8].to_vec(), &[], 100).unwrap();
        assert_eq!((bytes.as_slice(), is_whole), (PLAIN, false));
        let (bytes, is_whole) = decoded([&body[..], b"\r\n"].concat(), &[], 100).unwrap();
        assert_eq!((bytes.as_slice(), is_whole), (PLAIN, false));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let zeros = vec![0; 10 << 20];
        for body in [gzip(&zeros), zlib(&zeros), deflate(&zeros), gzip(&gzip(&zeros))] {
            let fault = undone(&body, "deflate gzip", 100_000);
            assert_eq!(fault, Err(EncodingError::TooLarge { limit: 100_000 }));
        }
    }

    #[test]
    fn what_cannot_be_undone_is_told() {
        let unknown = |text: &str| Err(EncodingError::Unknown(text.to_owned()));
        assert_eq!(undone(b"\x21\x64", "br", 100), unknown("br"));
        assert_eq!(undone(&gzip(PLAIN), "gzip gzip gzip", 100), unknown("gzip, gzip, gzip"));
        assert_eq!(undone(b"\x1f\x8b\x08\x00junk", "gzip", 100), Err(EncodingError::Broken));
        assert_eq!(undone(b"<html>", "deflate", 100), Err(EncodingError::Broken));
    }
}
