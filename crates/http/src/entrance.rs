//! The entrance of connections: with or without TLS, directly or through proxies.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::proxies::{NoProxy, Proxies};
use super::tls::{CertificateFiles, ServerTls, TlsError};

/// How clients reach a server.
#[derive(Debug, Clone, Default)]
pub struct Entrance {
    /// The certificate; `None` accepts only plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
    /// The proxies that name the client of a request.
    pub proxies: Arc<Proxies>,
    /// Who may use plain HTTP although there is a certificate.
    pub plain: PlainHttp,
}

/// Who may use plain HTTP at the HTTPS port if there is a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// All clients.
    #[default]
    Everybody,
    /// Only programs on this machine.
    ThisMachine,
}

/// Why a server cannot use its configuration.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configured proxies are invalid.
    #[error(transparent)]
    Proxies(#[from] NoProxy),
}

/// A connection that is ready for HTTP.
pub(super) enum EnteredConnection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Entrance {
    /// Reads the certificate, if there is one, and parses the addresses of proxies. Blocks.
    ///
    /// # Errors
    /// If the certificate cannot be used, or a proxy is not an address.
    pub fn open(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        proxies: &[String],
        plain: PlainHttp,
    ) -> Result<Self, EntranceError> {
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(ServerTls::open(CertificateFiles { certificate, key })?)
            }
            (None, None) => None,
            _ => return Err(TlsError::OneOfTwo.into()),
        };
        Ok(Self { tls, proxies: Arc::new(Proxies::parse(proxies)?), plain })
    }

    /// Returns whether there is a certificate.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Prepares a connection from `peer`: one that begins like TLS gets TLS, any other gets plain HTTP if that is
    /// allowed. Returns `None` if the connection cannot be used.
    pub(super) async fn enter(
        &self,
        mut stream: TcpStream,
        peer: IpAddr,
        patience: Duration,
    ) -> Option<EnteredConnection> {
        let Some(tls) = &self.tls else { return Some(EnteredConnection::Plain(stream)) };
        let begun = timeout(patience, async {
            let mut first = [0];
            let len = stream.peek(&mut first).await?;
            Ok::<_, io::Error>((len > 0).then_some(first[0]))
        });
        match begun.await {
            Ok(Ok(Some(HANDSHAKE))) => {}
            Ok(Ok(Some(_))) => {
                if self.plain == PlainHttp::Everybody || peer.to_canonical().is_loopback() {
                    return Some(EnteredConnection::Plain(stream));
                }
                refuse_plain(&mut stream, patience).await;
                return None;
            }
            // The client sends nothing, or is gone.
            Ok(Ok(None) | Err(_)) | Err(_) => return None,
        }
        match timeout(patience, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => Some(EnteredConnection::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// Answers that HTTPS is required. Reads the request first, as far as it has arrived, because unread bytes cause a
/// reset, with which the answer would be lost.
async fn refuse_plain(stream: &mut TcpStream, patience: Duration) {
    let body = r#"{"error":"this server accepts requests from other machines only over HTTPS: use https://"}"#;
    let answer = format!(
        "HTTP/1.1 426 Upgrade Required\r\nContent-Type: application/json\r\nConnection: close, \
         upgrade\r\nUpgrade: TLS/1.2\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let say = async {
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = timeout(patience, say).await {
        tracing::debug!(%error, "a client of plain HTTP is gone");
    }
}

/// The first byte of TLS: a handshake record.
const HANDSHAKE: u8 = 0x16;
