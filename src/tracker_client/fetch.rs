//! A file from any web server.

use std::time::Duration;

use super::{ClientOptions, http};
use crate::base::printable;

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
    /// The server is not there, or broke off.
    #[error("`{}` cannot be fetched: {fault}", printable(.address))]
    Failed {
        /// Its address.
        address: String,
        /// Why.
        fault: String,
    },
}

/// The bytes at `address`, `http` or `https`, at most `limit`, within `time` in all.
///
/// # Errors
/// If it is no such address, or the server does not give the file.
pub async fn fetch(address: &str, limit: usize, time: Duration) -> Result<Vec<u8>, FetchError> {
    let bad = |fault: String| FetchError::Address { address: address.to_owned(), fault };
    let url = url::Url::parse(address).map_err(|fault| bad(fault.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it begins with neither `http` nor `https`".to_owned()));
    }
    let failed = |fault: String| FetchError::Failed { address: address.to_owned(), fault };
    let of = |fault: http::Fault| match fault {
        http::Fault::Setup(fault) | http::Fault::Transport(fault) => failed(fault),
        http::Fault::Timeout => failed("it did not come in time".to_owned()),
        http::Fault::TooLarge { limit } => {
            failed(format!("it is larger than the `{limit}` bytes taken"))
        }
    };
    let client = http::client(&ClientOptions::default(), time).map_err(of)?;
    let response = client.get(url).send().await.map_err(|fault| of(fault.into()))?;
    let status = response.status();
    if !status.is_success() {
        return Err(failed(format!("the server answered with HTTP status `{}`", status.as_u16())));
    }
    http::read_bounded(response, limit).await.map_err(of)
}
