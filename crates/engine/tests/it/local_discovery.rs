//! Local discovery (BEP 14) over real sockets. Packets to a group come back to this machine, so that two sessions hear
//! each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use piecework_engine::Session;
use piecework_swarm::PeerSource;
use piecework_testkit::{add, content, seeded, session_with, within};

/// Returns the IPv4 address of an interface of this machine that leads to the group. `None` if there is none: then
/// nobody can be found here.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(239, 192, 152, 143), 6771)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

fn local(ip: IpAddr) -> Session {
    session_with(|config| {
        config.listen = vec![SocketAddr::new(ip, 0)];
        config.local_discovery = true;
        config.upload_limit = Some(20_000);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_on_the_local_network_is_found_without_a_tracker() {
    let Some(ip) = own_address() else { return };
    let bytes = content(4_000_000, 77);
    let (source, metainfo) = seeded("file", &bytes, 16 << 10);
    let (seeder, folder) = (local(ip), tempfile::tempdir().unwrap());
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let leecher = local(ip);
    let handle = add(&leecher, &metainfo, folder.path(), &[]);
    within(async {
        loop {
            let peers = handle.peers().await;
            let is_local = |source| matches!(source, PeerSource::Local | PeerSource::Incoming);
            if peers.iter().any(|peer| is_local(peer.source)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}
