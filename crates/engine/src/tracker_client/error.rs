//! Why a tracker or its catalogue could not be asked.

use std::io;

use super::http;
use super::reached::Outside;
use super::transport::{HttpError, TransportError};
use piecework_core::{InfoHash, printable};
use piecework_proto::announce::udp::UdpError;
use piecework_proto::announce::{AnnounceError, Refusal, Retry};

/// Why a tracker gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// HTTP could not be set up.
    #[error("HTTP cannot be set up: {0}")]
    Setup(
        /// The error of the HTTP client.
        #[source]
        HttpError,
    ),
    /// The name of its host is not known.
    #[error("the tracker's host `{}` is not known: {fault}", printable(.host))]
    Unknown {
        /// The name of the host.
        host: String,
        /// The error of the resolver.
        #[source]
        fault: io::Error,
    },
    /// It cannot be reached.
    #[error("the tracker cannot be reached: {0}")]
    Unreachable(
        /// What went wrong on the way.
        #[source]
        TransportError,
    ),
    /// It is where its address may not lead ([`Reach`](piecework_proto::announce::Reach)).
    #[error("the tracker was not contacted: {0}")]
    Outside(#[from] Outside),
    /// It gave no answer in time, or no complete one.
    #[error("the tracker did not answer in time")]
    Timeout,
    /// It answered with an HTTP error.
    #[error("the tracker answered with HTTP status `{status}`")]
    Status {
        /// The status.
        status: u16,
        /// When it wants to be asked again, from `Retry-After`.
        retry: Option<Retry>,
    },
    /// Its answer is too long.
    #[error("the tracker's answer is longer than the `{limit}` bytes allowed")]
    TooLarge {
        /// Bytes that are taken.
        limit: usize,
    },
    /// It refused, and says why. Display escapes it.
    #[error("the tracker refused: {}", printable(&.0.reason))]
    Refused(
        /// Its reason, and when to ask again.
        Refusal,
    ),
    /// Its answer over HTTP is not valid.
    #[error(transparent)]
    BadReply(#[from] AnnounceError),
    /// Its answer over UDP is not valid.
    #[error("the tracker's answer is not valid: {0}")]
    BadDatagram(#[from] UdpError),
    /// Its answer belongs to another question.
    #[error("the tracker's answer belongs to another request")]
    WrongAnswer,
    /// Its address does not end in `/announce`.
    #[error("the tracker does not support scrapes: its address has no `announce` to replace")]
    NoScrape,
}

impl TrackerError {
    /// Returns whether the tracker was reached and refused.
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

/// Why a catalogue gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The address is not valid, or HTTP could not be set up.
    #[error("`{}` is not the address of a catalogue: {fault}", printable(.address))]
    Address {
        /// The address that was given.
        address: String,
        /// What is wrong with it.
        #[source]
        fault: AddressError,
    },
    /// It cannot be reached.
    #[error("the tracker at `{address}` cannot be reached: {fault}")]
    Unreachable {
        /// The address that was asked.
        address: String,
        /// What went wrong on the way.
        #[source]
        fault: TransportError,
    },
    /// It is where its address may not lead ([`Reach`](piecework_proto::announce::Reach)).
    #[error("the tracker at `{address}` was not contacted: {outside}")]
    Outside {
        /// The address that was asked.
        address: String,
        /// Where the address leads, and why that is not allowed.
        #[source]
        outside: Outside,
    },
    /// It gave no answer in time, or no complete one.
    #[error("the tracker at `{address}` did not answer in time")]
    Timeout {
        /// The address that was asked.
        address: String,
    },
    /// It knows no such torrent.
    #[error("the tracker knows no torrent `{0}`")]
    NotFound(
        /// The torrent that was asked for.
        InfoHash,
    ),
    /// It refused, and says why. Display escapes it.
    #[error("the tracker refused (HTTP status `{status}`): {}", printable(.reason))]
    Refused {
        /// The status.
        status: u16,
        /// Its reason, unescaped.
        reason: String,
    },
    /// Its answer is too long.
    #[error("the tracker's answer is longer than the `{limit}` bytes allowed")]
    TooLarge {
        /// Bytes that are taken.
        limit: usize,
    },
    /// Its answer is not valid: it may not be a Piecework tracker.
    #[error("the tracker's answer is not that of a catalogue: {0}")]
    BadAnswer(
        /// What is wrong with it.
        #[source]
        CatalogueAnswerError,
    ),
}

/// An address that cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not a URL.
    #[error(transparent)]
    Url(#[from] url::ParseError),
    /// It is not a web address.
    #[error("it begins with neither `http` nor `https`")]
    Scheme,
    /// HTTP could not be set up.
    #[error(transparent)]
    Setup(HttpError),
}

/// An answer that is not that of a catalogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueAnswerError {
    /// It is not the expected JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is about other torrents than the request.
    #[error("it is about other torrents than were reported")]
    OtherTorrents,
    /// It ends too early.
    #[error("it ends before its list of torrents does")]
    CutOff,
    /// An entry is too long.
    #[error("an entry of its list is longer than any can be")]
    LongEntry,
}

impl CatalogueError {
    /// Returns the error of a request to the catalogue at `address`.
    pub(super) fn of(fault: http::Fault, address: &str) -> Self {
        let address = address.to_owned();
        match fault {
            http::Fault::Timeout => Self::Timeout { address },
            http::Fault::TooLarge { limit } => Self::TooLarge { limit },
            http::Fault::Outside(outside) => Self::Outside { address, outside },
            http::Fault::Setup(fault) => Self::Unreachable { address, fault: fault.into() },
            http::Fault::Transport(fault) => Self::Unreachable { address, fault },
        }
    }

    /// Returns whether the tracker cannot be reached now, or cannot do its work, so that the same
    /// question may be answered later. An answer that is not that of a catalogue does not count:
    /// another program answers at that address.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            // Too many requests, and all faults of the tracker itself, such as a full disk.
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}
