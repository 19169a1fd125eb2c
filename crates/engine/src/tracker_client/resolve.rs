//! Looks up the addresses of names.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use piecework_core::printable;
use piecework_proto::announce::PeerName;

/// The name of a peer's host is not known.
#[derive(Debug, thiserror::Error)]
#[error("the host `{}` of a peer is not known: {fault}", printable(.host))]
pub struct UnknownPeer {
    /// The name of the host.
    pub host: String,
    /// The error of the resolver.
    #[source]
    pub fault: io::Error,
}

/// Returns the addresses of peers that a user named, two of each at most.
///
/// # Errors
/// If a name is not known, or not resolved within five seconds.
pub async fn look_up_peers(peers: &[PeerName]) -> Result<Vec<SocketAddr>, UnknownPeer> {
    let mut addrs = Vec::new();
    for PeerName { host, port } in peers {
        if let Ok(ip) = host.parse() {
            addrs.push(SocketAddr::new(ip, *port));
            continue;
        }
        let found = timeout(PATIENCE, Resolver::default().addresses(host, *port)).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let found = found.map_err(|fault| UnknownPeer { host: host.clone(), fault })?;
        addrs.extend(found.into_iter().take(MAX_PEER_ADDRESSES));
    }
    Ok(addrs)
}

/// Returns the addresses of those peers that are known, and the errors of the others. All are
/// looked up at the same time, so that this takes no longer than a single one that does not answer.
pub async fn look_up_known_peers(peers: &[PeerName]) -> (Vec<SocketAddr>, Vec<UnknownPeer>) {
    let mut under_way = JoinSet::new();
    for (at, peer) in peers.iter().cloned().enumerate() {
        under_way.spawn(async move { (at, look_up_peers(&[peer]).await) });
    }
    let mut found = under_way.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    let (mut addrs, mut unknown) = (Vec::new(), Vec::new());
    for (_, found) in found {
        match found {
            Ok(more) => addrs.extend(more),
            Err(error) => unknown.push(error),
        }
    }
    (addrs, unknown)
}

/// Looks up names.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver {
    /// Names with addresses chosen by a test.
    #[cfg(test)]
    pub known: std::collections::BTreeMap<String, Vec<std::net::IpAddr>>,
}

impl Resolver {
    /// Returns the addresses of `host`, a name or an address without brackets, each once and with
    /// `port`.
    ///
    /// # Errors
    /// If the system knows no such name.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        #[cfg(test)]
        if let Some(ips) = self.known.get(host) {
            return Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect());
        }
        let mut addrs: Vec<SocketAddr> = Vec::new();
        for addr in lookup_host((host, port)).await? {
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        Ok(addrs)
    }
}

/// Time to look up one name.
const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses taken of a peer: one for each family.
pub(super) const MAX_PEER_ADDRESSES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_whose_name_is_not_known_does_not_hide_the_others() {
        let peers = ["10.0.0.2:6881", "no-such-host.invalid:1", "[::1]:5", "localhost:7"];
        let peers: Vec<PeerName> = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let (addrs, unknown) = look_up_known_peers(&peers).await;
        let told: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
        assert_eq!(told[..2], ["10.0.0.2:6881", "[::1]:5"]);
        assert!(
            told[2..].iter().any(|addr| addr == "127.0.0.1:7" || addr == "[::1]:7"),
            "{told:?}"
        );
        assert!(matches!(&unknown[..], [one] if one.host == "no-such-host.invalid"), "{unknown:?}");
    }
}
