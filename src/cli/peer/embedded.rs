//! A tracker in the process of the peer that shares.

use std::net::{IpAddr, SocketAddr};

use super::super::{CliError, Env};

/// A running tracker.
pub struct Embedded {
    address: SocketAddr,
}

impl Embedded {
    /// Starts a tracker on `ip`, or on every address.
    ///
    /// # Errors
    /// If no address can be had.
    pub async fn start(
        _env: &Env,
        _config: &toml::Table,
        _ip: Option<IpAddr>,
    ) -> Result<Self, CliError> {
        Err(CliError::failed("no tracker in this process yet: name one"))
    }

    /// Where other machines reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub async fn stop(self) {}
}
