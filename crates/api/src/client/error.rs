//! Why the daemon could not be asked, or refused.

use std::error::Error;
use std::sync::Arc;

use reqwest::StatusCode;

use super::sse::SseError;
use piecework_core::printable;

/// What is behind an error. Clones share it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A call came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens there.
    #[error("no daemon answers at `{addr}`; start one with `torrent-daemon`")]
    NotRunning {
        /// Where, `HOST:PORT`.
        addr: String,
    },
    /// The daemon cannot be reached, or the connection to it broke.
    #[error("the daemon at `{addr}` cannot be reached: {}", deepest(&**source))]
    Unreachable {
        /// Where.
        addr: String,
        /// Why.
        source: Cause,
    },
    /// It took too long.
    #[error("the daemon at `{addr}` did not answer in time")]
    Timeout {
        /// Where.
        addr: String,
    },
    /// The daemon refused, and says why. Display escapes it.
    #[error("{}", printable(.error))]
    Fault {
        /// The status of HTTP.
        status: u16,
        /// Its sentence, unescaped.
        error: String,
    },
    /// The answer is not one of a daemon of ours.
    #[error("the answer is not that of a Piecework daemon: {}", printable(&.0.to_string()))]
    Protocol(
        /// What is wrong with it.
        #[source]
        ProtocolError,
    ),
    /// It cannot be asked at all.
    #[error("the daemon at `{}` cannot be asked: {}", printable(.addr), deepest(&**source))]
    Setup {
        /// What was given as its address.
        addr: String,
        /// Why.
        source: Cause,
    },
}

/// What is wrong with an answer.
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
        /// What is wrong.
        source: Arc<serde_json::Error>,
    },
    /// The stream of events is not one.
    #[error(transparent)]
    Stream(#[from] SseError),
    /// It is too long.
    #[error("it is longer than the `{limit}` bytes taken")]
    TooLong {
        /// Bytes that are taken.
        limit: usize,
    },
    /// A refusal in another form than ours.
    #[error("HTTP status `{0}`")]
    Status(StatusCode),
}

/// Returns what is at the bottom of an error: `connection reset` rather than five layers about it.
fn deepest<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(next) = error.source() {
        error = next;
    }
    error
}

/// What is behind an error has no equality of its own, so the texts are compared.
impl PartialEq for ApiError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for ApiError {}
