//! What connections come in by: TLS or not, straight or through proxies.

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

/// How a server is reached.
#[derive(Debug, Clone, Default)]
pub struct Entrance {
    /// The certificate; `None` takes plain HTTP only.
    pub tls: Option<Arc<ServerTls>>,
    /// Who says whose requests it passes on.
    pub proxies: Arc<Proxies>,
    /// Who may ask by plain HTTP though there is a certificate.
    pub plain: PlainHttp,
}

/// Who may ask by plain HTTP, at the port of HTTPS, where there is a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Whoever likes.
    #[default]
    Everybody,
    /// Programs of this machine.
    ThisMachine,
}

/// Why a server cannot be reached as it was configured.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// Its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its proxies are none.
    #[error(transparent)]
    Proxies(#[from] NoProxy),
}

/// A connection that may be spoken over.
pub(super) enum Entered {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Entrance {
    /// Reads the certificate, if one is named, and the addresses of proxies. Blocks.
    ///
    /// # Errors
    /// If the certificate cannot be used, or a proxy is no address.
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

    /// Whether there is a certificate.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Lets a connection from `peer` in: one that begins as TLS does gets TLS, all others plain HTTP,
    /// if they may. `None` if nothing can be said over it.
    pub(super) async fn enter(
        &self,
        mut stream: TcpStream,
        peer: IpAddr,
        patience: Duration,
    ) -> Option<Entered> {
        let Some(tls) = &self.tls else { return Some(Entered::Plain(stream)) };
        let begun = timeout(patience, async {
            let mut first = [0];
            let len = stream.peek(&mut first).await?;
            Ok::<_, io::Error>((len > 0).then_some(first[0]))
        });
        match begun.await {
            Ok(Ok(Some(HANDSHAKE))) => {}
            Ok(Ok(Some(_))) => {
                if self.plain == PlainHttp::Everybody || peer.to_canonical().is_loopback() {
                    return Some(Entered::Plain(stream));
                }
                refuse_plain(&mut stream, patience).await;
                return None;
            }
            // It says nothing, or is gone.
            Ok(Ok(None) | Err(_)) | Err(_) => return None,
        }
        match timeout(patience, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => Some(Entered::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// Says that HTTPS is wanted. What was asked is read first, as far as it is there: else the answer
/// would be lost with the reset that unread bytes cause.
async fn refuse_plain(stream: &mut TcpStream, patience: Duration) {
    let body = r#"{"error":"from other machines this server takes HTTPS only: ask by https://"}"#;
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

/// The first byte of TLS: a record of the handshake.
const HANDSHAKE: u8 = 0x16;
