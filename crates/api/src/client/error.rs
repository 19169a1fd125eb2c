//! Why the daemon could not be asked, or refused.

use piecework_core::printable;

/// A call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens there.
    #[error("no daemon answers at `{addr}`; start one with `torrent-daemon`")]
    NotRunning {
        /// Where, `HOST:PORT`.
        addr: String,
    },
    /// The daemon cannot be reached, or the connection to it broke.
    #[error("the daemon at `{addr}` cannot be reached: {fault}")]
    Unreachable {
        /// Where.
        addr: String,
        /// Why.
        fault: String,
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
    #[error("the answer is not that of a Piecework daemon: {}", printable(.0))]
    Protocol(
        /// What is wrong with it.
        String,
    ),
    /// It cannot be asked at all.
    #[error("the daemon at `{}` cannot be asked: {fault}", printable(.addr))]
    Setup {
        /// What was given as its address.
        addr: String,
        /// Why.
        fault: String,
    },
}
