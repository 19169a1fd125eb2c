//! What `fuzz/` calls; not part of the API.

/// Reads `body` as a checkpoint under the sum that belongs to it.
///
/// # Panics
/// If a checkpoint that was read is written differently.
pub fn resume(body: &[u8]) {
    crate::state::fuzzing::resume(body);
}
