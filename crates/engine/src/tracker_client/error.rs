//! Why a tracker could not be asked.

use std::io;

use super::http;
use super::reached::Outside;
use piecework_core::printable;
use piecework_proto::announce::udp::UdpError;
use piecework_proto::announce::{AnnounceError, Refusal, Retry};

/// The question came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// HTTP could not be set up.
    #[error("HTTP cannot be set up: {0}")]
    Setup(
        /// Why.
        String,
    ),
    /// Its name is not known.
    #[error("the tracker's host `{}` is not known: {fault}", printable(.host))]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver says.
        fault: io::Error,
    },
    /// It is not there, or the way to it is closed.
    #[error("the tracker cannot be reached: {0}")]
    Unreachable(
        /// Why.
        String,
    ),
    /// It is where its address may not lead ([`Reach`](piecework_proto::announce::Reach)).
    #[error("the tracker is not asked: {0}")]
    Outside(#[from] Outside),
    /// No answer, or none that was complete.
    #[error("the tracker did not answer in time")]
    Timeout,
    /// It answered with an error of HTTP.
    #[error("the tracker answered with HTTP status `{status}`")]
    Status {
        /// The status.
        status: u16,
        /// When it wants to be asked again, from `Retry-After`.
        retry: Option<Retry>,
    },
    /// It answered without end.
    #[error("the tracker's answer is longer than the `{limit}` bytes taken")]
    TooLarge {
        /// Bytes taken.
        limit: usize,
    },
    /// It refused, and says why. Display escapes it.
    #[error("the tracker refused: {}", printable(&.0.reason))]
    Refused(
        /// Its reason, and when to ask again.
        Refusal,
    ),
    /// Its answer over HTTP makes no sense.
    #[error(transparent)]
    BadReply(#[from] AnnounceError),
    /// Its answer over UDP makes no sense.
    #[error("the tracker's answer is not one: {0}")]
    BadDatagram(#[from] UdpError),
    /// Its answer is to another question.
    #[error("the tracker answered something else than it was asked")]
    WrongAnswer,
    /// Its address does not end in `/announce`.
    #[error("the tracker's address has no form for scrapes")]
    NoScrape,
}

impl TrackerError {
    /// Returns whether the tracker is there and turned the question down.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Status { .. })
    }

    /// Returns whether the tracker answered at all; `None` if it was not asked.
    pub fn was_answered(&self) -> Option<bool> {
        match self {
            Self::Unknown { .. } | Self::Unreachable(_) | Self::Timeout => Some(false),
            Self::Setup(_) | Self::Outside(_) | Self::NoScrape => None,
            _ => Some(true),
        }
    }

    /// Returns when the tracker wants to be asked again, if it said so.
    pub fn retry(&self) -> Option<Retry> {
        match self {
            Self::Refused(refusal) => refusal.retry,
            Self::Status { retry, .. } => *retry,
            _ => None,
        }
    }
}

impl From<http::Fault> for TrackerError {
    fn from(fault: http::Fault) -> Self {
        match fault {
            http::Fault::Setup(fault) => Self::Setup(fault),
            http::Fault::Timeout => Self::Timeout,
            http::Fault::Transport(fault) => Self::Unreachable(fault),
            http::Fault::Outside(outside) => Self::Outside(outside),
            http::Fault::TooLarge { limit } => Self::TooLarge { limit },
        }
    }
}
