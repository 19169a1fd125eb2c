//! A TCP listener that survives a shortage of file descriptors.
//!
//! [`Listener::accept`] never fails. While the process or the system has no free descriptor or memory, connections
//! wait in the system's queue, and the listener tries to accept them ten times a second.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let mut listener = piecework_listener::Listener::new(socket, "HTTP");
//! let client = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
//! let (_stream, peer) = listener.accept(|| {}).await;
//! assert_eq!(peer, client.local_addr()?);
//! # Ok(())
//! # }
//! ```

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use piecework_core::{LogRateLimit, Moment};

/// Accepts connections, see the [crate's documentation](crate).
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    shortage: Shortage,
}

/// A shortage of descriptors or memory, which keeps connections from being accepted.
#[derive(Debug)]
struct Shortage {
    /// What the connections are, for the log.
    kind: &'static str,
    logged: LogRateLimit,
    start: Instant,
}

impl Listener {
    /// Wraps a socket; `kind` says in the log what its connections are: `peer`, `HTTP`.
    pub fn new(socket: TcpListener, kind: &'static str) -> Self {
        let shortage = Shortage { kind, logged: LogRateLimit::default(), start: Instant::now() };
        Self { socket, shortage }
    }

    /// Returns the next connection. After each failure calls `make_room`, which may close a connection, and tries
    /// again after a pause. Cancel safe.
    pub async fn accept(&mut self, make_room: impl Fn()) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(connection) => return connection,
                // The client has given up.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    make_room();
                    self.shortage.wait(&error).await;
                }
            }
        }
    }

    /// Returns the address, with the port that the system chose.
    ///
    /// # Errors
    /// If the system cannot report it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Shortage {
    /// Waits before the next attempt. Logs a shortage once, not ten times a second.
    async fn wait(&mut self, error: &io::Error) {
        if self.logged.should_log(Moment::from_start(self.start.elapsed())) {
            tracing::warn!("cannot accept {} connections: {error}; retrying", self.kind);
        }
        // The connection still waits, so that without a pause this would spin.
        tokio::time::sleep(PAUSE).await;
    }
}

const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_shortage_is_followed_by_a_pause_and_logged_once() {
        let mut shortage =
            Shortage { kind: "peer", logged: LogRateLimit::default(), start: Instant::now() };
        let start = tokio::time::Instant::now();
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].repeat(10) {
            shortage.wait(&errno.into()).await;
        }
        assert_eq!(start.elapsed(), 40 * PAUSE);
        assert!(!shortage.logged.should_log(Moment::from_start(shortage.start.elapsed())));
    }
}
