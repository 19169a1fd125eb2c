//! What goes wrong on the way to a server and back.

use std::error::Error;
use std::fmt;
use std::io;

use super::get::{EncodingError, ResponseError};

/// Why a server gave no answer that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The connection could not be made, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A request over HTTP failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What came is not an answer of HTTP.
    #[error(transparent)]
    Response(ResponseError),
    /// The body of the answer cannot be decoded.
    #[error(transparent)]
    Encoding(EncodingError),
    /// The work of decoding an answer broke off.
    #[error("its answer could not be decoded")]
    Decoding(#[source] tokio::task::JoinError),
    /// The connection ended before the answer did.
    #[error("the connection broke off in the middle of its answer")]
    BrokenOff,
    /// The address, with the question, cannot be parsed.
    #[error("its address with the query is not valid: {0}")]
    Address(#[from] url::ParseError),
    /// The address has no host.
    #[error("its address has no host")]
    NoHost,
    /// The host's name has no address.
    #[error("its name has no address")]
    NoAddress,
    /// It redirects too often.
    #[error("it redirects more than `{limit}` times")]
    TooManyRedirects {
        /// Redirects that are followed.
        limit: usize,
    },
    /// It redirects to something else than a web address.
    #[error("it redirects to something that is not a web address")]
    BadRedirect,
}

/// A failure of the HTTP client. Display shows its cause: `connection refused` rather than five layers
/// about it, and without the address, which may hold a pass key.
#[derive(Debug)]
pub struct HttpError(reqwest::Error);

impl HttpError {
    pub(super) fn new(error: reqwest::Error) -> Self {
        // It would be in the output of `Debug`.
        Self(error.without_url())
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = self.source();
        while let Some(next) = cause.and_then(Error::source) {
            cause = Some(next);
        }
        match cause {
            Some(cause) => write!(f, "{cause}"),
            None => f.write_str("the request failed"),
        }
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
