//! What `fuzz/` calls; not part of the API.

/// Reads `answer` as the answer of a web server to a `GET` request, in parts of `part_len` bytes.
///
/// # Panics
/// If the answer is read differently when it comes at once, or is longer than `limit` bytes.
pub fn http_response(answer: &[u8], part_len: usize, limit: usize) {
    crate::tracker_client::fuzzing::http_response(answer, part_len, limit);
}
