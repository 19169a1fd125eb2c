//! Accepts connections from peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tracing::debug;

use crate::net;
use piecework_core::InfoHash;
use piecework_listener::Listener;
use piecework_proto::wire::Handshake;

use super::SessionConfig;
use super::entry::Call;
use super::means::Means;
use super::metadata_inputs::MetadataFetches;
use super::torrents::TorrentMap;

/// Accepts connections and hands them to their torrents.
pub(super) struct Acceptor {
    pub means: Arc<Means>,
    pub torrents: Arc<TorrentMap>,
    pub fetches: Arc<MetadataFetches>,
}

impl net::Torrents for Acceptor {
    fn handshake(&self, info_hash: InfoHash) -> Option<Handshake> {
        let admits = self.torrents.get(info_hash).is_some_and(|entry| entry.admits());
        let is_wanted = admits || self.fetches.contains(info_hash);
        is_wanted.then(|| Handshake::ours(info_hash, self.means.identity.peer_id))
    }

    fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
        let known = self.torrents.lock().marked(mark);
        known.or_else(|| self.fetches.marked(mark))
    }
}

impl Acceptor {
    /// Accepts connections until the session ends.
    pub(crate) async fn run(self: Arc<Self>, mut listener: Listener) {
        loop {
            let connections = &self.means.connections;
            let (stream, addr) = listener.accept(|| connections.gate.make_room()).await;
            if connections.is_blocked(addr.ip()) {
                continue;
            }
            let acceptor = Arc::clone(&self);
            connections.gate.enter(addr.ip(), async move {
                let Means { connections, config, .. } = &*acceptor.means;
                let time = config.handshake_timeout;
                let (encryption, exchanges) =
                    (connections.bounds.lock().encryption, &connections.key_exchanges);
                match net::accept(stream, addr, encryption, time, &*acceptor, exchanges).await {
                    Ok(accepted) => {
                        let accepted = Box::new(accepted);
                        if let Some(entry) = acceptor.torrents.get(accepted.theirs.info_hash) {
                            // It counts as half open until its torrent has received it.
                            entry.post(Call::Accepted(accepted)).await;
                        } else {
                            acceptor.fetches.accepted(accepted);
                        }
                    }
                    Err(error) => debug!(%addr, %error, "the handshake of a connection failed"),
                }
            });
        }
    }
}

/// For each address that stands for all of its family, also listens on the other family. Otherwise
/// peers of that family could not reach us, and trackers could not be told of us over it (BEP 7).
pub(super) fn listen_beside(
    config: &SessionConfig,
    listeners: &mut Vec<Listener>,
    addrs: &mut Vec<SocketAddr>,
) {
    let others = addrs.iter().filter(|addr| addr.ip().is_unspecified()).map(|addr| {
        let other: IpAddr = match addr.ip() {
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(other, addr.port())
    });
    for other in others.collect::<Vec<_>>() {
        if addrs.iter().any(|addr| addr.is_ipv4() == other.is_ipv4()) {
            continue;
        }
        match net::listen(other, config.interface.as_deref()) {
            Ok(listener) => {
                listeners.push(listener);
                addrs.push(other);
            }
            Err(error) => debug!(%error, "not listening on `{other}` as well"),
        }
    }
}
