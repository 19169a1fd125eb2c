//! Options of tracker and catalogue clients.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecework_proto::announce::udp::Family;

/// How long to wait, and from where to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// Time for one request in all.
    pub timeout: Duration,
    /// Time to make a connection.
    pub connect_timeout: Duration,
    /// Pause after which a datagram is sent again; it doubles each time. BEP 15 says 15 s, which is
    /// right for a tracker with millions of clients and wrong for users who wait.
    pub first_retry: Duration,
    /// The address to ask from, if the host has several.
    pub local_ip: Option<IpAddr>,
    /// The families over which peers reach us. Trackers are announced to over these as far as
    /// possible.
    pub reachable_over: ReachableOver,
}

/// The families of addresses at which peers reach us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReachableOver {
    /// IPv4 and IPv6, or none.
    #[default]
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl ReachableOver {
    /// Returns the families of these addresses, which are listened on.
    pub fn of(addrs: &[SocketAddr]) -> Self {
        let has = |family| addrs.iter().any(|addr| Family::of(addr.ip()) == family);
        match (has(Family::V4), has(Family::V6)) {
            (true, false) => Self::V4,
            (false, true) => Self::V6,
            _ => Self::Both,
        }
    }

    /// Returns the families that are announced over.
    pub(super) fn families(self) -> &'static [Family] {
        match self {
            Self::Both => &[Family::V4, Family::V6],
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
        }
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            first_retry: Duration::from_secs(1),
            local_ip: None,
            reachable_over: ReachableOver::Both,
        }
    }
}
