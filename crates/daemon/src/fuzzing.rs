//! What `fuzz/` calls; not part of the API.

/// Reads `body` as a checkpoint under the sum that belongs to it.
///
/// # Panics
/// If what is read is written otherwise than it would be read.
pub fn resume(body: &[u8]) {
    crate::state::fuzzing::resume(body);
}

/// Answers `body`, a request in either of Transmission's dialects, and reads its arguments as every
/// method would.
///
/// # Panics
/// If the answer is no JSON, or a request gets no answer that should have one.
pub fn rpc(body: &[u8]) {
    crate::control::fuzzing::rpc(body);
}
