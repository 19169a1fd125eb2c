//! A tracker in the process of the sharing peer.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use piecework_tracker::{TrackerConfig, TrackerHandle, TrackerServer, TrackerStartError};

use super::super::CliError;
use super::tracker::likely_address;

/// A running tracker. It keeps nothing on disk, because torrents are registered again at each
/// start.
pub(super) struct EmbeddedTracker {
    handle: TrackerHandle,
}

impl EmbeddedTracker {
    /// Starts a tracker on `ip` or on every address, on the configured port or the next free one.
    ///
    /// # Errors If no address is free.
    pub(super) async fn start(
        config: &TrackerConfig,
        ip: Option<IpAddr>,
    ) -> Result<Self, CliError> {
        let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let mut listen = SocketAddr::new(ip, config.listen.port());
        let mut tries = PORTS_TRIED;
        loop {
            let nothing = TrackerConfig { torrents: None, state: None, ..config.clone() };
            let config = TrackerConfig { listen, journal: None, ..nothing };
            match TrackerServer::start(config).await {
                Ok(handle) => return Ok(Self { handle }),
                Err(TrackerStartError::Listen { error, .. })
                    if error.kind() == ErrorKind::AddrInUse
                        && tries > 1
                        && (1..u16::MAX).contains(&listen.port()) =>
                {
                    tries -= 1;
                    listen.set_port(listen.port() + 1);
                }
                Err(error) => {
                    return Err(CliError::failed(format_args!(
                        "the tracker in this process does not start: {error}"
                    ))
                    .because(error));
                }
            }
        }
    }

    /// Returns the address by which other machines most likely reach it. We announce to this
    /// address too, so that the tracker sees an address of ours that others can use.
    pub(super) fn address(&self) -> SocketAddr {
        likely_address(self.handle.local_addr())
    }

    pub(super) async fn stop(self) {
        self.handle.shutdown().await;
    }
}

/// Ports to try, one after the other, when the usual one is in use.
const PORTS_TRIED: u16 = 100;
