//! Blocking work on threads that are meant for it.

use super::DaemonError;

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DaemonError> {
    // Such a task is never cancelled. If it fails, it panicked or the runtime ends.
    tokio::task::spawn_blocking(work).await.map_err(|_| DaemonError::Ending)
}
