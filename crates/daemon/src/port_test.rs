//! Whether peers can connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::engine_settings::encryption_policy;
use super::torrents::Torrents;
use piecework_api::PortTest;
use piecework_core::{InfoHash, PeerId, Rng};
use piecework_engine::Session;
use piecework_engine::net::{self, DialOptions, HandshakeError};
use piecework_proto::encryption::EncryptionPolicy;
use piecework_proto::wire::Handshake;

/// Connects to our own listening port, and shakes hands if there is a torrent.
pub(super) async fn port_test(session: &Session, torrents: &Torrents) -> PortTest {
    let Some(listening) = session.listen_addrs().first().copied() else {
        let error = Some("no port for peers is configured".to_owned());
        return PortTest { addr: None, open: false, took_ms: 0.0, error };
    };
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let addr = SocketAddr::new(ip, listening.port());
    let (torrent, encryption) = {
        let table = torrents.table();
        let live =
            |hash: &InfoHash| table.entries.get(hash).is_some_and(|it| it.handle().is_some());
        (table.order.iter().find(live), encryption_policy(table.settings.encryption))
    };
    let start = Instant::now();
    let greeted = tokio::time::timeout(TEST, greet(addr, torrent, encryption)).await;
    let error = match greeted {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("connecting to `{addr}` failed: {error}")),
        Err(_) => Some(format!("`{addr}` did not answer within {} s", TEST.as_secs())),
    };
    PortTest {
        addr: Some(listening.to_string()),
        open: error.is_none(),
        took_ms: start.elapsed().as_secs_f64() * 1e3,
        error,
    }
}

/// Connects to `addr` and shakes hands for `torrent`; encrypted only if plain connections are not allowed.
///
/// A closed connection counts as an answer: a torrent that is being checked or is paused admits nobody, but
/// the port is open.
async fn greet(
    addr: SocketAddr,
    torrent: Option<InfoHash>,
    encryption: EncryptionPolicy,
) -> Result<(), HandshakeError> {
    let Some(info_hash) = torrent else {
        TcpStream::connect(addr).await?;
        return Ok(());
    };
    // Our own id would be taken for a connection to ourselves.
    let ours = Handshake::ours(info_hash, PeerId::generate(&mut Rng::from_seed(0)));
    let encryption = match encryption {
        EncryptionPolicy::Require => EncryptionPolicy::Require,
        _ => EncryptionPolicy::Plain,
    };
    let (connect_timeout, handshake_timeout) = (TEST, TEST);
    let options = DialOptions { interface: None, encryption, connect_timeout, handshake_timeout };
    match net::dial(addr, &ours, options).await {
        Err(error) if !error.is_hang_up() => Err(error),
        _ => Ok(()),
    }
}

/// Time for the whole test.
const TEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io;

    use piecework_proto::encryption::torrent_mark;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A listener that reads one handshake and answers with `answer`.
    async fn answering(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; Handshake::LEN]).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        });
        addr
    }

    fn handshake(info_hash: InfoHash) -> Vec<u8> {
        Handshake::ours(info_hash, PeerId::generate(&mut Rng::from_seed(1))).encode().to_vec()
    }

    const ONE: InfoHash = InfoHash([1; 20]);
    const OTHER: InfoHash = InfoHash([2; 20]);

    #[tokio::test]
    async fn a_torrent_that_admits_nobody_does_not_close_the_port() {
        let addr = answering(Vec::new()).await;
        greet(addr, Some(ONE), EncryptionPolicy::Allow).await.unwrap();
    }

    #[tokio::test]
    async fn a_handshake_for_the_torrent_is_what_is_hoped_for() {
        let addr = answering(handshake(ONE)).await;
        greet(addr, Some(ONE), EncryptionPolicy::Allow).await.unwrap();
    }

    #[tokio::test]
    async fn where_only_encrypted_connections_are_taken_the_handshake_is_encrypted() {
        /// Has one torrent.
        struct HasOne;
        impl net::Torrents for HasOne {
            fn handshake(&self, info_hash: InfoHash) -> Option<Handshake> {
                let id = PeerId::generate(&mut Rng::from_seed(1));
                (info_hash == ONE).then(|| Handshake::ours(info_hash, id))
            }

            fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
                Some(ONE).filter(|info_hash| torrent_mark(*info_hash) == *mark)
            }
        }

        for encryption in [EncryptionPolicy::Require, EncryptionPolicy::Allow] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let accept = async {
                let (tcp, from) = listener.accept().await.unwrap();
                let unlimited = net::Limiter::new(None);
                net::accept(tcp, from, encryption, 2 * TEST, &HasOne, &unlimited).await
            };
            let (greeted, accepted) = tokio::join!(greet(addr, Some(ONE), encryption), accept);
            greeted.unwrap();
            let is_encrypted = accepted.unwrap().stream.method().is_some();
            assert_eq!(is_encrypted, encryption == EncryptionPolicy::Require);
        }
    }

    #[tokio::test]
    async fn somebody_else_behind_the_port_is_told() {
        let addr = answering(handshake(OTHER)).await;
        let error = greet(addr, Some(ONE), EncryptionPolicy::Allow).await.unwrap_err();
        assert!(matches!(error, HandshakeError::WrongInfoHash(OTHER)), "{error}");
        let addr = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(3)).await;
        let error = greet(addr, Some(ONE), EncryptionPolicy::Allow).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Wire(_)), "{error}");
    }

    #[tokio::test]
    async fn a_port_on_which_nobody_listens_is_closed() {
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = greet(addr, Some(ONE), EncryptionPolicy::Allow).await.unwrap_err();
        let HandshakeError::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
