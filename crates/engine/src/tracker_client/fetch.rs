//! Fetches a file from any web server.

use std::time::Duration;

use tokio::time::timeout;

use super::get::{Get, Got, HttpGet};
use super::resolve::Resolver;
use super::transport::TransportError;
use super::{AddressError, ClientOptions, Outside, http};
use piecework_core::bencode::{self, Limits};
use piecework_core::{Scope, printable, scope_of};
use piecework_proto::announce::{Provenance, Reach};

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not a web address.
    #[error("`{}` is not a web address: {fault}", printable(.address))]
    Address {
        /// The address that was given.
        address: String,
        /// What is wrong with it.
        #[source]
        fault: AddressError,
    },
    /// It leads, perhaps by a redirect, where it may not ([`Reach`]).
    #[error("`{}` is not fetched: {outside}", printable(.address))]
    Outside {
        /// The address that was asked.
        address: String,
        /// Where the address leads, and why that is not allowed.
        #[source]
        outside: Outside,
    },
    /// The server did not give the file.
    #[error("`{}` cannot be fetched: {fault}", printable(.address))]
    Failed {
        /// The address that was asked.
        address: String,
        /// The reason.
        #[source]
        fault: FetchFailure,
    },
}

/// Why a server did not give a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchFailure {
    /// The server is not there, or its answer cannot be read.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It took too long.
    #[error("it did not come in time")]
    TimedOut,
    /// It is too large.
    #[error("it is larger than the `{limit}` bytes allowed")]
    TooLarge {
        /// Bytes that are taken.
        limit: usize,
    },
    /// The server refused.
    #[error("the server answered with HTTP status `{0}`")]
    Status(u16),
    /// The file is not whole.
    #[error("the connection broke off before the end of the file")]
    BrokenOff,
}

/// Fetches the file at `address`, which is `http` or `https`: at most `limit` bytes, within `time`
/// in all. Returns its bytes and the scope of the address they came from. Addresses that the user
/// has not named must be on the internet. A compressed file is unpacked.
///
/// # Errors
/// If the address is not valid or leads where it may not, or the server does not give the file.
pub async fn fetch(
    address: &str,
    provenance: Provenance,
    limit: usize,
    time: Duration,
) -> Result<(Vec<u8>, Scope), FetchError> {
    let bad = |fault| FetchError::Address { address: address.to_owned(), fault };
    let url = url::Url::parse(address).map_err(|fault| bad(fault.into()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(AddressError::Scheme));
    }
    let failed = |fault| FetchError::Failed { address: address.to_owned(), fault };
    let of = |fault: http::Fault| match fault {
        http::Fault::Setup(fault) => failed(FetchFailure::Transport(fault.into())),
        http::Fault::Transport(fault) => failed(FetchFailure::Transport(fault)),
        http::Fault::Outside(outside) => {
            FetchError::Outside { address: address.to_owned(), outside }
        }
        http::Fault::Timeout => failed(FetchFailure::TimedOut),
        http::Fault::TooLarge { limit } => failed(FetchFailure::TooLarge { limit }),
    };
    let reach = match provenance {
        Provenance::Named => Reach::ALL,
        Provenance::Nearby | Provenance::Foreign => Reach::GLOBAL,
    };
    let get = Get { url, provenance, reach, addrs: None, limit };
    let web = HttpGet::new(ClientOptions::default(), None, Resolver::default());
    let got = match timeout(time, web.get(get)).await {
        Ok(got) => got.map_err(of)?,
        Err(_) => return Err(of(http::Fault::Timeout)),
    };
    let Got { answer, remote } = got;
    if !(200..300).contains(&answer.status) {
        return Err(failed(FetchFailure::Status(answer.status)));
    }
    // Servers that count wrongly, or forget how a compressed file ends, may have sent all of it.
    if !answer.is_whole && bencode::scan_prefix(&answer.body, &Limits::default()).is_err() {
        return Err(failed(FetchFailure::BrokenOff));
    }
    Ok((answer.body, scope_of(remote)))
}
