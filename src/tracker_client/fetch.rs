//! A file from any web server.

use std::time::Duration;

use super::{ClientOptions, Outside, http};
use crate::announce::{Provenance, Reach};
use crate::base::{Scope, printable, scope_of};

/// The file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address of the web.
    #[error("`{}` is not a web address: {fault}", printable(.address))]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        fault: String,
    },
    /// It leads, perhaps by a redirect, where it may not ([`Reach`]).
    #[error("`{}` is not fetched: {outside}", printable(.address))]
    Outside {
        /// The address that was asked.
        address: String,
        /// Where the address leads, and why that is not allowed.
        outside: Outside,
    },
    /// The server is not there, or broke off.
    #[error("`{}` cannot be fetched: {fault}", printable(.address))]
    Failed {
        /// The address that was asked.
        address: String,
        /// Why.
        fault: String,
    },
}

/// The bytes at `address`, `http` or `https`, at most `limit`, within `time` in all, and the scope of
/// the address they came from. What was not named by the user comes from the internet alone.
///
/// # Errors
/// If it is no such address or leads where it may not, or the server does not give the file.
pub async fn fetch(
    address: &str,
    provenance: Provenance,
    limit: usize,
    time: Duration,
) -> Result<(Vec<u8>, Scope), FetchError> {
    let bad = |fault: String| FetchError::Address { address: address.to_owned(), fault };
    let url = url::Url::parse(address).map_err(|fault| bad(fault.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it begins with neither `http` nor `https`".to_owned()));
    }
    let failed = |fault: String| FetchError::Failed { address: address.to_owned(), fault };
    let of = |fault: http::Fault| match fault {
        http::Fault::Setup(fault) | http::Fault::Transport(fault) => failed(fault),
        http::Fault::Outside(outside) => {
            FetchError::Outside { address: address.to_owned(), outside }
        }
        http::Fault::Timeout => failed("it did not come in time".to_owned()),
        http::Fault::TooLarge { limit } => {
            failed(format!("it is larger than the `{limit}` bytes taken"))
        }
    };
    let reach = match provenance {
        Provenance::Named => Reach::ALL,
        Provenance::Nearby | Provenance::Foreign => Reach::GLOBAL,
    };
    let http = http::Http::new(ClientOptions::default(), time, None, reach).map_err(of)?;
    let response = http.get(url, provenance, reach).await.map_err(of)?;
    let from = response.remote_addr().map_or(Scope::Global, |addr| scope_of(addr.ip()));
    let status = response.status();
    if !status.is_success() {
        return Err(failed(format!("the server answered with HTTP status `{}`", status.as_u16())));
    }
    Ok((http::read_bounded(response, limit).await.map_err(of)?, from))
}
