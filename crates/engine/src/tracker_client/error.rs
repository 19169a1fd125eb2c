//! Why a tracker or its catalogue could not be asked.

use std::io;

use super::http;
use super::reached::Outside;
use super::transport::{HttpError, TransportError};
use piecework_core::{InfoHash, printable};
use piecework_proto::announce::udp::UdpError;
use piecework_proto::announce::{AnnounceError, Refusal, Retry};

/// The question came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// HTTP could not be set up.
    #[error("HTTP cannot be set up: {0}")]
    Setup(
        /// What the HTTP client says.
        #[source]
        HttpError,
    ),
    /// Its name is not known.
    #[error("the tracker's host `{}` is not known: {fault}", printable(.host))]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        fault: io::Error,
    },
    /// It is not there, or the way to it is closed.
    #[error("the tracker cannot be reached: {0}")]
    Unreachable(
        /// What went wrong on the way.
        #[source]
        TransportError,
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

/// The catalogue could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The address is none, or HTTP could not be set up.
    #[error("`{}` is not the address of a catalogue: {fault}", printable(.address))]
    Address {
        /// What was given.
        address: String,
        /// Why it is none.
        #[source]
        fault: AddressError,
    },
    /// It is not there, or the way to it is closed.
    #[error("the tracker at `{address}` cannot be reached: {fault}")]
    Unreachable {
        /// The address that was asked.
        address: String,
        /// What went wrong on the way.
        #[source]
        fault: TransportError,
    },
    /// It is where its address may not lead ([`Reach`](piecework_proto::announce::Reach)).
    #[error("the tracker at `{address}` is not asked: {outside}")]
    Outside {
        /// The address that was asked.
        address: String,
        /// Where the address leads, and why that is not allowed.
        #[source]
        outside: Outside,
    },
    /// No answer, or none that was complete.
    #[error("the tracker at `{address}` did not answer in time")]
    Timeout {
        /// The address that was asked.
        address: String,
    },
    /// It knows no such torrent.
    #[error("the tracker knows no torrent `{0}`")]
    NotFound(
        /// The one asked for.
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
    /// It answered without end.
    #[error("the tracker's answer is longer than the `{limit}` bytes taken")]
    TooLarge {
        /// Bytes taken.
        limit: usize,
    },
    /// Its answer makes no sense: it may not be one of ours.
    #[error("the tracker's answer is not one of a catalogue: {0}")]
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
    /// It is not an address of the web.
    #[error("it begins with neither `http` nor `https`")]
    Scheme,
    /// HTTP could not be set up.
    #[error(transparent)]
    Setup(HttpError),
}

/// An answer that is not one of a catalogue.
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

    /// Returns whether the tracker is not there now, or cannot do its work: the same question may have an
    /// answer later. An answer that is not one of a catalogue is no absence, for another program answers
    /// at that address.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            // Too many requests, and all faults of the tracker itself, such as a full disk.
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}
