//! Errors of requests to the daemon.

use std::error::Error;
use std::sync::Arc;

use reqwest::StatusCode;

use super::sse::SseError;
use piecework_core::printable;

/// The cause of an error. Clones share it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// No daemon listens there.
    #[error("no daemon answers at `{addr}`; start one with `torrent-daemon`")]
    NotRunning {
        /// The address, `HOST:PORT`.
        addr: String,
    },
    /// The daemon cannot be reached, or the connection to it broke.
    #[error("the daemon at `{addr}` cannot be reached: {}", deepest(&**source))]
    Unreachable {
        /// The address, `HOST:PORT`.
        addr: String,
        /// The cause.
        source: Cause,
    },
    /// The daemon did not answer in time.
    #[error("the daemon at `{addr}` did not answer in time")]
    Timeout {
        /// The address, `HOST:PORT`.
        addr: String,
    },
    /// The daemon refused, with a sentence that says why. `Display` escapes it.
    #[error("{}", printable(.error))]
    Fault {
        /// The HTTP status.
        status: u16,
        /// The daemon's sentence, unescaped.
        error: String,
    },
    /// The answer does not come from a Piecework daemon.
    #[error("the answer is not that of a Piecework daemon: {}", printable(&.0.to_string()))]
    Protocol(
        /// What is wrong with the answer.
        #[source]
        ProtocolError,
    ),
    /// The client cannot be set up.
    #[error("the daemon at `{}` cannot be asked: {}", printable(.addr), deepest(&**source))]
    Setup {
        /// The given address.
        addr: String,
        /// The cause.
        source: Cause,
    },
}

/// An error in an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProtocolError {
    /// It is not the JSON that was expected.
    #[error("{0}")]
    Json(#[source] Arc<serde_json::Error>),
    /// The data of an event is not the JSON that was expected.
    #[error("the event `{name}`: {source}")]
    Event {
        /// The event's name.
        name: String,
        /// The cause.
        source: Arc<serde_json::Error>,
    },
    /// The stream of events is not valid.
    #[error(transparent)]
    Stream(#[from] SseError),
    /// It is too long.
    #[error("it is longer than the `{limit}` bytes allowed")]
    TooLong {
        /// The maximum number of bytes.
        limit: usize,
    },
    /// A refusal that is not in the daemon's form.
    #[error("HTTP status `{0}`")]
    Status(StatusCode),
}

/// Returns the innermost cause of an error: `connection reset` rather than five layers around it.
fn deepest<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(next) = error.source() {
        error = next;
    }
    error
}

/// Causes cannot be compared, so their texts are.
impl PartialEq for ApiError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for ApiError {}
