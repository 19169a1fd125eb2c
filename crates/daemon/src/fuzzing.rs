//! What `fuzz/` calls; not part of the API.

/// Reads `body` as a checkpoint under the sum that belongs to it.
///
/// # Panics
/// If what is read is written otherwise than it would be read.
pub fn resume(body: &[u8]) {
    crate::state::fuzzing::resume(body);
}
