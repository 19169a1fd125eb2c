//! Reads answers for `fuzz/`, without a connection.

use super::encoding::decoded;
use super::encodings;
use super::response::{HttpAnswer, Reading, ResponseError};

/// Reads `answer` in parts of `part_len` bytes and undoes its encodings.
///
/// # Panics
/// If the answer is read differently when it comes at once, or is longer than `limit` bytes.
pub(crate) fn http_response(answer: &[u8], part_len: usize, limit: usize) {
    for properly in [true, false] {
        let whole = read([answer], limit, properly);
        let parts = read(answer.chunks(part_len), limit, properly);
        assert_eq!(format!("{whole:?}"), format!("{parts:?}"), "in parts of {part_len} bytes");
        let Ok(answer) = whole else { continue };
        assert!(answer.status >= 100 && answer.body.len() <= limit);
        if let Ok((body, _)) = decoded(answer.body.clone(), &encodings(&answer), limit) {
            assert!(body.len() <= limit);
        }
    }
}

fn read<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    limit: usize,
    properly: bool,
) -> Result<HttpAnswer, ResponseError> {
    let mut reading = Reading::new(limit);
    for part in parts {
        if reading.take(part)? {
            break;
        }
    }
    assert!(!reading.persists() || reading.has_begun());
    reading.end(properly)
}
